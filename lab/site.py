"""A cluster with its services running: what the demo shows and what tests back up."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lab.cluster import Cluster, Definition
from lab.image import find_image
from lab.machine import Report
from lab.services.haproxy import HAProxy
from lab.services.postgresql import ALL_DATABASES, Database, PostgreSQL, fill, fingerprint


class Site:
    """PostgreSQL on the hosts of the group `postgresql` (the first one the primary, the others
    its standbys) and HAProxy on those of `haproxy`."""

    def __init__(
        self, definition: Definition, databases: Sequence[Database] = ALL_DATABASES
    ) -> None:
        self.cluster = Cluster(definition)
        self._databases = databases

    def start(self, report: Report) -> None:
        """Starts hosts and services; sets the services up where that was not done yet.

        A set-up that was cut short, or that was done on another base system than today's, is done
        again from new hosts.

        Raises LabError where hosts cannot run on this machine, or a service does not start.
        """
        marker = self.cluster.folder / "set-up-on"
        image = find_image(self.cluster.definition.recipe)
        is_set_up = marker.exists() and marker.read_text() == image.identity != ""
        if not is_set_up and self.cluster.folder.exists():
            report("Deleting hosts that were not finished, or were made by an older version")
            self.cluster.destroy()
        self.cluster.start(report)
        if not is_set_up:
            self._set_up(report)
            marker.write_text(image.identity)

    @property
    def primary(self) -> PostgreSQL:
        return PostgreSQL(self.cluster.hosts[self._members("postgresql")[0]])

    @property
    def standbys(self) -> list[PostgreSQL]:
        members = self._members("postgresql")[1:]
        return [PostgreSQL(self.cluster.hosts[name]) for name in members]

    @property
    def load_balancers(self) -> list[HAProxy]:
        return [HAProxy(self.cluster.hosts[name]) for name in self._members("haproxy")]

    def fingerprint(self) -> dict[str, str]:
        """Everything that a backup of this site should bring back."""
        found = {f"postgresql/{key}": text for key, text in fingerprint(self.primary).items()}
        for balancer in self.load_balancers:
            prefix = f"haproxy/{balancer.host.name}"
            found |= {f"{prefix}/{key}": text for key, text in balancer.fingerprint().items()}
        return found

    def _members(self, group: str) -> list[str]:
        hosts = self.cluster.definition.hosts
        return [host.name for host in hosts if group in host.groups]

    def _set_up(self, report: Report) -> None:
        services = " and ".join(
            name
            for name, group in (("PostgreSQL", "postgresql"), ("HAProxy", "haproxy"))
            if self._members(group)
        )
        report(f"Setting up {services} with data (about 10 seconds)")
        with ThreadPoolExecutor() as pool:
            attempts = [pool.submit(balancer.create) for balancer in self.load_balancers]
            if self._members("postgresql"):
                self._set_up_postgresql()
        for attempt in attempts:
            attempt.result()

    def _set_up_postgresql(self) -> None:
        self.primary.create()
        fill(self.primary, self._databases)
        for number, standby in enumerate(self.standbys, start=1):
            standby.follow(self.primary, slot=f"standby_{number}")
