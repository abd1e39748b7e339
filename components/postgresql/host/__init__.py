"""PostgreSQL on its host: 10 to 16, wherever it was installed."""

import json
import os
from typing import Any, Dict, List

from components.postgresql.host import describe, dump, restoring
from components.postgresql.host.instance import Instance, quote, required
from components.postgresql.host.properties import creation_sql, properties_sql
from host import command
from host.command import Program
from host.compression import compressor
from host.errors import HostError
from host.packing import outermost
from host.pipeline import Pipeline
from host.service import HostService, Restoration, Step
from host.snapshot import Snapshot
from host.swap import put_aside, remove


class PostgreSQLOnHost(HostService):
    """All databases of the primary, its roles, and every server's own configuration."""

    def discover(self) -> Dict[str, Any]:
        """All running servers with version, role and paths."""
        return {"instances": [describe.summary(instance) for instance in required()]}

    def snapshot(self, snapshot: Snapshot) -> None:
        """Dump a primary's databases; of a standby, save the configuration."""
        found = required()
        summaries = []
        for instance in found:
            summary = describe.summary(instance)
            prefix = "" if len(found) == 1 else "%d-" % instance.port
            self._save_configuration(instance, snapshot, prefix)
            if summary["role"] == "primary":
                summary["databases"] = self._save_databases(instance, snapshot, prefix)
            summaries.append(summary)
        snapshot.version = ", ".join(str(summary["version"]) for summary in summaries)
        snapshot.details = {"instances": summaries}

    def restore(self, restoration: Restoration) -> List[Step]:
        """Fill new databases, compare, and rename; see `restoring`."""
        return restoring.steps(restoration)

    def kept(self) -> List[str]:
        """Old databases, as `PORT:NAME`, and old configuration files."""
        found: List[str] = []
        for instance in required():
            rows = instance.query(
                "SELECT datname AS name FROM pg_database WHERE datname LIKE '%.before-%'"
            )
            found += ["%d:%s" % (instance.port, row["name"]) for row in rows]
            found += put_aside(outermost(describe.configuration_paths(instance)))
        return found

    def discard(self, name: str) -> None:
        """Drop an old database, or remove an old file."""
        if name.startswith("/"):
            remove(name)
            return
        port, _, database = name.partition(":")
        for instance in required():
            if instance.port == int(port):
                instance.psql("DROP DATABASE " + quote(database))

    def _save_configuration(self, instance: Instance, snapshot: Snapshot, prefix: str) -> None:
        paths = outermost(describe.configuration_paths(instance))
        owner = os.stat(instance.data_directory)
        snapshot.add_paths(
            prefix + "configuration",
            paths,
            {
                "part": "configuration",
                "paths": paths,
                "port": instance.port,
                "owner": {"user": instance.user, "uid": owner.st_uid, "gid": owner.st_gid},
            },
        )

    def _save_databases(
        self, instance: Instance, snapshot: Snapshot, prefix: str
    ) -> List[Dict[str, Any]]:
        databases = describe.databases(instance)
        left_out = set(snapshot.settings.get("exclude_databases") or [])
        unknown = sorted(left_out - {database["name"] for database in databases})
        if unknown:
            snapshot.warn("exclude_databases names what is not there: " + ", ".join(unknown))
        aside = [row["name"] for row in databases if describe.PUT_ASIDE.search(row["name"])]
        if aside:
            snapshot.warn("not saved, because restores have put them aside: " + ", ".join(aside))
        left_out.update(aside)
        databases = [database for database in databases if database["name"] not in left_out]
        self._check_space(snapshot, sum(database["bytes"] for database in databases))
        self._save_roles(instance, snapshot, prefix)
        names = [database["name"] for database in databases]
        dumps = dump.dump_all(instance, snapshot, names, prefix)
        for database in databases:
            dumped = dumps[database["name"]]
            database["rows"] = dumped.rows
            content = {
                "part": database["name"],
                "database": database["name"],
                "port": instance.port,
                "tables": len(dumped.rows) - 1 if dumped.rows is not None else None,
                "rows": sum(row[2] for row in dumped.rows[:-1]) if dumped.rows else None,
                "user_objects": database["user_objects"],
                "extensions": database["extensions"],
            }
            if os.path.isdir(dumped.path):
                name = os.path.basename(dumped.path) + ".dump"
                snapshot.add_folder(name, dumped.path, dump.size_of(dumped.path), content)
            else:
                snapshot.add_file(dumped.path, database["bytes"], content)
        content = {"always": True, "databases": True, "port": instance.port}
        self._add_text(snapshot, prefix + "databases.json", json.dumps(databases), content)
        script = self._script(databases, instance.version_number())
        self._add_text(snapshot, prefix + "databases.sql", script, {"port": instance.port})
        keys = ("name", "bytes", "owner", "encoding", "collate", "ctype", "extensions")
        return [{key: database[key] for key in keys} for database in databases]

    def _script(self, databases: List[Dict[str, Any]], version: int) -> str:
        """What makes all databases, empty, for a person who restores without epibackup."""
        script = "-- After globals.sql, before the dumps.\n"
        for database in databases:
            if database["name"] not in ("postgres", "template1"):
                script += creation_sql(database["name"], database, version, has_tablespace=True)
            script += properties_sql(database["name"], database)
        return script

    def _add_text(self, snapshot: Snapshot, name: str, text: str, content: Dict[str, Any]) -> None:
        path = snapshot.path(name)
        with open(path, "wb") as stream:
            stream.write(command.encode(text))
        snapshot.add_file(path, os.path.getsize(path), content)

    def _save_roles(self, instance: Instance, snapshot: Snapshot, prefix: str) -> None:
        path = snapshot.path(snapshot.stored_name(prefix + "globals.sql"))
        argv = [
            instance.program("pg_dumpall"), "--globals-only", "--no-password",
            "--dbname=" + instance.conninfo("template1"),
        ]  # fmt: skip
        packer = compressor(snapshot.compression)
        programs = [Program(argv, instance.user), *([Program(packer)] if packer else [])]
        with open(path, "wb") as stored:
            Pipeline(
                programs,
                stdout=stored,
                directory="/",
                extra_environment=instance.environment(),
            ).finish()
        content = {"part": "globals", "always": True, "globals": True, "port": instance.port}
        snapshot.add_file(path, os.path.getsize(path), content)

    def _check_space(self, snapshot: Snapshot, database_bytes: int) -> None:
        """Refuse before the disk gets full. Dumps have no indexes and are compressed: half
        of the databases' size is a cautious guess; a wrong one is caught while dumping."""
        free = snapshot.free_bytes()
        if free - dump.RESERVE_BYTES < database_bytes // 2:
            raise HostError(
                "the dumps may need %d MiB and %s has %d MiB free"
                % (database_bytes >> 21, snapshot.folder, free >> 20),
                "free space, or set epibackup:host_directory to a folder on a larger disk",
            )
