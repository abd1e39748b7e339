"""Kafka in the lab is real, and the load and its checker see what a restore can lose."""

import time

import pytest

from lab import Container, LabError
from lab.machine import Report
from lab.services.kafka import KafkaCluster, KafkaLoad, ZooKeeperSession, check_load
from lab.services.postgresql import differences
from tests.lab.kafka_site import KafkaSite
from tests.lab.trouble import wait_for


def test_hosts_look_as_epicli_left_them(kafka_site: KafkaSite) -> None:
    for place, host in enumerate(kafka_site.hosts):
        assert host.run(["readlink", "/opt/kafka"]).stdout == "/opt/kafka_2.12-2.8.2\n"
        assert host.run(["readlink", "/opt/zookeeper"]).stdout == "/opt/zookeeper-3.5.9\n"
        properties = host.read("/opt/kafka/config/server.properties").splitlines()
        assert f"broker.id={place}" in properties
        assert f"listeners=PLAINTEXT://{host.address}:9092" in properties
        assert host.read("/var/lib/zookeeper/myid") == f"{place + 1}\n"
        for folder in ("/var/lib/zookeeper/version-2", "/var/log/zookeeper/version-2"):
            assert host.run(["stat", "--format=%U", folder]).stdout == "zookeeper\n"
        assert f"broker.id={place}\n" in host.read("/var/lib/kafka/meta.properties")
        for unit, main in (("kafka", "kafka.Kafka"), ("zookeeper", "QuorumPeerMain")):
            process = host.run(["pgrep", "--uid", unit, "--full", main]).stdout.strip()
            show = ["systemctl", "show", "--property=MainPID", "--value", unit]
            assert host.run(show).stdout.strip() == process
        listening = host.run(["ss", "--listening", "--tcp", "--numeric"]).stdout.split()
        assert f"[::ffff:{host.address}]:9092" in listening
        with ZooKeeperSession(host.address) as session:
            assert session.children("/brokers/ids") == ["0", "1", "2"]
            assert b'"version"' in (session.data("/cluster/id") or b"")
            assert session.data("/no/such/node") is None
        assert not [it for it in listening if it in ("*:9092", "*:2181", "*:3888")]


def fill(kafka: KafkaCluster) -> None:
    """Something of everything that a fingerprint looks at."""
    kafka.create_topic("orders", 3, min(3, len(kafka.hosts)), **{"segment.bytes": "100000"})
    kafka.create_topic("single", 2, 1)
    compressions = (None, "gzip", "snappy", "lz4")
    for number, compression in enumerate(compressions):
        records = [(b"%d" % it, b"value %d" % it) for it in range(50)]
        headers = [("origin", b"test %d" % number)]
        kafka.produce("orders", records, compression=compression, headers=headers)
        kafka.produce("single", [(None, b"x" * 5000)] * 10, compression=compression)
    kafka.commit("shop", {("orders", 0): 11, ("single", 1): 5}, "a note")
    kafka.allow("User:shop", "READ", "orders")


def test_the_fingerprint_sees_each_change_and_nothing_else(clean_kafka_site: KafkaSite) -> None:
    kafka = clean_kafka_site.kafka
    fill(kafka)
    before = kafka.fingerprint()
    assert kafka.fingerprint() == before
    kafka.produce("orders", [(b"k", None)], partition=1)
    kafka.delete_records("orders", 2, before=3)
    kafka.configure_topic("single", {"retention.ms": "-1"})
    kafka.configure_broker(2, {"message.max.bytes": "1100000"})
    kafka.commit("shop", {("orders", 0): 12}, "a note")
    kafka.allow("User:shop", "WRITE", "orders")
    changed = [line.split(": ")[0] for line in differences(before, kafka.fingerprint())]
    (rule,) = [key for key in changed if key.startswith("acl/")]
    assert "WRITE" in rule
    assert [key for key in changed if key != rule] == [
        "broker/2/configuration",
        "group/shop/orders/0",
        "topic/orders/1/records",
        "topic/orders/2/records",
        "topic/single/configuration",
    ]


def test_a_restart_keeps_everything_and_a_disaster_nothing(
    clean_kafka_site: KafkaSite, report: Report
) -> None:
    kafka, host = clean_kafka_site.kafka, clean_kafka_site.hosts[0]
    fill(kafka)
    before = kafka.fingerprint()
    kafka.stop()
    assert not any(server.is_running for server in (*kafka.brokers, *kafka.zookeepers))
    kafka.start()
    assert differences(before, kafka.fingerprint()) == []
    kafka.destroy_data()
    assert not kafka.is_running
    for path in ("/var/lib/kafka", "/var/lib/zookeeper", "/opt/zookeeper/conf/zoo.cfg"):
        assert not host.exists(path)
    kafka.create(report)
    assert kafka.topics() == {}


