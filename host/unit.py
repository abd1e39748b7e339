"""systemd units of the services on a host."""

import os
import re
import time
from typing import Callable, Dict, List, Optional

from host import command
from host.errors import HostError

START_SECONDS = 60
"""How long a service may take to come up before a restore is rolled back."""


def properties(unit: str) -> Dict[str, str]:
    """A unit's state, files and commands, by systemd's names."""
    names = "LoadState,ActiveState,MainPID,FragmentPath,DropInPaths,User,ExecStart,EnvironmentFiles"
    shown = command.run(["systemctl", "show", "--property=" + names, "--", unit])
    return dict(line.partition("=")[::2] for line in shown.stdout.splitlines() if "=" in line)


def exists(unit: str) -> bool:
    """Whether systemd knows the unit."""
    return properties(unit).get("LoadState") == "loaded"


def is_active(unit: str) -> bool:
    """Whether the unit is running now."""
    return properties(unit).get("ActiveState") == "active"


def files(unit: str) -> List[str]:
    """The unit's own file and drop-ins."""
    known = properties(unit)
    paths = [known.get("FragmentPath", ""), *known.get("DropInPaths", "").split()]
    return [path for path in paths if path]


def environment_files(unit: str) -> List[str]:
    """The environment files that the unit names and that are there."""
    listed = properties(unit).get("EnvironmentFiles", "")
    return [path for path in re.findall(r"(/\S+) \(", listed) if os.path.isfile(path)]


def names(*patterns: str) -> List[str]:
    """The installed units that match shell patterns; templates are left out."""
    argv = ["systemctl", "list-unit-files", "--no-legend", "--no-pager", "--", *patterns]
    listed = command.run(argv, check=False).stdout.splitlines()
    found = [line.split()[0] for line in listed if line.strip()]
    return [name for name in found if "@." not in name]


def of_process(process: int) -> Optional[str]:
    """The service unit a process runs in, by its control group; None if in none."""
    with open("/proc/%d/cgroup" % process) as stream:
        for line in stream:
            number, controllers, path = line.rstrip("\n").split(":", 2)
            if number == "0" or controllers == "name=systemd":
                for part in reversed(path.split("/")):
                    if part.endswith(".service"):
                        return part
    return None


def stop(unit: str) -> None:
    """Stop a unit and wait for it; raises HostError if it can't be stopped."""
    command.run(["systemctl", "stop", "--", unit])


def kill(unit: str) -> None:
    """End a unit at once, whatever it is doing; it is not started again."""
    command.run(["systemctl", "stop", "--no-block", "--", unit], check=False)
    command.run(["systemctl", "kill", "--signal=KILL", "--", unit], check=False)
    command.run(["systemctl", "stop", "--", unit], check=False)


def reload(unit: str) -> None:
    """Have a running unit read its configuration again."""
    command.run(["systemctl", "reload", "--", unit])


def restart(
    unit: str,
    answers: Optional[Callable[[], bool]] = None,
    timeout_seconds: float = START_SECONDS,
) -> None:
    """Restart a unit and wait until it stays up and – if given – answers.

    Raises HostError with the unit's last log lines if it does not in that time.
    """
    command.run(["systemctl", "daemon-reload"])
    command.run(["systemctl", "reset-failed", "--", unit], check=False)
    restarted = command.run(["systemctl", "restart", "--", unit], check=False)
    deadline = time.monotonic() + timeout_seconds
    good = 0
    while restarted.code == 0 and time.monotonic() < deadline:
        state = properties(unit).get("ActiveState")
        good = good + 1 if state == "active" and (answers is None or answers()) else 0
        if good >= 3:
            return
        if state == "failed":
            break
        time.sleep(0.5)
    raise HostError("%s did not come up: %s" % (unit, last_log(unit)))


def last_log(unit: str) -> str:
    """The last lines of a unit's log, for an error; empty where there is none."""
    argv = ["journalctl", "--unit", unit, "-n", "8", "--no-pager", "-o", "cat"]
    return command.last_lines(command.run(argv, check=False).stdout)
