"""Restoring databases: filled beside the live ones, compared, and swapped by renaming.

No live database is touched before all new ones are filled and their rows are counted; the old
ones stay as `<name>.before-<run>` until they are dropped on request.
"""

import hashlib
import json
import os
from typing import Any, Dict, List, Optional, Set, Tuple

from components.postgresql.host import dump, roles
from components.postgresql.host.configuration import configuration_steps
from components.postgresql.host.instance import Instance, instances, literal, quote
from components.postgresql.host.properties import creation_sql, properties_sql
from host import command
from host.errors import HostError
from host.service import Delivered, Restoration, Step

LARGEST_NAME_BYTES = 63
"""NAMEDATALEN - 1; longer names are cut silently by the server."""


def steps(restoration: Restoration) -> List[Step]:
    """All steps of a restore on this host; raises HostError where it cannot even begin."""
    planned: List[Step] = []
    for saved in restoration.details["instances"]:
        port = saved["port"]
        members = [member for member in restoration.members if member.content["port"] == port]
        if not members:
            continue
        instance = _target(saved, len(restoration.details["instances"]))
        if any("database" in member.content for member in members):
            planned += _Databases(instance, restoration, members).steps()
        for member in members:
            if member.content.get("part") == "configuration":
                planned += configuration_steps(instance, restoration, member, saved)
    if not planned:
        raise HostError("nothing of what was chosen can be restored on this host")
    return planned


def _target(saved: Dict[str, Any], saved_servers: int) -> Instance:
    """The running server that a saved one is restored into."""
    running = instances()
    if len(running) == 1 and saved_servers == 1:
        return running[0]
    for instance in running:
        if instance.port == saved["port"]:
            return instance
    checksums = " --data-checksums" if saved["data_checksums"] else ""
    raise HostError(
        "no PostgreSQL server is running on this host"
        + (" on port %d" % saved["port"] if running else ""),
        "start it; if its data is lost, make a new one first: initdb -D %s --encoding=%s%s, or "
        "on Debian pg_createcluster --start, as version %s or newer"
        % (saved["data_directory"], saved["encoding"], checksums, saved["version"]),
    )


