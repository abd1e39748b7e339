"""One topic of a running cluster, as an administrator handles it: made, set, emptied, deleted."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka.admin import (  # type: ignore[import-untyped]  # kafka-python has no type hints
    ConfigFilterType,
    ConfigResource,
    ConfigResourceType,
)
from kafka.errors import (  # type: ignore[import-untyped]
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from components.errors import EpibackupError, PreflightRefused
from components.kafka.client import KafkaConnection

TOPIC_SECONDS = 60
"""How long a new topic may take to have leaders."""
FOREVER = str((1 << 63) - 1)
WHILE_REPLAYING = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "CreateTime",
}
"""Settings under which old records are neither changed nor deleted on arrival."""
TIME_LIMITS = (
    "message.timestamp.difference.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
)
"""Limits that would refuse old records; which of them there are depends on Kafka's version."""


class NotCreated(PreflightRefused):
    """The cluster does not take a topic; there is nothing of it."""


@dataclass(frozen=True)
class LiveTopic:
    """A topic of the cluster, which need not be there yet.

    All methods raise EpibackupError where the brokers do not do it.
    """

    connection: KafkaConnection
    name: str

    def exists(self, partitions: int, replication: int, settings: Mapping[str, str]) -> bool:
        """Whether the topic is there; if it is not, it could be created like this.

        Changes nothing. Raises NotCreated if the cluster would not take it.
        """
        answer = self.connection.ask(
            f"checking the settings of {self.name}",
            self.connection.admin.create_topics,
            {self.name: _creation(partitions, replication, settings)},
            validate_only=True,
            raise_errors=False,
        )
        # The controller knows; the metadata of other brokers is behind for a moment.
        if answer["topics"][0]["error_code"] == TopicAlreadyExistsError.errno:
            return True
        self._refuse(answer, partitions)
        return False

    def create(self, partitions: int, replication: int, settings: Mapping[str, str]) -> None:
        """Create the topic; raises NotCreated if the cluster does not take it."""
        request = {self.name: _creation(partitions, replication, settings)}
        with self.connection.explained(f"creating {self.name}"):
            answer = self.connection.admin.create_topics(request, raise_errors=False)
        self._refuse(answer, partitions)

    def _refuse(self, answer: Mapping[str, Any], partitions: int) -> None:
        """Raise NotCreated if the brokers' answer is that they do not take the topic."""
        for found in answer["topics"]:
            if found["error_code"] == TopicAlreadyExistsError.errno:
                raise NotCreated(
                    f"somebody else has created the topic {self.name} just now",
                    "stop the clients that use it, or forbid auto.create.topics.enable; then "
                    "again, or restore under another name with --rename",
                )
            if found["error_code"]:
                why = found.get("error_message") or for_code(found["error_code"]).__name__
                raise NotCreated(
                    f"the cluster does not take the topic {self.name}: {why}",
                    "create it by hand as it is to be, empty, with "
                    f"{partitions} partitions, and restore again",
                )

    def wait(self) -> None:
        """Wait until all brokers that are asked know the topic, with leaders."""
        self.connection.ask(
            f"waiting for {self.name}",
            self.connection.admin.wait_for_topics, [self.name],
            timeout_ms=TOPIC_SECONDS * 1000,
        )  # fmt: skip

    def partitions(self) -> int:
        """How many partitions it has."""
        admin = self.connection.admin
        [found] = self.connection.ask("describing topics", admin.describe_topics, [self.name])
        return len(found["partitions"])

    def settings(self) -> dict[str, dict[str, Any]]:
        """All settings in force, as kafka-python describes them."""
        resource = ConfigResource(ConfigResourceType.TOPIC, self.name)
        answer = self.connection.ask(
            f"reading the settings of {self.name}",
            self.connection.admin.describe_configs,
            [resource],
            config_filter=ConfigFilterType.ALL,
        )
        found: dict[str, dict[str, Any]] = answer["topic"][self.name]
        return found

    def overrides(self) -> dict[str, str]:
        """The topic's own settings, without the brokers' defaults."""
        return {
            name: str(setting["value"])
            for name, setting in self.settings().items()
            if setting["config_source"] == "DYNAMIC_TOPIC_CONFIG"
        }

    def alter(self, settings: Mapping[str, str]) -> None:
        """Set some of the topic's settings; the others stay."""
        self._change(settings, self.connection.admin.alter_configs)

    def reset(self, names: Sequence[str]) -> None:
        """Have the brokers' defaults for some of the topic's settings."""
        self._change(dict.fromkeys(names, ""), self.connection.admin.reset_configs)

    def keep_only(self, settings: Mapping[str, str]) -> None:
        """Make these the topic's own settings, and no others."""
        self.alter(settings)
        self.reset([name for name in self.overrides() if name not in settings])

    def lift_time_limits(self) -> None:
        """Let the topic take records of any time."""
        known = self.settings()
        self.alter(dict.fromkeys((name for name in TIME_LIMITS if name in known), FOREVER))

    def _change(self, settings: Mapping[str, str], method: Callable[..., Any]) -> None:
        if not settings:
            return
        resource = ConfigResource(ConfigResourceType.TOPIC, self.name, dict(settings))
        doing = f"changing the settings of {self.name}"
        try:
            answer = self.connection.ask(doing, method, [resource])
        except ValueError as error:
            raise EpibackupError(f"{doing} failed: {error}") from error
        if answer["topic"][self.name] != "OK":
            raise EpibackupError(f"{doing} failed: {answer['topic'][self.name]}")

    def delete_records(self, before: Mapping[Any, int]) -> None:
        """Delete the records of partitions up to offsets."""
        with self.connection.explained(f"emptying {self.name}"):
            self.connection.admin.delete_records(before)

    def delete(self) -> None:
        """Delete the topic; nothing if it is not there."""
        self.connection.ask(f"deleting {self.name}", self._delete)

    def _delete(self) -> None:
        with contextlib.suppress(UnknownTopicOrPartitionError):
            self.connection.admin.delete_topics([self.name])


def _creation(partitions: int, replication: int, settings: Mapping[str, str]) -> dict[str, Any]:
    return {
        "num_partitions": partitions,
        "replication_factor": replication,
        "configs": dict(settings),
    }
