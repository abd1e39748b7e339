"""The processes that the language host starts."""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.serving import Refusal

STDOUT = "stdout"
STDERR = "stderr"
_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True)
class Command:
    """What to start, and where."""

    arguments: Sequence[str | Path]
    folder: str | Path | None
    environment: Mapping[str, str]


class Children:
    """Starts processes, each in a process group of its own, and ends them when told."""

    def __init__(self) -> None:
        self._running: set[asyncio.subprocess.Process] = set()

    async def run(self, command: Command) -> int:
        """Run a command that writes straight to the CLI, and return its exit code.

        :returns: the code, or the negative number of the signal that ended it.
        :raises Refusal: it cannot be started.
        """
        process = await self._start(command, None)
        try:
            return await process.wait()
        finally:
            await self._finish(process)

    async def stream(self, command: Command) -> AsyncIterator[tuple[str, bytes] | int]:
        """Run a command and yield what it writes, with the stream's name, and its exit code last.

        It is ended when the caller stops listening.

        :raises Refusal: it cannot be started.
        """
        process = await self._start(command, PIPE)
        parts: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(maxsize=64)

        async def read(name: str, reader: asyncio.StreamReader | None) -> None:
            while reader and (part := await reader.read(64 * 1024)):
                await parts.put((name, part))
            await parts.put(None)

        readers = [
            asyncio.create_task(read(STDOUT, process.stdout)),
            asyncio.create_task(read(STDERR, process.stderr)),
        ]
        try:
            unfinished = len(readers)
            while unfinished:
                part = await parts.get()
                if part is None:
                    unfinished -= 1
                else:
                    yield part
            yield await process.wait()
        finally:
            for reader in readers:
                reader.cancel()
            await self._finish(process)

    async def output(self, command: Command) -> str:
        """Run a command to its end and return what it wrote to stdout.

        :raises Refusal: it cannot be started or does not exit with 0.
        """
        written = {STDOUT: b"", STDERR: b""}
        code: int = 0
        async for part in self.stream(command):
            if isinstance(part, int):
                code = part
            else:
                written[part[0]] += part[1]
        if code:
            name = " ".join(map(str, command.arguments[:3]))
            errors = written[STDERR].decode(errors="replace").strip()
            raise Refusal(f"`{name} …` failed: {exit_text(code)}\n{errors}".strip())
        return written[STDOUT].decode(errors="replace")

    async def interrupt(self) -> None:
        """End all processes: they get SIGINT, and SIGKILL 2 s later."""
        running = list(self._running)
        for process in running:
            _signal(process, signal.SIGINT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                for process in running:
                    await process.wait()
        for process in running:
            _signal(process, signal.SIGKILL)

    async def _start(self, command: Command, output: int | None) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                *command.arguments,
                cwd=command.folder,
                env=dict(command.environment),
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        except OSError as error:
            raise Refusal(f"cannot run {command.arguments[0]}: {error}") from error
        self._running.add(process)
        return process

    async def _finish(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            _signal(process, signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), _PATIENCE_SECONDS)
            except TimeoutError:
                _signal(process, signal.SIGKILL)
        self._running.discard(process)


def exit_text(code: int) -> str:
    """Say in words how a process ended."""
    if code < 0:
        return f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"
    return f"exit status {code}"


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
