"""What the manifest says of a cluster, and whether a restored one is what was saved."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kafka import TopicPartition  # type: ignore[import-untyped]  # kafka-python has no type hints
from kafka.admin import OffsetSpec  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, ValidationError

from components.archive.manifest import HostRecord, ServiceRecord
from components.errors import EpibackupError, PreflightRefused, UsageError, VerificationFailed
from components.kafka.client import KafkaConnection
from components.kafka.groups import committed_offsets, set_offsets, wait_until_unused

Say = Callable[[str], None]
WAIT_SECONDS = 180
SETTLE_SECONDS = 30
STILL_SECONDS = 3
"""How long an end does not rise before it counts as the end: followers ask every half second, or
after a second's pause."""
UNUSED_SECONDS = 60
"""Longer than sessions of consumers last by default (10 s, from Kafka 3.0 on 45 s)."""
POLL_SECONDS = 0.5
MOST_NAMED = 5
"""How many differences an error or a warning names."""

INTERNAL = frozenset({"__consumer_offsets", "__transaction_state"})
"""Topics of the brokers themselves; they go on being written by every restart."""


class SavedPartition(NamedTuple):
    """What a broker held of a partition; end is exclusive."""

    partition: int
    start: int
    end: int
    bytes: int


class SavedTopic(BaseModel):
    """A topic as one broker's snapshot describes it; None is unknown."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    partitions: list[SavedPartition]
    settings: dict[str, str] | None = None
    replication: int | None = None
    assignment: dict[int, list[int]] | None = None
    in_sync: dict[int, list[int]] | None = None


class SavedBroker(BaseModel):
    """What a broker's snapshot said (`HostRecord.details`); groups are None where they could not
    be read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    broker_id: int
    topics: dict[str, SavedTopic]
    groups: dict[str, list[str]] | None = None


class Replica(NamedTuple):
    """One broker's copy of a partition in the archive."""

    host: HostRecord
    broker: int
    saved: SavedPartition


def saved_brokers(service: ServiceRecord) -> list[tuple[HostRecord, SavedBroker]]:
    """The brokers that were saved; raises VerificationFailed for details that are none."""
    found = []
    for record in service.hosts:
        if record.status == "ok":
            try:
                found.append((record, SavedBroker.model_validate(record.details)))
            except ValidationError as error:
                raise VerificationFailed(
                    f"what the manifest says of Kafka on {record.host} cannot be read: {error}"
                ) from error
    return found


def replicas(brokers: Sequence[tuple[HostRecord, SavedBroker]], topic: str) -> list[Replica]:
    """All saved copies of a topic's partitions, in order of partition."""
    return sorted(
        (
            Replica(record, broker.broker_id, saved)
            for record, broker in brokers
            if topic in broker.topics
            for saved in broker.topics[topic].partitions
        ),
        key=lambda replica: (replica.saved.partition, replica.broker),
    )


def described(brokers: Sequence[tuple[HostRecord, SavedBroker]], topic: str) -> SavedTopic:
    """A topic's settings and assignment, by the first broker that knew them."""
    known = [broker.topics[topic] for _, broker in brokers if topic in broker.topics]
    values: dict[str, Any] = {"partitions": []}
    for name in ("settings", "replication", "assignment", "in_sync"):
        values[name] = next((v for t in known if (v := getattr(t, name)) is not None), None)
    return SavedTopic(**values)


def prove(
    connection: KafkaConnection, record: ServiceRecord, say: Say, seconds: float = WAIT_SECONDS
) -> list[str]:
    """Compare a restored cluster with what the manifest says; returns warnings.

    Waits until all saved brokers are there and every partition has a leader and its in-sync
    replicas. Raises VerificationFailed with the first differences, in words: a broker, a leader or
    a replica that is still missing after `seconds`, or a partition that ends too early.

    What may have other causes than the restore is a warning: records that retention has deleted
    since, records that somebody has written since, offsets of groups that have expired. Offsets of
    groups beyond the end of their partition are set to it, which is a warning, too.
    """
    brokers = saved_brokers(record)
    names = sorted({name for _, broker in brokers for name in broker.topics})
    _wait(connection, brokers, names, say, seconds)
    specs = [
        TopicPartition(name, partition)
        for name in names
        for partition in sorted({replica.saved.partition for replica in replicas(brokers, name)})
    ]
    say(f"comparing {len(specs)} partitions of {len(names)} topics with the manifest")
    # What brokers tell is what all in-sync replicas have (the high watermark); it rises until
    # they have asked each other for what they have.
    deadline = time.monotonic() + min(seconds, SETTLE_SECONDS)
    while True:
        _, ends = found = offsets(connection, specs)
        problems, warnings = _differences(brokers, names, *found)
        if not problems:
            return _summary(warnings) + _groups(connection, brokers, ends, say)
        if time.monotonic() > deadline:
            raise VerificationFailed(
                f"the restored cluster is not what was saved: {_first(problems)}",
                "the old data is still on the hosts, as *.before-<run>",
            )
        time.sleep(POLL_SECONDS)


