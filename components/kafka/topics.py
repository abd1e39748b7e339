"""Restoring single topics from an archive into a running cluster.

The records are read from the saved log files and produced again, so offsets change: each
partition begins at 0, without gaps. Offsets of consumer groups are translated.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from kafka import TopicPartition  # type: ignore[import-untyped]  # kafka-python has no type hints
from kafka.errors import KafkaError  # type: ignore[import-untyped]

from components.archive.manifest import HostRecord, ServiceRecord
from components.archive.reader import ArchiveReader
from components.errors import (
    EpibackupError,
    NotFound,
    PreflightRefused,
    UsageError,
    VerificationFailed,
)
from components.kafka.batches import BatchMaker
from components.kafka.client import KafkaConnection
from components.kafka.groups import set_offsets
from components.kafka.live_topic import TIME_LIMITS, WHILE_REPLAYING, LiveTopic, NotCreated
from components.kafka.producer import BatchProducer
from components.kafka.proof import INTERNAL, Say, described, offsets, saved_brokers
from components.kafka.records import Segment
from components.kafka.stored import Source, group_offsets, members, partitions_of, sources
from components.kafka.transactions import Checked, Count, check, committed

BATCH_BYTES = 512 << 10
"""How large new batches become before compression. Brokers take 1 MiB by default."""
ALONE_FROM_BYTES = 64 << 10
"""From this size on a saved batch is sent as it is. Smaller ones are put together: each request
waits for all in-sync replicas."""
SAY_SECONDS = 0.5

TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")

OF_BROKERS = frozenset(
    {"leader.replication.throttled.replicas", "follower.replication.throttled.replicas"}
)
"""Settings that name partitions on brokers of the time of the backup."""


@dataclass
class Topic:
    """One topic's way from the archive into the cluster."""

    name: str
    live: LiveTopic
    replication: int
    settings: dict[str, str]
    sources: dict[int, Source]
    groups: dict[str, dict[int, tuple[int, str]]]
    warnings: list[str]
    was_there: bool = False
    settings_before: dict[str, str] = field(default_factory=dict)
    touched: bool = False
    base: dict[int, int] = field(default_factory=dict)
    checked: dict[int, Checked] = field(default_factory=dict)
    replayed: dict[int, int] = field(default_factory=dict)
    translated: dict[int, dict[int, int]] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """Its name in the cluster."""
        return self.live.name

    def keys(self) -> list[Any]:
        """Its partitions in the cluster."""
        return [TopicPartition(self.target, partition) for partition in sorted(self.sources)]


