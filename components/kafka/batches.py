"""Batches to produce again, made of saved ones.

The format is Kafka's own (org.apache.kafka.common.record: DefaultRecordBatch, DefaultRecord).
"""

import gzip
import struct
from collections.abc import Iterator
from typing import NamedTuple

from kafka import codec  # type: ignore[import-untyped]  # kafka-python has no type hints
from kafka.record.util import (  # type: ignore[import-untyped]
    calc_crc32c,
    encode_varint,
)

from components.kafka.records import (
    APPEND_TIME,
    CHECKED_FROM,
    CODEC,
    GZIP,
    HEADER,
    LENGTH_ENDS_AT,
    LZ4,
    NO_TIMESTAMP,
    NONE,
    SNAPPY,
    ZSTD,
    Batch,
    RawRecord,
    raw_records,
)


class ToProduce(NamedTuple):
    """A batch of magic 2 for a Produce request, without its producer's id and checksum."""

    data: bytearray
    records: int


class BatchMaker:
    """Makes what is produced from what was saved.

    A batch that is worth a request of its own goes as it is; smaller ones, those with gaps, of
    older formats, or with the broker's time become new ones. Order is kept.

    largest_bytes: of a new batch before compression, unless a single record is larger.
    """

    def __init__(self, start_offset: int, largest_bytes: int, alone_from_bytes: int) -> None:
        self._start_offset = start_offset
        self._largest = largest_bytes
        self._alone_from = alone_from_bytes
        self._codec = NONE
        self._body = bytearray()
        self._count = 0
        self._first_time = self._last_time = NO_TIMESTAMP

    def add(self, batch: Batch) -> Iterator[ToProduce]:
        """Take a batch; gives those that are ready."""
        dense = batch.dense and batch.base_offset >= self._start_offset
        if (
            batch.magic == 2
            and dense
            and len(batch.raw) >= self._alone_from
            and not batch.attributes & APPEND_TIME
        ):
            yield from self.rest()
            yield ToProduce(bytearray(batch.raw), batch.count)
            return
        if batch.codec != self._codec:
            yield from self.rest()
            self._codec = batch.codec
        for record in raw_records(batch):
            if record.offset >= self._start_offset:
                if self._count and len(self._body) + len(record.body) > self._largest:
                    yield from self.rest()
                self._append(record)

    def _append(self, record: RawRecord) -> None:
        if not self._count:
            self._first_time = self._last_time = record.timestamp_ms
        self._last_time = max(self._last_time, record.timestamp_ms)
        head = bytearray(1)
        encode_varint(record.timestamp_ms - self._first_time, head.append)
        encode_varint(self._count, head.append)
        encode_varint(len(head) + len(record.body), self._body.append)
        self._body += head
        self._body += record.body
        self._count += 1

    def rest(self) -> Iterator[ToProduce]:
        """The last batch, if there is one."""
        if not self._count:
            return
        body, used = compressed(self._codec, self._body)
        header = HEADER.pack(
            0,
            HEADER.size - LENGTH_ENDS_AT + len(body),
            -1,
            2,
            0,
            used,
            self._count - 1,
            self._first_time,
            self._last_time,
            -1,
            -1,
            -1,
            self._count,
        )
        yield ToProduce(bytearray(header + body), self._count)
        self._body, self._count = bytearray(), 0


def compressed(method: int, body: bytearray) -> tuple[bytes, int]:
    """A batch's records, compressed as asked if that makes them smaller, and the codec used."""
    if method == GZIP:
        packed = gzip.compress(body, 6, mtime=0)
    elif method == NONE:
        return bytes(body), NONE
    else:
        pack = {SNAPPY: codec.snappy_encode, LZ4: codec.lz4_encode, ZSTD: codec.zstd_encode}
        packed = bytes(pack[method](bytes(body)))
    return (packed, method) if len(packed) < len(body) else (bytes(body), NONE)


def stamp(batch: bytearray, producer: int, epoch: int, sequence: int) -> None:
    """Make a batch one of a producer's, outside of transactions, with a checksum of its own.

    The broker gives it its offsets, and refuses a batch of clients that is marked as control,
    has the broker's time, or a sequence that does not follow the last one.
    """
    struct.pack_into(">q", batch, 0, 0)
    struct.pack_into(">i", batch, 12, -1)
    attributes = struct.unpack_from(">h", batch, CHECKED_FROM)[0] & CODEC
    struct.pack_into(">h", batch, CHECKED_FROM, attributes)
    struct.pack_into(">qhi", batch, 43, producer, epoch, sequence)
    struct.pack_into(">I", batch, 17, calc_crc32c(memoryview(batch)[CHECKED_FROM:]))