def test_a_load_loses_nothing_when_a_broker_is_killed(clean_kafka_site: KafkaSite) -> None:
    kafka = clean_kafka_site.kafka
    broker = kafka.brokers[1]
    process = broker.process
    with KafkaLoad(kafka) as load:
        load.wait_for(50)
        broker.kill()
        wait_for(lambda: broker.process not in (0, process), "a restart", host=broker.host)
        kafka.wait_for_replicas()
        load.wait_for(50)
        load.wait_until_cleaned()
    found = check_load(load)
    assert found.problems == []
    assert load.refused == []
    assert found.required >= 600
    assert found.present < found.required, "nothing was compacted or deleted"
    latency = load.latency()
    assert 0 < latency.median_seconds < latency.p99_seconds <= latency.longest_seconds


def test_a_partition_without_a_second_replica_is_gone_with_its_broker(
    clean_kafka_site: KafkaSite,
) -> None:
    kafka = clean_kafka_site.kafka
    kafka.create_topic("replicated", 3, 3)
    kafka.produce("replicated", [(b"%d" % it, b"x") for it in range(100)])
    kafka.create_topic("single", 3, 1)
    kafka.wait_for_replicas()
    kafka.brokers[2].stop()
    kafka.wait_until_ready(clean_kafka_site.hosts[:2])
    logs = kafka.read("replicated").values()
    assert sum(len(log.records) for log in logs) == 100

    def without_leader() -> int:  # the first broker may know of it a moment later
        topics = kafka.brokers[0].metadata().get("topics", [])
        partitions = [part for it in topics if it["topic"] == "single" for part in it["partitions"]]
        return sum(part["leader"] == -1 for part in partitions)

    host = clean_kafka_site.hosts[0]
    wait_for(lambda: without_leader() == 1, "the loss of exactly one partition", host=host)
    with pytest.raises(LabError, match="does not know broker3"):
        kafka.wait_until_ready(timeout_seconds=0)


def test_the_checker_sees_what_is_lost_doubled_or_damaged(clean_kafka_site: KafkaSite) -> None:
    kafka = clean_kafka_site.kafka
    with KafkaLoad(kafka) as load:
        load.wait_for(100)
        early = time.monotonic()
        load.wait_for(100)
    assert check_load(load).problems == []
    kafka.stop()
    for host in clean_kafka_site.hosts:
        cut_log(host, "load.plain-0", 1500)
    kafka.start()
    (line,) = check_load(load).problems
    assert line.startswith("load.plain: ")
    assert " lost: record " in line
    assert check_load(load, before=early).problems == [], "the cut is of later records"

    kafka.delete_records("load.rolled", 0, before=3)
    kafka.delete_topic("load.snappy")
    topic = load.topics["load.single"]
    written = load.sent(topic.name)[5]
    for value in (topic.value(5), b"something else"):
        kafka.produce(
            topic.name,
            [(topic.key(5), value)],
            headers=topic.headers(5),
            timestamp_ms=written.timestamp,
        )
    topic = load.topics["load.retained"]
    end = kafka.read(topic.name)[topic.name, 0].end
    kafka.delete_records(topic.name, 0, before=end - 1)
    problems = "\n".join(check_load(load, before=early).problems)
    assert "load.rolled: 3 lost: record " in problems
    assert "load.snappy has 0 partitions" in problems
    assert "load.single: 1 damaged: at 0/" in problems
    assert "load.single: 1 twice: record 5 at 0/" in problems
    assert "load.retained: 1 partitions cut too short: 0: " in problems
    assert "load.plain" not in problems


def cut_log(host: Container, partition: str, cut_bytes: int) -> None:
    """Takes the end away from a partition's log, and has Kafka recover all logs at its start."""
    folder = "/var/lib/kafka"
    host.run(["rm", f"{folder}/.kafka_cleanshutdown", f"{folder}/recovery-point-offset-checkpoint"])
    log = f"{folder}/{partition}/{0:020}.log"
    host.run(["truncate", f"--size=-{cut_bytes}", log])


@pytest.mark.parametrize("version", ["2.0.1", "2.6.3", "3.6.2"])
def test_other_versions_run_with_a_log_folder_that_is_a_file_system(
    clean_kafka_site: KafkaSite, report: Report, version: str
) -> None:
    clean_kafka_site.kafka.destroy_data()
    host = clean_kafka_site.hosts[0]
    kafka = KafkaCluster(
        [host],
        version,
        log_dirs=("/var/lib/kafka", "/data/kafka2"),
        mounts=("/data/kafka2",),
        has_acls=True,
    )
    kafka.create(report)
    fill(kafka)
    assert host.run(["readlink", "/opt/kafka"]).stdout == f"/opt/kafka_2.12-{version}\n"
    kind = host.run(["findmnt", "--noheadings", "--output=FSTYPE", "/data/kafka2"]).stdout
    assert kind == "tmpfs\n"
    for folder in kafka.log_dirs:
        assert "orders-" in host.run(["ls", folder]).stdout
    before = kafka.fingerprint()
    kafka.stop()
    kafka.start()
    assert differences(before, kafka.fingerprint()) == []
