"""A running PostgreSQL server of this host, found and asked without any assumed path.

epicli has put PostgreSQL in four different places (facts: Debian's /etc/postgresql and
/var/lib/postgresql, the PGDG's /var/lib/pgsql, RHEL 7's software collection), so everything
is taken from the running server: its working folder is the data directory, postmaster.pid
names port and socket, its executable's folder has the client programs.
"""

import json
import os
import pwd
from typing import Any, Dict, List, NamedTuple, Optional

from host import command
from host.errors import HostError

OPEN_STDIN = "/proc/self/fd/0"
"""What standard input is, to be opened anew: a path that needs no rights above the file."""


class Instance(NamedTuple):
    """A running server (postmaster)."""

    process: int
    data_directory: str
    port: int
    socket_directory: str
    user: str
    programs: str
    libraries: str

    def program(self, name: str) -> str:
        """The server's own client program, else the one on PATH; HostError if there is none."""
        path = os.path.join(self.programs, name)
        found = path if os.path.exists(path) else command.find(name)
        if not found:
            raise HostError(
                "%s is missing: neither in %s nor on PATH" % (name, self.programs),
                "install PostgreSQL's client programs",
            )
        return found

    def environment(self) -> Dict[str, str]:
        """What the client programs need: software collections keep libraries apart."""
        return {"LD_LIBRARY_PATH": self.libraries} if self.libraries else {}

    def conninfo(self, database: str) -> str:
        """A connection string: a bare name with `=` in it would be taken for one (libpq)."""
        quoted = database.replace("\\", "\\\\").replace("'", "\\'")
        return "dbname='%s' host='%s' port=%d" % (quoted, self.socket_directory, self.port)

    def psql(self, sql: str, database: str = "template1", timeout_seconds: float = 300) -> str:
        """Run SQL and return what it prints; raises HostError with the server's message."""
        return command.run(
            [
                self.program("psql"), "--no-psqlrc", "--no-password", "--quiet", "--tuples-only",
                "--no-align", "--set=ON_ERROR_STOP=1", "--dbname=" + self.conninfo(database),
                "--file=-",
            ],
            user=self.user,
            stdin=sql,
            directory="/",
            timeout_seconds=timeout_seconds,
            # Only here, for catalogs: what a dump holds stays in the database's own encoding.
            extra_environment=dict(self.environment(), PGCLIENTENCODING="UTF8"),
        ).stdout  # fmt: skip

    def query(self, sql: str, database: str = "template1") -> List[Dict[str, Any]]:
        """The rows of a SELECT, as JSON objects."""
        text = self.psql("SELECT coalesce(json_agg(r), '[]') FROM (%s) r" % sql, database)
        rows = json.loads(text)
        if not isinstance(rows, list):
            raise HostError("psql answered %r" % text[:200])
        return rows

    def run_on(self, path: str, argv: List[str]) -> str:
        """Run a client program on a dump, a file or folder that is root's; returns its output.

        The server's user may not enter our folders. It gets the dump as standard input and
        opens it again through /proc, as often as it has workers. (A working directory does not
        do: before version 16 the programs leave it and come back by its name.)
        """
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self.hand_over(path)
            return command.run(
                [*argv, OPEN_STDIN],
                user=self.user,
                stdin=descriptor,
                directory="/",
                extra_environment=self.environment(),
            ).stdout
        finally:
            os.close(descriptor)

    def hand_over(self, path: str) -> None:
        """Give a dump to the server's user."""
        owner = os.stat(self.data_directory)
        inside = (
            [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else []
        )
        for name in [path, *inside]:
            os.chown(name, owner.st_uid, owner.st_gid)

    def setting(self, name: str) -> str:
        """A configuration parameter's value."""
        return self.psql("SHOW " + name).strip()

    def version_number(self) -> int:
        """As in 150020 for 15.20 and 100021 for 10.21."""
        return int(self.setting("server_version_num"))

    def in_recovery(self) -> bool:
        """Whether the server is a standby."""
        return self.psql("SELECT pg_is_in_recovery()").strip() == "t"


def instances() -> List[Instance]:
    """All running servers of this host, by port."""
    found = []
    for entry in os.listdir("/proc"):
        postmaster = entry.isdigit() and _program(entry) == "postgres"
        if postmaster and _program(_parent(entry)) != "postgres":
            instance = _read(int(entry))
            if instance:
                found.append(instance)
    return sorted(found, key=lambda instance: instance.port)


def required() -> List[Instance]:
    """All running servers; raises HostError if there is none."""
    found = instances()
    if not found:
        raise HostError(
            "no PostgreSQL server is running on this host",
            "start it, or correct the inventory's group postgresql",
        )
    return found


def quote(name: str) -> str:
    """An SQL identifier in quotes."""
    return '"%s"' % name.replace('"', '""')


def literal(text: str) -> str:
    """An SQL string literal, whatever standard_conforming_strings says."""
    return "E'%s'" % text.replace("\\", "\\\\").replace("'", "''")


def _program(process: str) -> str:
    try:
        path = os.readlink("/proc/%s/exe" % process)
    except OSError:
        return ""
    return os.path.basename(path[: -len(" (deleted)")] if path.endswith(" (deleted)") else path)


def _parent(process: str) -> str:
    try:
        with open("/proc/%s/stat" % process, "rb") as stream:
            return stream.read().rsplit(b")", 1)[1].split()[1].decode()
    except (OSError, IndexError):
        return "0"


def _read(process: int) -> Optional[Instance]:
    try:
        data_directory = os.readlink("/proc/%d/cwd" % process)
        with open(os.path.join(data_directory, "postmaster.pid"), "rb") as stream:
            lines = command.decode(stream.read()).splitlines()
        executable = os.readlink("/proc/%d/exe" % process).replace(" (deleted)", "")
        user = pwd.getpwuid(os.stat(data_directory).st_uid).pw_name
        if int(lines[0]) != process:
            return None
        return Instance(
            process=process,
            data_directory=data_directory,
            port=int(lines[3]),
            socket_directory=(lines[4].strip() or lines[5].strip() or "localhost"),
            user=user,
            programs=os.path.dirname(executable),
            libraries=_environment(process).get("LD_LIBRARY_PATH", ""),
        )
    except (OSError, IndexError, ValueError, KeyError):
        return None  # no postmaster, or one that is just starting or ending


def _environment(process: int) -> Dict[str, str]:
    with open("/proc/%d/environ" % process, "rb") as stream:
        entries = command.decode(stream.read()).split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
