"""Topics of every kind that are restored beside the live ones; offsets of groups that read them."""

import io
import itertools
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard
from kafka import (  # type: ignore[import-untyped]
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)

from lab.services.kafka import KafkaCluster
from tests.lab.kafka_site import KafkaSite
from tests.lab.product import Product, product, rewrite_member
from tests.lab.trouble import wait_for

CODECS = (None, "gzip", "snappy", "lz4", "zstd")
LONG_AGO = 1_500_000_000_000
TOPICS = ("codecs", "compacted", "brokertime", "transactions")
HEADERS = [("name", b"value"), ("name", b""), ("ä", b"\xff\x00")]
BEYOND = 5


class Content(NamedTuple):
    """What a record says, wherever it is."""

    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


Log = list[tuple[int, Content]]
"""Offsets and contents of a partition's records."""


@dataclass(frozen=True)
class Saved:
    """What the tests share: an archive, and the groups that had read its topics."""

    archive: Path
    groups: tuple[str, ...]


@contextmanager
def producing(kafka: KafkaCluster, **options: Any) -> Iterator[Any]:
    with KafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, allow_auto_create_topics=False, **options
    ) as producer:
        yield producer


def send(
    producer: Any, topic: str, values: Sequence[bytes], partitions: int = 1, **fields: Any
) -> list[int]:
    """Write values to partitions in turn; returns their offsets."""
    sent = [
        producer.send(topic, value, partition=number % partitions, **fields)
        for number, value in enumerate(values)
    ]
    producer.flush()
    return [future.get(timeout=30).offset for future in sent]


def numbered(name: str, count: int = 40) -> list[bytes]:
    return [b"%s %d" % (name.encode(), number) * 3 for number in range(count)]


def fill_codecs(kafka: KafkaCluster) -> None:
    """Every codec; keys, values and headers that are there or not; records of long ago."""
    kafka.create_topic("codecs", 2, 3, **{"retention.ms": "-1", "segment.bytes": "20000"})
    for place, codec in enumerate(CODECS):
        with producing(kafka, compression_type=codec, linger_ms=5) as producer:
            name, then = str(codec), LONG_AGO + place * 1000
            send(producer, "codecs", numbered(name), 2, timestamp_ms=then, headers=HEADERS)
            send(producer, "codecs", numbered(name), 2, timestamp_ms=then + 1, key=b"key")
            for key, value in ((b"deleted", None), (b"", b""), (None, b"")):
                producer.send("codecs", value, key, partition=0, timestamp_ms=then - 1)


def fill_compacted(kafka: KafkaCluster) -> None:
    """Keys that were written again, and the gaps that compaction leaves between offsets."""
    settings = {
        "cleanup.policy": "compact",
        "segment.bytes": "10000",
        "min.cleanable.dirty.ratio": "0.01",
    }
    kafka.create_topic("compacted", 1, 1, **settings)
    for turn in range(6):
        keys = [b"once %d" % (turn * 50 + n) if n % 7 == 0 else b"key %d" % n for n in range(50)]
        records = [(key, None if n % 11 == 0 else b"%d" % turn * 200) for n, key in enumerate(keys)]
        kafka.produce("compacted", records, compression="gzip" if turn % 2 else None)
    wait_for(lambda: gap(kafka, "compacted") is not None, "compaction")
    # From here on it stays as it is: its ratio cannot be larger.
    kafka.configure_topic("compacted", {"min.cleanable.dirty.ratio": "1.0"})


def fill_brokertime(kafka: KafkaCluster) -> None:
    """Times of the broker, which clients may not set."""
    kafka.create_topic("brokertime", 1, 2, **{"message.timestamp.type": "LogAppendTime"})
    with producing(kafka, compression_type="lz4") as producer:
        send(producer, "brokertime", numbered("time"), timestamp_ms=LONG_AGO)


