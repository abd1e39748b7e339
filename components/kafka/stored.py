"""Topics in an archive: which replicas are read, and how, and what consumer groups had read."""

import contextlib
import gzip
import io
import itertools
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import zstandard

from components.archive.manifest import HostRecord, Member
from components.archive.reader import ArchiveReader
from components.errors import NotFound, VerificationFailed
from components.kafka.proof import SavedBroker, described, replicas
from components.kafka.records import Segment

SavedOn = tuple[HostRecord, SavedBroker]
Wanted = TypeVar("Wanted")

LARGEST_GROUPS_BYTES = 1 << 30
STREAM_BYTES = 1 << 20

LOG_FILE = re.compile(r"(?:\./)?[^/]+/(?P<topic>[^/]+)-(?P<partition>\d+)/(?P<base>\d{20})\.log")

DAMAGE = (tarfile.TarError, zstandard.ZstdError, zlib.error, gzip.BadGzipFile, EOFError, ValueError)


@dataclass(frozen=True)
class Source:
    """The replica of a partition that is read, and what the manifest says of it."""

    record: HostRecord
    start: int
    end: int
    bytes: int


def sources(brokers: Sequence[SavedOn], names: Sequence[str]) -> dict[str, dict[int, Source]]:
    """The replica to read of each partition of topics: one with the highest end, from few hosts.

    Raises NotFound where none was saved.
    """
    best: dict[tuple[str, int], dict[str, Source]] = {}
    for name in names:
        for partition in _partitions(brokers, name):
            copies = [
                copy
                for copy in replicas(brokers, name)
                if copy.saved.partition == partition and members(copy.host, {name})
            ]
            end = max((copy.saved.end for copy in copies), default=0)
            best[name, partition] = {
                copy.host.host: Source(copy.host, copy.saved.start, end, copy.saved.bytes)
                for copy in copies
                if copy.saved.end == end
            }
    missing = [f"{name}-{partition}" for (name, partition), found in best.items() if not found]
    if missing:
        raise NotFound(
            f"the run does not have all of it: {', '.join(missing)}",
            "the brokers that hold these partitions were not saved; restore another run",
        )
    chosen: dict[str, dict[int, Source]] = {name: {} for name in names}
    while best:
        count: dict[str, int] = {}
        for found in best.values():
            for host in found:
                count[host] = count.get(host, 0) + 1
        host = max(sorted(count), key=lambda name: count[name])
        for name, partition in [key for key, found in best.items() if host in found]:
            chosen[name][partition] = best.pop((name, partition))[host]
    return chosen


def _partitions(brokers: Sequence[SavedOn], name: str) -> list[int]:
    """All partitions; those of brokers that were not saved are known by the assignment."""
    held = {copy.saved.partition for copy in replicas(brokers, name)}
    held |= set(described(brokers, name).assignment or {})
    return list(range(max(held) + 1)) if held else []


def members(record: HostRecord, names: set[str]) -> list[Member]:
    """A host's members that hold log files of topics."""
    return [
        member
        for member in record.members
        if member.kind == "tree" and names & set(member.content.get("parts", ()))
    ]


def group_offsets(
    reader: ArchiveReader, brokers: Sequence[SavedOn], names: Sequence[str]
) -> dict[str, dict[str, dict[int, tuple[int, str]]]] | None:
    """Committed offsets and their metadata by group, topic and partition; None is unknown.

    Of several brokers the newest commit holds.
    """
    newest: dict[tuple[str, str, int], tuple[int, int, str]] = {}
    stored = [m for r, _ in brokers for m in r.members if m.content.get("groups")]
    for member in stored:
        for key, value in _group_entries(reader, member):
            if key[1] in names and value[0] >= newest.get(key, (-1,))[0]:
                newest[key] = value
    found: dict[str, dict[str, dict[int, tuple[int, str]]]] = {}
    for (group, topic, partition), (_, offset, metadata) in sorted(newest.items()):
        found.setdefault(group, {}).setdefault(topic, {})[partition] = (offset, metadata)
    return found if stored else None


def _group_entries(
    reader: ArchiveReader, member: Member
) -> Iterator[tuple[tuple[str, str, int], tuple[int, int, str]]]:
    """Group, topic and partition; commit's time, offset and metadata."""
    with _undamaged(reader, member), _unpacked(reader, member) as stream:
        data = stream.read(LARGEST_GROUPS_BYTES + 1)
        if len(data) > LARGEST_GROUPS_BYTES:
            raise ValueError("it is too large to be real")
        try:
            for group, topics in json.loads(data).items():
                for topic, partitions in topics.items():
                    for partition, (offset, metadata, committed_at) in partitions.items():
                        key = (str(group), str(topic), int(partition))
                        yield key, (int(committed_at), int(offset), str(metadata or ""))
        except (AttributeError, TypeError) as error:
            raise ValueError(f"it does not have offsets of groups: {error}") from error


class _Chunks(io.RawIOBase):
    """A member's stored bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


@contextlib.contextmanager
def _undamaged(reader: ArchiveReader, member: Member) -> Iterator[None]:
    """Turns the libraries' errors about damaged members into VerificationFailed."""
    try:
        yield
    except DAMAGE as error:
        raise VerificationFailed(
            f"{member.path} in {reader.name} cannot be read: {error}",
            "restore another run; epibackup list shows them",
        ) from error


class _LogFile:
    """A log file within a member; it is read where errors of tarfile are not expected."""

    def __init__(self, reader: ArchiveReader, member: Member, content: IO[bytes]) -> None:
        self._reader, self._member, self._content = reader, member, content

    def read(self, size: int) -> bytes:
        try:
            return self._content.read(size)
        except DAMAGE:
            with _undamaged(self._reader, self._member):
                raise


def _unpacked(reader: ArchiveReader, member: Member) -> IO[bytes]:
    """A member's bytes, decompressed as its name says."""
    raw: Any = io.BufferedReader(_Chunks(reader.chunks(member)), STREAM_BYTES)
    if member.path.endswith(".zst"):
        raw = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    elif member.path.endswith(".gz"):
        raw = gzip.GzipFile(fileobj=raw, mode="rb")
    return raw  # type: ignore[no-any-return]  # each of them is a readable file


def partitions_of(
    reader: ArchiveReader, member: Member, wanted: dict[tuple[str, int], Wanted]
) -> Iterator[tuple[Wanted, int, Iterator[Segment]]]:
    """The wanted partitions in a member, with their number; takes those it finds out of `wanted`.

    Stops reading behind the last of them.
    """
    parts = set(member.content["parts"])
    left = {key for key in wanted if key[0] in parts}
    with (
        _undamaged(reader, member),
        _unpacked(reader, member) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=STREAM_BYTES) as tar,
    ):
        for key, segments in itertools.groupby(_log_files(tar), key=lambda found: found[0]):
            if key in left:
                files = ((base, _LogFile(reader, member, file)) for _, base, file in segments)
                yield wanted.pop(key), key[1], (Segment(base, file) for base, file in files)
                left.discard(key)
                if not left:
                    return


def _log_files(tar: tarfile.TarFile) -> Iterator[tuple[tuple[str, int], int, IO[bytes]]]:
    """Topic and partition, the offset in the name, and the content of each log file."""
    while (entry := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # else it remembers every file
        match = LOG_FILE.fullmatch(entry.name)
        content = tar.extractfile(entry) if match and entry.isfile() else None
        if match and content:
            key = (match["topic"], int(match["partition"]))
            yield key, int(match["base"]), content
