"""PostgreSQL, seen from the controller."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from components.service import ServiceBackup, ServiceSettings


class PostgreSQLSettings(ServiceSettings):
    """How databases are dumped."""

    format: Literal["custom", "directory"] = Field(
        "custom",
        description="Format of the dumps: custom is one file a database, compressed on its way to "
        "the disk; directory lets several processes dump one database, and needs space for it "
        "uncompressed.",
        examples=["directory"],
    )
    jobs: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Processes dumping at the same time: different databases (custom), or one "
        "database's tables (directory). Default: 4, or the number of cores if that is less.",
        examples=[2],
    )
    exclude_databases: list[str] = Field(
        default_factory=list,
        description="Databases that are not saved.",
        examples=[["scratch"]],
    )
    count_rows: bool = Field(
        True,
        description="Count the rows of every table in the dump's own transaction, so that a "
        "restore can be compared. Costs a read of all tables.",
        examples=[False],
    )


class PostgreSQL(ServiceBackup):
    """All databases and roles of the primary; the configuration of every server."""

    service = "postgresql"
    groups = ("postgresql",)
    title = "PostgreSQL"
    settings_model = PostgreSQLSettings

    @classmethod
    def conclude(cls, answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """A service without a primary has saved no data, though every host answered well."""
        servers = [
            (host, server)
            for host, answer in answers.items()
            for server in answer["details"].get("instances", [])
        ]
        if any(server["role"] == "primary" for _, server in servers):
            return []
        if any(answer["status"] == "failed" for answer in answers.values()):
            return []  # that host may be the primary, and says why it failed
        standbys = ", ".join(
            f"{host} is a standby of {server.get('follows') or 'an unknown server'}"
            for host, server in servers
        )
        return [f"no database was saved, because no primary was found: {standbys}"]
