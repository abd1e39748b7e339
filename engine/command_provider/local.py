"""`command:local:Command` and `command:local:run`: commands on this machine."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from engine.command_provider.capture import STDERR, STDOUT, Capture
from engine.command_provider.globbing import find_assets
from engine.command_provider.process_group import ProcessGroup
from engine.command_provider.redaction import failure_text, redactor_for
from engine.command_provider.values import Properties, archive, reveal
from engine.serving import Refusal

_INTERPRETER = ("/bin/sh", "-c")


@dataclass(frozen=True)
class Previous:
    """What the command before this one, of the same resource, wrote."""

    stdout: str = ""
    stderr: str = ""

    def variables(self) -> dict[str, str]:
        """Return the environment variables that hand it on."""
        named = {"PULUMI_COMMAND_STDOUT": self.stdout, "PULUMI_COMMAND_STDERR": self.stderr}
        return {name: text for name, text in named.items() if text}


class LocalCommands:
    """Runs local commands, and ends them when told."""

    def __init__(self) -> None:
        self._running: set[ProcessGroup] = set()
        self._is_ended = False

    async def run(
        self,
        command: str,
        inputs: Properties,
        *,
        previous: Previous,
        timeout_seconds: float,
        show: Callable[[str], Awaitable[None]],
    ) -> Properties:
        """Run a command and return the outputs that it adds to the inputs.

        :param command: its text.
        :param inputs: those of the resource, or the arguments of the function.
        :param previous: goes into the environment, unless the inputs say otherwise.
        :param timeout_seconds: ends the command after this time; 0 for no limit.
        :param show: shows a line of progress.
        :raises Refusal: it cannot be started, or does not exit with 0.
        """
        plain = reveal(inputs)
        redact = redactor_for(inputs)

        async def show_safely(text: str) -> None:
            await show(redact(text))

        capture = Capture(plain.get("logging"), show_safely)
        try:
            reason = await self._run(command, plain, previous, timeout_seconds, capture)
        finally:
            await capture.end()
        if reason:
            output = capture.text(STDOUT, STDERR)
            raise Refusal(redact(failure_text(reason, command, output)))
        return capture.outputs() | _files(plain)

    def end(self) -> None:
        """End the commands that run, for good: they get SIGTERM, and SIGKILL 5 s later."""
        self._is_ended = True
        for group in self._running:
            group.end()

    async def wait(self) -> None:
        """Wait until no command runs."""
        while self._running:
            await asyncio.sleep(0.02)

    async def _run(
        self,
        command: str,
        inputs: Properties,
        previous: Previous,
        timeout_seconds: float,
        capture: Capture,
    ) -> str:
        """Return why it failed, or nothing."""
        environment = {**os.environ, **inputs.get("environment", {})}
        if inputs.get("addPreviousOutputInEnv", True):
            environment |= previous.variables()
        try:
            group = await ProcessGroup.start(
                [*(inputs.get("interpreter") or _INTERPRETER), command],
                folder=inputs.get("dir"),
                environment=environment,
                stdin=inputs.get("stdin", "").encode(),
                capture=capture,
            )
        except (OSError, ValueError) as error:
            return str(error)
        self._running.add(group)
        if self._is_ended:
            group.end()
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(timeout_seconds, group.end) if timeout_seconds else None
        try:
            code = await group.wait()
        except asyncio.CancelledError:
            # The engine does not want to know any more.
            group.end()
            raise
        finally:
            self._running.discard(group)
            if alarm:
                alarm.cancel()
        if code < 0:
            return f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"
        return f"exit status {code}" if code else ""


def _files(inputs: Properties) -> Properties:
    """Return the outputs `assets` and `archive`, where they are asked for."""
    folder = Path(inputs.get("dir") or "").absolute()
    outputs: Properties = {}
    try:
        if "assetPaths" in inputs:
            outputs["assets"] = find_assets(folder, inputs["assetPaths"])
        if "archivePaths" in inputs:
            outputs["archive"] = archive(find_assets(folder, inputs["archivePaths"]))
    except (OSError, ValueError) as error:
        raise Refusal(str(error)) from error
    return outputs
