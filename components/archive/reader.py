"""Reading an archive: its manifest, its members, and whether all of it is intact."""

import abc
import gzip
import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, ClassVar, Self

from components.archive import manifest as manifest_module
from components.archive.manifest import Manifest, Member, Part, read_manifest
from components.errors import EpibackupError, VerificationFailed
from components.storage.target import Target

CHUNK_BYTES = 1 << 20
READERS = 4
"""How many places of an archive are checked at the same time, where it has random access."""

DAMAGE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


class ArchiveReader(abc.ABC):
    """An archive that is open for reading; used as a context manager.

    All methods raise VerificationFailed where the archive is damaged or cut.
    """

    random_access: ClassVar[bool]

    def __init__(self, target: Target, name: str, file: BinaryIO) -> None:
        self.target = target
        self.name = name
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @abc.abstractmethod
    def paths(self) -> list[str]:
        """The names of all stored files, in the order they are stored in."""

    @abc.abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Open one stored file."""

    def manifest_bytes(self) -> bytes:
        """The manifest as it is stored."""
        return self.stored_bytes(manifest_module.PATH)

    def stored_bytes(self, path: str) -> bytes:
        """A stored file that is small, such as the manifest."""
        with self._intact(), self.open(path) as stream:
            data = stream.read(manifest_module.LARGEST_BYTES + 1)
        if len(data) > manifest_module.LARGEST_BYTES:
            raise VerificationFailed(f"{path} in {self.name} is too large to be real")
        return data

    def manifest(self) -> Manifest:
        """The manifest; raises UsageError for a newer format."""
        return read_manifest(self.manifest_bytes())

    def chunks(self, member: Member) -> Iterator[bytes]:
        """A member's stored bytes, each part checked before the next begins."""
        for part in member.parts:
            yield from self.part_chunks(part)

    def part_chunks(self, part: Part) -> Iterator[bytes]:
        """A stored file's bytes; raises VerificationFailed at its end if they are not its own."""
        digest = hashlib.sha256()
        size = 0
        with self._intact(), self.open(part.path) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                yield chunk
        if size != part.bytes or digest.hexdigest() != part.sha256:
            raise VerificationFailed(
                f"{part.path} in {self.name} is damaged: it is not what was stored",
                "restore another run; epibackup list shows them",
            )

    def _intact(self) -> "_Intact":
        return _Intact(self.name)


class _Intact:
    """Turns the libraries' errors about damaged files into ours."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, EpibackupError):
            return
        if isinstance(error, (*DAMAGE, KeyError, OSError, ValueError)):
            raise VerificationFailed(
                f"the archive {self._name} is damaged or cut: {error}",
                "restore another run; epibackup list shows them",
            ) from error


class _Zip(ArchiveReader):
    random_access = True

    def __init__(self, target: Target, name: str, file: BinaryIO) -> None:
        super().__init__(target, name, file)
        with self._intact():
            self._zip = zipfile.ZipFile(file)

    def paths(self) -> list[str]:
        return self._zip.namelist()

    def open(self, path: str) -> BinaryIO:
        return self._zip.open(path)  # type: ignore[return-value]  # ZipExtFile is a BinaryIO


class _TarGz(ArchiveReader):
    """Has no directory: finding anything means reading from the beginning."""

    random_access = False

    def __init__(self, target: Target, name: str, file: BinaryIO) -> None:
        super().__init__(target, name, file)
        with self._intact():
            stream = gzip.GzipFile(fileobj=file, mode="rb")
            self._tar = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115
            self._entries = {entry.name: entry for entry in self._tar if entry.isfile()}
            while stream.read(CHUNK_BYTES):  # tarfile stops early; gzip's checksum is at the end
                pass

    def paths(self) -> list[str]:
        return list(self._entries)

    def open(self, path: str) -> BinaryIO:
        stream = self._tar.extractfile(self._entries[path])
        if stream is None:
            raise KeyError(path)
        return stream  # type: ignore[return-value]  # an ExFileObject is a BinaryIO


def open_archive(target: Target, name: str) -> ArchiveReader:
    """Open an archive on a target; raises NotFound, TargetUnreachable or VerificationFailed."""
    file = target.open(name)
    try:
        kind = _Zip if name.endswith(".zip") else _TarGz
        return kind(target, name, file)
    except BaseException:
        file.close()
        raise


def verify(
    reader: ArchiveReader,
    told: Callable[[int], None],
    whole: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Read a whole archive and check that everything its manifest names is there and intact.

    told: called with the size of each piece that was checked, in bytes, from several threads.
    whole: stored files as they were sent, such as the manifest itself and RESTORE.md, by path.
    Raises VerificationFailed, TargetUnreachable.
    """
    for path, data in (whole or {}).items():
        if reader.stored_bytes(path) != data:
            raise VerificationFailed(f"{path} in {reader.name} is not what was stored")
    found = reader.manifest()
    order = {path: position for position, path in enumerate(reader.paths())}
    parts = [part for member in found.members() for part in member.parts]
    for part in parts:
        if part.path not in order:
            raise VerificationFailed(f"{part.path} is missing in {reader.name}")
    parts.sort(key=lambda part: order[part.path])
    if not reader.random_access:
        _check(reader, parts, told)
        return found

    def check(share: Sequence[Part]) -> None:
        with open_archive(reader.target, reader.name) as own:
            _check(own, share, told)

    size = -(-len(parts) // READERS) or 1
    with ThreadPoolExecutor(READERS) as pool:
        shares = [parts[start : start + size] for start in range(0, len(parts), size)]
        for _ in pool.map(check, shares):
            pass
    return found


def _check(reader: ArchiveReader, parts: Sequence[Part], told: Callable[[int], None]) -> None:
    for part in parts:
        for chunk in reader.part_chunks(part):
            told(len(chunk))
