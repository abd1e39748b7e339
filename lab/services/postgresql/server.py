"""One PostgreSQL server on a host of the lab."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lab.container import Container
from lab.errors import LabError
from lab.services.postgresql.layouts import Layout, debian_layout

SUPERUSER = "postgres"
SOCKET_FOLDER = "/var/run/postgresql"
REPLICATION_ROLE = "replicator"
REPLICATION_PASSWORD: Final = "replication password"  # noqa: S105 - of a throw-away host

_SCRIPTS = Path(__file__).parent / "sql"

# Small, so that several servers fit on a laptop; what a backup does is the same.
_SETTINGS = {
    "shared_buffers": "32MB",
    "max_wal_size": "512MB",
    "wal_level": "replica",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "hot_standby": "on",
    "wal_retrieve_retry_interval": "200ms",
    "wal_keep_segments": "8",
    "password_encryption": "scram-sha-256",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
# As epicli writes it: peer for the superuser, passwords for everyone else, from everywhere.
_ACCESS = f"""\
local  all          {SUPERUSER}             peer
local  all          all                     md5
host   all          all          0.0.0.0/0  md5
host   replication  {REPLICATION_ROLE}  0.0.0.0/0  md5
"""
_UNIT = """\
[Unit]
Description=PostgreSQL {version} database server
After=network.target

[Service]
Type=forking
User=postgres
Group=postgres
RuntimeDirectory=postgresql
RuntimeDirectoryMode=2775
RuntimeDirectoryPreserve=yes
Environment=PGDATA={data}
ExecStart={binaries}/pg_ctl start -D ${{PGDATA}} -s -w -t 270
ExecStop={binaries}/pg_ctl stop -D ${{PGDATA}} -s -m fast
ExecReload={binaries}/pg_ctl reload -D ${{PGDATA}} -s
TimeoutSec=300

