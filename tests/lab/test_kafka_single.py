"""One broker, the oldest and the newest Kafka, with two log directories: one is a mount point."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Cluster, Definition, HostDefinition, faults
from lab.cluster import EVERY_HOST, claimed_network
from lab.machine import Report
from lab.services.kafka import KAFKA_RECIPE, LOAD_TOPICS, KafkaCluster, KafkaLoad, check_load
from tests.lab.kafka_site import KafkaSite
from tests.lab.product import Product, product
from tests.lab.trouble import failed

MOUNT = "/data/kafka2"


@pytest.fixture(scope="module", params=["2.0.1", "3.6.2"])
def single(
    request: pytest.FixtureRequest, report: Report, ends_on_sigterm: None
) -> Iterator[KafkaSite]:
    with claimed_network() as network:
        hosts = (HostDefinition("kafka1", (*EVERY_HOST, "kafka", "zookeeper")),)
        definition = Definition(
            name=f"test-{network}",
            network=network,
            hosts=hosts,
            recipe=KAFKA_RECIPE,
            memory_bytes=1600 * 1024**2,
        )
        cluster = Cluster(definition)
        if cluster.folder.exists():  # of a session that was killed
            cluster.destroy()
        try:
            cluster.start(report)
            kafka = KafkaCluster(
                list(cluster.hosts.values()),
                request.param,
                log_dirs=["/var/lib/kafka", MOUNT],
                mounts=[MOUNT],
            )
            kafka.create(report)
            yield KafkaSite(cluster, kafka)
        finally:
            cluster.destroy()


@pytest.fixture
def epibackup(single: KafkaSite, tmp_path: Path) -> Iterator[Product]:
    with product(single.cluster, tmp_path, "test-kafka-single") as made:
        yield made
        assert made.leftovers() == {}, "something was left on the hosts"


def test_copied_logs_hold_all_that_was_acknowledged_too(
    epibackup: Product, single: KafkaSite
) -> None:
    kafka = single.kafka
    topics = [
        dataclasses.replace(topic, partitions=4)
        for topic in LOAD_TOPICS
        if topic.compression != "zstd" or kafka.distribution.number >= (2, 1)
    ]
    with KafkaLoad(kafka, topics, replication=1) as load:
        load.wait_until_cleaned()
        before = time.monotonic()
        done = epibackup.backup()
        load.wait_for(20)
    assert load.refused == []
    for service in done["manifest"]["services"]:
        warnings = [text for host in service["hosts"] for text in host["warnings"]]
        if service["name"] == "kafka":
            assert any(f"{MOUNT} was copied" in text for text in warnings)
    # In its place nothing can be put aside: it has to be empty.
    error = epibackup.restore("latest", code=1)["error"]
    assert f"{MOUNT} is a mount point and holds" in error["message"]
    kafka.wait_until_ready()
    kafka.destroy_data()
    epibackup.restore("latest")
    assert check_load(load, before).problems == []


def test_copies_do_not_fill_a_disk(epibackup: Product, single: KafkaSite) -> None:
    host = single.hosts[0]
    with faults.small_file_system(host, "/var/lib/epibackup", 100 << 20):
        done = epibackup.backup(code=3)
    error = failed(done)["kafka1"]
    assert "its copy needs" in error["message"]
    assert "host_directory" in error["hint"]
