"""One booted container: starting, finding and ending its systemd-nspawn.

The root is mounted in a private mount namespace that only systemd-nspawn and its payload are in,
so that the machine never sees the mount and nothing of it is left, whatever ends the container.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab import cgroups
from lab.errors import LabError, last_lines
from lab.machine import SYSTEM_PATH, has_systemd, overlay_options

# Arguments: cgroups to join, overlay options, mount point, then the command.
_BOOT_SCRIPT = """\
set -e
for group in $1; do echo $$ > "$group/cgroup.procs"; done
mount -t overlay epibackup-lab -o "$2" "$3"
shift 3
exec "$@"
"""
_PROPAGATE = Path("/run/systemd/nspawn/propagate")


@dataclass(frozen=True)
class Process:
    """A process of a host, by its id on the machine."""

    pid: int
    command_line: str


@dataclass(frozen=True)
class Layers:
    """The folders of a host's overlay: read-only ones (uppermost first), and the written one."""

    lower: tuple[Path, ...]
    upper: Path
    work: Path
    root: Path

    @property
    def options(self) -> str:
        return overlay_options([str(it) for it in self.lower], str(self.upper), str(self.work))


def launch(
    machine: str,
    hostname: str,
    layers: Layers,
    console: Path,
    memory_bytes: int,
    options: Sequence[str] = (),
) -> None:
    """Starts a container that goes on when this process ends; returns before it has booted.

    With systemd on the machine, systemd-nspawn asks it for a scope with the memory limit;
    without, `lab.cgroups` makes the groups.
    """
    if has_systemd():
        groups: list[Path] = []
        unit = ["--register=no", f"--property=MemoryMax={memory_bytes}"]
    else:
        groups = cgroups.make_groups(machine, memory_bytes)
        unit = ["--register=no", "--keep-unit"]
    nspawn = [
        *("systemd-nspawn", "--quiet", "--boot", "--settings=no", "--console=pipe"),
        *(f"--machine={machine}", f"--hostname={hostname}", f"--directory={layers.root}"),
        *("--private-users=no", "--kill-signal=SIGRTMIN+3", "--link-journal=no"),
        *("--resolv-conf=off", "--timezone=off", *unit, *options, "systemd.show_status=0"),
    ]
    boot = ["sh", "-c", _BOOT_SCRIPT, "boot", " ".join(map(str, groups)), layers.options]
    namespace = ["unshare", "--mount", "--propagation", "private", "--"]
    with console.open("wb") as log:
        subprocess.run(
            ["setsid", "--fork", *namespace, *boot, str(layers.root), *nspawn],
            cwd="/",
            # Its lock on the folder would stay when it is killed; names and addresses do instead.
            env={"PATH": SYSTEM_PATH, "SYSTEMD_NSPAWN_LOCK": "0"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )


def find(machine: str) -> int | None:
    """The process id of a container's systemd-nspawn, found by what it was started with.

    No file remembers it, so none can be stale.
    """
    wanted = f"--machine={machine}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            if wanted in arguments and Path(os.fsdecode(arguments[0])).name == "systemd-nspawn":
                return int(folder.name)
    return None


def find_init(nspawn: int) -> int | None:
    """The process id, on the machine, of the container's pid 1."""
    with suppress(OSError):
        children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()
        for child in children:
            status = Path(f"/proc/{child}/status").read_text()
            ids = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            if ids.split()[-1] == "1":
                return int(child)
    return None


def wait_for_init(machine: str, console: Path, timeout_seconds: float) -> int:
    """Waits until the container has its pid 1, and returns it.

    Raises LabError with the end of the console when systemd-nspawn ends or takes too long.
    """
    now = time.monotonic()
    deadline, absent_deadline = now + timeout_seconds, now + 2
    while now < deadline:
        nspawn = find(machine)
        if nspawn is not None:
            absent_deadline = now + 0.5
            if (init := find_init(nspawn)) is not None:
                return init
        elif now > absent_deadline:
            break
        time.sleep(0.02)
        now = time.monotonic()
    raise LabError(
        f"the container {machine} did not start:\n{last_lines(console.read_bytes())}",
        f"The whole console is in {console}.",
    )


def processes(init: int) -> list[Process]:
    """The processes in the pid namespace of `init`; kernel threads and zombies have no command."""
    with suppress(OSError):
        namespace = Path(f"/proc/{init}/ns/pid").readlink()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (folder / "ns/pid").readlink() == namespace:
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").strip()
                    found.append(Process(int(folder.name), line.decode(errors="replace")))
        return found
    return []


def stop(machine: str, timeout_seconds: float) -> None:
    """Shuts a container down as its administrator would, or kills it when that takes too long."""
    nspawn = find(machine)
    if nspawn is not None:
        _signal(nspawn, signal.SIGTERM)  # becomes the container's kill signal
        deadline = time.monotonic() + timeout_seconds
        while find(machine) == nspawn and time.monotonic() < deadline:
            time.sleep(0.05)
    kill(machine)


def kill(machine: str) -> None:
    """Ends every process of a container at once, and removes what it left on the machine.

    Raises LabError if something cannot be ended (a process that hangs in the kernel).
    """
    deadline = time.monotonic() + 10
    while True:
        nspawn = find(machine)
        init = find_init(nspawn) if nspawn is not None else None
        # Without its pid 1 the namespace goes, and systemd-nspawn ends by itself and tidies up.
        left = {init} if init is not None else {nspawn} if nspawn is not None else set()
        left |= cgroups.group_processes(machine) - {nspawn}
        if not left and nspawn is None:
            break
        if time.monotonic() > deadline:
            raise LabError(f"the container {machine} cannot be ended: processes {sorted(left)}")
        for pid in left:
            _signal(pid, signal.SIGKILL)
        time.sleep(0.03)
    cgroups.remove_groups(machine)
    with suppress(OSError):
        (_PROPAGATE / machine).rmdir()


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
