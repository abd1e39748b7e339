"""Control groups of hosts, where the machine has no systemd to make them.

Every host gets its own group in each hierarchy that systemd-nspawn uses. Without, all hosts would
share the group of the process that starts them, and `systemctl stop` in one host could end
processes of another. With systemd as the machine's pid 1, systemd-nspawn makes a scope instead.
"""

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from lab.machine import has_systemd

_PARENT = "epibackup-lab"


def _hierarchies() -> dict[str, Path]:
    """Mount points by kind: `unified` (version 2), `systemd` and `memory` (version 1)."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
        if kind == "cgroup2":
            found.setdefault("unified", Path(fields[4]))
        elif kind == "cgroup" and "name=systemd" in options:
            found.setdefault("systemd", Path(fields[4]))
        elif kind == "cgroup" and "memory" in options:
            found.setdefault("memory", Path(fields[4]))
    return found


def make_groups(machine: str, memory_bytes: int) -> list[Path]:
    """Makes the groups of one host, limited to `memory_bytes`, and returns them.

    The limit is a guard for the machine, not a promise: where the memory controller cannot be
    had (a container without delegation), the host runs without.
    """
    groups = []
    for kind, top in _hierarchies().items():
        group = top / _PARENT / machine
        group.mkdir(parents=True, exist_ok=True)
        groups.append(group)
        if kind == "unified":
            for parent in (top, top / _PARENT):
                with suppress(OSError):
                    (parent / "cgroup.subtree_control").write_text("+memory")
        with suppress(OSError):
            limit = "memory.limit_in_bytes" if kind == "memory" else "memory.max"
            if kind != "systemd" and (group / limit).exists():
                (group / limit).write_text(str(memory_bytes))
    return groups


def group_processes(machine: str) -> set[int]:
    """Process ids that are in a host's groups, ours or the scope that systemd made.

    When systemd-nspawn is killed, the processes in its container live on: here they are found.
    """
    found: set[int] = set()
    for top in _hierarchies().values():
        groups = (top / _PARENT / machine, top / "machine.slice" / f"{machine}.scope")
        # Not glob: it fails when a folder goes away while it looks.
        for folder in (folder for group in groups for folder, _, _ in os.walk(group)):
            with suppress(OSError):
                text = Path(folder, "cgroup.procs").read_text()
                # A process of a pid namespace that cannot be seen from here is listed as 0.
                found.update(int(line) for line in text.split() if line != "0")
    return found


def remove_groups(machine: str, timeout_seconds: float = 5) -> None:
    """Removes a host's groups; those that a dying process still holds are tried again."""
    if has_systemd():
        scope = f"{machine}.scope"
        for command in ("stop", "reset-failed"):  # fails where the scope has gone by itself
            subprocess.run(
                ["systemctl", "--quiet", command, scope], capture_output=True, check=False
            )
    deadline = time.monotonic() + timeout_seconds
    tops = [top / _PARENT / machine for top in _hierarchies().values()]
    while left := [top for top in tops if top.exists()]:
        for top in left:
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()
            with suppress(OSError):  # in use as long as there is another host
                top.parent.rmdir()
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)
