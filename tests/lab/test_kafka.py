"""Kafka and ZooKeeper: backed up under load, destroyed, restored, compared."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.services.kafka import LOAD_TOPICS, KafkaLoad, check_load
from tests.lab.kafka_site import KafkaSite
from tests.lab.product import Product, product

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
