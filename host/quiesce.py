"""Stopping a unit for a while, so that it runs again whatever becomes of this process."""

import contextlib
from typing import Iterator

from host import command, unit
from host.errors import HostError

TIMER = "epibackup-start-"


@contextlib.contextmanager
def stopped(name: str, limit_seconds: int, run: str) -> Iterator[None]:
    """Stop a unit while the block runs, and start it again in every case.

    A timer of systemd starts it after `limit_seconds`, counted from before it is stopped, even if
    this process is killed. A unit that was not active is left alone, and has no timer.

    run: named in the timer's description.
    Raises HostError if the unit does not start again (the timer is left to try once more), or if
    it was started while the block ran: what the block copied is then not to be trusted.
    """
    if not unit.is_active(name):
        yield
        return
    arm(name, limit_seconds, run)
    try:
        unit.stop(name)
        since = stopped_since(name)
        yield
        if stopped_since(name) != since:
            raise HostError(
                "%s was started again before the copy of its data was complete" % name,
                "give it more time than %d seconds, or see what else starts it" % limit_seconds,
            )
    finally:
        start(name)
        disarm(name)


def stopped_since(name: str) -> str:
    """When a unit became inactive, in microseconds since boot; empty while it is not."""
    shown = command.run(
        ["systemctl", "show", "--property=ActiveState,InactiveEnterTimestampMonotonic", "--", name]
    )
    known = dict(line.partition("=")[::2] for line in shown.stdout.splitlines())
    if known.get("ActiveState") not in ("inactive", "failed"):
        return ""
    return known.get("InactiveEnterTimestampMonotonic", "")


def start(name: str) -> None:
    """Start a unit and wait until systemd calls it started.

    Raises HostError with its last log lines if it does not start.
    """
    command.run(["systemctl", "reset-failed", "--", name], check=False)
    started = command.run(["systemctl", "start", "--", name], check=False)
    if started.code == 0 and unit.is_active(name):
        return
    said = unit.last_log(name) or command.last_lines(started.stderr)
    raise HostError(
        "%s did not start again: %s" % (name, said),
        "look at journalctl --unit %s" % name,
    )


def arm(name: str, limit_seconds: int, run: str) -> None:
    """Have systemd start a unit in `limit_seconds`, whoever lives then.

    Without --collect, which systemd has since version 236 only: `disarm` cleans up instead.
    """
    disarm(name)
    command.run(
        [
            *("systemd-run", "--unit=" + timer(name)),
            "--description=Start %s again after run %s of epibackup" % (name, run),
            "--on-active=%ds" % limit_seconds,
            "--timer-property=AccuracySec=1s",
            *("systemctl", "start", "--", name),
        ]
    )


def disarm(name: str) -> None:
    """Forget the timer of a unit, if there is one; a start that it has begun goes on."""
    command.run(["systemctl", "stop", "--", timer(name) + ".timer"], check=False)
    both = [timer(name) + ".timer", timer(name) + ".service"]
    command.run(["systemctl", "reset-failed", "--", *both], check=False)


def timer(name: str) -> str:
    """The name of a unit's timer, without its suffix."""
    return TIMER + (name[: -len(".service")] if name.endswith(".service") else name)
