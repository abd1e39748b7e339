"""Restoring single topics from an archive into a running cluster.

The records are read from the saved log files and produced again, so offsets change: each
partition begins at 0, without gaps. Offsets of consumer groups are translated.
"""

import contextlib
import gzip
import io
import itertools
import json
import re
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import IO, Any

import zstandard
from kafka import TopicPartition  # type: ignore[import-untyped]  # kafka-python has no type hints
from kafka.admin import (  # type: ignore[import-untyped]
    ConfigFilterType,
    ConfigResource,
    ConfigResourceType,
)
from kafka.errors import (  # type: ignore[import-untyped]
    KafkaError,
    NotCoordinatorError,
    RetriableError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from kafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

from components.archive.manifest import HostRecord, Member, ServiceRecord
from components.archive.reader import ArchiveReader
from components.errors import (
    EpibackupError,
    NotFound,
    PreflightRefused,
    UsageError,
    VerificationFailed,
)
from components.kafka.client import BatchProducer, KafkaConnection
from components.kafka.proof import INTERNAL, Say, described, offsets, replicas, saved_brokers
from components.kafka.records import (
    Batch,
    BatchMaker,
    Checked,
    Segment,
    check,
    committed,
    raw_records,
)

BATCH_BYTES = 512 << 10
"""How large new batches become before compression. Brokers take 1 MiB by default."""
ALONE_FROM_BYTES = 64 << 10
"""From this size on a saved batch is sent as it is. Smaller ones are put together: each request
waits for all in-sync replicas."""
LARGEST_GROUPS_BYTES = 1 << 30
STREAM_BYTES = 1 << 20
SAY_SECONDS = 0.5
TOPIC_SECONDS = 60
"""How long a new topic may take to have leaders."""

TOPIC_NAME = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")
LOG_FILE = re.compile(r"(?:\./)?[^/]+/(?P<topic>[^/]+)-(?P<partition>\d+)/(?P<base>\d{20})\.log")

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
OF_BROKERS = frozenset(
    {"leader.replication.throttled.replicas", "follower.replication.throttled.replicas"}
)
"""Settings that name partitions on brokers of the time of the backup."""

DAMAGE = (tarfile.TarError, zstandard.ZstdError, zlib.error, gzip.BadGzipFile, EOFError, ValueError)


@dataclass(frozen=True)
class Source:
    """The replica of a partition that is read, and what the manifest says of it."""

    record: HostRecord
    start: int
    end: int
    bytes: int


@dataclass
class Topic:
    """One topic's way from the archive into the cluster."""

    name: str
    target: str
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
        groups = self._groups()
        sources = self._sources()
        brokers = len(self._connection.brokers())
        self._topics = [self._topic(name, sources[name], groups, brokers) for name in self._names]
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

    def _sources(self) -> dict[str, dict[int, Source]]:
        """The replica to read of each partition: one with the highest end, from few hosts."""
        best: dict[tuple[str, int], dict[str, Source]] = {}
        for name in self._names:
            for partition in self._partitions(name):
                copies = [
                    copy
                    for copy in replicas(self._brokers, name)
                    if copy.saved.partition == partition and _members(copy.host, {name})
                ]
                end = max((copy.saved.end for copy in copies), default=0)
                best[name, partition] = {
                    copy.host.host: Source(copy.host, copy.saved.start, end, copy.saved.bytes)
                    for copy in copies
                    if copy.saved.end == end
                }
        missing = [f"{name}-{partition}" for (name, partition), found in best.items() if not found]
        if missing:
            raise NotFound(
                f"the run does not have all of it: {', '.join(missing)}",
                "the brokers that hold these partitions were not saved; restore another run",
            )
        chosen: dict[str, dict[int, Source]] = {name: {} for name in self._names}
        while best:
            count: dict[str, int] = {}
            for found in best.values():
                for host in found:
                    count[host] = count.get(host, 0) + 1
            host = max(sorted(count), key=lambda name: count[name])
            for name, partition in [key for key, found in best.items() if host in found]:
                chosen[name][partition] = best.pop((name, partition))[host]
        return chosen

    def _partitions(self, name: str) -> list[int]:
        """All partitions; those of brokers that were not saved are known by the assignment."""
        held = {copy.saved.partition for copy in replicas(self._brokers, name)}
        held |= set(described(self._brokers, name).assignment or {})
        return list(range(max(held) + 1)) if held else []

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
        target = self._rename.get(name, name)
        return Topic(name, target, replication, settings, sources, own, warnings)

    def _look(self, topic: Topic) -> None:
        """Compare with what the cluster has; raises PreflightRefused."""
        ask, admin = self._connection.ask, self._connection.admin
        request = {topic.target: _creation(topic, topic.settings)}
        answer = ask(
            f"checking the settings of {topic.target}", admin.create_topics, request,
            validate_only=True, raise_errors=False,
        )  # fmt: skip
        # The controller knows; the metadata of other brokers is behind for a moment.
        if answer["topics"][0]["error_code"] != TopicAlreadyExistsError.errno:
            _refuse(topic, answer)
            return
        self._await(topic)
        [found] = ask("describing topics", admin.describe_topics, [topic.target])
        self._check_empty(topic, len(found["partitions"]))
        topic.was_there = True
        topic.settings_before = self._overrides(topic)

    def _await(self, topic: Topic) -> None:
        """Wait until all brokers that are asked know a topic, with leaders."""
        self._connection.ask(
            f"waiting for {topic.target}",
            self._connection.admin.wait_for_topics, [topic.target],
            timeout_ms=TOPIC_SECONDS * 1000,
        )  # fmt: skip

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

    def _groups(self) -> dict[str, dict[str, dict[int, tuple[int, str]]]] | None:
        """Committed offsets and their metadata by group, topic and partition; None is unknown.

        Of several brokers the newest commit holds.
        """
        newest: dict[tuple[str, str, int], tuple[int, int, str]] = {}
        members = [m for r, _ in self._brokers for m in r.members if m.content.get("groups")]
        for member in members:
            for key, value in _group_entries(self._reader, member):
                if key[1] in self._names and value[0] >= newest.get(key, (-1,))[0]:
                    newest[key] = value
        found: dict[str, dict[str, dict[int, tuple[int, str]]]] = {}
        for (group, topic, partition), (_, offset, metadata) in sorted(newest.items()):
            found.setdefault(group, {}).setdefault(topic, {})[partition] = (offset, metadata)
        return found if members else None

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
            for member in _members(records[host], {name for name, _ in wanted}):
                if wanted:
                    yield from _partitions_of(self._reader, member, wanted)

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
            self._alter(topic, replaying)
        else:
            say(f"creating {topic.target}: {len(topic.sources)} partitions")
            request = {topic.target: _creation(topic, replaying)}
            with self._connection.explained(f"creating {topic.target}"):
                answer = self._connection.admin.create_topics(request, raise_errors=False)
            try:
                _refuse(topic, answer)
            except PreflightRefused:
                topic.touched = False
                raise
            topic.base = dict.fromkeys(topic.sources, 0)
        self._await(topic)
        known = self._describe(topic, ConfigFilterType.ALL)
        limits = dict.fromkeys((name for name in TIME_LIMITS if name in known), FOREVER)
        self._alter(topic, limits)

    def _describe(self, topic: Topic, which: Any) -> dict[str, dict[str, Any]]:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic.target)
        answer = self._connection.ask(
            f"reading the settings of {topic.target}",
            self._connection.admin.describe_configs, [resource], config_filter=which,
        )  # fmt: skip
        found: dict[str, dict[str, Any]] = answer["topic"][topic.target]
        return found

    def _overrides(self, topic: Topic) -> dict[str, str]:
        """The topic's own settings, without the brokers' defaults."""
        return {
            name: str(setting["value"])
            for name, setting in self._describe(topic, ConfigFilterType.ALL).items()
            if setting["config_source"] == "DYNAMIC_TOPIC_CONFIG"
        }

    def _alter(self, topic: Topic, settings: Mapping[str, str]) -> None:
        """Set some of a topic's settings; the others stay."""
        self._change(topic, settings, self._connection.admin.alter_configs)

    def _reset(self, topic: Topic, names: Sequence[str]) -> None:
        """Have the brokers' defaults for some of a topic's settings."""
        self._change(topic, dict.fromkeys(names, ""), self._connection.admin.reset_configs)

    def _change(
        self, topic: Topic, settings: Mapping[str, str], method: Callable[..., Any]
    ) -> None:
        if not settings:
            return
        resource = ConfigResource(ConfigResourceType.TOPIC, topic.target, dict(settings))
        doing = f"changing the settings of {topic.target}"
        try:
            answer = self._connection.ask(doing, method, [resource])
        except ValueError as error:
            raise EpibackupError(f"{doing} failed: {error}") from error
        if answer["topic"][topic.target] != "OK":
            raise EpibackupError(f"{doing} failed: {answer['topic'][topic.target]}")

    def _replay(self, say: Say) -> None:
        """The second pass: produce what the first one has counted."""
        expected = sum(c.records for topic in self._topics for c in topic.checked.values())
        progress = _Progress(say)
        producer = BatchProducer(self._connection)
        total = 0
        for topic, partition, segments in self._read():
            checked = topic.checked[partition]
            wanted = {at[partition][0] for at in topic.groups.values() if partition in at}
            count = _Count(checked, wanted)
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
            committed_offsets = {
                partition: (self._translate(topic, partition, offset), metadata)
                for partition, (offset, metadata) in saved.items()
                if partition in topic.sources
            }
            problem = self._commit(topic, group, committed_offsets)
            if problem:
                topic.warnings.append(problem)
                say(f"warning: {topic.name}: {problem}")
            else:
                groups[group] = {str(p): offset for p, (offset, _) in committed_offsets.items()}
        final = {**topic.settings_before, **topic.settings}
        self._alter(topic, final)
        self._reset(topic, [name for name in self._overrides(topic) if name not in final])
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
        settings = self._describe(topic, ConfigFilterType.ALL)
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

    def _commit(
        self, topic: Topic, group: str, committed_offsets: Mapping[int, tuple[int, str]]
    ) -> str | None:
        """Commit a group's offsets; returns why not, if it is in use or the brokers refuse."""
        if not committed_offsets:
            return None
        state = self._connection.ask(f"asking for group {group}", self._state, group)
        if state not in ("Empty", "Dead"):
            return (
                f"group {group} is in use ({state}): its offsets were not set; stop its consumers "
                "and use kafka-consumer-groups.sh --reset-offsets"
            )
        values = {
            TopicPartition(topic.target, partition): OffsetAndMetadata(offset, metadata, None)
            for partition, (offset, metadata) in committed_offsets.items()
        }
        doing = f"committing offsets of group {group}"
        errors: list[str] = self._connection.ask(doing, self._store_offsets, group, values)
        return f"offsets of group {group} were not set: {', '.join(errors)}" if errors else None

    def _state(self, group: str) -> str:
        """A group's state, or why it cannot be told; a group that does not exist is dead."""
        found = self._connection.admin.describe_groups([group])[group]
        error = found["error"] or ""
        if "Coordinator" in error:  # it moves, or loads; kafka-python does not raise this
            raise NotCoordinatorError(error)
        if error and "GroupIdNotFound" not in error:
            return str(error)
        return found.get("group_state") or "Dead"

    def _store_offsets(self, group: str, values: Mapping[Any, Any]) -> list[str]:
        """Commit offsets; returns the errors that do not pass."""
        answer = self._connection.admin.alter_group_offsets(group, values)
        errors = {error for error in answer.values() if error.errno}
        for error in errors:
            if issubclass(error, RetriableError):
                raise error(group)
        return sorted(error.__name__ for error in errors)

    def _undo(self, topic: Topic, say: Say) -> None:
        admin = self._connection.admin
        try:
            if topic.was_there:
                say(f"emptying {topic.target} again")
                _, ends = offsets(self._connection, topic.keys())
                with self._connection.explained(f"emptying {topic.target}"):
                    admin.delete_records(ends)
                self._alter(topic, topic.settings_before)
                own = self._overrides(topic)
                self._reset(topic, [name for name in own if name not in topic.settings_before])
            else:
                say(f"deleting {topic.target} again")
                self._connection.ask(f"deleting {topic.target}", self._delete, topic.target)
        except (EpibackupError, KafkaError) as error:
            say(
                f"warning: {topic.target} holds a part of the records and could not be removed: "
                f"{error}; delete it with kafka-topics.sh --delete"
            )

    def _delete(self, target: str) -> None:
        with contextlib.suppress(UnknownTopicOrPartitionError):
            self._connection.admin.delete_topics([target])