def _differences(
    brokers: Sequence[tuple[HostRecord, SavedBroker]],
    names: Sequence[str],
    starts: dict[Any, int],
    ends: dict[Any, int],
) -> tuple[list[str], list[str]]:
    """What is missing, and what is otherwise different."""
    problems: list[str] = []
    warnings: list[str] = []
    for name in names:
        saved = described(brokers, name)
        copies = replicas(brokers, name)
        for partition in sorted({copy.saved.partition for copy in copies}):
            own = [copy for copy in copies if copy.saved.partition == partition]
            key = TopicPartition(name, partition)
            _compare(name, own, saved, starts[key], ends[key], problems, warnings)
    return problems, warnings


def offsets(
    connection: KafkaConnection, partitions: Sequence[Any]
) -> tuple[dict[Any, int], dict[Any, int]]:
    """The first offset of each partition, and the one its next record gets."""
    found: list[dict[Any, int]] = []
    for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST):
        asked = dict.fromkeys(partitions, spec)
        answer: dict[Any, Any] = {}
        if asked:
            answer = connection.ask(
                "asking for offsets", connection.admin.list_partition_offsets, asked
            )
        found.append({key: value.offset for key, value in answer.items()})
    return found[0], found[1]


def _wait(
    connection: KafkaConnection,
    brokers: Sequence[tuple[HostRecord, SavedBroker]],
    names: Sequence[str],
    say: Say,
    seconds: float,
) -> None:
    deadline = time.monotonic() + seconds
    _reach(connection, deadline, say)
    told = 0.0
    while missing := list(_missing(connection, brokers, names)):
        if time.monotonic() > deadline:
            raise VerificationFailed(
                f"the restored cluster is not complete after {seconds:.0f} s: {_first(missing)}",
                "see the brokers' logs (journalctl -u kafka)",
            )
        if time.monotonic() - told > 5:
            say(f"waiting for the cluster: {_first(missing)}")
            told = time.monotonic()
        time.sleep(POLL_SECONDS)


def _reach(connection: KafkaConnection, deadline: float, say: Say) -> None:
    """Wait until a broker answers; settings that are wrong do not get better by waiting."""
    while True:
        try:
            connection.brokers()
            return
        except (UsageError, PreflightRefused):
            raise
        except EpibackupError as error:
            if time.monotonic() > deadline:
                raise
            say(f"waiting for the cluster: {error.message}")


def _missing(
    connection: KafkaConnection,
    brokers: Sequence[tuple[HostRecord, SavedBroker]],
    names: Sequence[str],
) -> Iterator[str]:
    admin = connection.admin
    there = connection.brokers()
    ids = {broker.broker_id for _, broker in brokers}
    for record, broker in brokers:
        if broker.broker_id not in there:
            yield f"broker {broker.broker_id} of {record.host} is not registered"
    if not names:
        return
    topics = connection.ask("describing topics", admin.describe_topics, list(names))
    live = {
        (topic["name"], partition["partition_index"]): partition
        for topic in topics
        for partition in topic["partitions"]
    }
    for name in names:
        saved = described(brokers, name)
        for partition in sorted({copy.saved.partition for copy in replicas(brokers, name)}):
            found = live.get((name, partition))
            if found is None:
                yield f"{name}-{partition} is not there"
            elif found["leader_id"] < 0:
                yield f"{name}-{partition} has no leader"
            elif len(found["isr_nodes"]) < (wanted := _in_sync(saved, partition, ids)):
                has = len(found["isr_nodes"])
                yield f"{name}-{partition} has {has} replicas in sync, it had {wanted}"


def _in_sync(saved: SavedTopic, partition: int, brokers: set[int]) -> int:
    """How many replicas of the saved brokers were in sync; if that is unknown, how many of them
    there are to be."""
    known = (saved.in_sync or {}).get(partition)
    if known:
        return len(brokers.intersection(known)) or 1
    return min(saved.replication or 1, len(brokers))


