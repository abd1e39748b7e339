"""Kafka and ZooKeeper: restores of a whole cluster, elsewhere, of one topic; what goes wrong."""

import json
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import Cluster, Definition, HostDefinition, faults
from lab.cluster import EVERY_HOST, claimed_network
from lab.machine import Report
from lab.services.kafka import KAFKA_RECIPE, KafkaCluster
from tests.lab.kafka_site import KafkaSite
from tests.lab.product import Product, product
from tests.lab.trouble import ended

RECORDS = 300


def numbered(count: int) -> list[tuple[bytes, bytes]]:
    """Keys and values of records."""
    return [(b"key %d" % number, b"value %d" % number * 20) for number in range(count)]


@pytest.fixture
def epibackup(kafka_site: KafkaSite, tmp_path: Path) -> Iterator[Product]:
    with product(kafka_site.cluster, tmp_path, "test-kafka-restore") as made:
        yield made
        assert made.leftovers() == {}, "something was left on the hosts"


@pytest.fixture(scope="module")
def saved(
    kafka_site: KafkaSite, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """An archive that restore-only tests share, and what the cluster held."""
    kafka = kafka_site.kafka
    kafka.create_topic("orders", 3, 3, **{"segment.bytes": "20000", "retention.ms": "-1"})
    kafka.create_topic("one.replica", 2, 1)
    kafka.create_topic("empty", 2, 2)
    kafka.allow("User:somebody", "READ", "orders")
    kafka.produce("orders", numbered(RECORDS), compression="lz4", headers=[("a", b"b")])
    kafka.produce("one.replica", numbered(RECORDS))
    kafka.commit("billing", {("orders", 0): 20, ("orders", 1): 5})
    folder = tmp_path_factory.mktemp("saved")
    with product(kafka_site.cluster, folder, "test-kafka-saved") as made:
        done = made.backup()
        assert done["status"] == "ok"
        held = kafka.fingerprint()
    kafka_site.reset()
    return made.target / done["archive_key"], held


def changed_manifest(archive: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    """A copy of an archive whose manifest says something else."""
    path = folder / archive.name
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "manifest.json":
                manifest = json.loads(data)
                change(manifest)
                data = json.dumps(manifest).encode()
            new.writestr(name, data)
    return path


def test_a_whole_cluster_goes_back_in_time_and_keeps_what_it_had(
    epibackup: Product, saved: tuple[Path, dict[str, str]], clean_kafka_site: KafkaSite
) -> None:
    archive, before = saved
    kafka = clean_kafka_site.kafka
    epibackup.give(archive)
    kafka.create_topic("later", 1, 1)
    kafka.produce("later", numbered(50))
    kafka.create_topic("orders", 1, 1)
    shown = epibackup.run("restore", "latest", "--dry-run")
    assert "stop kafka.service" in shown.stderr
    assert "later" in kafka.topics(), "a dry run has changed something"
    report = epibackup.restore("latest")
    assert kafka.fingerprint() == before
    kept = {(item["service"], name) for item in report["hosts"] for name in item["kept"]}
    run = report["run"]
    assert ("kafka", f"/var/lib/kafka.before-{run}") in kept
    assert ("zookeeper", f"/var/log/zookeeper/version-2.before-{run}") in kept
    epibackup.json("clean", "--discard")
    for host in clean_kafka_site.hosts:
        assert not host.exists(f"/var/lib/kafka.before-{run}")
        assert not host.exists(f"/var/lib/zookeeper/version-2.before-{run}")
    assert kafka.fingerprint() == before


def test_if_the_restored_cluster_is_not_what_was_saved_all_hosts_go_back(
    epibackup: Product,
    saved: tuple[Path, dict[str, str]],
    clean_kafka_site: KafkaSite,
    tmp_path: Path,
) -> None:
    def claim_more(manifest: Any) -> None:
        for service in manifest["services"]:
            for host in service["hosts"]:
                for partition in (
                    host["details"].get("topics", {}).get("orders", {}).get("partitions", [])
                ):
                    partition[2] += 7

    kafka = clean_kafka_site.kafka
    epibackup.give(changed_manifest(saved[0], tmp_path, claim_more))
    kafka.create_topic("later", 1, 1)
    kafka.produce("later", numbered(50))
    live = kafka.fingerprint()
    error = epibackup.restore("latest", code=9)["error"]
    assert "orders" in error["message"]
    assert "the restored cluster is not what was saved" in error["message"]
    kafka.wait_until_ready()
    assert kafka.fingerprint() == live
    for host in clean_kafka_site.hosts:
        assert not host.run(["sh", "-c", "ls -d /var/lib/kafka.*"], check=False).stdout


@pytest.mark.parametrize("step", ["put them in place", "start kafka"])
def test_if_an_agent_is_killed_all_hosts_go_back(
    epibackup: Product, saved: tuple[Path, dict[str, str]], clean_kafka_site: KafkaSite, step: str
) -> None:
    kafka = clean_kafka_site.kafka
    epibackup.give(saved[0])
    kafka.create_topic("later", 1, 1)
    running = epibackup.start("restore", "latest", "--yes")
    assert running.stdout
    for line in running.stdout:
        if line.startswith("broker2: ") and step in line:
            break
    victim = clean_kafka_site.hosts[1]
    assert faults.kill(victim, r"agent-\S+ --worker .*restore kafka") > 0
    ended(running, clean_kafka_site)
    assert running.returncode != 0
    kafka.wait_until_ready()
    assert "later" in kafka.topics()
    for host in clean_kafka_site.hosts:
        assert not host.run(["sh", "-c", "ls -d /var/lib/kafka.*"], check=False).stdout


def test_a_topic_comes_back_alone(
    epibackup: Product, saved: tuple[Path, dict[str, str]], clean_kafka_site: KafkaSite
) -> None:
    archive, before = saved
    kafka = clean_kafka_site.kafka  # which has no topics
    epibackup.give(archive)
    report = epibackup.restore("latest", "--part", "orders")
    (topic,) = report["services"][0]["topics"]
    assert topic["records"] == RECORDS
    restored = kafka.fingerprint()
    mine = {key for key in before if "/orders/" in key and not key.endswith("replicas")}
    assert {key: restored.get(key) for key in mine} == {key: before[key] for key in mine}
    assert kafka.committed("billing") == {("orders", 0): 20, ("orders", 1): 5}
    live = kafka.fingerprint()
    refused = epibackup.restore("latest", "--part", "orders", code=4)["error"]
    assert "--rename orders=" in refused["hint"]
    rename = ["--part", "orders", "--rename", "orders=copy"]
    shown = epibackup.run("restore", "latest", *rename, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "copy" in shown.stderr
    assert "copy" not in kafka.topics()
    original = kafka.read("orders")
    epibackup.restore("latest", *rename)
    for (_, number), log in kafka.read("copy").items():
        assert [it[1:] for it in log.records] == [
            it[1:] for it in original["orders", number].records
        ]
    assert kafka.committed("billing")[("copy", 0)] == 20
    restored = kafka.fingerprint()
    assert {key: restored[key] for key in live} == live, "something else was changed"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--part", "order"], 2, "did you mean orders?"),
        (["--part", "__consumer_offsets"], 2, "the brokers themselves"),
        (["--service", "kafka", "--host", "broker1"], 2, "leave out --host"),
        (["--part", "orders", "--part", "configuration"], 2, "cannot be restored at once"),
    ],
)
def test_what_cannot_be_restored_is_refused(
    epibackup: Product,
    saved: tuple[Path, dict[str, str]],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    epibackup.give(saved[0])
    error = epibackup.restore("latest", *arguments, code=code)["error"]
    assert words in f"{error['message']} {error['hint']}"


def test_a_lost_configuration_comes_back_and_the_broker_runs_on_it(
    epibackup: Product, saved: tuple[Path, dict[str, str]], clean_kafka_site: KafkaSite
) -> None:
    archive, _ = saved
    host = clean_kafka_site.hosts[0]
    epibackup.give(archive)
    clean_kafka_site.kafka.create_topic("live", 3, 3)
    live = clean_kafka_site.kafka.fingerprint()
    config = "/opt/kafka/config/server.properties"
    good = host.read(config)
    host.write(config, good.replace("log.dirs", "#log.dirs") + "num.io.threads=3\n")
    epibackup.restore(
        "latest", "--part", "configuration", "--host", "broker1", "--service", "kafka"
    )
    assert host.read(config) == good
    clean_kafka_site.kafka.wait_until_ready()
    assert clean_kafka_site.kafka.fingerprint() == live


@pytest.fixture
def elsewhere(report: Report, ends_on_sigterm: None) -> Iterator[KafkaSite]:
    """Three other hosts with Kafka installed, and a cluster of their own on it."""
    with claimed_network() as network:
        definition = Definition(
            name=f"test-{network}",
            network=network,
            hosts=tuple(
                HostDefinition(f"other{number}", (*EVERY_HOST, "kafka", "zookeeper"))
                for number in (1, 2, 3)
            ),
            recipe=KAFKA_RECIPE,
            memory_bytes=1200 * 1024**2,
        )
        cluster = Cluster(definition)
        try:
            cluster.start(report)
            kafka = KafkaCluster(list(cluster.hosts.values()), has_acls=True)
            kafka.create(report)
            yield KafkaSite(cluster, kafka)
        finally:
            cluster.destroy()


def test_a_cluster_comes_back_on_hosts_with_other_names_and_addresses(
    saved: tuple[Path, dict[str, str]], elsewhere: KafkaSite, tmp_path: Path
) -> None:
    archive, before = saved
    elsewhere.kafka.create_topic("own", 1, 1)
    pairs = [f"broker{number}=other{4 - number}" for number in (1, 2, 3)]  # crosswise
    mapping = [word for pair in pairs for word in ("--host-map", pair)]
    with product(elsewhere.cluster, tmp_path, "test-kafka-elsewhere") as epibackup:
        target = str(epibackup.give(archive).parent)
        shown = epibackup.run("restore", "latest", "-t", target, *mapping, "--dry-run")
        assert shown.returncode == 0, shown.stderr
        address = elsewhere.hosts[2].address
        assert f"becomes PLAINTEXT://{address}:9092" in " ".join(shown.stderr.split())
        assert f"becomes {address}:2888:3888" in " ".join(shown.stderr.split())
        epibackup.restore("latest", "-t", target, *mapping)
        assert epibackup.leftovers() == {}
    assert elsewhere.kafka.fingerprint() == before


def test_a_broker_that_is_gone_is_named(
    epibackup: Product, saved: tuple[Path, dict[str, str]], kafka_site: KafkaSite
) -> None:
    epibackup.give(saved[0])
    with faults.connection_refused(kafka_site.hosts[2]):
        started = time.monotonic()
        error = epibackup.restore("latest", code=4)["error"]
        assert time.monotonic() - started < 60
    assert "broker3" in error["message"]
