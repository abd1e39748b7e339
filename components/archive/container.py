"""Writing the container: zip with stored entries, or tar.gz of the same tree.

Both are written strictly in order, so that any target can take them, and keep no more in
memory than the entry at hand.
"""

import abc
import gzip
import io
import tarfile
import zipfile
from datetime import UTC, datetime
from typing import Any, cast

from components.storage.target import Upload

SUFFIXES = {"zip": ".zip", "tar.gz": ".tar.gz"}


class ContainerWriter(abc.ABC):
    """A container being written."""

    @abc.abstractmethod
    def add(self, path: str, data: bytes | memoryview) -> None:
        """Append one file."""

    @abc.abstractmethod
    def close(self) -> None:
        """Write what a container has at its end; the upload stays open."""


class ZipContainer(ContainerWriter):
    """A zip whose entries are stored as they are; zip64 where it is needed."""

    def __init__(self, upload: Upload, started: datetime) -> None:
        self._file = _InOrder(upload)
        self._zip = zipfile.ZipFile(
            cast(Any, self._file), "w", compression=zipfile.ZIP_STORED, allowZip64=True
        )
        self._time = started.astimezone(UTC).timetuple()[:6]

    def add(self, path: str, data: bytes | memoryview) -> None:
        entry = zipfile.ZipInfo(path, date_time=cast(Any, self._time))
        entry.external_attr = 0o100600 << 16
        # writestr takes any buffer, though its annotation says bytes.
        self._zip.writestr(entry, cast(bytes, data))
        self._file.settle()

    def close(self) -> None:
        self._zip.close()
        self._file.settle()


class TarGzContainer(ContainerWriter):
    """A tar.gz. Its entries are compressed already, so gzip only wraps them (level 0)."""

    def __init__(self, upload: Upload, started: datetime) -> None:
        self._gzip = gzip.GzipFile(
            filename="", mode="wb", compresslevel=0, fileobj=_Writable(upload), mtime=0
        )
        self._tar = tarfile.open(fileobj=self._gzip, mode="w|")  # noqa: SIM115 - see close
        self._time = int(started.timestamp())

    def add(self, path: str, data: bytes | memoryview) -> None:
        entry = tarfile.TarInfo(path)
        entry.size = len(data)
        entry.mode = 0o600
        entry.mtime = self._time
        self._tar.addfile(entry, io.BytesIO(data))

    def close(self) -> None:
        self._tar.close()
        self._gzip.close()


class _Writable(io.RawIOBase):
    """An upload as a file that can only be appended to."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._upload.write(data)
        return len(memoryview(data))


class _InOrder:
    """A file for `zipfile` that lets it go back and complete the entry it has just written.

    zipfile writes an entry's header before it knows the checksum, and again afterwards; on a
    file that cannot seek it would put the checksum behind the data, which some tools refuse
    for stored entries. So the entry at hand is held back until it is settled.
    """

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._settled = 0
        self._held: list[bytes | memoryview] = []
        self._position = 0
        self._end = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or position < self._settled:
            raise io.UnsupportedOperation("only the entry at hand can be changed")
        self._position = position
        return position

    def write(self, data: bytes | memoryview) -> int:
        size = len(data)
        if self._position == self._end:
            self._held.append(data)
            self._end += size
        elif self._position == self._settled and size == len(self._held[0]):
            self._held[0] = data
        else:
            raise io.UnsupportedOperation("only an entry's header can be written again")
        self._position += size
        return size

    def flush(self) -> None:
        """Nothing is buffered here but the entry at hand."""

    def settle(self) -> None:
        """Hand the entry at hand to the upload."""
        for held in self._held:
            self._upload.write(held)
            self._settled += len(held)
        self._held = []


def container_writer(kind: str, upload: Upload, started: datetime) -> ContainerWriter:
    """The writer for a format: zip or tar.gz."""
    writers: dict[str, type[ZipContainer] | type[TarGzContainer]] = {
        "zip": ZipContainer,
        "tar.gz": TarGzContainer,
    }
    return writers[kind](upload, started)