@contextmanager
def transactions(kafka: KafkaCluster) -> Iterator[tuple[int, int]]:
    """Transactions that were committed and aborted, and one that stays open as long as this
    lasts, between records outside of them; offsets in an aborted and in the open one."""
    kafka.create_topic("transactions", 1, 3)
    with (
        producing(kafka) as plain,
        producing(kafka, transactional_id="ends", compression_type="zstd") as ending,
        producing(kafka, transactional_id="stays open") as staying,
    ):
        ending.init_transactions()
        staying.init_transactions()
        send(plain, "transactions", numbered("before"))
        for number, end in enumerate(("commit", "abort", "commit")):
            ending.begin_transaction()
            offsets = send(ending, "transactions", numbered(f"{end} {number}"))
            if end == "commit":
                ending.commit_transaction()
            else:
                aborted = offsets[3]
                ending.abort_transaction()
            send(plain, "transactions", numbered(f"after {number}", 5))
        staying.begin_transaction()
        unfinished = send(staying, "transactions", numbered("never ended"))[3]
        send(plain, "transactions", numbered("last", 10))
        try:
            yield aborted, unfinished
        finally:
            staying.abort_transaction()


def gap(kafka: KafkaCluster, topic: str) -> int | None:
    """The first offset without a record, behind one with a record; None if there is none."""
    offsets = [record.offset for record in kafka.read(topic)[topic, 0].records]
    pairs = itertools.pairwise(offsets)
    return next((it + 1 for it, following in pairs if following > it + 1), None)


def commit(kafka: KafkaCluster, aborted: int, unfinished: int) -> tuple[str, ...]:
    """Groups that have read to odd places; returns their names."""
    ends = {place: log.end for place, log in kafka.read(*TOPICS).items()}
    marker, hole = gap(kafka, "transactions"), gap(kafka, "compacted")
    assert marker
    assert hole
    found = {
        "at the beginning": dict.fromkeys(ends, 0),
        "in a gap": {**dict.fromkeys(ends, 7), ("compacted", 0): hole, ("transactions", 0): marker},
        "in an aborted transaction": {("transactions", 0): aborted},
        "in the open transaction": {("transactions", 0): unfinished},
        "at the end": ends,
        "ahead": {("codecs", 0): ends["codecs", 0] + BEYOND},
    }
    for group, offsets in found.items():
        kafka.commit(group, offsets, "a note")
    return tuple(found)


@contextmanager
def busy(kafka: KafkaCluster) -> Iterator[None]:
    """A group `busy` with a living member, which is ahead as well."""
    place = TopicPartition("codecs", 1)
    consumer = KafkaConsumer(
        "codecs",
        bootstrap_servers=kafka.bootstrap_servers,
        group_id="busy",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=1000,
    )
    try:

        def joined() -> bool:
            consumer.poll(timeout_ms=100)
            return place in consumer.assignment()

        wait_for(joined, "joining the group")
        (end,) = consumer.end_offsets([place]).values()
        consumer.commit({place: OffsetAndMetadata(end + BEYOND, "", -1)})
        yield
    finally:
        consumer.close(autocommit=False)


@pytest.fixture(scope="module")
def epibackup(kafka_site: KafkaSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with product(kafka_site.cluster, tmp_path_factory.mktemp("p"), "test-kafka-topics") as made:
        yield made
        assert made.leftovers() == {}, "something was left on the hosts"


@pytest.fixture(scope="module")
def saved(kafka_site: KafkaSite, epibackup: Product) -> Iterator[Saved]:
    """Topics of all kinds, which stay in the cluster as long as the tests of this file run."""
    kafka = kafka_site.kafka
    try:
        fill_codecs(kafka)
        fill_compacted(kafka)
        fill_brokertime(kafka)
        with transactions(kafka) as (aborted, unfinished), busy(kafka):
            groups = (*commit(kafka, aborted, unfinished), "busy")
            done = epibackup.backup("--service", "kafka", "--service", "zookeeper")
        yield Saved(epibackup.target / done["archive_key"], groups)
    finally:
        kafka_site.reset()


def consumed(kafka: KafkaCluster, *topics: str) -> dict[tuple[str, int], Log]:
    """What a consumer gets that reads committed records only."""
    consumer = KafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="none",
        enable_auto_commit=False,
    )
    try:
        places = [TopicPartition(it, n) for it in topics for n in consumer.partitions_for_topic(it)]
        logs: dict[tuple[str, int], Log] = {(it.topic, it.partition): [] for it in places}
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)

        def read_all() -> bool:
            for place, records in consumer.poll(timeout_ms=200).items():
                logs[place.topic, place.partition] += [
                    (it.offset, Content(it.timestamp, it.key, it.value, tuple(it.headers)))
                    for it in records
                ]
            return all(consumer.position(place) >= end for place, end in ends.items())

        wait_for(read_all, f"reading {', '.join(topics)} to the end")
        return logs
    finally:
        consumer.close(autocommit=False)


