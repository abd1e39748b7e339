"""Offsets of consumer groups: what a group has committed, and committing for it."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka.errors import (  # type: ignore[import-untyped]  # kafka-python has no type hints
    NotCoordinatorError,
    RetriableError,
)
from kafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

from components.kafka.client import KafkaConnection

POLL_SECONDS = 0.5
UNUSED = ("Empty", "Dead")
"""States of a group without members."""


def committed_offsets(connection: KafkaConnection, group: str) -> dict[Any, tuple[int, str]]:
    """A group's committed offsets and their metadata, by TopicPartition."""
    doing = f"asking for the offsets of group {group}"
    found = connection.ask(doing, connection.admin.list_group_offsets, {group: None})[group]
    return {
        key: (value.offset, value.metadata or "")
        for key, value in found.items()
        if value.offset >= 0
    }


def set_offsets(
    connection: KafkaConnection, group: str, offsets: Mapping[Any, tuple[int, str]]
) -> str | None:
    """Commit a group's offsets, with their metadata, by TopicPartition.

    Returns why they were not set, if the group is in use or the brokers refuse.
    """
    if not offsets:
        return None
    state = connection.ask(f"asking for group {group}", _state, connection, group)
    if state not in UNUSED:
        return f"it is in use: {state}"
    values = {
        key: OffsetAndMetadata(offset, metadata, None)
        for key, (offset, metadata) in offsets.items()
    }
    doing = f"committing offsets of group {group}"
    errors: list[str] = connection.ask(doing, _store, connection, group, values)
    return ", ".join(errors) or None


def wait_until_unused(connection: KafkaConnection, groups: Sequence[str], seconds: float) -> None:
    """Wait until groups are not in use, at most so long."""
    deadline = time.monotonic() + seconds
    for group in groups:
        doing = f"asking for group {group}"
        while connection.ask(doing, _state, connection, group) not in UNUSED:
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS)


def _state(connection: KafkaConnection, group: str) -> str:
    """A group's state, or why it cannot be told; a group that does not exist is dead."""
    found = connection.admin.describe_groups([group])[group]
    error = found["error"] or ""
    if "Coordinator" in error:  # it moves, or loads; kafka-python does not raise this
        raise NotCoordinatorError(error)
    if error and "GroupIdNotFound" not in error:
        return str(error)
    return found.get("group_state") or "Dead"


def _store(connection: KafkaConnection, group: str, values: Mapping[Any, Any]) -> list[str]:
    """Commit offsets; returns the errors that do not pass."""
    answer = connection.admin.alter_group_offsets(group, values)
    errors = {error for error in answer.values() if error.errno}
    for error in errors:
        if issubclass(error, RetriableError):
            raise error(group)
    return sorted(error.__name__ for error in errors)
