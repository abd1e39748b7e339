"""Our own processes that Pulumi's `local.Command` runs: a request on standard input, the result on
standard output, progress on standard error."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from components.errors import Interrupted, UsageError

Say = Callable[[str], None]

LARGEST_BYTES = 64 << 20
"""A request larger than this is refused."""


def say(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def read_request() -> bytes:
    """The request; raises UsageError if it is too large."""
    data = sys.stdin.buffer.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise UsageError("the request is too large")
    return data


def end_with_parent() -> None:
    """End when the process that started this one is gone, however it went.

    A Pulumi provider that is killed leaves its children running; what nobody waits for, such as
    an archive, must not come about.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def end_in_good_order(what: str) -> None:
    """Turn the signals that end a process into exceptions, so that nothing half-done stays.

    what: what is ended, for the message.
    """

    def interrupt(number: int, _: FrameType | None) -> None:
        raise Interrupted(f"{what} was ended by {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupt)
