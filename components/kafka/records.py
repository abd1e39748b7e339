"""Kafka's log segments: batches and records read from their bytes.

The format is Kafka's own (org.apache.kafka.common.record: DefaultRecordBatch, DefaultRecord,
LegacyRecord; control records: KIP-98). A batch is verified and passed on as bytes; its records are
only looked into where that cannot be avoided.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kafka import codec  # type: ignore[import-untyped]  # kafka-python has no type hints
from kafka.record.legacy_records import LegacyRecordBatch  # type: ignore[import-untyped]
from kafka.record.util import (  # type: ignore[import-untyped]
    calc_crc32,
    calc_crc32c,
    decode_varint,
    encode_varint,
)

from components.errors import EpibackupError, VerificationFailed

LARGEST_BATCH_BYTES = 1 << 30
"""A batch that says it is larger is damage: brokers take no request over 100 MB by default."""

HEADER = struct.Struct(">qiibIhiqqqhii")
"""Of a batch of magic 2: base offset, length, leader epoch, magic, CRC, attributes, last offset
delta, first and largest timestamp, producer, its epoch, its sequence, number of records."""

SMALLEST_BYTES = 14
"""What a batch's length is at least: magic 0 with neither key nor value."""

START_BYTES = 17
"""Base offset, length, four bytes and the magic are at the same place in all formats."""
LENGTH_ENDS_AT = 12
CHECKED_FROM = 21
"""Where the bytes begin that the CRC of magic 2 covers; in magic 0 and 1 it is at 16."""

CODEC = 0x07
APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20
NO_TIMESTAMP = -1
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
ABORT, COMMIT = 0, 1


class Record(NamedTuple):
    """One record. timestamp_type: 0 set by its producer, 1 by the broker."""

    offset: int
    timestamp_ms: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Readable(Protocol):
    """What a log file has to be able to."""

    def read(self, size: int, /) -> bytes: ...


class Segment(NamedTuple):
    """A log file: the offset in its name, and its bytes."""

    base_offset: int
    stream: Readable


