"""What a Kafka cluster holds, as a client sees it: topics, records, groups, rules."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from kafka import (  # type: ignore[import-untyped]
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.admin import (  # type: ignore[import-untyped]
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    ConfigResourceType,
    NewTopic,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.errors import (  # type: ignore[import-untyped]
    KafkaError,
    OffsetOutOfRangeError,
    SecurityDisabledError,
    TopicAlreadyExistsError,
)

from lab.errors import LabError

Made = TypeVar("Made")
# What was set for a topic or a broker itself: a topic shows brokers' settings, too.
_OWN_SOURCES = {
    "topic": ("DYNAMIC_TOPIC_CONFIG",),
    "broker": ("DYNAMIC_BROKER_CONFIG", "DYNAMIC_DEFAULT_BROKER_CONFIG"),
}
_TIMEOUT_SECONDS = 60.0
# Brokers learn of a change one after the other, and each question goes to one of them at random.
_ANSWERS_IN_A_ROW = 6


class Record(NamedTuple):
    """A record as it is read; `timestamp` is in milliseconds, `value` is None for a deletion."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@dataclass
class PartitionLog:
    """What is readable of a partition: from its log start to, but without, its end."""

    start: int
    end: int
    records: list[Record] = field(default_factory=list)


class KafkaContents:
    """What can be done to a running cluster and seen of it with a client.

    Every method raises LabError if the cluster does not do it within a minute.
    """

    def __init__(self, bootstrap_servers: Sequence[str]) -> None:
        self.bootstrap_servers = list(bootstrap_servers)

    # -- changing -------------------------------------------------------------------------------

    def create_topic(
        self, name: str, partitions: int = 1, replication: int = 1, **configs: str
    ) -> None:
        """Makes a topic and waits for its leaders; `configs` have dots: `**{"segment.ms": "9"}`."""
        new = NewTopic(name, partitions, replication, topic_configs=configs)

        def create(admin: Any) -> None:
            try:
                admin.create_topics([new])
            except TopicAlreadyExistsError:  # an answer to an earlier attempt that was lost
                if len(self._partitions(admin, [name])) != partitions:
                    raise

        self._administer(create)
        self._administer(lambda admin: self._require_leaders(admin, name, partitions))

    def delete_topic(self, name: str) -> None:
        """Deletes a topic with all that it holds."""
        self._administer(lambda admin: admin.delete_topics([name]))

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Deletes what is below an offset: the log start is then that offset."""
        these = {TopicPartition(topic, partition): before}
        self._administer(lambda admin: admin.delete_records(these))

    def configure_topic(self, name: str, configs: Mapping[str, str]) -> None:
        """Sets a topic's own configuration, in addition to what is set."""
        self._configure(ConfigResourceType.TOPIC, name, configs)

    def configure_broker(self, broker_id: int, configs: Mapping[str, str]) -> None:
        """Sets a broker's dynamic configuration, which is kept in ZooKeeper."""
        self._configure(ConfigResourceType.BROKER, str(broker_id), configs)

    def allow(self, principal: str, operation: str, topic: str) -> None:
        """Adds an ACL: a principal (`User:shop`) may do an operation (`READ`) on a topic."""
        rule = ACL(
            principal,
            "*",
            ACLOperation[operation],
            ACLPermissionType.ALLOW,
            ResourcePattern(ResourceType.TOPIC, topic),
        )

        def add(admin: Any) -> None:
            failed = admin.create_acls([rule])["failed"]
            if failed:
                raise LabError(f"the ACL for {principal} was refused: {failed}")

        self._administer(add)
        self._wait_until_known(lambda: f"acl/{rule}" in self._rules(), str(rule))

    def commit(self, group: str, offsets: Mapping[tuple[str, int], int], note: str = "") -> None:
        """Commits a group's offsets, by topic and partition, with a note beside them."""
        wanted = {
            TopicPartition(*place): OffsetAndMetadata(offset, note, -1)
            for place, offset in offsets.items()
        }

        def alter(admin: Any) -> None:
            for place, error in admin.alter_group_offsets(group, wanted).items():
                if error.errno:
                    raise error(f"{group} {place}")

        self._administer(alter)

    def produce(
        self,
        topic: str,
        records: Iterable[tuple[bytes | None, bytes | None]],
        *,
        compression: str | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
    ) -> None:
        """Writes keys and values and waits until all are acknowledged by all replicas.

        Without a partition a record's key chooses it, and without a timestamp it is now.
        """
        try:
            with KafkaProducer(
                bootstrap_servers=self.bootstrap_servers,
                compression_type=compression,
                allow_auto_create_topics=False,
            ) as producer:
                sent = [
                    producer.send(topic, value, key, list(headers), partition, timestamp_ms)
                    for key, value in records
                ]
                for future in sent:
                    future.get(timeout=_TIMEOUT_SECONDS)
        except KafkaError as error:
            raise LabError(f"{topic} could not be written: {error}") from error

    # -- looking --------------------------------------------------------------------------------

    def topics(self) -> dict[str, int]:
        """The topics that are not Kafka's own, with their number of partitions."""
        found = self._administer(lambda admin: admin.describe_topics())
        return {it["name"]: len(it["partitions"]) for it in found if not it["is_internal"]}

    def read(self, *topics: str) -> dict[tuple[str, int], PartitionLog]:
        """Everything that is in some topics now, by topic and partition.

        It is read again if Kafka deletes what is about to be read. Raises LabError for a topic
        that is not there, and for data that cannot be read.
        """
        missing = [it for it in topics if it not in self.topics()]
        if missing:
            raise LabError(f"there is no topic {', '.join(missing)}")
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            try:
                return self._read(topics)
            except KafkaError as error:
                is_passing = error.retriable or isinstance(error, OffsetOutOfRangeError)
                if not is_passing or time.monotonic() > deadline:
                    raise LabError(f"{', '.join(topics)} could not be read: {error!r}") from error

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """A group's committed offsets, by topic and partition."""
        found = self._administer(lambda admin: admin.list_group_offsets([group]))[group]
        return {(place.topic, place.partition): it.offset for place, it in found.items()}

    def fingerprint(self) -> dict[str, str]:
        """Everything that a backup should bring back, as names of things to a description.

        Of each topic its configuration and replicas, and of each partition offsets, number and
        checksum of the records; groups' offsets; ACLs; dynamic configuration of brokers. Kafka's
        own topics are seen by their configuration and by the groups only. A topic that is being
        written, cleaned or cut by its retention changes; wait for that. All brokers have to run.
        """
        found: dict[str, str] = {}
        described = self._administer(lambda admin: admin.describe_topics())
        kinds = ConfigResourceType
        configured = [ConfigResource(kinds.TOPIC, it["name"]) for it in described]
        brokers = range(len(self.bootstrap_servers))
        configured += [ConfigResource(kinds.BROKER, str(it)) for it in brokers]
        found |= self._configurations(configured)
        for topic in described:
            for it in topic["partitions"]:
                key = f"topic/{topic['name']}/{it['partition_index']}/replicas"
                found[key] = str(it["replica_nodes"])
        names = [topic["name"] for topic in described if not topic["is_internal"]]
        for (name, number), log in (self.read(*names) if names else {}).items():
            digest = hashlib.sha256(repr(log.records).encode()).hexdigest()[:16]
            text = f"{log.start} to {log.end}, {len(log.records)} records, {digest}"
            found[f"topic/{name}/{number}/records"] = text
        found |= self._groups()
        found |= dict.fromkeys(self._rules(), "present")
        return found

    # -- own ------------------------------------------------------------------------------------

    @contextmanager
    def _admin(self) -> Iterator[Any]:
        admin = KafkaAdminClient(
            bootstrap_servers=self.bootstrap_servers, bootstrap_timeout_ms=5000
        )
        try:
            yield admin
        finally:
            admin.close()

    def _administer(self, action: Callable[[Any], Made]) -> Made:
        """Does something with an administration client; tries again while Kafka says "not yet"."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            try:
                with self._admin() as admin:
                    return action(admin)
            except KafkaError as error:
                if not error.retriable or time.monotonic() > deadline:
                    raise LabError(f"Kafka does not do it: {error!r}") from error
            time.sleep(0.1)

    def _configure(self, kind: Any, name: str, configs: Mapping[str, str]) -> None:
        wanted = ConfigResource(kind, name, dict(configs))
        answers = self._administer(lambda admin: admin.alter_configs([wanted]))
        refused = [it for it in answers[kind.name.lower()].values() if it != "OK"]
        if refused:
            raise LabError(f"{name} does not take {dict(configs)}: {refused[0]}")
        key = f"{kind.name.lower()}/{name}/configuration"

        def is_known() -> bool:
            text = self._configurations([ConfigResource(kind, name)])[key]
            found: dict[str, str] = json.loads(text)
            return configs.items() <= found.items()

        self._wait_until_known(is_known, key)

    def _wait_until_known(self, is_known: Callable[[], bool], what: str) -> None:
        """Waits until all brokers know of a change."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        answers = 0
        while answers < _ANSWERS_IN_A_ROW:
            answers = answers + 1 if is_known() else 0
            if time.monotonic() > deadline:
                raise LabError(f"brokers do not come to know {what}")

    def _partitions(self, admin: Any, topics: Sequence[str]) -> list[dict[str, Any]]:
        described = admin.describe_topics(list(topics))
        return [partition for topic in described for partition in topic["partitions"]]

    def _require_leaders(self, admin: Any, topic: str, partitions: int) -> None:
        found = self._partitions(admin, [topic])
        if len(found) != partitions or any(it["leader_id"] < 0 for it in found):
            raise KafkaNotReady(topic)

    def _read(self, topics: Sequence[str]) -> dict[tuple[str, int], PartitionLog]:
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap_servers,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            allow_auto_create_topics=False,
        )
        try:
            places = [
                TopicPartition(topic, number)
                for topic in topics
                for number in sorted(consumer.partitions_for_topic(topic) or ())
            ]
            starts, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
            logs = {it: PartitionLog(starts[it], ends[it]) for it in places}
            consumer.assign(places)
            for place in places:
                consumer.seek(place, starts[place])
            self._read_until(consumer, logs)
        finally:
            consumer.close()
        return {(place.topic, place.partition): log for place, log in logs.items()}

    def _read_until(self, consumer: Any, logs: Mapping[Any, PartitionLog]) -> None:
        """Reads all partitions up to their ends; what was written since is left out."""
        last = time.monotonic()
        while unread := [it for it, log in logs.items() if consumer.position(it) < log.end]:
            for place in set(logs) - set(unread) - consumer.paused():
                consumer.pause(place)
            before = [consumer.position(it) for it in unread]
            for place, records in consumer.poll(timeout_ms=200).items():
                log = logs[place]
                log.records.extend(_record(it) for it in records if it.offset < log.end)
            if [consumer.position(it) for it in unread] != before:
                last = time.monotonic()
            elif time.monotonic() > last + _TIMEOUT_SECONDS:
                raise LabError(f"{unread} cannot be read beyond {before}")

    def _configurations(self, wanted: Sequence[Any]) -> dict[str, str]:
        """What was set for topics and, dynamically, for brokers."""
        found = self._administer(lambda admin: admin.describe_configs(wanted))
        return {
            f"{kind}/{name}/configuration": json.dumps(
                {
                    key: it["value"]
                    for key, it in sorted(values.items())
                    if it["config_source"] in _OWN_SOURCES[kind]
                }
            )
            for kind, resources in found.items()
            for name, values in resources.items()
        }

    def _groups(self) -> dict[str, str]:
        listed = self._administer(lambda admin: admin.list_groups())
        found = {}
        for group in sorted(it["group_id"] for it in listed):
            offsets = self._administer(
                lambda admin, group=group: admin.list_group_offsets([group])  # type: ignore[misc]
            )[group]
            for place, it in offsets.items():
                key = f"group/{group}/{place.topic}/{place.partition}"
                found[key] = f"{it.offset} {it.metadata}"
        return found

    def _rules(self) -> list[str]:
        """All ACLs; none where brokers have no authorizer."""
        everything = ACLFilter(
            None,
            None,
            ACLOperation.ANY,
            ACLPermissionType.ANY,
            ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
        )

        def describe(admin: Any) -> list[str]:
            try:
                return [f"acl/{rule}" for rule in admin.describe_acls(everything)[0]]
            except SecurityDisabledError:
                return []

        return self._administer(describe)


class KafkaNotReady(KafkaError):  # type: ignore[misc]
    """A topic that was made has no leaders yet."""

    retriable = True


def _record(found: Any) -> Record:
    headers = tuple((name, bytes(value)) for name, value in found.headers)
    return Record(found.offset, found.timestamp, found.key, found.value, headers)
