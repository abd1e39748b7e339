"""Who holds a stack: Pulumi's lock, and whether its holder is alive."""

import contextlib
import json
import os
import socket
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from program import project


@dataclass(frozen=True)
class Lock:
    """Who holds a stack. alive: None where this machine cannot tell."""

    path: Path
    user: str
    host: str
    process: int
    since: datetime
    alive: bool | None

    def describe(self) -> str:
        """The lock, for people."""
        state = {True: "it is running", False: "it has ended", None: "whether it runs is unknown"}
        since = self.since.strftime("%Y-%m-%d %H:%M:%S UTC")
        return (
            f"process {self.process} of {self.user}@{self.host} since {since}; {state[self.alive]}"
        )


def lock_of(stack: str) -> Lock | None:
    """Who holds a stack; None if nobody, or if the backend is not a folder of this machine.

    The file is Pulumi's (pkg/backend/diy/lock.go): it has no end, so a killed run leaves it.
    """
    folder = project.backend_folder()
    if folder is None:
        return None
    locks = folder / ".pulumi" / "locks" / "organization" / project.NAME / stack
    for path in sorted(locks.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            return _read(path)
    return None


def _read(path: Path) -> Lock:
    document = json.loads(path.read_text())
    alive = None
    if document["hostname"] == socket.gethostname():
        alive = _is_pulumi(int(document["pid"]))
    return Lock(
        path=path,
        user=document["username"],
        host=document["hostname"],
        process=int(document["pid"]),
        since=datetime.fromisoformat(document["timestamp"]),
        alive=alive,
    )


def _is_pulumi(process: int) -> bool:
    """Whether a process is a Pulumi CLI: numbers are used again."""
    try:
        os.kill(process, 0)
        program = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0]
        return Path(os.fsdecode(program)).name == "pulumi"
    except PermissionError:
        return True
    except (ProcessLookupError, FileNotFoundError):
        return False