class RawRecord(NamedTuple):
    """A record whose key, value and headers are still in the encoding of magic 2."""

    offset: int
    timestamp_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch with a good CRC.

    count: its records; fewer than its offsets span after compaction.
    codec: how its records are compressed, as in the attributes.
    producer: id of its producer, -1 if it has none.
    marker: of a control batch, how it ends its producer's transaction (ABORT, COMMIT), or -1.
    """

    place: str
    raw: bytes
    magic: int
    base_offset: int
    last_offset: int
    count: int
    attributes: int
    producer: int = -1
    marker: int = -1

    @property
    def codec(self) -> int:
        return self.attributes & CODEC

    @property
    def control(self) -> bool:
        return self.magic == 2 and bool(self.attributes & CONTROL)

    @property
    def transactional(self) -> bool:
        return self.magic == 2 and bool(self.attributes & TRANSACTIONAL)

    @property
    def dense(self) -> bool:
        """Whether every offset it spans has a record."""
        return self.count == self.last_offset - self.base_offset + 1


def damaged(place: str, what: str) -> VerificationFailed:
    """The error for a log that is not as Kafka writes it."""
    return VerificationFailed(
        f"{place}: {what}", "this partition was saved damaged; restore it from another run"
    )


class PartitionLog:
    """A partition's segments, in order; iterating reads them once and checks every batch.

    The last segment may end within a batch, because snapshots are cut at any length; what is
    left of that batch was not acknowledged and is ignored.

    end_offset: after iterating, the offset the next record would get.
    Raises VerificationFailed for a wrong CRC or length, and for offsets that go backwards.
    """

    def __init__(self, topic: str, partition: int, segments: Iterable[Segment]) -> None:
        self.name = f"{topic}-{partition}"
        self.end_offset = 0
        self._segments = segments
        self._cut = False

    def __iter__(self) -> Iterator[Batch]:
        for segment in self._segments:
            place = f"{self.name}: the segment at offset {segment.base_offset}"
            if self._cut:
                raise damaged(place, "the segment before it ends within a batch")
            if segment.base_offset < self.end_offset:
                raise damaged(place, f"it begins before {self.end_offset}, where the last one ends")
            self.end_offset = segment.base_offset
            yield from self._batches(segment.stream)

    def _batches(self, stream: Readable) -> Iterator[Batch]:
        while start := stream.read(START_BYTES):
            place = f"{self.name} at offset {self.end_offset}"
            # Preallocated files (preallocate=true) have zeros behind the last batch.
            if len(start) < START_BYTES or not any(start):
                self._cut = True
                return
            length = int.from_bytes(start[8:LENGTH_ENDS_AT], "big", signed=True)
            if not SMALLEST_BYTES <= length <= LARGEST_BATCH_BYTES:
                raise damaged(place, f"a batch says it has {length} bytes")
            rest = stream.read(max(0, LENGTH_ENDS_AT + length - START_BYTES))
            if LENGTH_ENDS_AT + length > START_BYTES + len(rest):
                self._cut = True
                return
            batch = read_batch(place, start + rest)
            if batch.base_offset < self.end_offset or batch.last_offset < batch.base_offset:
                raise damaged(place, f"the next batch goes back to offset {batch.base_offset}")
            self.end_offset = batch.last_offset + 1
            yield batch


def read_batch(place: str, raw: bytes) -> Batch:
    """Check one batch and read its header; raises VerificationFailed, naming `place`."""
    magic = raw[16]
    if magic == 2:
        return _read_batch_2(place, raw)
    if magic not in (0, 1):
        raise damaged(place, f"a batch has the unknown format {magic}")
    return _read_legacy(place, raw)


def _read_batch_2(place: str, raw: bytes) -> Batch:
    if len(raw) < HEADER.size:
        raise damaged(place, "a batch is shorter than its header")
    header = HEADER.unpack_from(raw)
    base, crc, attributes, last_delta = header[0], header[4], header[5], header[6]
    if calc_crc32c(memoryview(raw)[CHECKED_FROM:]) != crc:
        raise damaged(place, "a batch does not match its checksum")
    if header[12] < 0 or header[12] > last_delta + 1:
        raise damaged(place, f"a batch says it has {header[12]} records")
    batch = Batch(
        place, raw, 2, base, base + last_delta, header[12], attributes, producer=header[9]
    )
    if not batch.control:
        return batch
    keys = [record.key or b"" for record in records(batch)]
    # The key of a control record: version and type (KIP-98); other types do not end anything.
    kind = int.from_bytes(keys[0][2:4], "big") if keys and len(keys[0]) >= 4 else -1
    marker = kind if batch.transactional and kind in (ABORT, COMMIT) else -1
    return Batch(place, raw, 2, base, batch.last_offset, batch.count, attributes, header[9], marker)


def _read_legacy(place: str, raw: bytes) -> Batch:
    magic, attributes = raw[16], raw[17] if len(raw) > 17 else 0
    last = int.from_bytes(raw[:8], "big", signed=True)
    if len(raw) < (26 if magic == 0 else 34):
        raise damaged(place, "a message is shorter than its header")
    if calc_crc32(memoryview(raw)[16:]) != int.from_bytes(raw[12:16], "big"):
        raise damaged(place, "a message does not match its checksum")
    batch = Batch(place, raw, magic, last, last, 1, attributes)
    if magic == 0 and batch.codec == LZ4:
        # Its frames have a wrong checksum (KIP-57), so that ordinary libraries refuse them.
        raise EpibackupError(
            f"{place}: lz4 of message format 0 (clients before Kafka 0.10) cannot be read",
            "restore the whole service; that keeps log files as they are",
        )
    if not batch.codec:
        return batch
    offsets = [record.offset for record in records(batch)]
    if not offsets or offsets != sorted(set(offsets)) or offsets[-1] != last:
        raise damaged(place, "a compressed message has other offsets than it says")
    return Batch(place, raw, magic, offsets[0], last, len(offsets), attributes)


def records(batch: Batch) -> list[Record]:
    """A batch's records; raises VerificationFailed where they cannot be read."""
    if batch.magic < 2:
        return _legacy_records(batch)
    kind = int(bool(batch.attributes & APPEND_TIME))
    try:
        return [
            Record(raw.offset, raw.timestamp_ms, kind, *_read_body(raw.body))
            for raw in raw_records(batch)
        ]
    except (IndexError, ValueError) as error:
        raise damaged(batch.place, f"a batch cannot be read: {error}") from error