def _compare(
    topic: str,
    copies: Sequence[Replica],
    saved: SavedTopic,
    start: int,
    end: int,
    problems: list[str],
    warnings: list[str],
) -> None:
    name = f"{topic}-{copies[0].saved.partition}"
    in_sync = (saved.in_sync or {}).get(copies[0].saved.partition) or []
    counted = [copy for copy in copies if copy.broker in in_sync] or list(copies)
    lowest = min(copy.saved.end for copy in counted)
    highest = max(copy.saved.end for copy in counted)
    first = min(copy.saved.start for copy in copies)
    if end < lowest:
        problems.append(f"{name} ends at {end}, saved were records up to {lowest}")
    elif end > highest and topic not in INTERNAL:
        warnings.append(f"{name} has {end - highest} more records than were saved")
    if start > first and topic not in INTERNAL:
        warnings.append(f"{name} begins at {start}, saved were records from {first} on")


def _first(words: Sequence[str]) -> str:
    more = len(words) - MOST_NAMED
    return "; ".join(words[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _summary(warnings: Sequence[str]) -> list[str]:
    if not warnings:
        return []
    why = "retention deletes and clients write as soon as brokers are up"
    return [f"{_first(warnings)} ({why}; otherwise compare these topics)"]


def _groups(
    connection: KafkaConnection,
    brokers: Sequence[tuple[HostRecord, SavedBroker]],
    ends: dict[Any, int],
    say: Say,
) -> list[str]:
    """See that groups still have offsets of the topics they had read, and set those beyond the
    end back to it; returns warnings."""
    wanted: dict[str, set[str]] = {}
    for _, broker in brokers:
        for group, topics in (broker.groups or {}).items():
            wanted.setdefault(group, set()).update(topics)
    warnings = []
    if unknown := [record.host for record, broker in brokers if broker.groups is None]:
        warnings.append(
            f"the consumer groups of {', '.join(unknown)} were not compared, because they could "
            "not be read when it was saved"
        )
    lost: list[str] = []
    ahead: dict[str, dict[Any, Beyond]] = {}
    for group in sorted(wanted):
        committed = committed_offsets(connection, group)
        there = {key.topic for key in committed}
        lost += [f"{group} of {topic}" for topic in sorted(wanted[group] - there)]
        if found := beyond(committed, ends):
            ahead[group] = found
    if lost:
        warnings.append(
            f"these groups had offsets that are not there: {_first(lost)}; they have expired "
            "(offsets.retention.minutes), or were deleted shortly before the backup"
        )
    return warnings + (_set_back(connection, ahead, say) if ahead else [])


class Beyond(NamedTuple):
    """A group's committed offset beyond the end of its partition."""

    offset: int
    metadata: str
    end: int


def beyond(committed: Mapping[Any, tuple[int, str]], ends: Mapping[Any, int]) -> dict[Any, Beyond]:
    """Those of a group's offsets that lie beyond the end, by TopicPartition; partitions whose end
    is not known are left out."""
    return {
        key: Beyond(offset, metadata, ends[key])
        for key, (offset, metadata) in sorted(committed.items())
        if key in ends and offset > ends[key]
    }


def _set_back(
    connection: KafkaConnection, ahead: dict[str, dict[Any, Beyond]], say: Say
) -> list[str]:
    """Set offsets to the ends of their partitions; returns warnings.

    Brokers are saved at slightly different moments, so a group may have committed what a broker
    that was saved before had not got yet.
    """
    say(f"groups are ahead of the restored records: {', '.join(ahead)}")
    ends = _settled(connection, {key for found in ahead.values() for key in found})
    # A group that was in use has its members back with its offsets, until their sessions expire.
    wait_until_unused(connection, list(ahead), UNUSED_SECONDS)
    done: list[str] = []
    refused: list[str] = []
    for group in ahead:
        found = beyond(committed_offsets(connection, group), ends)
        values = {key: (it.end, it.metadata) for key, it in found.items()}
        reason = set_offsets(connection, group, values)
        for key, it in found.items():
            place = f"{key.topic}-{key.partition}"
            if reason:
                refused.append(f"{group} by {it.offset - it.end} on {place} ({reason})")
            else:
                done.append(f"{group} on {place} from {it.offset} to {it.end}")
    warnings = []
    if done:
        warnings.append(
            "these groups were ahead of the restored records and were set to the end: "
            + _first(done)
        )
    if refused:
        warnings.append(
            f"these groups are ahead of the restored records: {_first(refused)}; set them back "
            "with kafka-consumer-groups.sh --reset-offsets before their consumers start"
        )
    return warnings


def _settled(connection: KafkaConnection, partitions: Iterable[Any]) -> dict[Any, int]:
    """The ends of partitions once they rise no more, or after `SETTLE_SECONDS`."""
    asked = sorted(partitions)
    known: dict[Any, int] = {}
    started = since = time.monotonic()
    while True:
        _, ends = offsets(connection, asked)
        now = time.monotonic()
        if ends != known:
            known, since = ends, now
        if now - since > STILL_SECONDS or now - started > SETTLE_SECONDS:
            return known
        time.sleep(POLL_SECONDS)
