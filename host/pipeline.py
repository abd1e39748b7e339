"""Programs connected by pipes, none of which may fail unnoticed."""

import contextlib
import fcntl
import signal
import subprocess
import tempfile
from typing import IO, Any, Dict, List, NamedTuple, Optional, Sequence

from host import command
from host.command import Program

F_SETPIPE_SZ = 1031
"""fcntl(2); the constant came to Python with 3.10."""

PIPE_BYTES = 1 << 20
"""Wide pipes save context switches; 1 MiB is what the kernel grants any user (pipe(7))."""


class Stage(NamedTuple):
    """A started program of a pipeline and the file that its errors go to."""

    argv: List[str]
    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]


class Pipeline:
    """Programs running at the same time, each reading what the one before it writes.

    stdin, stdout: open files, subprocess.PIPE or subprocess.DEVNULL for the two ends.
    input: the writable end, where stdin is PIPE.
    Raises HostError if a program is missing; those already started are ended.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        stdin: Any = subprocess.DEVNULL,
        stdout: Any = subprocess.DEVNULL,
        directory: Optional[str] = None,
        extra_environment: Optional[Dict[str, str]] = None,
    ) -> None:
        self._stages: List[Stage] = []
        source = stdin
        try:
            for position, program in enumerate(programs):
                last = position == len(programs) - 1
                errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by finish
                process = command.start(
                    program,
                    stdin=source,
                    stdout=stdout if last else subprocess.PIPE,
                    stderr=errors,
                    directory=directory,
                    extra_environment=extra_environment,
                )
                self._stages.append(Stage(program.argv, process, errors))
                if position > 0:
                    source.close()
                source = process.stdout
                if process.stdout and not last:
                    widen(process.stdout)
        except BaseException:
            self.end()
            raise
        self.input = self._stages[0].process.stdin

    def finish(self) -> None:
        """Close the input, wait for all programs; raises HostError for the one that failed."""
        if self.input:
            # Where its reader ended early, the exit codes below say why.
            with contextlib.suppress(BrokenPipeError):
                self.input.close()
        failures = []
        for stage in self._stages:
            code = stage.process.wait()
            if code != 0:
                stage.errors.seek(0)
                output = command.decode(stage.errors.read())
                failures.append((code, command.failed(stage.argv, code, output)))
            stage.errors.close()
        # A program whose reader died is killed by SIGPIPE: the reader is the one to blame.
        failures.sort(key=lambda failure: failure[0] == -signal.SIGPIPE)
        if failures:
            raise failures[0][1]

    def has_failed(self) -> bool:
        """Whether a program has ended with an error already."""
        return any(stage.process.poll() not in (None, 0) for stage in self._stages)

    def end(self) -> None:
        """Stop all programs, whatever they are doing."""
        for stage in self._stages:
            command.end(stage.process)


def widen(pipe: IO[bytes]) -> None:
    """Make a pipe hold `PIPE_BYTES`; where the kernel refuses, it stays as it is."""
    try:
        fcntl.fcntl(pipe.fileno(), F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        return
