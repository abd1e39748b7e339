"""Where PostgreSQL lives on the hosts of Epiphany clusters, by distribution and epicli version."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The folders and the unit of one server; `configuration` holds postgresql.conf."""

    version: int
    binaries: str
    data: str
    configuration: str
    unit: str

    @property
    def is_debian(self) -> bool:
        """Whether Debian's pg_createcluster and its unit template manage the server."""
        return self.unit.startswith("postgresql@")


def debian_layout(version: int = 15) -> Layout:
    """Debian and Ubuntu; 15 is what the base image has."""
    return Layout(
        version=version,
        binaries=f"/usr/lib/postgresql/{version}/bin",
        data=f"/var/lib/postgresql/{version}/main",
        configuration=f"/etc/postgresql/{version}/main",
        unit=f"postgresql@{version}-main.service",
    )


def pgdg_layout(version: int = 13) -> Layout:
    """RHEL and CentOS with the packages of the PostgreSQL project: epicli 0.6 and later."""
    data = f"/var/lib/pgsql/{version}/data"
    return Layout(
        version=version,
        binaries=f"/usr/pgsql-{version}/bin",
        data=data,
        configuration=data,
        unit=f"postgresql-{version}.service",
    )


def scl_layout() -> Layout:
    """RHEL and CentOS 7 with software collections and their `-syspaths`: epicli 0.4 and 0.5."""
    data = "/var/opt/rh/rh-postgresql10/lib/pgsql/data"
    return Layout(
        version=10,
        binaries="/opt/rh/rh-postgresql10/root/usr/bin",
        data=data,
        configuration=data,
        unit="postgresql.service",
    )
