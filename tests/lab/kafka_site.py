"""A Kafka cluster on three hosts for tests: started once a session, and always taken down.

`kafka_site` is shared: a test undoes what it does to it. A test that cannot asks for
`clean_kafka_site`, and it is taken back to its first state, without topics, after it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab import Cluster, Container, Definition, HostDefinition
from lab.cluster import EVERY_HOST, claimed_network
from lab.machine import Report
from lab.services.kafka import KAFKA_RECIPE, KafkaCluster

_KAFKA_HOST = (*EVERY_HOST, "kafka", "zookeeper")
_MEMORY_BYTES = 1200 * 1024**2


@dataclass(frozen=True)
class KafkaSite:
    """Hosts broker1 to broker3, and the Kafka that runs on them."""

    cluster: Cluster
    kafka: KafkaCluster

    @property
    def hosts(self) -> list[Container]:
        return self.kafka.hosts

    def reset(self) -> None:
        """Takes everything back to its first state, running."""
        self.cluster.reset()
        self.kafka.start()


@pytest.fixture(scope="session")
def kafka_site(report: Report, ends_on_sigterm: None) -> Iterator[KafkaSite]:
    """Three brokers with a ZooKeeper each, with ACLs and without topics."""
    with claimed_network() as network:
        definition = Definition(
            name=f"test-{network}",
            network=network,
            hosts=tuple(HostDefinition(f"broker{number}", _KAFKA_HOST) for number in (1, 2, 3)),
            recipe=KAFKA_RECIPE,
            memory_bytes=_MEMORY_BYTES,
        )
        cluster = Cluster(definition)
        if cluster.folder.exists():  # of a session that was killed
            cluster.destroy()
        try:
            cluster.start(report)
            kafka = KafkaCluster(list(cluster.hosts.values()), has_acls=True)
            kafka.create(report)
            # In order, or the first start after a reset would find the brokers' sessions.
            kafka.stop()
            cluster.save()
            kafka.start()
            yield KafkaSite(cluster, kafka)
        finally:
            cluster.destroy()


@pytest.fixture
def clean_kafka_site(kafka_site: KafkaSite) -> Iterator[KafkaSite]:
    """The cluster, for a test that changes or breaks it; reset afterwards."""
    try:
        yield kafka_site
    finally:
        kafka_site.reset()