class _Count:
    """Counts records, and how many there are before certain offsets of the saved partition."""

    def __init__(self, checked: Checked, wanted: set[int]) -> None:
        self.records = 0
        self._start = checked.start_offset
        self._wanted = sorted(wanted)
        self._before: dict[int, int] = {}

    def add(self, batch: Batch) -> None:
        while self._wanted and self._wanted[0] <= batch.base_offset:
            self._before[self._wanted.pop(0)] = self.records
        if batch.base_offset >= self._start and not (
            self._wanted and self._wanted[0] <= batch.last_offset
        ):
            self.records += batch.count
            return
        for record in raw_records(batch):
            while self._wanted and self._wanted[0] <= record.offset:
                self._before[self._wanted.pop(0)] = self.records
            self.records += record.offset >= self._start

    def found(self) -> dict[int, int]:
        """Offset to number of records before it; what is beyond the end has all before it."""
        return {**self._before, **dict.fromkeys(self._wanted, self.records)}


class _Progress:
    """Tells how far it is, at most twice a second."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._next = time.monotonic() + SAY_SECONDS

    def __call__(self, text: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SAY_SECONDS
            self._say(text)


class _Chunks(io.RawIOBase):
    """A member's stored bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


@contextlib.contextmanager
def _undamaged(reader: ArchiveReader, member: Member) -> Iterator[None]:
    """Turns the libraries' errors about damaged members into VerificationFailed."""
    try:
        yield
    except DAMAGE as error:
        raise VerificationFailed(
            f"{member.path} in {reader.name} cannot be read: {error}",
            "restore another run; epibackup list shows them",
        ) from error