def _legacy_records(batch: Batch) -> list[Record]:
    try:
        return [
            Record(
                record.offset,
                NO_TIMESTAMP if record.timestamp is None else record.timestamp,
                record.timestamp_type or 0,
                record.key,
                record.value,
                [],
            )
            for record in LegacyRecordBatch(batch.raw, batch.magic)
        ]
    except Exception as error:  # every codec's library has errors of its own
        raise damaged(batch.place, f"a message cannot be read: {error}") from error


def _read_body(body: bytes) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]:
    key, position = _read_bytes(body, 0)
    value, position = _read_bytes(body, position)
    count, position = decode_varint(body, position)
    headers = []
    for _ in range(count):
        name, position = _read_bytes(body, position)
        content, position = _read_bytes(body, position)
        headers.append(((name or b"").decode(), content))
    if position != len(body):
        raise ValueError("a record has another length than it says")
    return key, value, headers


def _read_bytes(body: bytes, position: int) -> tuple[bytes | None, int]:
    length, position = decode_varint(body, position)
    if length < 0:
        return None, position
    return body[position : position + length], position + length


def raw_records(batch: Batch) -> Iterator[RawRecord]:
    """A batch's records as they are stored, for `BatchMaker`; raises VerificationFailed."""
    if batch.magic < 2:
        for record in _legacy_records(batch):
            yield RawRecord(record.offset, record.timestamp_ms, _body(record.key, record.value))
        return
    header = HEADER.unpack_from(batch.raw)
    first, largest = header[7], header[8]
    appended = bool(batch.attributes & APPEND_TIME)
    data, position = _decompressed(batch), 0
    try:
        for _ in range(batch.count):
            length, position = decode_varint(data, position)
            end = position + length
            # Behind the length: a byte of attributes, which no version uses.
            time_delta, position = decode_varint(data, position + 1)
            offset_delta, position = decode_varint(data, position)
            if not position <= end <= len(data):
                raise ValueError("a record ends outside of its batch")
            time = largest if appended else first + time_delta
            yield RawRecord(batch.base_offset + offset_delta, time, data[position:end])
            position = end
    except (IndexError, ValueError) as error:
        raise damaged(batch.place, f"a batch cannot be read: {error}") from error
    if position != len(data):
        raise damaged(batch.place, "a batch has bytes behind its last record")


def _decompressed(batch: Batch) -> bytes:
    data = batch.raw[HEADER.size :]
    if batch.codec == NONE or not batch.count:
        return data
    try:
        unpack = {
            GZIP: codec.gzip_decode,
            SNAPPY: codec.snappy_decode,
            LZ4: codec.lz4_decode,
            ZSTD: codec.zstd_decode,
        }[batch.codec]
        return bytes(unpack(data))
    except Exception as error:  # every codec's library has errors of its own
        raise damaged(batch.place, f"a batch cannot be decompressed: {error}") from error


def _body(key: bytes | None, value: bytes | None) -> bytes:
    """Key, value and no headers as magic 2 encodes them."""
    body = bytearray()
    for part in (key, value):
        encode_varint(-1 if part is None else len(part), body.append)
        body += part or b""
    body.append(0)
    return bytes(body)