[Install]
WantedBy=multi-user.target
"""


class PostgreSQL:
    """A server on `host`, bound to the host's address and to the usual unix socket.

    `layout` says where; versions other than the base image's are put there beforehand by
    `install_version`. `settings` are added to postgresql-epiphany.conf.
    """

    def __init__(
        self,
        host: Container,
        layout: Layout | None = None,
        *,
        port: int = 5432,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.host = host
        self.layout = layout or debian_layout()
        self.port = port
        self._settings = {**_SETTINGS, **(settings or {})}

    # -- making ---------------------------------------------------------------------------------

    def create(self, *, locale: str = "en_US.UTF-8", checksums: bool = True) -> None:
        """Makes an empty server with a role for standbys, and starts it."""
        self._initialise(locale, checksums)
        self._configure()
        self.start()
        self.sql(
            "CREATE ROLE :\"name\" LOGIN REPLICATION PASSWORD :'password'",
            name=REPLICATION_ROLE,
            password=REPLICATION_PASSWORD,
        )

    def follow(self, primary: "PostgreSQL", slot: str | None = None) -> None:
        """Makes this a streaming standby of `primary`, with a replication slot or without.

        Returns when it has caught up. What was in the data folder is gone.
        """
        self._initialise("C.UTF-8", checksums=True)
        self.host.run(["find", self.layout.data, "-mindepth", "1", "-delete"])
        for folder in primary.tablespace_folders():
            self.host.run(["rm", "--recursive", "--force", folder])
            self.make_folder(folder)
        slot_options = ["--create-slot", f"--slot={slot}"] if slot else []
        connection = f"host={primary.host.address} port={primary.port} user={REPLICATION_ROLE}"
        # `fast`: a backup would wait for the next checkpoint otherwise, up to minutes.
        self.host.run(
            [
                f"{debian_layout().binaries}/pg_basebackup",
                *(f"--dbname={connection}", f"--pgdata={self.layout.data}"),
                *("--checkpoint=fast", "--wal-method=stream", *slot_options),
            ],
            user=SUPERUSER,
            environment={"PGPASSWORD": REPLICATION_PASSWORD},
        )
        self._follow_from_now(f"{connection} password='{REPLICATION_PASSWORD}'", slot)
        self._configure()
        self.start()
        primary.wait_for_standby()

    def _follow_from_now(self, connection: str, slot: str | None) -> None:
        """Writes what makes a copy a standby.

        pg_basebackup would do it, but newer ones write connection options that version 10 does
        not know.
        """
        settings = {"primary_conninfo": connection}
        if slot:
            settings["primary_slot_name"] = slot
        owner = f"{SUPERUSER}:{SUPERUSER}"
        if self.layout.version >= 12:
            file = f"{self.layout.data}/postgresql.auto.conf"
            text = self.host.read(file)
            self.host.write(f"{self.layout.data}/standby.signal", "", 0o600, owner)
        else:
            file = f"{self.layout.data}/recovery.conf"
            text = "standby_mode = 'on'\ntrigger_file = '/tmp/postgresql_trigger'\n"
        for name, value in settings.items():
            quoted = value.replace("'", "''")
            text += f"{name} = '{quoted}'\n"
        self.host.write(file, text, 0o600, owner)

    def _initialise(self, locale: str, checksums: bool) -> None:
        options = ["--data-checksums"] if checksums else []
        if self.layout.is_debian:
            self.host.run(
                [
                    *("pg_createcluster", str(self.layout.version), "main"),
                    *(f"--port={self.port}", f"--locale={locale}", "--encoding=UTF8"),
                    *(["--", *options] if options else []),
                ]
            )
            return
        for folder, mode in ((self.layout.data, "0700"), (SOCKET_FOLDER, "2775")):
            self.make_folder(folder, mode)
        self.host.run(
            [
                *(f"{self.layout.binaries}/initdb", f"--pgdata={self.layout.data}"),
                *(f"--locale={locale}", "--encoding=UTF8", "--auth=peer", *options),
            ],
            user=SUPERUSER,
        )
        unit = _UNIT.format(
            version=self.layout.version, data=self.layout.data, binaries=self.layout.binaries
        )
        # Debian's own postgresql.service, an umbrella, would count as this one's being active.
        self.host.run(["systemctl", "stop", self.layout.unit], check=False)
        self.host.write(f"/usr/lib/systemd/system/{self.layout.unit}", unit)
        self.host.run(["systemctl", "daemon-reload"])
        self.host.run(["systemctl", "enable", "--quiet", self.layout.unit])

    def _configure(self) -> None:
        """Writes the settings as epicli does: an own file beside postgresql.conf, included."""
        settings = {
            "listen_addresses": self.host.address,
            "port": str(self.port),
            "unix_socket_directories": SOCKET_FOLDER,
            **self._settings,
        }
        if self.layout.version >= 13:  # renamed there, and now a size
            segments = settings.pop("wal_keep_segments")
            settings["wal_keep_size"] = f"{int(segments) * 16}MB"
        folder, owner = self.layout.configuration, f"{SUPERUSER}:{SUPERUSER}"
        text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        self.host.write(f"{folder}/postgresql-epiphany.conf", text, 0o644, owner)
        self.host.write(f"{folder}/pg_hba.conf", _ACCESS, 0o640, owner)
        main = self.host.read(f"{folder}/postgresql.conf")
        include = "include 'postgresql-epiphany.conf'\n"
        if include not in main:
            self.host.write(f"{folder}/postgresql.conf", f"{main}\n{include}", 0o644, owner)

    # -- running --------------------------------------------------------------------------------

    def start(self) -> None:
        self.host.run(["systemctl", "start", self.layout.unit])

    def stop(self) -> None:
        self.host.run(["systemctl", "stop", self.layout.unit])

    def restart(self) -> None:
        self.host.run(["systemctl", "restart", self.layout.unit])

    @property
    def is_running(self) -> bool:
        ask = ["systemctl", "is-active", "--quiet", self.layout.unit]
        return self.host.run(ask, check=False).returncode == 0

    def destroy(self) -> None:
        """The disaster of a drill: stopped, and what is in the data and tablespace folders is gone.

        Configuration and units stay where the layout has them elsewhere.
        """
        folders = [*self.tablespace_folders(), self.layout.data]
        self.stop()
        self.host.run(["find", *folders, "-mindepth", "1", "-delete"])

    def remove(self) -> None:
        """As if the server had never been made; `create` and `follow` work again."""
        folders = self.tablespace_folders() if self.is_running else []
        self.stop()
        if self.layout.is_debian:
            self.host.run(["pg_dropcluster", str(self.layout.version), "main"])
        self.host.run(["rm", "--recursive", "--force", self.layout.data, *folders])

    def make_folder(self, path: str, mode: str = "0700") -> None:
        """Makes a folder of the server's user on the host, and those above it as root's."""
        owner = [f"--owner={SUPERUSER}", f"--group={SUPERUSER}"]
        self.host.run(["install", "-d", f"--mode={mode}", *owner, path])

    def wait_for_standby(self, timeout_seconds: float = 60) -> None:
        """Waits until a standby has replayed all that this primary has written by now.

        Raises LabError when none does in time.
        """
        here = self.sql("SELECT pg_current_wal_lsn()")
        question = (
            "SELECT count(*) FROM pg_stat_replication"
            " WHERE state = 'streaming' AND replay_lsn >= :'here'"
        )
        deadline = time.monotonic() + timeout_seconds
        while self.sql(question, here=here) == "0":
            if time.monotonic() > deadline:
                state = self.sql("SELECT client_addr, state, replay_lsn FROM pg_stat_replication")
                raise LabError(f"no standby of {self.host.name} has replayed {here}: {state}")
            time.sleep(0.05)

    # -- asking ---------------------------------------------------------------------------------

    def sql(self, script: str, database: str = "postgres", /, **variables: str) -> str:
        """Runs SQL and psql commands as the superuser and returns what they print: values
        separated by tabs, rows by newlines, nothing else.

        Values go in as psql's `variables`, so that psql quotes them: `:'value'`, `:"name"`.

        Raises LabError with psql's message, at the first statement that fails.
        """
        done = self.host.run(
            [*self.psql(), *(f"--set={name}={value}" for name, value in variables.items())],
            input=script,
            user=SUPERUSER,
            environment={**self.environment(database), "PGCLIENTENCODING": "UTF8"},
            timeout_seconds=900,
        )
        return done.stdout.rstrip("\n")

    def run_file(self, name: str, database: str = "postgres", /, **variables: str) -> str:
        """Runs a script of this package's folder `sql`, as `sql` does."""
        return self.sql((_SCRIPTS / f"{name}.sql").read_text(), database, **variables)

    def psql(self) -> list[str]:
        """psql, for scripts on stdin: no start-up file, bare output, ends at the first error."""
        options = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--field-separator=\t"]
        return [self.tool("psql"), *options, "--set=ON_ERROR_STOP=1"]

    def tool(self, name: str) -> str:
        """A client program as a user of the host would call it: from the server's own folder."""
        return f"{self.layout.binaries}/{name}"

    def environment(self, database: str = "postgres") -> dict[str, str]:
        """Variables that lead a client program here.

        A database's name goes by PGDATABASE, because `--dbname` takes a name with `=` in it for
        a connection string.
        """
        return {
            "PGHOST": SOCKET_FOLDER,
            "PGPORT": str(self.port),
            "PGDATABASE": database,
        }

    def databases(self) -> list[str]:
        """The databases that accept connections, without the empty template."""
        listed = self.sql(
            "SELECT datname FROM pg_database"
            " WHERE datallowconn AND datname <> 'template1' ORDER BY datname::text COLLATE \"C\""
        )
        return listed.split("\n")

    def tablespace_folders(self) -> list[str]:
        """Where tablespaces are that somebody made."""
        listed = self.sql(
            "SELECT pg_tablespace_location(oid) FROM pg_tablespace"
            " WHERE pg_tablespace_location(oid) <> '' ORDER BY 1"
        )
        return listed.splitlines()

    @property
    def is_primary(self) -> bool:
        return self.sql("SELECT pg_is_in_recovery()") == "f"
