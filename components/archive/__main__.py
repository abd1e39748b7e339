"""The archive process: a request on standard input, the result on standard output.

It is run by Pulumi's `local.Command` (components.archive.component). Progress goes to standard
error. An error is told there too, and as JSON to the file named by --error-file, because Pulumi
passes on only text.
"""

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from components.archive.making import make_archive
from components.archive.request import LARGEST_BYTES, ArchiveRequest
from components.errors import EpibackupError, Interrupted, UsageError
from components.outcome import write_error


def say(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def end_with_parent() -> None:
    """End when the process that started this one is gone, however it went.

    A Pulumi provider that is killed leaves its children running; an archive that nobody waits
    for must not be published.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def interrupt(number: int, _: FrameType | None) -> None:
    """Turn a signal into an exception, so that nothing half-written stays."""
    raise Interrupted(f"the archive process was ended by {signal.Signals(number).name}")


def main(argv: list[str]) -> int:
    """Make the archive; returns the exit code."""
    parser = argparse.ArgumentParser(prog="epibackup-archive")
    parser.add_argument("--run", required=True)
    parser.add_argument("--error-file", type=Path, required=True)
    arguments = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupt)
    end_with_parent()
    arguments.error_file.unlink(missing_ok=True)
    try:
        data = sys.stdin.buffer.read(LARGEST_BYTES + 1)
        if len(data) > LARGEST_BYTES:
            raise UsageError("the request is too large")
        result = make_archive(ArchiveRequest.model_validate_json(data), say)
    except EpibackupError as error:
        write_error(arguments.error_file, error)
        say(f"error: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        return error.exit_code
    sys.stdout.write(result.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
