"""Kafka's log segments as bytes on disk: where they end, and what consumer groups committed.

The formats are those of Kafka's documentation ("Message Format", record batches with magic 2
since 0.11, message sets before) and of GroupMetadataManager for `__consumer_offsets`.
"""

import gzip
import os
import struct
from typing import IO, Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

HEADER = struct.Struct(">qiiBIhiqqqhii")
"""Of a batch with magic 2: base offset, length of the rest, leader epoch, magic, checksum,
attributes, last offset delta, timestamps, producer id and epoch, sequence, number of records."""

LEGACY = struct.Struct(">qiIB")
"""The beginning of an older message: offset (of a wrapper: its last), length, checksum, magic."""

BEFORE_LENGTH = 12
CODECS = 0x07
TRANSACTIONAL = 0x10
CONTROL = 0x20


class Batch(NamedTuple):
    """A batch of a segment: its first byte and the one after its last, its first offset and the
    one after its last, and – with magic 2 – attributes, producer and number of records."""

    position: int
    end: int
    base_offset: int
    next_offset: int
    magic: int
    attributes: int
    producer: int
    records: int


def batches(segment: IO[bytes], length: int, position: int = 0) -> Iterator[Batch]:
    """The whole batches between a position and a length, in bytes; what is cut off is left out."""
    while position + BEFORE_LENGTH + LEGACY.size <= length:
        segment.seek(position)
        header = segment.read(HEADER.size)
        if len(header) < LEGACY.size:
            return
        base, size, _, magic = LEGACY.unpack_from(header)
        end = position + BEFORE_LENGTH + size
        if size < LEGACY.size - BEFORE_LENGTH or end > length:
            return
        if magic < 2:
            yield Batch(position, end, base, base + 1, magic, 0, -1, -1)
        elif len(header) == HEADER.size:
            fields = HEADER.unpack(header)
            last = base + fields[6]
            yield Batch(position, end, base, last + 1, magic, fields[5], fields[9], fields[12])
        position = end


class End(NamedTuple):
    """The end of a segment: its length without a batch that was cut, and the next offset; None if
    it has no batch."""

    length: int
    next_offset: Optional[int]


def end_of(path: str, length: int, index: str) -> End:
    """Where the last whole batch ends of the first `length` bytes of a segment.

    index: the segment's offset index, by which the end is found without reading everything; it
    need not be there, nor be right.
    """
    with open(path, "rb", buffering=0) as segment:
        for position in (_indexed(index, length), 0):
            found = End(0, None)
            for batch in batches(segment, length, position):
                found = End(batch.end, batch.next_offset)
            if found.next_offset is not None or position == 0:
                return found
    return End(0, None)


def _indexed(index: str, length: int) -> int:
    """The position of the last batch before `length` that an index knows.

    Its entries are offset and position, four bytes each; the file of the newest segment is
    larger than its entries, and zero behind them.
    """
    try:
        size = os.path.getsize(index) // 8
        with open(index, "rb", buffering=0) as stream:
            low, high = 0, size
            while low < high:  # the first entry that is empty or too far
                middle = (low + high) // 2
                stream.seek(middle * 8)
                _, position = struct.unpack(">ii", stream.read(8))
                if middle and not 0 < position < length:
                    high = middle
                else:
                    low = middle + 1
            if low == 0:
                return 0
            stream.seek((low - 1) * 8)
            _, position = struct.unpack(">ii", stream.read(8))
            return position if 0 <= position < length else 0
    except (OSError, struct.error):
        return 0


class UnreadableOffsets(Exception):
    """A partition of `__consumer_offsets` is compressed in a way this Python cannot read."""


GroupOffsets = Dict[str, Dict[str, Dict[str, List[Any]]]]
"""By group, topic and partition: offset, metadata, time of the commit (milliseconds, UTC)."""


def group_offsets(segments: List[Tuple[str, int]], found: GroupOffsets) -> None:
    """Add what groups have committed in one partition of `__consumer_offsets`.

    segments: paths and lengths, in the order of their offsets.
    Offsets that were committed in a transaction count when it was committed.
    """
    pending: Dict[int, List[Tuple[bytes, Optional[bytes]]]] = {}
    for path, length in segments:
        with open(path, "rb") as stream:
            for batch in batches(stream, length):
                if batch.magic < 2:
                    raise UnreadableOffsets("it is in the format of before 0.11")
                entries = _records(stream, batch)
                if batch.attributes & CONTROL:
                    held = pending.pop(batch.producer, [])
                    if any(key[2:4] == b"\0\1" for key, _ in entries):  # COMMIT
                        _apply(held, found)
                elif batch.attributes & TRANSACTIONAL:
                    pending.setdefault(batch.producer, []).extend(entries)
                else:
                    _apply(entries, found)


def _records(stream: IO[bytes], batch: Batch) -> List[Tuple[bytes, Optional[bytes]]]:
    stream.seek(batch.position + HEADER.size)
    data = stream.read(batch.end - batch.position - HEADER.size)
    codec = batch.attributes & CODECS
    if codec == 1:
        data = gzip.decompress(data)
    elif codec:
        raise UnreadableOffsets("it is compressed (offsets.topic.compression.codec)")
    entries = []
    position = 0
    for _ in range(batch.records):
        size, position = _varint(data, position)
        end = position + size
        position += 1  # attributes
        _, position = _varint(data, position)  # timestamp delta
        _, position = _varint(data, position)  # offset delta
        key, position = _bytes(data, position)
        value, position = _bytes(data, position)
        entries.append((key or b"", value))
        position = end
    return entries


def _varint(data: bytes, position: int) -> Tuple[int, int]:
    """A zigzag-coded integer and the position after it."""
    shift = result = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return (result >> 1) ^ -(result & 1), position
        shift += 7


def _bytes(data: bytes, position: int) -> Tuple[Optional[bytes], int]:
    size, position = _varint(data, position)
    if size < 0:
        return None, position
    return data[position : position + size], position + size


def _apply(entries: List[Tuple[bytes, Optional[bytes]]], found: GroupOffsets) -> None:
    for key, value in entries:
        (version,) = struct.unpack_from(">h", key)
        if version > 1:
            continue  # what a group's members are
        group, position = _text(key, 2)
        topic, position = _text(key, position)
        (partition,) = struct.unpack_from(">i", key, position)
        partitions = found.setdefault(group, {}).setdefault(topic, {})
        if value is None:
            partitions.pop(str(partition), None)
            continue
        version, offset = struct.unpack_from(">hq", value)
        position = 14 if version >= 3 else 10  # 3 has a leader epoch
        metadata, position = _text(value, position)
        (committed,) = struct.unpack_from(">q", value, position)
        partitions[str(partition)] = [offset, metadata, committed]


def _text(data: bytes, position: int) -> Tuple[str, int]:
    (size,) = struct.unpack_from(">h", data, position)
    position += 2
    end = position + max(size, 0)
    return data[position:end].decode("utf-8", "replace"), end
