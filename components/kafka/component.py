"""Kafka, seen from the controller."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from components.errors import UsageError
from components.kafka.settings import KafkaSettings
from components.restoring import ControllerRestore, RestoreContext
from components.service import ServiceBackup, ServiceSettings

if TYPE_CHECKING:
    from components.kafka.client import KafkaConnection
    from components.kafka.topics import TopicRestore

CONFIGURATION = "configuration"


class KafkaServiceSettings(ServiceSettings):
    """How brokers are saved, and how a restore talks to them."""

    quiesce: Literal["hot", "stop"] = Field(
        "hot",
        description="hot: no broker stops. stop: one broker after the other is stopped for the "
        "moment in which its logs are put aside; with one replica its partitions are not "
        "available then.",
        examples=["stop"],
    )
    stop_limit_seconds: int = Field(
        600,
        ge=30,
        le=86400,
        description="With stop: a broker that is still down after this time is started by its "
        "host, whatever has become of the run.",
        examples=[300],
    )
    client: KafkaSettings = Field(
        default_factory=KafkaSettings,
        description="How a restore logs in to the brokers, which it reaches through ssh.",
    )


class Kafka(ServiceBackup):
    """Logs, settings and configuration of every broker, while all of them go on."""

    service = "kafka"
    groups = ("kafka",)
    title = "Kafka"
    settings_model = KafkaServiceSettings

    @classmethod
    def one_at_a_time(cls, settings: ServiceSettings) -> bool:
        """Only where a broker is stopped."""
        return cast(KafkaServiceSettings, settings).quiesce == "stop"

    @classmethod
    def restored_with(cls, parts: Sequence[str]) -> tuple[str, ...]:
        """A whole cluster goes back with its ZooKeeper."""
        return () if parts else ("kafka", "zookeeper")

    @classmethod
    def is_restored_by_controller(cls, parts: Sequence[str]) -> bool:
        """Single topics go into the running cluster."""
        if CONFIGURATION in parts and len(parts) > 1:
            raise UsageError(
                "the configuration and single topics cannot be restored at once",
                f"first --part {CONFIGURATION}, then the topics",
            )
        return bool(parts) and CONFIGURATION not in parts

    @classmethod
    def controller_restore(cls, context: RestoreContext) -> ControllerRestore:
        """Produce the chosen topics again."""
        return _Topics(context)

    @classmethod
    def compare(cls, context: RestoreContext) -> list[str]:
        """Wait for leaders and replicas, then compare offsets with the manifest."""
        from components.kafka.proof import prove  # loads a Kafka client

        with connected(context) as connection:
            return prove(connection, context.record, context.say)

    @classmethod
    def conclude(cls, answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """A partition of which no broker that was saved has a replica is not saved."""
        held: dict[str, set[int]] = {}
        wanted: dict[str, set[int]] = {}
        for answer in answers.values():
            for topic, described in answer["details"].get("topics", {}).items():
                held.setdefault(topic, set()).update(item[0] for item in described["partitions"])
                wanted.setdefault(topic, set()).update(map(int, described["assignment"] or {}))
        lost = [
            f"{topic} {sorted(numbers - held[topic])}"
            for topic, numbers in sorted(wanted.items())
            if numbers - held[topic]
        ]
        if not lost:
            return []
        return [f"these partitions are on none of the saved brokers: {', '.join(lost)}"]


@contextmanager
def connected(context: RestoreContext) -> Iterator["KafkaConnection"]:
    """A connection to the brokers that run on a restore's hosts, through the first of them."""
    from components.kafka.client import KafkaConnection  # loads a Kafka client

    protocol = context.settings.client.security_protocol
    brokers = []
    for host in context.hosts:
        found = context.live(host)
        brokers += listeners(
            found["advertised"] or found["listeners"] or "", found["protocols"] or "", protocol
        )
    if not brokers:
        raise UsageError(
            f"no broker has a listener of the kind {protocol}",
            "set epibackup:kafka client security_protocol to the kind of one",
        )
    with KafkaConnection(context.clients, context.hosts[0], brokers, context.settings.client) as it:
        yield it


def listeners(listed: str, protocols: str, protocol: str) -> list[str]:
    """host:port of the listeners that speak a security protocol.

    listed, protocols: a broker's advertised.listeners and listener.security.protocol.map.
    """
    known = dict(pair.strip().split(":") for pair in protocols.split(",") if ":" in pair)
    found = []
    for listener in listed.split(","):
        name, separator, place = listener.strip().partition("://")
        if separator and known.get(name, name) == protocol and not place.startswith(":"):
            found.append(place)
    return found


class _Topics:
    """Topics that are restored into the running cluster (components.kafka.topics)."""

    def __init__(self, context: RestoreContext) -> None:
        self._context = context

    def plan(self) -> list[str]:
        with self._restore() as restore:
            return restore.plan()

    def run(self) -> dict[str, Any]:
        with self._restore() as restore:
            restore.plan()
            reports = restore.run(self._context.say)
        warnings = [warning for report in reports for warning in report["warnings"]]
        return {"topics": reports, "warnings": warnings}

    @contextmanager
    def _restore(self) -> Iterator["TopicRestore"]:
        from components.kafka.topics import TopicRestore  # loads a Kafka client

        context = self._context
        with connected(context) as connection:
            yield TopicRestore(
                context.reader, context.record, connection, context.parts, context.rename
            )
