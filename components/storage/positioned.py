"""Files of targets that read at any position."""

import abc
import errno
import io
from typing import Any


class PositionedFile(io.RawIOBase):
    """A file whose size is known and whose bytes are fetched by position; for a BufferedReader."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    @abc.abstractmethod
    def read_at(self, position: int, size: int) -> bytes | memoryview:
        """Bytes at a position: at least one, at most `size`, all of them in the file."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "a position before the beginning of the file")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        size = min(len(view), max(self._size - self._position, 0))
        if not size:
            return 0
        data = self.read_at(self._position, size)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
