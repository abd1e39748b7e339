"""The two passes over a partition's log: which of its records count, and then those.

What counts is what a consumer with isolation.level=read_committed gets (KIP-98).
"""

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from components.kafka.records import (
    ABORT,
    APPEND_TIME,
    HEADER,
    Batch,
    PartitionLog,
    Record,
    Segment,
    raw_records,
    records,
)

GROWTH_BYTES = 40
"""What magic 2 may need more for a record than the older formats, at most."""


@dataclass
class Checked:
    """What the first pass over a partition has found; the second one needs it.

    start_offset, end_offset: what consumers can read, the end exclusive.
    records: how many a consumer with isolation.level=read_committed gets.
    aborted, unfinished: records of transactions that were aborted, or had no end at the cut.
    control: markers of transactions.
    oldest_ms, newest_ms: times of records, None if they have none.
    largest_bytes: of a batch, with room for what other formats become.
    withheld: by producer, the first and last offset of each transaction that does not count.
    """

    topic: str
    partition: int
    start_offset: int
    end_offset: int = 0
    records: int = 0
    control: int = 0
    aborted: int = 0
    unfinished: int = 0
    bytes: int = 0
    largest_bytes: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None
    withheld: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def is_withheld(self, batch: Batch) -> bool:
        """Whether a batch belongs to a transaction that does not count."""
        spans = self.withheld.get(batch.producer, []) if batch.transactional else []
        nearest = bisect.bisect_right(spans, (batch.base_offset, self.end_offset)) - 1
        return nearest >= 0 and batch.base_offset <= spans[nearest][1]

    def note_times(self, batch: Batch) -> None:
        """Widen the span of times by a batch's."""
        if batch.magic == 0:
            return
        first, newest = HEADER.unpack_from(batch.raw)[7:9] if batch.magic == 2 else (0, 0)
        if batch.magic == 1:
            first = newest = int.from_bytes(batch.raw[18:26], "big", signed=True)
        oldest = newest if batch.attributes & APPEND_TIME else first
        if oldest >= 0:
            self.oldest_ms = oldest if self.oldest_ms is None else min(self.oldest_ms, oldest)
        if newest >= 0:
            self.newest_ms = newest if self.newest_ms is None else max(self.newest_ms, newest)


def check(topic: str, partition: int, start_offset: int, segments: Iterable[Segment]) -> Checked:
    """The first pass over a partition: check every batch and learn how transactions ended.

    start_offset: the partition's log start; what is before it was deleted by the service.
    A transaction without an end at the cut counts as aborted: nobody could have read it.
    Raises VerificationFailed.
    """
    found = Checked(topic, partition, start_offset)
    begun: dict[int, tuple[int, int]] = {}  # producer to first offset and records
    log = PartitionLog(topic, partition, segments)
    for batch in log:
        found.bytes += len(batch.raw)
        room = batch.count * GROWTH_BYTES if batch.magic < 2 else 0
        found.largest_bytes = max(found.largest_bytes, len(batch.raw) + room)
        if batch.control:
            found.control += batch.count if batch.base_offset >= start_offset else 0
            first, count = begun.pop(batch.producer, (0, 0)) if batch.marker >= 0 else (0, 0)
            if batch.marker == ABORT and count:
                found.withheld.setdefault(batch.producer, []).append((first, batch.last_offset))
                found.aborted += count
                found.records -= count
            continue
        readable = _readable(batch, start_offset)
        found.records += readable
        if readable:
            found.note_times(batch)
        if batch.transactional and readable:
            first, count = begun.get(batch.producer, (batch.base_offset, 0))
            begun[batch.producer] = (first, count + readable)
    found.end_offset = log.end_offset
    for producer, (first, count) in begun.items():
        found.withheld.setdefault(producer, []).append((first, log.end_offset))
        found.unfinished += count
        found.records -= count
    return found


def _readable(batch: Batch, start_offset: int) -> int:
    """How many of a batch's records are not before the log's start."""
    if batch.base_offset >= start_offset:
        return batch.count
    if batch.last_offset < start_offset:
        return 0
    return sum(record.offset >= start_offset for record in raw_records(batch))


def committed(checked: Checked, segments: Iterable[Segment]) -> Iterator[Batch]:
    """The second pass: the batches that have records for consumers, in order.

    The first one may begin before the log's start. Raises VerificationFailed.
    """
    for batch in PartitionLog(checked.topic, checked.partition, segments):
        hidden = batch.control or batch.last_offset < checked.start_offset or not batch.count
        if not hidden and not checked.is_withheld(batch):
            yield batch


def committed_records(checked: Checked, segments: Iterable[Segment]) -> Iterator[Record]:
    """The second pass, as records."""
    for batch in committed(checked, segments):
        for record in records(batch):
            if record.offset >= checked.start_offset:
                yield record


class Count:
    """Counts records, and how many there are before certain offsets of the saved partition."""

    def __init__(self, checked: Checked, wanted: set[int]) -> None:
        self.records = 0
        self._start = checked.start_offset
        self._wanted = sorted(wanted)
        self._before: dict[int, int] = {}

    def add(self, batch: Batch) -> None:
        while self._wanted and self._wanted[0] <= batch.base_offset:
            self._before[self._wanted.pop(0)] = self.records
        if batch.base_offset >= self._start and not (
            self._wanted and self._wanted[0] <= batch.last_offset
        ):
            self.records += batch.count
            return
        for record in raw_records(batch):
            while self._wanted and self._wanted[0] <= record.offset:
                self._before[self._wanted.pop(0)] = self.records
            self.records += record.offset >= self._start

    def found(self) -> dict[int, int]:
        """Offset to number of records before it; what is beyond the end has all before it."""
        return {**self._before, **dict.fromkeys(self._wanted, self.records)}