class _Databases:
    """The steps for the databases of one server."""

    def __init__(
        self, instance: Instance, restoration: Restoration, members: List[Delivered]
    ) -> None:
        if instance.in_recovery():
            raise HostError(
                "the server on this host is a standby: nothing can be restored into it",
                "restore onto its primary: --host-map THIS_HOST=PRIMARY",
            )
        self._instance = instance
        self._restoration = restoration
        self._members = [member for member in members if "database" in member.content]
        self._globals = [member for member in members if "globals" in member.content]
        self._described = [member for member in members if "databases" in member.content]
        self._rename: Dict[str, str] = restoration.options.get("rename") or {}
        self._named: List[str] = restoration.options.get("parts") or []
        self._jobs = int(restoration.options.get("jobs") or min(8, os.cpu_count() or 1))
        self._version = instance.version_number()
        self._created: List[Tuple[str, str]] = []

    def steps(self) -> List[Step]:
        """Check, make roles, fill, compare; only then swap all."""
        existing = self._existing("pg_database", "datname")
        chosen = [member for member in self._members if self._wanted(member)]
        planned = [self._check_step(member) for member in chosen]
        planned.append(
            Step(
                "create the roles and tablespaces that are missing",
                self._create_globals,
                self._drop_globals,
            )
        )
        for member in chosen:
            planned += self._fill_steps(member)
        for member in chosen:
            target = self._target_name(member)
            if self._before(target) in existing:
                raise HostError(
                    "there is a database %s already: this run was restored before"
                    % self._before(target),
                    "drop it if it is no longer needed (epibackup clean --discard), or rename it",
                )
            planned.append(self._swap_step(member, target in existing))
        return planned

    def _wanted(self, member: Delivered) -> bool:
        """Whether a database is restored though nobody named it."""
        name = member.content["database"]
        if name in self._named:
            return True
        if self._named:
            return False
        reason = ""
        if name == "template1":
            reason = "it is the server's template"
        elif name == "postgres" and not member.content["user_objects"]:
            reason = "it is the server's own and users have nothing in it"
        elif "repmgr" in member.content["extensions"]:
            reason = "it describes the replication of the saved servers"
        if reason:
            self._restoration.say("%s is restored only when named: %s" % (name, reason))
        return not reason

    def _target_name(self, member: Delivered) -> str:
        name = str(member.content["database"])
        return self._rename.get(name, name)

    def _before(self, name: str) -> str:
        return _suffixed(name, ".before-" + self._restoration.run)

    def _new(self, name: str) -> str:
        return _suffixed(name, ".new-" + self._restoration.run)

    def _properties(self, member: Delivered) -> Dict[str, Any]:
        with open(self._described[0].path) as stream:
            for database in json.load(stream):
                if database["name"] == member.content["database"]:
                    return dict(database)
        raise HostError("the archive does not describe %s" % member.content["database"])

    def _check_step(self, member: Delivered) -> Step:
        def check() -> None:
            try:
                dump.list_contents(self._instance, member.path)
            except HostError as error:
                raise HostError(
                    "the dump of %s is damaged: %s" % (member.content["database"], error.message),
                    "restore another run; epibackup list shows them",
                ) from None

        return Step("check the dump of %s with pg_restore" % member.content["database"], check)

    def _create_globals(self) -> None:
        if not self._globals:
            return
        with open(self._globals[0].path, encoding="utf-8", errors="surrogateescape") as stream:
            script = roles.statements(stream.read())
        needed = ""
        if self._named:
            needed = "\n".join(
                self._schema(member) + json.dumps(self._properties(member), ensure_ascii=False)
                for member in self._members
                if self._wanted(member)
            )
        missing = [
            name
            for name in roles.names(script)
            if name not in self._existing("pg_roles", "rolname")
            and (not self._named or roles.mentioned(name, needed))
        ]
        if missing:
            self._restoration.say("creating the roles " + ", ".join(missing))
            made = roles.creating(script, set(missing))
            self._instance.psql("BEGIN;\n%s\nCOMMIT;\n" % "\n".join(made))
            self._created += [("ROLE", name) for name in missing]
        self._create_tablespaces(script, needed)

    def _create_tablespaces(self, script: List[str], needed: str) -> None:
        """Make missing tablespaces where their folders are there: on another disk layout nobody
        here can know the right place, and `_tablespace_options` does without."""
        for name, folder in roles.tablespaces(script).items():
            if name in self._existing("pg_tablespace", "spcname") or not os.path.isdir(folder):
                continue
            if self._named and not roles.mentioned(name, needed):
                continue
            self._restoration.say("creating the tablespace %s in %s" % (name, folder))
            for statement in roles.creating_tablespace(script, name):
                self._instance.psql(statement)
            self._created.append(("TABLESPACE", name))

    def _existing(self, catalog: str, column: str) -> Set[str]:
        rows = self._instance.query("SELECT %s AS name FROM %s" % (column, catalog))
        return {str(row["name"]) for row in rows}

    def _drop_globals(self) -> None:
        for kind, name in reversed(self._created):
            self._instance.psql("DROP %s IF EXISTS %s" % (kind, quote(name)))

    def _schema(self, member: Delivered) -> str:
        """The SQL of a dump without data, to see which roles and tablespaces it needs."""
        argv = [self._instance.program("pg_restore"), "--schema-only"]
        argv += ["--file=-"] if self._client_version() >= 12 else []
        return self._instance.run_on(member.path, argv)

    def _client_version(self) -> int:
        shown = command.run(
            [self._instance.program("pg_restore"), "--version"],
            extra_environment=self._instance.environment(),
        ).stdout
        return int(shown.split()[2].split(".")[0])

    def _fill_steps(self, member: Delivered) -> List[Step]:
        name = str(member.content["database"])
        new = self._new(self._target_name(member))

        def fill() -> None:
            self._create(new, self._properties(member))
            argv = [
                self._instance.program("pg_restore"), "--exit-on-error", "--no-password",
                "--jobs=%d" % self._usable_jobs(member), "--dbname=" + self._instance.conninfo(new),
            ]  # fmt: skip
            self._instance.run_on(member.path, argv + self._tablespace_options(member))
            self._instance.psql("ANALYZE", new, timeout_seconds=24 * 3600)

        def compare() -> None:
            saved = self._properties(member).get("rows")
            if saved is None:
                self._restoration.warn("the rows of %s were not counted in the backup" % name)
                return
            session = dump.Session(self._instance, new)
            try:
                restored = dump.count_rows(session)
            finally:
                session.close()
            if restored != saved:
                raise HostError(
                    "the restored %s differs from the backup: %s"
                    % (name, "; ".join(differences(saved, restored)))
                )

        return [
            Step(
                "create the database %s and fill it from the dump of %s" % (new, name),
                fill,
                lambda: self._drop(new),
            ),
            Step("compare the rows of %s with the backup" % name, compare),
        ]

    def _drop(self, name: str) -> None:
        self._instance.psql("DROP DATABASE IF EXISTS " + quote(name))

    def _usable_jobs(self, member: Delivered) -> int:
        """Processes for pg_restore. Our custom dumps went through a pipe and so have no
        offsets; before 14 July 2020 (10.14, 11.9, 12.4) parallel restores of such failed."""
        if os.path.isdir(member.path):
            return self._jobs
        fixed = {10: 100014, 11: 110009, 12: 120004}.get(self._version // 10000, 0)
        return self._jobs if self._version >= max(fixed, 100000) else 1

    def _tablespace_options(self, member: Delivered) -> List[str]:
        """Leave tablespaces out if this server has not all that the dump names."""
        named = {
            roles.plain(line.split(" = ", 1)[1].rstrip(";"))
            for line in self._schema(member).splitlines()
            if line.startswith("SET default_tablespace = ")
            and line != "SET default_tablespace = '';"
        }
        missing = sorted(named - self._existing("pg_tablespace", "spcname"))
        if missing:
            self._restoration.warn(
                "this server has no tablespace %s: its tables of %s are put into the default one"
                % (", ".join(missing), member.content["database"])
            )
            return ["--no-tablespaces"]
        return []

    def _create(self, name: str, saved: Dict[str, Any]) -> None:
        """An empty database with the saved one's encoding, locale and owner."""
        has_tablespace = saved["tablespace"] in self._existing("pg_tablespace", "spcname")
        self._drop(name)
        self._instance.psql(creation_sql(name, saved, self._version, has_tablespace))

    def _swap_step(self, member: Delivered, replaces: bool) -> Step:
        target = self._target_name(member)
        new, before = self._new(target), self._before(target)
        done: List[str] = []

        def put() -> None:
            self._instance.psql(properties_sql(new, self._properties(member)))
            renames = ["ALTER DATABASE %s RENAME TO %s" % (quote(new), quote(target))]
            if replaces:
                renames.insert(0, "ALTER DATABASE %s RENAME TO %s" % (quote(target), quote(before)))
            self._rename_together(renames, [target, new])
            done.append(target)
            if replaces:
                self._restoration.keep("database %s" % before)

        def back() -> None:
            if not done:
                return
            renames = ["ALTER DATABASE %s RENAME TO %s" % (quote(target), quote(new))]
            if replaces:
                renames.append("ALTER DATABASE %s RENAME TO %s" % (quote(before), quote(target)))
            self._rename_together(renames, [target, before])
            self._drop(new)

        text = "rename %s to %s" % (new, target)
        if replaces:
            text = "end the connections to %s, rename it to %s, and %s" % (target, before, text)
        return Step(text, put, back)

    def _rename_together(self, renames: List[str], names: List[str]) -> None:
        """Rename databases in one transaction, so that a name is never without a database.

        ALTER DATABASE waits five seconds for other sessions to leave (CountOtherDBBackends);
        those that reconnect in between are ended again.
        """
        listed = ", ".join(literal(name) for name in names)
        end_sessions = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname IN (%s) AND pid <> pg_backend_pid();" % listed
        )
        maintenance = "template1" if "postgres" in names else "postgres"
        failure: Optional[HostError] = None
        for _ in range(5):
            try:
                self._instance.psql(
                    "%s\nBEGIN;\n%s;\nCOMMIT;\n" % (end_sessions, ";\n".join(renames)), maintenance
                )
            except HostError as error:
                failure = error
            else:
                return
        raise failure or HostError("the databases could not be renamed")


def differences(saved: List[List[Any]], restored: List[List[Any]]) -> List[str]:
    """The first tables whose rows differ, in words."""
    before = {(schema, table): rows for schema, table, rows in saved}
    after = {(schema, table): rows for schema, table, rows in restored}
    found = [
        "%s.%s has %s rows instead of %s"
        % (key[0], key[1], after.get(key, "no such table and 0"), before.get(key, 0))
        for key in sorted(set(before) | set(after))
        if before.get(key) != after.get(key)
    ]
    return found[:5]


def _suffixed(name: str, suffix: str) -> str:
    """`name` with a suffix, shortened so that the server does not cut the suffix off."""
    room = LARGEST_NAME_BYTES - len(suffix)
    encoded = command.encode(name)
    if len(encoded) <= room:
        return name + suffix
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return encoded[: room - 9].decode("utf-8", "ignore") + "-" + digest + suffix
