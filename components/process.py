"""Our own processes that Pulumi's `local.Command` runs: a request on standard input, the result on
standard output, progress on standard error."""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from pydantic import BaseModel

from components.errors import EpibackupError, Interrupted, UsageError
from components.outcome import write_error

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


def answer(argv: list[str], name: str, work: Callable[[bytes], BaseModel]) -> int:
    """Answer the request with what `work` makes of it; returns the exit code.

    argv: --run, which is there for Pulumi to see a new run, and --error-file: an error goes there,
    too, because Pulumi passes on only text. name: such as archive.
    """
    parser = argparse.ArgumentParser(prog=f"epibackup-{name}")
    parser.add_argument("--run", required=True)
    parser.add_argument("--error-file", type=Path, required=True)
    error_file: Path = parser.parse_args(argv).error_file
    end_in_good_order(f"the {name} process")
    end_with_parent()
    error_file.unlink(missing_ok=True)
    try:
        made = work(read_request())
    except EpibackupError as error:
        write_error(error_file, error)
        say(f"error: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        return error.exit_code
    sys.stdout.write(made.model_dump_json())
    return 0


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
