"""Topics out of an archive: which replicas are read, what of the members, and translated offsets.

What needs brokers is tested with real ones (tests/lab).
"""

import gzip
import io
import itertools
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from kafka import TopicPartition  # type: ignore[import-untyped]

from components.archive.manifest import HostRecord, Member, ServiceRecord
from components.errors import EpibackupError, NotFound, UsageError, VerificationFailed
from components.kafka.proof import Beyond, SavedBroker, beyond, saved_brokers
from components.kafka.stored import Source, group_offsets, sources
from components.kafka.topics import TopicRestore, _Progress
from components.kafka.transactions import Count, check, committed
from tests.unit.test_kafka_records import CONTENTS, batch_2, marker, segment, transactional

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
}


class Reader:
    """An archive whose members are in memory; counts how much of them is read."""

    name = "epibackup_shop_20261122T013000Z.zip"

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.read: dict[str, int] = {}

    def chunks(self, member: Member) -> Any:
        data = self.stored[member.path]
        for start in range(0, len(data), 1000):
            self.read[member.path] = start + 1000
            yield data[start : start + 1000]


class Archive:
    """Builds a service's record and its members."""

    def __init__(self) -> None:
        self.reader = Reader()
        self.hosts: list[HostRecord] = []

    def broker(
        self,
        number: int,
        topics: Mapping[str, Mapping[int, tuple[int, int]]],
        members: Sequence[Member] = (),
        groups: Mapping[str, Sequence[str]] | None = None,
        **known: Any,
    ) -> None:
        """A broker's record; topics: name to partition to first offset and end."""
        details = {
            "broker_id": number,
            "topics": {
                name: {"partitions": [[p, *span, 1000] for p, span in spans.items()], **known}
                for name, spans in topics.items()
            },
            "groups": groups or {},
        }
        self.hosts.append(
            HostRecord(
                host=f"kafka{number}", address="10.0.0.1", status="ok", details=details,
                members=list(members),
            )
        )  # fmt: skip

    def logs(
        self, number: int, files: Mapping[str, bytes], parts: Sequence[str], suffix: str = ""
    ) -> Member:
        """A member with log files, as a snapshot makes it."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        path = f"kafka/kafka{number}/topics.tar{suffix}"
        self.reader.stored[path] = PACK[suffix](packed.getvalue())
        return self._member(path, "tree", {"parts": list(parts)})

    def groups(self, number: int, offsets: Any) -> Member:
        path = f"kafka/kafka{number}/groups.json.gz"
        self.reader.stored[path] = gzip.compress(json.dumps(offsets).encode())
        return self._member(path, "file", {"groups": True})

    def _member(self, path: str, kind: Any, content: dict[str, Any]) -> Member:
        return Member(
            path=path, kind=kind, stored_bytes=len(self.reader.stored[path]), parts=[],
            content=content,
        )  # fmt: skip

    @property
    def service(self) -> ServiceRecord:
        return ServiceRecord(name="kafka", status="ok", hosts=self.hosts)

    def restore(self, *topics: str, **rename: str) -> TopicRestore:
        reader: Any = self.reader
        nobody: Any = None
        return TopicRestore(reader, self.service, nobody, topics, rename)

    def sources(self, *topics: str) -> dict[str, dict[int, Source]]:
        return sources(saved_brokers(self.service), topics)

    def offsets(self, *topics: str) -> dict[str, dict[str, dict[int, tuple[int, str]]]] | None:
        reader: Any = self.reader
        return group_offsets(reader, saved_brokers(self.service), topics)


def checked(archive: Archive, *topics: str) -> dict[tuple[str, int], int]:
    """What the first pass counts, by topic and partition."""
    restore = archive.restore(*topics)
    chosen = archive.sources(*topics)
    restore._topics = [restore._topic(name, chosen[name], {}, 3) for name in chosen]
    restore._check(lambda _: None)
    return {
        (topic.name, partition): found.records
        for topic in restore._topics
        for partition, found in sorted(topic.checked.items())
    }


LOG = "00000000000000000000.log"


def logs_of(*partitions: str, folder: str = "./0") -> dict[str, bytes]:
    """Log files with five records each, and the files beside them."""
    files = {}
    for partition in partitions:
        files[f"{folder}/{partition}/{LOG[:-4]}.index"] = b"\0" * 16
        files[f"{folder}/{partition}/{LOG}"] = batch_2(0, CONTENTS)
        files[f"{folder}/{partition}/leader-epoch-checkpoint"] = b"0\n"
    return files


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("folder", ["./0", "0"])
def test_a_topics_partitions_are_found_in_a_member_of_many(suffix: str, folder: str) -> None:
    archive = Archive()
    files = logs_of("orders-0", "orders-1", "orders-eu-0", "payments-0", folder=folder)
    spans = {"orders": {0: (0, 5), 1: (0, 5)}, "orders-eu": {0: (0, 5)}, "payments": {0: (0, 5)}}
    member = archive.logs(1, files, ["orders", "orders-eu", "payments"], suffix)
    archive.broker(1, spans, [member])
    assert checked(archive, "orders") == {("orders", 0): 5, ("orders", 1): 5}
    both = checked(archive, "payments", "orders-eu")
    assert both == {("payments", 0): 5, ("orders-eu", 0): 5}


def test_reading_stops_behind_the_last_partition() -> None:
    archive = Archive()
    files = {**logs_of("a-0"), **logs_of(*(f"z-{number}" for number in range(900)))}
    archive.broker(1, {"a": {0: (0, 5)}}, [archive.logs(1, files, ["a", "z"])])
    checked(archive, "a")
    [path] = archive.reader.read
    assert archive.reader.read[path] < len(archive.reader.stored[path]) / 2


def test_segments_go_on_from_each_other() -> None:
    archive = Archive()
    files = logs_of("orders-0")
    files[f"./0/orders-0/{5:020}.log"] = batch_2(5, CONTENTS) + batch_2(10, CONTENTS)[:50]
    archive.broker(1, {"orders": {0: (2, 10)}}, [archive.logs(1, files, ["orders"])])
    assert checked(archive, "orders") == {("orders", 0): 8}


def test_the_fullest_replicas_are_read_from_few_hosts() -> None:
    archive = Archive()
    spans = {
        1: {0: (0, 90), 1: (0, 100), 2: (0, 100)},
        2: {0: (0, 100), 1: (0, 100), 2: (0, 100)},
        3: {0: (0, 100), 1: (0, 100), 2: (0, 101)},
    }
    for number, found in spans.items():
        archive.broker(number, {"orders": found}, [archive.logs(number, {}, ["orders"])])
    chosen = archive.sources("orders")["orders"]
    assert {partition: source.record.host for partition, source in chosen.items()} == {
        0: "kafka3",
        1: "kafka3",
        2: "kafka3",
    }
    assert chosen[2].end == 101


def test_a_partition_of_a_broker_that_was_not_saved_is_named() -> None:
    archive = Archive()
    member = archive.logs(1, logs_of("orders-0"), ["orders"])
    archive.broker(1, {"orders": {0: (0, 5)}}, [member], assignment={"0": [1], "1": [2], "2": [1]})
    with pytest.raises(NotFound, match="orders-1, orders-2") as caught:
        archive.sources("orders")
    assert "another run" in caught.value.hint


@pytest.mark.parametrize(
    ("topics", "rename", "error", "words"),
    [
        (["order"], {}, NotFound, "the run has no topic order | close to it: orders"),
        (["zzz"], {}, NotFound, "the run has no topic zzz"),
        (["__consumer_offsets"], {}, UsageError, "a topic of the brokers themselves"),
        (["orders"], {"orders": "a/b"}, UsageError, "'a/b' cannot be a topic's name"),
        (["orders"], {"orders": ".."}, UsageError, "'..' cannot be a topic's name"),
        (["orders"], {"orders": "x" * 250}, UsageError, "cannot be a topic's name"),
        (["orders"], {"orders": "__transaction_state"}, UsageError, "cannot be a topic's name"),
        (["orders", "old"], {"old": "orders"}, UsageError, "two topics would become orders"),
        (["orders"], {"odd": "x"}, NotFound, "no topic odd | close to it: old"),
    ],
)
def test_names_that_cannot_be_restored(
    topics: list[str], rename: dict[str, str], error: type[EpibackupError], words: str
) -> None:
    archive = Archive()
    archive.broker(1, {"orders": {0: (0, 5)}, "old": {0: (0, 1)}, "__consumer_offsets": {}})
    with pytest.raises(error) as caught:
        archive.restore(*topics, **rename).plan()
    assert words in f"{caught.value.message} | {caught.value.hint}"


def test_a_log_that_ends_before_the_manifest_says_is_not_restored() -> None:
    archive = Archive()
    archive.broker(1, {"orders": {0: (0, 6)}}, [archive.logs(1, logs_of("orders-0"), ["orders"])])
    with pytest.raises(VerificationFailed, match="ends at offset 5, the manifest says 6"):
        checked(archive, "orders")


def test_a_member_without_the_partition_is_not_restored() -> None:
    archive = Archive()
    archive.broker(1, {"orders": {0: (0, 5)}}, [archive.logs(1, logs_of("old-0"), ["orders"])])
    with pytest.raises(VerificationFailed, match="does not hold orders-0"):
        checked(archive, "orders")


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("keep", [0.4, 0.9])
def test_a_member_that_is_cut_is_damage(suffix: str, keep: float) -> None:
    archive = Archive()
    files = logs_of(*(f"orders-{number}" for number in range(40)))
    member = archive.logs(1, files, ["orders"], suffix)
    stored = archive.reader.stored
    stored[member.path] = stored[member.path][: int(len(stored[member.path]) * keep)]
    archive.broker(1, {"orders": dict.fromkeys(range(40), (0, 5))}, [member])
    with pytest.raises(VerificationFailed) as caught:
        checked(archive, "orders")
    assert "another run" in caught.value.hint


@pytest.mark.parametrize("suffix", PACK)
def test_a_part_that_is_not_what_was_stored_is_told_as_the_archive_tells_it(suffix: str) -> None:
    archive = Archive()
    files = logs_of(*(f"orders-{number}" for number in range(40)))
    member = archive.logs(1, files, ["orders"], suffix)
    archive.broker(1, {"orders": dict.fromkeys(range(40), (0, 5))}, [member])
    intact = archive.reader.chunks

    def chunks(member: Member) -> Any:
        yield from itertools.islice(intact(member), 1)
        raise VerificationFailed("topics.tar.0001 is damaged: it is not what was stored")

    archive.reader.chunks = chunks  # type: ignore[method-assign]
    with pytest.raises(VerificationFailed, match=r"topics\.tar\.0001 is damaged"):
        checked(archive, "orders")


def test_a_partition_without_records_needs_no_file() -> None:
    archive = Archive()
    member = archive.logs(1, logs_of("orders-0"), ["orders"])
    archive.broker(1, {"orders": {0: (0, 5), 1: (7, 7)}}, [member])
    assert checked(archive, "orders") == {("orders", 0): 5, ("orders", 1): 0}


def test_of_several_brokers_the_newest_commit_of_a_group_holds() -> None:
    archive = Archive()
    old = archive.groups(1, {"g": {"orders": {"0": [3, "old", 100], "1": [8, "", 100]}}})
    new = archive.groups(2, {"g": {"orders": {"0": [5, "new", 200]}, "old": {"0": [1, "", 900]}}})
    for number, member in ((1, old), (2, new)):
        archive.broker(number, {"orders": {0: (0, 5), 1: (0, 9)}}, [member])
    assert archive.offsets("orders") == {"g": {"orders": {0: (5, "new"), 1: (8, "")}}}
    nothing = Archive()
    nothing.broker(1, {"orders": {0: (0, 5)}})
    assert nothing.offsets("orders") is None


@pytest.mark.parametrize(
    "text", ["[]", '{"g": 3}', '{"g": {"t": {"0": 5}}}', "{", '{"g":{"t":{"x":[1,"",2]}}}']
)
def test_groups_that_are_none_are_damage(text: str) -> None:
    archive = Archive()
    member = archive.groups(1, {})
    archive.reader.stored[member.path] = gzip.compress(text.encode())
    archive.broker(1, {"t": {0: (0, 5)}}, [member])
    with pytest.raises(VerificationFailed, match=r"groups\.json\.gz"):
        archive.offsets("t")


def test_replication_is_lowered_to_the_brokers_there_are_with_a_warning() -> None:
    archive = Archive()
    member = archive.logs(1, {}, ["orders"])
    known: dict[str, Any] = {
        "settings": {"min.insync.replicas": "3", "leader.replication.throttled.replicas": "*"},
        "replication": 4,
    }
    archive.broker(1, {"orders": {0: (0, 5)}}, [member], **known)
    restore = archive.restore("orders")
    topic = restore._topic("orders", archive.sources("orders")["orders"], {}, 2)
    assert (topic.replication, topic.settings) == (2, {"min.insync.replicas": "2"})
    assert topic.warnings[0] == "replication is lowered from 4 to 2 brokers"


def test_what_was_not_saved_is_said_to_be_unknown() -> None:
    archive = Archive()
    archive.broker(1, {"orders": {0: (0, 5)}}, [archive.logs(1, {}, ["orders"])])
    restore = archive.restore("orders")
    topic = restore._topic(
        "orders", archive.sources("orders")["orders"], archive.offsets("orders"), 2
    )
    assert topic.replication == 1
    assert [warning.split(" were ")[0].split(" was ")[0] for warning in topic.warnings] == [
        "its settings",
        "the offsets of consumer groups",
        "its replication",
    ]


def test_offsets_become_the_number_of_records_before_them() -> None:
    def log() -> Any:
        return [
            segment(
                10,
                batch_2(10, CONTENTS),  # 10-14, of which 12-14 are still there
                batch_2(15, CONTENTS, deltas=[0, 2, 4, 6, 9], last_delta=12),  # 15 17 19 21 24
                transactional(28, producer=1, count=3),
                marker(31, 1, 0),  # aborted
                batch_2(32, CONTENTS),  # 32-36
            )
        ]

    found = check("orders", 0, 12, log())
    wanted = {0: 0, 12: 0, 13: 1, 15: 3, 16: 4, 17: 4, 18: 5, 25: 8, 28: 8, 30: 8, 32: 8, 35: 11}
    wanted |= {37: 13, 99: 13}
    count = Count(found, set(wanted))
    for batch in committed(found, log()):
        count.add(batch)
    assert count.found() == wanted
    assert count.records == found.records == 13


def test_offsets_of_a_group_beyond_the_end_are_found() -> None:
    first, second, other = (TopicPartition(*at) for at in (("a", 0), ("a", 1), ("b", 0)))
    committed_offsets = {second: (7, ""), first: (12, "note"), other: (3, "")}
    found = beyond(committed_offsets, {first: 10, second: 7})
    assert found == {first: Beyond(12, "note", 10)}, "an end that is unknown is no end"
    assert beyond(committed_offsets, {first: 12, second: 9, other: 3}) == {}
    assert list(beyond(committed_offsets, {first: 0, second: 0})) == [first, second]


def test_a_broker_whose_groups_could_not_be_read_is_a_saved_broker() -> None:
    said = {"broker_id": 1, "topics": {}, "groups": None}
    assert SavedBroker.model_validate(said).groups is None


def test_progress_is_told_at_most_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("components.kafka.topics.time.monotonic", lambda: now)
    said: list[str] = []
    progress = _Progress(said.append)
    for step in range(100):
        now = 100.0 + step / 10
        progress(str(step))
    assert 18 <= len(said) <= 20


def test_memory_does_not_grow_with_the_topic(tmp_path: Path) -> None:
    """A member of 300 MB, made as it is read."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(program)], cwd=root, env={"PYTHONPATH": str(root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after, records = map(int, done.stdout.split())
    assert records == 600 * 500
    assert after - before < 40_000, "kilobytes more than without data"


PROGRAM = """
import io, resource, tarfile
from tests.unit.test_kafka_topics import Archive, checked, batch_2
from components.archive.manifest import Member

BATCH = [(None, b"x" * 1000, [])] * 500
ENTRY = tarfile.TarInfo


def stored():
    for number in range(600):
        data = batch_2(number * 500, BATCH)
        entry = ENTRY(f"./0/orders-0/{number * 500:020}.log")
        entry.size = len(data)
        yield entry.tobuf() + data + bytes(-len(data) % 512)
    yield bytes(1024)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


archive = Archive()
member = archive.logs(1, {}, ["orders"])
archive.broker(1, {"orders": {0: (0, 300000)}}, [member])
archive.reader.chunks = lambda member: stored()
batch_2(0, BATCH)
before = peak()
found = checked(archive, "orders")
print(before, peak(), found["orders", 0])
"""