def copies(*topics: str) -> list[str]:
    """The flags for restoring topics beside the live ones."""
    parts = [word for topic in topics for word in ("--part", topic)]
    return parts + [word for it in topics for word in ("--rename", f"{it}={it}.copy")]


def test_records_and_groups_of_all_kinds_of_topics_come_back_beside_the_live_ones(
    epibackup: Product, saved: Saved, kafka_site: KafkaSite
) -> None:
    kafka = kafka_site.kafka
    before = {group: kafka.committed(group) for group in saved.groups}
    report = epibackup.restore("latest", *copies(*TOPICS))
    live = consumed(kafka, *TOPICS)
    restored = consumed(kafka, *(f"{topic}.copy" for topic in TOPICS))
    for (topic, partition), log in live.items():
        copy = restored[f"{topic}.copy", partition]
        assert [it for _, it in copy] == [it for _, it in log], f"{topic}-{partition} differs"
        assert [offset for offset, _ in copy] == list(range(len(log))), "there are gaps"
    assert {it.timestamp for _, it in live["codecs", 0]} >= {LONG_AGO - 1, LONG_AGO, LONG_AGO + 1}
    for group in saved.groups:
        after = kafka.committed(group)
        assert before[group].items() <= after.items(), f"{group} has lost its place"
        assert len(after) == 2 * len(before[group])
        for (topic, partition), offset in before[group].items():
            copied = after[f"{topic}.copy", partition]
            following = next_record(restored[f"{topic}.copy", partition], copied)
            assert following == next_record(live[topic, partition], offset), f"{group} of {topic}"
    (service,) = report["services"]
    skipped = {topic["topic"]: topic["skipped"] for topic in service["topics"]}
    assert skipped.pop("transactions") == {"control": 3, "aborted": 40, "unfinished": 40}
    assert all(set(found.values()) == {0} for found in skipped.values())
    assert service["warnings"] == []


def next_record(log: Log, offset: int) -> Content | None:
    """What a group reads next."""
    return next((content for place, content in log if place >= offset), None)


def damage(archive: Path, topic: str) -> None:
    """Flip a bit of a record in all replicas of a topic, with all the archive's checksums right:
    only Kafka's own can tell."""
    with zipfile.ZipFile(archive) as stored:
        names = [it for it in stored.namelist() if "/topics-" in it and it.startswith("kafka/")]
        members = {name: stored.read(name) for name in names}
    for name, packed in members.items():
        data = bytearray(zstandard.ZstdDecompressor().decompressobj().decompress(packed))
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            logs = [it for it in tar if f"/{topic}-" in it.name and it.name.endswith(".log")]
        for log in logs:
            if log.size:
                data[log.offset_data + log.size - 3] ^= 1
        rewrite_member(archive, name, zstandard.compress(bytes(data)))


def test_if_one_of_the_topics_is_damaged_none_is_created(
    epibackup: Product, saved: Saved, kafka_site: KafkaSite, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    archive = target / saved.archive.name
    archive.write_bytes(saved.archive.read_bytes())
    damage(archive, "codecs")
    before = kafka_site.kafka.fingerprint()
    chosen = [
        *("--part", "brokertime", "--rename", "brokertime=one"),
        *("--part", "codecs", "--rename", "codecs=other"),
    ]
    error = epibackup.restore("latest", "-t", str(target), *chosen, code=9)["error"]
    assert "codecs-" in error["message"]
    assert "a batch does not match its checksum" in error["message"]
    assert "nothing live was changed" in error["message"]
    assert "another run" in error["hint"]
    assert kafka_site.kafka.fingerprint() == before


def test_groups_that_are_ahead_of_a_restored_cluster_are_set_to_the_end(
    epibackup: Product, saved: Saved, kafka_site: KafkaSite
) -> None:
    """Also one that had a living member when it was saved."""
    kafka = kafka_site.kafka
    done = epibackup.run("restore", "latest", "--yes")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    ends = {place: log.end for place, log in kafka.read("codecs").items()}
    for group, place in (("ahead", ("codecs", 0)), ("busy", ("codecs", 1))):
        end = ends[place]
        assert kafka.committed(group)[place] == end
        assert f"{group} on codecs-{place[1]} from {end + BEYOND} to {end}" in said
    assert kafka.committed("at the end")["codecs", 0] == ends["codecs", 0]
    assert "at the end on" not in said