class _LogFile:
    """A log file within a member; it is read where errors of tarfile are not expected."""

    def __init__(self, reader: ArchiveReader, member: Member, content: IO[bytes]) -> None:
        self._reader, self._member, self._content = reader, member, content

    def read(self, size: int) -> bytes:
        try:
            return self._content.read(size)
        except DAMAGE:
            with _undamaged(self._reader, self._member):
                raise


def _unpacked(reader: ArchiveReader, member: Member) -> IO[bytes]:
    """A member's bytes, decompressed as its name says."""
    raw: Any = io.BufferedReader(_Chunks(reader.chunks(member)), STREAM_BYTES)
    if member.path.endswith(".zst"):
        raw = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    elif member.path.endswith(".gz"):
        raw = gzip.GzipFile(fileobj=raw, mode="rb")
    return raw  # type: ignore[no-any-return]  # each of them is a readable file


def _partitions_of(
    reader: ArchiveReader, member: Member, wanted: dict[tuple[str, int], Topic]
) -> Iterator[tuple[Topic, int, Iterator[Segment]]]:
    """The wanted partitions in a member; takes those it finds out of `wanted`.

    Stops reading behind the last of them.
    """
    parts = set(member.content["parts"])
    left = {key for key in wanted if key[0] in parts}
    with (
        _undamaged(reader, member),
        _unpacked(reader, member) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=STREAM_BYTES) as tar,
    ):
        for key, segments in itertools.groupby(_log_files(tar), key=lambda found: found[0]):
            if key in left:
                files = ((base, _LogFile(reader, member, file)) for _, base, file in segments)
                yield wanted.pop(key), key[1], (Segment(base, file) for base, file in files)
                left.discard(key)
                if not left:
                    return


