"""A steady load on a Kafka cluster that knows what was acknowledged, where, and when.

Every record can be told from its number: its key, value, headers and deletions follow from it.
`lab.services.kafka.checking` compares what a cluster holds with what was acknowledged.
"""

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from kafka import KafkaProducer  # type: ignore[import-untyped]
from kafka.errors import KafkaError  # type: ignore[import-untyped]

from lab.errors import LabError
from lab.services.kafka.contents import KafkaContents

# Before now, so that it is seen if somebody else than the load sets the time of a record.
_TIMESTAMP_AGE_MS = 3_600_000


@dataclass(frozen=True)
class LoadTopic:
    """A topic of a load.

    keys: how many keys there are, for a topic that is compacted; 0 if every record has its own.
    deletes: every so many-th record deletes its key; 0 for none.
    """

    name: str
    configs: Mapping[str, str]
    compression: str | None = None
    partitions: int = 3
    value_bytes: int = 300
    keys: int = 0
    deletes: int = 0

    @property
    def is_compacted(self) -> bool:
        return self.configs.get("cleanup.policy") == "compact"

    @property
    def retention_bytes(self) -> int | None:
        """What Kafka keeps at least of a partition; None if it keeps everything."""
        limit = self.configs.get("retention.bytes")
        return None if limit is None else int(limit)

    def key(self, number: int) -> bytes:
        return b"key %d" % (number % self.keys if self.keys else number)

    def value(self, number: int) -> bytes | None:
        """A record's value: its topic and number and what follows from them, so it is its own
        checksum; None for a deletion."""
        if self.deletes and number % self.deletes == self.deletes - 1:
            return None
        name = f"{self.name}:{number}:"
        digest = hashlib.sha256(name.encode()).hexdigest()
        repeated = digest * (self.value_bytes // len(digest) + 1)
        return (name + repeated)[: self.value_bytes].encode()

    def headers(self, number: int) -> tuple[tuple[str, bytes], ...]:
        return (("load", self.name.encode()), ("number", b"%d" % number))


_FOREVER = {"retention.ms": "-1"}
LOAD_TOPICS = (
    LoadTopic("load.plain", _FOREVER),
    LoadTopic("load.snappy", _FOREVER, "snappy"),
    LoadTopic("load.rolled", {**_FOREVER, "segment.bytes": "20000"}, "gzip"),
    LoadTopic("load.single", {**_FOREVER, "segment.bytes": "500000"}, "zstd", partitions=1),
    LoadTopic(
        "load.compacted",
        {
            "cleanup.policy": "compact",
            "segment.bytes": "10000",
            "min.cleanable.dirty.ratio": "0.01",
        },
        "lz4",
        keys=30,
        deletes=7,
    ),
    LoadTopic(
        "load.retained",
        {**_FOREVER, "retention.bytes": "60000", "segment.bytes": "20000"},
        value_bytes=1000,
    ),
)
"""All ways of writing and removing: plain, compressed, rolled often, compacted, cut by size."""


@dataclass
class Written:
    """A record that was sent. `acknowledged_at` is None as long as its fate is not known; then it
    is the monotonic time of the acknowledgement, and `partition` and `offset` are its place."""

    number: int
    timestamp: int
    sent_at: float
    acknowledged_at: float | None = None
    partition: int = -1
    offset: int = -1


@dataclass(frozen=True)
class Latency:
    """Seconds between sending and acknowledgement, of `count` records."""

    count: int
    median_seconds: float
    p99_seconds: float
    longest_seconds: float


@dataclass
class _Stream:
    """One topic's producer and what it has sent; the place of a record in `sent` is its number."""

    topic: LoadTopic
    producer: Any
    sent: list[Written] = field(default_factory=list)
    acknowledged: int = 0


class KafkaLoad:
    """Writes records with acks=all as long as its `with` block lasts; makes its topics first.

    records_per_second: for each topic.

    A broker that goes away does not end it: producers try again for two minutes. After the block
    it still knows everything that was acknowledged.
    """

    def __init__(
        self,
        contents: KafkaContents,
        topics: Sequence[LoadTopic] = LOAD_TOPICS,
        *,
        replication: int = 3,
        records_per_second: float = 60,
    ) -> None:
        self.contents = contents
        self.topics = {topic.name: topic for topic in topics}
        self._replication = replication
        self._pause_seconds = 1 / records_per_second
        self._streams: dict[str, _Stream] = {}
        self._first_timestamp = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, name="Kafka load")
        self._refused: list[str] = []

    def __enter__(self) -> "KafkaLoad":
        for topic in self.topics.values():
            self.contents.create_topic(
                topic.name, topic.partitions, self._replication, **topic.configs
            )
        self._first_timestamp = int(time.time() * 1000) - _TIMESTAMP_AGE_MS
        for topic in self.topics.values():
            producer = KafkaProducer(
                bootstrap_servers=self.contents.bootstrap_servers,
                acks="all",
                compression_type=topic.compression,
                allow_auto_create_topics=False,
                reconnect_backoff_max_ms=500,
                max_block_ms=5000,
            )
            self._streams[topic.name] = _Stream(topic, producer)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        for stream in self._streams.values():
            # What is not acknowledged by now never will be, where the cluster is gone.
            stream.producer.close(timeout=10)

    # -- what was written -----------------------------------------------------------------------

    def sent(self, topic: str) -> list[Written]:
        """All records sent to a topic so far; the place of each is its number."""
        return list(self._streams[topic].sent)

    def acknowledged(self, topic: str) -> int:
        """How many records of a topic were acknowledged so far."""
        return self._streams[topic].acknowledged

    @property
    def refused(self) -> list[str]:
        """Why records were not acknowledged, a line each; empty as long as all goes well."""
        return list(self._refused)

    def wait_for(self, records: int, timeout_seconds: float = 120) -> None:
        """Waits until so many further records of every topic are acknowledged.

        Raises LabError when that takes too long.
        """
        wanted = {name: self.acknowledged(name) + records for name in self.topics}
        deadline = time.monotonic() + timeout_seconds
        while behind := [name for name in wanted if self.acknowledged(name) < wanted[name]]:
            if time.monotonic() > deadline:
                raise LabError(f"the load does not get on with {behind}: {self._refused[-3:]}")
            time.sleep(0.02)

    def wait_until_cleaned(self, timeout_seconds: float = 120) -> None:
        """Waits until Kafka has compacted, and has deleted segments: it goes on doing so.

        Brokers look for segments to delete from half a minute after their start on.
        Raises LabError when that takes too long.
        """
        deadline = time.monotonic() + timeout_seconds
        waiting = [it for it in self.topics.values() if it.is_compacted or it.retention_bytes]
        while waiting := [it for it in waiting if not self._is_cleaned(it)]:
            if time.monotonic() > deadline:
                raise LabError(f"Kafka has not cleaned {[it.name for it in waiting]}")
            time.sleep(0.2)

    def latency(self, since: float = 0, until: float = float("inf")) -> Latency:
        """How long acknowledgements took, of records sent in a span of monotonic time.

        Raises LabError if there are none.
        """
        taken = sorted(
            it.acknowledged_at - it.sent_at
            for stream in self._streams.values()
            for it in list(stream.sent)
            if it.acknowledged_at is not None and since <= it.sent_at < until
        )
        if not taken:
            raise LabError("nothing was acknowledged in this time")
        count = len(taken)
        return Latency(count, taken[count // 2], taken[count * 99 // 100], taken[-1])

    # -- own ------------------------------------------------------------------------------------

    def _is_cleaned(self, topic: LoadTopic) -> bool:
        logs = self.contents.read(topic.name).values()
        if topic.is_compacted:
            return all(len(log.records) < log.end for log in logs)
        return all(log.start > 0 for log in logs)

    def _write(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            for stream in self._streams.values():
                self._send(stream)
            due = max(due + self._pause_seconds, time.monotonic())
            self._over.wait(due - time.monotonic())

    def _send(self, stream: _Stream) -> None:
        number = len(stream.sent)
        topic = stream.topic
        written = Written(number, self._first_timestamp + number, time.monotonic())
        stream.sent.append(written)
        try:
            future = stream.producer.send(
                topic.name,
                topic.value(number),
                topic.key(number),
                list(topic.headers(number)),
                timestamp_ms=written.timestamp,
            )
        except KafkaError as error:
            self._refused.append(f"{topic.name}: {error!r}")
            return
        future.add_callback(self._acknowledge, stream, written)
        future.add_errback(lambda error: self._refused.append(f"{topic.name}: {error!r}"))

    def _acknowledge(self, stream: _Stream, written: Written, place: Any) -> None:
        """Called by a producer's own thread; the time is set last, when all else is known."""
        written.partition, written.offset = place.partition, place.offset
        written.acknowledged_at = time.monotonic()
        stream.acknowledged += 1
