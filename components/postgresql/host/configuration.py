"""Restoring a server's configuration files: put in place, loaded, checked, or put back."""

import os
import time
from typing import Any, Dict, List

from components.postgresql.host.instance import Instance
from host import unit
from host.configuration import take_over
from host.errors import HostError
from host.service import Delivered, Restoration, Step
from host.swap import Swap

ROLE_FILES = ("standby.signal", "recovery.signal", "recovery.conf")
"""Saved, never put back: they decide at the next start whether a server is a standby."""

LOAD_SECONDS = 5
"""How long a server may take to read its files again."""


def configuration_steps(
    instance: Instance, restoration: Restoration, member: Delivered, saved: Dict[str, Any]
) -> List[Step]:
    """The steps for one server's configuration; none where it does not belong to this server.

    Raises HostError if it was asked for by name and cannot be restored here.
    """
    named = "configuration" in (restoration.options.get("parts") or [])
    config_file = instance.setting("config_file")
    obstacle = ""
    if config_file != saved["config_file"]:
        obstacle = "it was %s and is %s here" % (saved["config_file"], config_file)
    elif restoration.options.get("mapped") and not named:
        obstacle = "it is another host's; name the part configuration to restore it"
    if not obstacle:
        return _Configuration(instance, restoration, member).steps()
    if named:
        raise HostError("the configuration cannot be restored here: " + obstacle)
    restoration.warn("the configuration is left as it is: " + obstacle)
    return []


class _Configuration:
    """The steps, and what they know of each other."""

    def __init__(self, instance: Instance, restoration: Restoration, member: Delivered) -> None:
        self._instance = instance
        self._restoration = restoration
        self._member = member
        self._swap = Swap(restoration.folder, member.path, [], restoration.run)

    def steps(self) -> List[Step]:
        return [
            Step(
                "compare the configuration files with the saved ones",
                self._prepare,
                self._unprepare,
            ),
            Step(
                "put those that differ in place; old ones stay as *.before-"
                + self._restoration.run,
                self._put,
                self._back,
            ),
            Step("have the server load its configuration, and check that it does", self._load),
        ]

    def _prepare(self) -> None:
        saved, here = self._member.content["owner"], os.stat(self._instance.data_directory)
        take_over(self._member.path, (saved["uid"], saved["gid"]), (here.st_uid, here.st_gid))
        # File by file: a folder main.before-… beside Debian's /etc/postgresql/15/main would be
        # taken for another server by its tools and at the next boot.
        files = self._member.live_paths()
        chosen = [path for path in files if os.path.basename(path) not in ROLE_FILES]
        self._swap = Swap(
            self._restoration.folder, self._member.path, chosen, self._restoration.run
        )
        self._swap.prepare()
        self._restoration.say("files that differ: " + (", ".join(self._swap.changed) or "none"))

    def _put(self) -> None:
        self._swap.put()
        for path in self._swap.kept():
            self._restoration.keep(path)

    def _unprepare(self) -> None:
        self._swap.back()

    def _back(self) -> None:
        if self._swap.changed:
            self._swap.back()
            self._reload()

    def _load(self) -> None:
        if not self._swap.changed:
            return
        self._reload()
        problems = self._problems()
        if problems:
            raise HostError("the server refuses the saved configuration: " + "; ".join(problems))
        pending = self._instance.query("SELECT name FROM pg_settings WHERE pending_restart")
        if pending:
            self._restoration.warn(
                "these settings need a restart of the server, which is left to you: "
                + ", ".join(str(row["name"]) for row in pending)
            )

    def _reload(self) -> None:
        load_time = "SELECT pg_conf_load_time()"
        before = self._instance.psql(load_time)
        self._instance.psql("SELECT pg_reload_conf()")
        deadline = time.monotonic() + LOAD_SECONDS
        # A server that finds a mistake keeps its old load time.
        while self._instance.psql(load_time) == before and time.monotonic() < deadline:
            time.sleep(0.2)
        for name in unit.names("pgbouncer*.service"):
            if unit.is_active(name):
                unit.reload(name)

    def _problems(self) -> List[str]:
        """What the server finds wrong with its files (views since 9.5 and 10)."""
        rows = self._instance.query(
            "SELECT sourcefile || ':' || sourceline || ': ' || coalesce(name || ': ', '') || error "
            "AS problem FROM pg_file_settings WHERE error IS NOT NULL AND (name IS NULL OR "
            "name NOT IN (SELECT name FROM pg_settings WHERE pending_restart)) "
            "UNION ALL SELECT 'pg_hba.conf:' || line_number || ': ' || error "
            "FROM pg_hba_file_rules WHERE error IS NOT NULL"
        )
        return [str(row["problem"]) for row in rows]
