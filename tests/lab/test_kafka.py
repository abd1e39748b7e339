"""Kafka and ZooKeeper: backed up under load, destroyed, restored, compared."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import faults
from lab.services.kafka import LOAD_TOPICS, KafkaLoad, check_load
from tests.lab.kafka_site import KafkaSite
from tests.lab.product import Product, product
from tests.lab.trouble import ended, wait_for

SINGLE = tuple(dataclasses.replace(topic, name=f"one.{topic.name}") for topic in LOAD_TOPICS)


@pytest.fixture
def epibackup(kafka_site: KafkaSite, tmp_path: Path) -> Iterator[Product]:
    with product(kafka_site.cluster, tmp_path, "test-kafka") as made:
        yield made
        assert made.leftovers() == {}, "something was left on the hosts"


def test_what_was_acknowledged_before_a_hot_backup_comes_back(
    epibackup: Product, clean_kafka_site: KafkaSite
) -> None:
    kafka = clean_kafka_site.kafka
    kafka.create_topic("empty", 4, 2, **{"retention.ms": "12345678"})
    kafka.allow("User:somebody", "READ", "empty")
    with KafkaLoad(kafka) as load, KafkaLoad(kafka, SINGLE, replication=1) as single:
        load.wait_until_cleaned()
        single.wait_until_cleaned()
        kafka.commit("billing", {("load.plain", 0): 20, ("one.load.plain", 0): 21}, "note")
        before = time.monotonic()
        done = epibackup.backup()
        load.wait_for(20)
        single.wait_for(20)
    assert load.refused == single.refused == [], "a client has noticed the backup"
    assert done["manifest"]["status"] == "ok"
    saved = kafka.fingerprint()
    kafka.destroy_data()
    epibackup.restore("latest")
    assert check_load(load, before).problems == []
    assert check_load(single, before).problems == []
    restored = kafka.fingerprint()
    # What was written after the snapshot is in the one and not in the other.
    still = {key for key in saved if not key.endswith(("/records", "/start", "/end"))}
    assert {key: restored.get(key) for key in still} == {key: saved[key] for key in still}


def hosts_of(document: dict[str, Any], service: str) -> dict[str, dict[str, Any]]:
    (found,) = [item for item in document["manifest"]["services"] if item["name"] == service]
    return {host["host"]: host for host in found["hosts"]}


def test_a_broker_and_a_zookeeper_that_are_down_are_saved_with_a_warning(
    epibackup: Product, kafka_site: KafkaSite
) -> None:
    first, second, _ = kafka_site.hosts
    with faults.unit_stopped(first, "kafka"), faults.unit_stopped(second, "zookeeper"):
        done = epibackup.backup()
    kafka_site.kafka.wait_until_ready()
    (warning,) = hosts_of(done, "kafka")["broker1"]["warnings"]
    assert "kafka.service is not running" in warning
    (warning,) = hosts_of(done, "zookeeper")["broker2"]["warnings"]
    assert "zookeeper.service is not running" in warning


def test_a_host_that_is_gone_fails_its_services_and_names_what_is_lost(
    epibackup: Product, clean_kafka_site: KafkaSite
) -> None:
    clean_kafka_site.kafka.create_topic("single", 3, 1)
    with faults.connection_refused(clean_kafka_site.hosts[1]):
        done = epibackup.backup(code=3)
    services = {item["name"]: item for item in done["manifest"]["services"]}
    assert services["kafka"]["status"] == services["zookeeper"]["status"] == "failed"
    assert "on none of the saved brokers: single [" in services["kafka"]["problems"][0]
    assert services["zookeeper"]["problems"] == []  # two of three know everything


def test_a_stopped_broker_starts_again_by_itself_when_the_agent_is_killed(
    epibackup: Product, clean_kafka_site: KafkaSite
) -> None:
    kafka = clean_kafka_site.kafka
    host = clean_kafka_site.hosts[0]
    epibackup.configure(kafka={"quiesce": "stop", "stop_limit_seconds": 30})
    assert epibackup.backup("--service", "kafka")["status"] == "ok"
    kafka.wait_until_ready()
    running = epibackup.start("backup", "--service", "kafka")
    # Stopping takes a while: the agent is killed in it, and nothing of it is left to start Kafka.
    ask = ["systemctl", "is-active", "kafka"]
    wait_for(lambda: host.run(ask, check=False).stdout.strip() != "active", "the stop")
    assert faults.kill(host, r"agent-\S+ --worker .*snapshot kafka") > 0
    ended(running, clean_kafka_site)
    assert running.returncode == 3
    kafka.wait_until_ready()
    assert epibackup.backup("--service", "kafka")["status"] == "ok"


def test_an_agent_that_is_killed_while_linking_leaves_nothing_for_good(
    epibackup: Product, kafka_site: KafkaSite
) -> None:
    host = kafka_site.hosts[0]
    place = "/var/lib/epibackup/snapshots/20260101T000000Z/kafka"
    links = "/var/lib/.epibackup-kafka-20260101T000000Z-0"
    host.run(["mkdir", "--parents", "--mode=0700", place, f"{links}/orders-0"])
    host.run(["ln", "--symbolic", links, f"{place}/links-0"])
    assert epibackup.backup("--service", "kafka")["status"] == "ok"
    assert not host.exists(links)
    assert not host.exists(place)