class TopicRestore:
    """Restores topics of a service's record; nothing is created before their data is checked.

    rename: saved name to the name in the cluster; others keep theirs.
    """

    def __init__(
        self,
        reader: ArchiveReader,
        service: ServiceRecord,
        connection: KafkaConnection,
        topics: Sequence[str],
        rename: Mapping[str, str] | None = None,
    ) -> None:
        self._reader = reader
        self._brokers = saved_brokers(service)
        self._connection = connection
        self._names = list(dict.fromkeys(topics))
        self._rename = dict(rename or {})
        self._topics: list[Topic] = []

    def plan(self) -> list[str]:
        """What `run` would do, in words; asks the cluster, changes nothing.

        Raises NotFound for topics that the archive has not (or not all partitions of),
        UsageError for names that cannot be restored, PreflightRefused for what the cluster
        refuses.
        """
        self._check_names()
        groups = group_offsets(self._reader, self._brokers, self._names)
        chosen = sources(self._brokers, self._names)
        brokers = len(self._connection.brokers())
        self._topics = [self._topic(name, chosen[name], groups, brokers) for name in self._names]
        for topic in self._topics:
            self._look(topic)
        return [line for topic in self._topics for line in _lines(topic)]

    def _check_names(self) -> None:
        known = sorted({name for _, broker in self._brokers for name in broker.topics})
        for name in [*self._names, *self._rename]:
            if name in INTERNAL:
                raise UsageError(
                    f"{name} is a topic of the brokers themselves",
                    "it comes back with the whole service; offsets of groups come with a topic",
                )
            if name not in known:
                close = get_close_matches(name, known, 3)
                hint = f"close to it: {', '.join(close)}" if close else f"it has {len(known)}"
                raise NotFound(f"the run has no topic {name}", hint)
        targets = [self._rename.get(name, name) for name in self._names]
        for target in targets:
            if not TOPIC_NAME.fullmatch(target) or target in INTERNAL:
                raise UsageError(
                    f"{target!r} cannot be a topic's name",
                    "letters, digits, '.', '_' and '-', at most 249",
                )
            if targets.count(target) > 1:
                raise UsageError(f"two topics would become {target}")

    def _topic(
        self,
        name: str,
        sources: dict[int, Source],
        groups: dict[str, dict[str, dict[int, tuple[int, str]]]] | None,
        brokers: int,
    ) -> Topic:
        saved = described(self._brokers, name)
        warnings = []
        if saved.settings is None:
            warnings.append("its settings were not saved: it gets the brokers' defaults")
        if groups is None:
            warnings.append("the offsets of consumer groups were not saved")
        elif unknown := [record.host for record, broker in self._brokers if broker.groups is None]:
            warnings.append(
                "offsets of consumer groups may be missing or old: those of "
                f"{', '.join(unknown)} could not be read"
            )
        settings = {k: v for k, v in (saved.settings or {}).items() if k not in OF_BROKERS}
        assigned = [len(brokers) for brokers in (saved.assignment or {}).values()]
        replication = saved.replication or max(assigned, default=0)
        if not replication:
            replication = 1
            warnings.append("its replication was not saved: it gets 1")
        if replication > brokers:
            warnings.append(f"replication is lowered from {replication} to {brokers} brokers")
            replication = brokers
            if int(settings.get("min.insync.replicas", "1")) > replication:
                settings["min.insync.replicas"] = str(replication)
                warnings.append(f"min.insync.replicas is lowered to {replication}, too")
        own = {group: topics[name] for group, topics in (groups or {}).items() if name in topics}
        live = LiveTopic(self._connection, self._rename.get(name, name))
        return Topic(name, live, replication, settings, sources, own, warnings)

    def _look(self, topic: Topic) -> None:
        """Compare with what the cluster has; raises PreflightRefused."""
        if topic.live.exists(len(topic.sources), topic.replication, topic.settings):
            topic.live.wait()
            self._check_empty(topic, topic.live.partitions())
            topic.was_there = True
            topic.settings_before = topic.live.overrides()

    def _check_empty(self, topic: Topic, partitions: int) -> None:
        hint = f"--rename {topic.name}={topic.name}-restored restores it beside"
        if partitions != len(topic.sources):
            raise PreflightRefused(
                f"the cluster has a topic {topic.target} with {partitions} partitions, saved were "
                f"{len(topic.sources)}",
                hint,
            )
        starts, ends = offsets(self._connection, topic.keys())
        if any(ends[key] > starts[key] for key in ends):
            raise PreflightRefused(f"the cluster has a topic {topic.target} with records", hint)
        topic.base = {key.partition: end for key, end in ends.items()}

    def run(self, say: Say) -> list[dict[str, Any]]:
        """Restore the topics as planned; returns a report of each.

        Raises as `plan`, and VerificationFailed for damaged data. Whatever fails, topics that
        were created are deleted again, and those that were there empty are emptied.
        """
        if not self._topics:
            self.plan()
        for topic in self._topics:
            for warning in topic.warnings:
                say(f"warning: {topic.name}: {warning}")
        self._check(say)
        try:
            for topic in self._topics:
                self._create(topic, say)
            self._replay(say)
            for topic in self._topics:
                self._compare(topic)
            return [self._finish(topic, say) for topic in self._topics]
        except BaseException:
            for topic in self._topics:
                if topic.touched:
                    self._undo(topic, say)
            raise

    def _check(self, say: Say) -> None:
        """The first pass: all data is read and checked."""
        expected = sum(source.bytes for topic in self._topics for source in topic.sources.values())
        progress = _Progress(say)
        done = 0
        for topic, partition, segments in self._read():
            source = topic.sources[partition]
            checked = check(topic.name, partition, source.start, segments)
            if checked.end_offset < source.end:
                raise VerificationFailed(
                    f"{topic.name}-{partition} on {source.record.host} ends at offset "
                    f"{checked.end_offset}, the manifest says {source.end}",
                    "restore another run",
                )
            topic.checked[partition] = checked
            done += checked.bytes
            progress(f"checked {_mebibytes(done)} of {_mebibytes(expected)}")
        for topic in self._topics:
            for partition, source in topic.sources.items():
                if partition not in topic.checked:
                    if source.end > source.start:
                        raise VerificationFailed(
                            f"the archive does not hold {topic.name}-{partition}, though "
                            f"{source.record.host} says so",
                            "restore another run",
                        )
                    topic.checked[partition] = Checked(topic.name, partition, 0)

    def _read(self) -> Iterator[tuple[Topic, int, Iterator[Segment]]]:
        """All partitions as they are stored; segments have to be read before going on."""
        hosts: dict[str, dict[tuple[str, int], Topic]] = {}
        records: dict[str, HostRecord] = {}
        for topic in self._topics:
            for partition, source in topic.sources.items():
                records[source.record.host] = source.record
                hosts.setdefault(source.record.host, {})[topic.name, partition] = topic
        for host, wanted in hosts.items():
            for member in members(records[host], {name for name, _ in wanted}):
                if wanted:
                    yield from partitions_of(self._reader, member, wanted)

    def _create(self, topic: Topic, say: Say) -> None:
        largest = max((checked.largest_bytes for checked in topic.checked.values()), default=0)
        replaying = {
            **topic.settings,
            **WHILE_REPLAYING,
            # Room for batches that compress less well than the saved ones did.
            "max.message.bytes": str(max(2 * BATCH_BYTES, 2 * largest) + 4096),
        }
        replaying = {k: v for k, v in replaying.items() if k not in TIME_LIMITS}
        topic.touched = True
        if topic.was_there:
            topic.live.alter(replaying)
        else:
            say(f"creating {topic.target}: {len(topic.sources)} partitions")
            try:
                topic.live.create(len(topic.sources), topic.replication, replaying)
            except NotCreated:
                topic.touched = False
                raise
            topic.base = dict.fromkeys(topic.sources, 0)
        topic.live.wait()
        topic.live.lift_time_limits()

    def _replay(self, say: Say) -> None:
        """The second pass: produce what the first one has counted."""
        expected = sum(c.records for topic in self._topics for c in topic.checked.values())
        progress = _Progress(say)
        producer = BatchProducer(self._connection)
        total = 0
        for topic, partition, segments in self._read():
            checked = topic.checked[partition]
            wanted = {at[partition][0] for at in topic.groups.values() if partition in at}
            count = Count(checked, wanted)
            maker = BatchMaker(checked.start_offset, BATCH_BYTES, ALONE_FROM_BYTES)
            sent = 0
            for batch in committed(checked, segments):
                count.add(batch)
                for ready in maker.add(batch):
                    producer.send(topic.target, partition, ready)
                    sent += ready.records
                    progress(f"replayed {total + sent:,} of {expected:,} records")
            for ready in maker.rest():
                producer.send(topic.target, partition, ready)
                sent += ready.records
            producer.flush()
            total += sent
            if not sent == count.records == checked.records:
                raise VerificationFailed(
                    f"{topic.name}-{partition}: {checked.records} records were counted, then {sent}"
                )
            topic.replayed[partition] = sent
            topic.translated[partition] = count.found()
        say(f"replayed {total:,} of {expected:,} records")

    def _compare(self, topic: Topic) -> None:
        _, ends = offsets(self._connection, topic.keys())
        for key, end in ends.items():
            sent = topic.replayed.get(key.partition, 0)
            if end != topic.base[key.partition] + sent:
                raise VerificationFailed(
                    f"{topic.target}-{key.partition} holds "
                    f"{end - topic.base[key.partition]} records, produced were {sent}",
                    f"does another program write to {topic.target}? Stop it, or restore under "
                    "another name with --rename",
                )

    def _finish(self, topic: Topic, say: Say) -> dict[str, Any]:
        """Commit offsets, then put the saved settings in force."""
        groups = {}
        for group, saved in topic.groups.items():
            values = {
                TopicPartition(topic.target, partition): (
                    self._translate(topic, partition, offset),
                    metadata,
                )
                for partition, (offset, metadata) in saved.items()
                if partition in topic.sources
            }
            reason = set_offsets(self._connection, group, values)
            if reason:
                problem = (
                    f"offsets of group {group} were not set ({reason}); stop its consumers and "
                    "use kafka-consumer-groups.sh --reset-offsets"
                )
                topic.warnings.append(problem)
                say(f"warning: {topic.name}: {problem}")
            else:
                groups[group] = {str(key.partition): offset for key, (offset, _) in values.items()}
        topic.live.keep_only({**topic.settings_before, **topic.settings})
        self._expiry(topic, say)
        checked = topic.checked.values()
        say(f"{topic.target} is restored: {sum(topic.replayed.values()):,} records")
        return {
            "topic": topic.name,
            "as": topic.target,
            "partitions": len(topic.sources),
            "records": sum(topic.replayed.values()),
            "skipped": {
                "control": sum(found.control for found in checked),
                "aborted": sum(found.aborted for found in checked),
                "unfinished": sum(found.unfinished for found in checked),
            },
            "groups": groups,
            "warnings": topic.warnings,
        }

    def _expiry(self, topic: Topic, say: Say) -> None:
        """Warn if the brokers will delete what was restored, because it is too old."""
        settings = topic.live.settings()
        kept = int(settings["retention.ms"]["value"])
        if kept < 0 or "delete" not in settings["cleanup.policy"]["value"]:
            return
        limit = time.time() * 1000 - kept
        times = [(c.oldest_ms, c.newest_ms) for c in topic.checked.values()]
        if not any(oldest is not None and oldest < limit for oldest, _ in times):
            return
        every = all(newest is not None and newest < limit for _, newest in times if newest)
        warning = (
            f"{'all' if every else 'some'} of its records are older than retention.ms={kept}: the "
            "brokers delete them within minutes; to keep them: kafka-configs.sh --alter "
            f"--entity-type topics --entity-name {topic.target} --add-config retention.ms=-1"
        )
        topic.warnings.append(warning)
        say(f"warning: {topic.name}: {warning}")

    def _translate(self, topic: Topic, partition: int, offset: int) -> int:
        before = topic.translated.get(partition, {}).get(offset, 0)
        return topic.base[partition] + before

    def _undo(self, topic: Topic, say: Say) -> None:
        try:
            if topic.was_there:
                say(f"emptying {topic.target} again")
                _, ends = offsets(self._connection, topic.keys())
                topic.live.delete_records(ends)
                topic.live.keep_only(topic.settings_before)
            else:
                say(f"deleting {topic.target} again")
                topic.live.delete()
        except (EpibackupError, KafkaError) as error:
            say(
                f"warning: {topic.target} holds a part of the records and could not be removed: "
                f"{error}; delete it with kafka-topics.sh --delete"
            )


class _Progress:
    """Tells how far it is, at most twice a second."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._next = time.monotonic() + SAY_SECONDS

    def __call__(self, text: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SAY_SECONDS
            self._say(text)


def _lines(topic: Topic) -> list[str]:
    """A plan, for people."""
    settings = ", ".join(f"{k}={v}" for k, v in sorted(topic.settings.items())) or "none"
    begin = "uses the empty topic" if topic.was_there else "creates topic"
    records = sum(source.end - source.start for source in topic.sources.values())
    size = sum(source.bytes for source in topic.sources.values())
    hosts = sorted({source.record.host for source in topic.sources.values()})
    shape = f"{len(topic.sources)} partitions, replication {topic.replication}"
    saved = f"{records:,} records of {topic.name} at most ({_mebibytes(size)})"
    lines = [
        f"{begin} {topic.target} with {shape}, settings: {settings}",
        f"replays {saved}, saved on {', '.join(hosts)}",
    ]
    if topic.groups:
        lines.append(f"commits offsets of groups: {', '.join(sorted(topic.groups))}")
    return lines + [f"warning: {warning}" for warning in topic.warnings]


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):,.1f} MiB"
