"""What a command writes: kept whole for the outputs, and shown line by line while it runs."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

STDOUT = "stdout"
STDERR = "stderr"
_SHOWN_STREAMS = {
    None: (STDOUT, STDERR),
    "stdoutAndStderr": (STDOUT, STDERR),
    STDOUT: (STDOUT,),
    STDERR: (STDERR,),
}

# A line is shown up to this length. The official provider stops reading, for good, at 64 KiB.
_LONGEST_LINE_BYTES = 16 * 1024
# Lines come one a message, as long as the display keeps up; then several share one.
_LATE_AFTER_LINES = 100
_LARGEST_MESSAGE_CHARACTERS = 64 * 1024


class Capture:
    """Collects both streams of a command."""

    def __init__(self, logging: str | None, show: Callable[[str], Awaitable[None]]) -> None:
        """
        :param logging: which streams are shown: the input of that name.
        :param show: shows a text; it is awaited before the next.
        """
        self._shown = _SHOWN_STREAMS.get(logging, ())
        self._show = show
        self._chunks: list[tuple[str, bytes]] = []
        self._begun: dict[str, bytearray] = {STDOUT: bytearray(), STDERR: bytearray()}
        self._lines: deque[str] = deque()
        self._more = asyncio.Event()
        self._ended = False
        self._shower = asyncio.create_task(self._show_lines())

    def feed(self, stream: str, data: bytes) -> None:
        """Take what a stream brought."""
        self._chunks.append((stream, data))
        if stream not in self._shown:
            return
        *whole, rest = data.split(b"\n")
        begun = self._begun[stream]
        for part in whole:
            self._extend(begun, part)
            self._line(begun)
            begun.clear()
        self._extend(begun, rest)

    async def end(self) -> None:
        """Show what is left, and return when all is shown."""
        for stream in self._shown:
            if self._begun[stream]:
                self._line(self._begun[stream])
        self._ended = True
        self._more.set()
        await self._shower

    def text(self, *streams: str) -> str:
        """Return what these streams brought, in the order in which it came."""
        wanted = b"".join(data for stream, data in self._chunks if stream in streams)
        return wanted.decode(errors="replace")

    def outputs(self) -> dict[str, str]:
        """Return both streams as outputs, without the newline at their ends."""
        return {stream: self.text(stream).removesuffix("\n") for stream in (STDOUT, STDERR)}

    @staticmethod
    def _extend(begun: bytearray, part: bytes) -> None:
        """Keep one byte more than is shown, to know that there was more."""
        begun += part[: _LONGEST_LINE_BYTES + 1 - len(begun)]

    def _line(self, line: bytearray) -> None:
        text = bytes(line[:_LONGEST_LINE_BYTES]).decode(errors="replace").removesuffix("\r")
        self._lines.append(text + " …" if len(line) > _LONGEST_LINE_BYTES else text)
        self._more.set()

    async def _show_lines(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._lines:
                await self._show(self._next_message())
            if self._ended:
                return

    def _next_message(self) -> str:
        message = self._lines.popleft()
        if len(self._lines) < _LATE_AFTER_LINES:
            return message
        together = [message]
        room = _LARGEST_MESSAGE_CHARACTERS - len(message)
        while self._lines and len(self._lines[0]) < room:
            together.append(self._lines.popleft())
            room -= len(together[-1]) + 1
        return "\n".join(together)
