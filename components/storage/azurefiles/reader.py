"""Reading a file of a share: by ranges, at any position, ahead of who reads in order."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from azure.core.exceptions import HttpResponseError
from azure.storage.fileshare import ShareFileClient

from components.storage.azurefiles.problems import broke_off
from components.storage.azurefiles.service import RANGE_BYTES
from components.storage.positioned import PositionedFile

FIRST_BYTES = 256 << 10
"""How much is fetched where reading begins: enough for what is small, cheap where it was a jump."""

AHEAD = 2
"""Ranges under way while a reader takes what came before them. An archive is checked at four places
at the same time (components.archive.reader.READERS), which makes eight requests at once."""

Fetch = Callable[[int, int], bytes]


def fetch_range(
    file: ShareFileClient, start: int, length: int, retries: int
) -> tuple[bytes, str | None]:
    """A range of a file, and the ETag of the file that it is of; raises the SDK's errors.

    The SDK sends a request again, but does not go on where an answer breaks off. So the range is
    asked for again, which waits and gives up as every request does.
    """
    while True:
        try:
            answer = file.download_file(start, length)
            return bytes(answer.readall()), answer.properties.etag
        except HttpResponseError as error:
            if not broke_off(error) or not retries:
                raise
            retries -= 1


class RangedFile(PositionedFile):
    """A file that is fetched in ranges; memory is AHEAD and one of them.

    fetch: gets so many bytes from a position.
    """

    def __init__(self, size: int, fetch: Fetch) -> None:
        super().__init__(size)
        self._fetch = fetch
        self._start = 0
        self._data = b""
        self._ahead: deque[tuple[int, Future[bytes]]] = deque()
        self._next = 0
        self._pool: ThreadPoolExecutor | None = None

    def read_at(self, position: int, size: int) -> bytes:
        """See PositionedFile."""
        if not self._has(position):
            self._find(position)
        offset = position - self._start
        return self._data[offset : offset + size]

    def close(self) -> None:
        """End it; ranges under way are given up."""
        if not self.closed:
            self._forget()
            if self._pool:
                self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()

    def _has(self, position: int) -> bool:
        return self._start <= position < self._start + len(self._data)

    def _find(self, position: int) -> None:
        """Get the range that has a position."""
        if self._ahead and self._ahead[0][0] <= position < self._next:
            while not self._has(position):
                self._take_next()
        elif self._data and position == self._start + len(self._data):
            self._forget()
            self._next = position
            self._fill()
            self._take_next()
        else:
            self._forget()
            self._data = self._fetch(position, min(FIRST_BYTES, self._size - position))
            self._start = position

    def _take_next(self) -> None:
        start, future = self._ahead.popleft()
        self._data = future.result()
        self._start = start
        self._fill()

    def _fill(self) -> None:
        """Keep AHEAD ranges under way."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(AHEAD)
        while self._next < self._size and len(self._ahead) < AHEAD:
            length = min(RANGE_BYTES, self._size - self._next)
            self._ahead.append((self._next, self._pool.submit(self._fetch, self._next, length)))
            self._next += length

    def _forget(self) -> None:
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()
