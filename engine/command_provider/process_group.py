"""A local command in a process group of its own, that does not outlive this provider."""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from typing import Self

from engine.command_provider.capture import STDERR, STDOUT, Capture

_TERMINATION_SECONDS = 5.0
# A shell that waits for the end of a pipe whose other end only the provider holds. When that end is
# closed without a word the provider is gone, killed perhaps, and the group has to go as well.
_GUARD = 'read -r _ && exit; kill -s TERM -- "-$1"; sleep 3; kill -s KILL -- "-$1"'


class _Protocol(asyncio.SubprocessProtocol):
    """Feeds a capture, and tells when the process and both its streams have ended."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._open = {1: STDOUT, 2: STDERR}
        self._is_running = True
        self.ended = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._capture.feed(self._open[fd], data)

    def pipe_connection_lost(self, fd: int, _: Exception | None) -> None:
        if fd != 0:
            self._open.pop(fd, None)
            self._settle()

    def process_exited(self) -> None:
        self._is_running = False
        self._settle()

    def _settle(self) -> None:
        if not self._is_running and not self._open:
            self.ended.set()


class ProcessGroup:
    """A running command and all that it started, as far as it stayed in its process group."""

    def __init__(
        self,
        transport: asyncio.SubprocessTransport,
        protocol: _Protocol,
        guard: asyncio.subprocess.Process | None,
    ) -> None:
        self._transport = transport
        self._protocol = protocol
        self._guard = guard
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        arguments: Sequence[str],
        *,
        folder: str | None,
        environment: Mapping[str, str],
        stdin: bytes,
        capture: Capture,
    ) -> Self:
        """Start a command.

        :param arguments: program and arguments.
        :param folder: the working directory; None for that of the provider.
        :param environment: all of its environment.
        :param stdin: what it reads.
        :param capture: takes what it writes.
        :raises OSError: the program or the directory cannot be used.
        """
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(
            lambda: _Protocol(capture),
            *arguments,
            cwd=folder,
            env=environment,
            stdin=PIPE if stdin else DEVNULL,
            process_group=0,
        )
        if stdin:
            pipe = transport.get_pipe_transport(0)
            assert isinstance(pipe, asyncio.WriteTransport)  # noqa: S101 - for the type checker
            pipe.write(stdin)
            pipe.write_eof()
        return cls(transport, protocol, await _start_guard(transport.get_pid()))

    async def wait(self) -> int:
        """Wait until the command and both its streams have ended.

        As with the official provider, something that the command left in the background holds it
        up as long as it keeps one of the streams open.

        :returns: the exit code, or the negative number of the signal that ended it.
        """
        await self._protocol.ended.wait()
        await self._dismiss_guard()
        if self._ending:
            self._ending.cancel()
            # What it had started, and what did not end with it.
            self._signal(signal.SIGKILL)
        code = self._transport.get_returncode()
        self._transport.close()
        return -signal.SIGKILL if code is None else code

    def end(self) -> None:
        """Ask all processes of the group to end, and kill them when they do not in 5 s."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        self._signal(signal.SIGTERM)
        await asyncio.sleep(_TERMINATION_SECONDS)
        self._signal(signal.SIGKILL)
        # One that left the group may still hold a stream; it is not waited for.
        await asyncio.sleep(1)
        self._protocol.ended.set()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._transport.get_pid(), number)

    async def _dismiss_guard(self) -> None:
        if self._guard:
            with contextlib.suppress(ProcessLookupError):
                self._guard.kill()
            await self._guard.wait()


async def _start_guard(group: int) -> asyncio.subprocess.Process | None:
    try:
        return await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", _GUARD, "guard", str(group),
            stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, process_group=0,
        )  # fmt: skip
    except OSError:
        # No /bin/sh: the command runs all the same, as it would without a guard.
        return None
