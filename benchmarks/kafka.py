"""Kafka: what a backup costs its broker, and how fast it goes and comes back."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import ways
from lab import Cluster, Definition, HostDefinition
from lab.cluster import EVERY_HOST, claimed_network
from lab.machine import Report
from lab.services.kafka import KAFKA_RECIPE, LOAD_TOPICS, KafkaCluster, KafkaLoad, Latency
from tests.lab.product import Product, product

MB = 1_000_000
MIB = 1 << 20
LINE_BYTES = 1000
POOL_LINES = 4000
RECORD_BYTES = 60_000
DATA = "var/lib/kafka"
QUIET_SECONDS = 30
LEFT = "/var/lib/.epibackup-kafka-*"


@contextmanager
def _site(say: Report) -> Iterator[tuple[Cluster, KafkaCluster]]:
    with claimed_network() as network:
        hosts = (HostDefinition("broker", (*EVERY_HOST, "kafka", "zookeeper")),)
        definition = Definition(
            f"bench-{network}", network, hosts, recipe=KAFKA_RECIPE, memory_bytes=6 << 30
        )
        cluster = Cluster(definition)
        cluster.destroy()  # what a killed run has left under this name
        try:
            cluster.start(say)
            kafka = KafkaCluster(list(cluster.hosts.values()))
            kafka.create(say)
            yield cluster, kafka
        finally:
            cluster.destroy()


def runs(sizes: Sequence[float], rounds: int, say: Report) -> list[str]:
    """The table's rows for one broker with so many GiB of logs."""
    lines: list[str] = []
    with (
        _site(say) as (cluster, kafka),
        tempfile.TemporaryDirectory(dir=cluster.folder) as folder,
        product(cluster, Path(folder), f"bench-{cluster.definition.network}") as made,
    ):
        kafka.create_topic("filling", 8, 1, **{"retention.ms": "-1"})
        held = 0.0
        for size in sorted(sizes):
            say(f"Kafka: filling up to {size:g} GiB")
            _fill(kafka, size - held)
            held = size
            lines += _measure(cluster, kafka, made, size, rounds, say)
    return lines


def _measure(
    cluster: Cluster, kafka: KafkaCluster, made: Product, size: float, rounds: int, say: Report
) -> list[str]:
    output = made.target.parent / "hand-made"
    output.mkdir(exist_ok=True)
    own, other = [], []
    for number in range(rounds):
        say(f"Kafka: {size:g} GiB, round {number + 1} of {rounds}")
        other.append(ways.hand_made(cluster, output, DATA).seconds)
        own.append(ways.epibackup(made).seconds)
    say(f"Kafka: {size:g} GiB, with a steady producer")
    topics = [topic for topic in LOAD_TOPICS if topic.name == "load.plain"]
    with KafkaLoad(kafka, topics, replication=1, records_per_second=200) as load:
        load.wait_for(200)
        quiet_from = time.monotonic()
        time.sleep(QUIET_SECONDS)
        quiet = load.latency(quiet_from)
        busy_from = time.monotonic()
        extra, document = _watched_backup(cluster, made)
        busy = load.latency(busy_from, time.monotonic())
        hand_from = time.monotonic()
        ways.hand_made(cluster, output, DATA)
        by_hand = load.latency(hand_from, time.monotonic())
    kafka.delete_topic("load.plain")
    records = [host for it in document["manifest"]["services"] for host in it["hosts"]]
    frozen = next(
        it["details"]["frozen_seconds"] for it in records if "frozen_seconds" in it["details"]
    )
    total = int(size * 1024 * MIB)
    say(f"Kafka: {size:g} GiB, back again")
    restored = _timed(lambda: made.restore("latest"))
    made.json("clean", "--discard")
    kafka.wait_until_ready()
    own_rate, other_rate = total / MB / _median(own), total / MB / _median(other)
    return [
        f"| Kafka, one broker, {total / MB / 1000:.1f} GB | |",
        "| --- | ---: |",
        f"| putting the logs aside | {frozen * 1000:.0f} ms |",
        f"| extra disk on the broker | {extra / MB:.1f} MB, {100 * extra / total:.3f} % |",
        f"| the whole run | {_median(own):.1f} s, {own_rate:.0f} MB/s |",
        (
            f"| hand-made | {_median(other):.1f} s, {other_rate:.0f} MB/s: "
            f"{_median(other) / _median(own):.2f} of it |"
        ),
        f"| a producer's latency without a backup | {_latency(quiet)} |",
        f"| … during the whole run | {_latency(busy)} |",
        f"| … during the hand-made one | {_latency(by_hand)} |",
        f"| restore of the whole cluster | {restored:.1f} s, {total / MB / restored:.0f} MB/s |",
        "",
    ]


def _watched_backup(cluster: Cluster, made: Product) -> tuple[int, dict[str, Any]]:
    """A backup, and the most that it took on the broker's disk besides the logs, in bytes."""
    (host,) = cluster.hosts.values()
    running = made.start("backup", "--json")
    most = 0
    script = f"cd / && du -sbc {DATA} var/lib/epibackup/snapshots {LEFT} 2>/dev/null; du -sb {DATA}"
    while running.poll() is None:
        shown = host.run(["sh", "-c", script], check=False).stdout.splitlines()
        totals = [int(line.split()[0]) for line in shown if line.endswith(("total", DATA))]
        if len(totals) >= 2:
            most = max(most, totals[-2] - totals[-1])
        time.sleep(0.5)
    if running.returncode != 0:
        raise RuntimeError(f"the backup failed: {running.stdout and running.stdout.read()}")
    return most, made.json("show", "latest")


def _fill(kafka: KafkaCluster, gib: float) -> None:
    """Records that compress to about half: log lines with random numbers in them."""
    lines = b"".join(
        os.urandom(LINE_BYTES // 4).hex().encode() + b"log line " * (LINE_BYTES // 18) + b"\n"
        for _ in range(POOL_LINES)
    )
    count = int(gib * 1024 * MIB / RECORD_BYTES)
    last = len(lines) - RECORD_BYTES
    kafka.produce(
        "filling",
        (
            (None, lines[place : place + RECORD_BYTES])
            for place in (number * 7919 % last for number in range(count))
        ),
    )
    subprocess.run(["sync"], check=True)


def _latency(found: Latency) -> str:
    median, p99 = found.median_seconds * 1000, found.p99_seconds * 1000
    return f"median {median:.0f} ms, p99 {p99:.0f} ms"


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _timed(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started
