"""Real Kafka clusters with ZooKeeper on hosts of the lab, as Epiphany has them."""

from lab.services.kafka.checking import Check, check_load
from lab.services.kafka.contents import KafkaContents, PartitionLog, Record
from lab.services.kafka.load import LOAD_TOPICS, KafkaLoad, Latency, LoadTopic
from lab.services.kafka.server import KafkaCluster, Server
from lab.services.kafka.versions import KAFKA_RECIPE, VERSIONS
from lab.services.kafka.zookeeper import ZooKeeperSession

__all__ = [
    "KAFKA_RECIPE",
    "LOAD_TOPICS",
    "VERSIONS",
    "Check",
    "KafkaCluster",
    "KafkaContents",
    "KafkaLoad",
    "Latency",
    "LoadTopic",
    "PartitionLog",
    "Record",
    "Server",
    "ZooKeeperSession",
    "check_load",
]
