"""The Pulumi CLI as a child process that signals reach in good order."""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from typing import IO

from pulumi.automation import CommandResult, OnOutput, PulumiCommand
from pulumi.automation.errors import create_command_error
from semver import VersionInfo

from engine import Engine
from program.death import dying_with_parent


class PulumiProcess(PulumiCommand):
    """The CLI in a process group of its own: it gets a signal once, and only from `interrupt`.

    Run by the Automation API's own class, Ctrl-C would reach the CLI and this process at the
    same time, and this one would end while the CLI still works.
    """

    def __init__(self, chosen: Engine) -> None:
        # Not the parent's, which would ask `pulumi` for its version once more.
        self.command = str(chosen.pulumi)
        self.version = VersionInfo.parse(chosen.version)
        self._process: subprocess.Popen[str] | None = None
        self.was_interrupted = False

    def interrupt(self) -> None:
        """Ask the running CLI to stop: after the steps that run now; asked again, at once."""
        self.was_interrupted = True
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: OnOutput | None = None,
        on_error: OnOutput | None = None,
    ) -> CommandResult:
        """See PulumiCommand.run."""
        self._process = subprocess.Popen(
            # Killed with us: without its program, which runs here, it would only go on waiting.
            [*dying_with_parent(signal.SIGKILL), self.command, "--non-interactive", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env={**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true"},
            encoding="utf-8",
            start_new_session=True,
        )
        lines: tuple[list[str], list[str]] = ([], [])
        readers = [
            threading.Thread(target=_read, args=(stream, collected, callback))
            for stream, collected, callback in (
                (self._process.stdout, lines[0], on_output),
                (self._process.stderr, lines[1], on_error),
            )
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        code = self._process.wait()
        result = CommandResult(stdout="\n".join(lines[0]), stderr="\n".join(lines[1]), code=code)
        if code != 0:
            raise create_command_error(result)
        return result


def _read(stream: IO[str], collected: list[str], callback: OnOutput | None) -> None:
    for line in stream:
        collected.append(line.rstrip())
        if callback:
            callback(line.rstrip())