def _log_files(tar: tarfile.TarFile) -> Iterator[tuple[tuple[str, int], int, IO[bytes]]]:
    """Topic and partition, the offset in the name, and the content of each log file."""
    while (entry := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # else it remembers every file
        match = LOG_FILE.fullmatch(entry.name)
        content = tar.extractfile(entry) if match and entry.isfile() else None
        if match and content:
            key = (match["topic"], int(match["partition"]))
            yield key, int(match["base"]), content


def _group_entries(
    reader: ArchiveReader, member: Member
) -> Iterator[tuple[tuple[str, str, int], tuple[int, int, str]]]:
    """Group, topic and partition; commit's time, offset and metadata."""
    with _undamaged(reader, member), _unpacked(reader, member) as stream:
        data = stream.read(LARGEST_GROUPS_BYTES + 1)
        if len(data) > LARGEST_GROUPS_BYTES:
            raise ValueError("it is too large to be real")
        try:
            for group, topics in json.loads(data).items():
                for topic, partitions in topics.items():
                    for partition, (offset, metadata, committed_at) in partitions.items():
                        key = (str(group), str(topic), int(partition))
                        yield key, (int(committed_at), int(offset), str(metadata or ""))
        except (AttributeError, TypeError) as error:
            raise ValueError(f"it does not have offsets of groups: {error}") from error


def _members(record: HostRecord, names: set[str]) -> list[Member]:
    """A host's members that hold log files of topics."""
    return [
        member
        for member in record.members
        if member.kind == "tree" and names & set(member.content.get("parts", ()))
    ]


def _creation(topic: Topic, settings: Mapping[str, str]) -> dict[str, Any]:
    return {
        "num_partitions": len(topic.sources),
        "replication_factor": topic.replication,
        "configs": dict(settings),
    }


def _refuse(topic: Topic, answer: Mapping[str, Any]) -> None:
    """Raise PreflightRefused if the cluster does not take a topic."""
    for found in answer["topics"]:
        if found["error_code"] == TopicAlreadyExistsError.errno:
            raise PreflightRefused(
                f"somebody else has created the topic {topic.target} just now",
                "stop the clients that use it, or forbid auto.create.topics.enable; then again, or "
                "restore under another name with --rename",
            )
        if found["error_code"]:
            why = found.get("error_message") or for_code(found["error_code"]).__name__
            raise PreflightRefused(
                f"the cluster does not take the topic {topic.target}: {why}",
                "create it by hand as it is to be, empty, with "
                f"{len(topic.sources)} partitions, and restore again",
            )


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
