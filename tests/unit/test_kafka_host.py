"""A broker's logs are put aside whole while it rolls, cleans and deletes them, and read rightly."""

import io
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
from kafka.record.default_records import (  # type: ignore[import-untyped]
    DefaultRecordBatchBuilder,
)

from components.kafka.component import Kafka, listeners
from components.kafka.host import freezing, segments, topics
from host.compression import Compression
from host.errors import HostError
from host.packing import send_cut_tree
from host.snapshot import Snapshot
from host.store import write_json

RUN = "20261122T013000Z"


def batch(base: int, values: list[bytes], codec: int = 0) -> bytes:
    """A batch as a broker stores it, from its first offset on."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    for number, value in enumerate(values):
        builder.append(number, 1_600_000_000_000, b"key", value, [])
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base)
    return bytes(data)


def segment(folder: Path, base: int, *batches: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{base:020}.log"
    path.write_bytes(b"".join(batches))
    for suffix in ("index", "timeindex"):
        path.with_suffix("." + suffix).write_bytes(b"")
    return path


def freeze(log_dirs: list[Path], folder: Path) -> freezing.Frozen:
    folder.mkdir()
    return freezing.freeze([str(path) for path in log_dirs], str(folder), RUN)


@pytest.fixture
def broker(tmp_path: Path) -> Path:
    """A log directory with one partition of two segments."""
    data = tmp_path / "kafka"
    segment(data / "orders-0", 0, batch(0, [b"a", b"b"]), batch(2, [b"c"]))
    segment(data / "orders-0", 3, batch(3, [b"d"]))
    (data / "meta.properties").write_text("broker.id=1\n")
    return data


def test_what_is_appended_later_is_not_in_the_snapshot(broker: Path, tmp_path: Path) -> None:
    frozen = freeze([broker], tmp_path / "snapshot")
    newest = broker / "orders-0" / f"{3:020}.log"
    with newest.open("ab") as log:
        log.write(batch(4, [b"later"]))
    (log_,) = topics.measured(frozen, [str(broker)])
    assert (log_.start, log_.end) == (0, 4)
    entries = topics._files([log_])
    write_json(str(tmp_path / "list"), {"files": entries})
    sent = io.BytesIO()
    send_cut_tree(str(tmp_path / "list"), Compression("none", 0), sent)
    with tarfile.open(fileobj=io.BytesIO(sent.getvalue())) as archive:
        stored = archive.extractfile(f"./0/orders-0/{3:020}.log")
        assert stored is not None
        assert stored.read() == batch(3, [b"d"])
        names = [name.rpartition("/")[2] for name in archive.getnames()]
    # Indexes of the newest segment are written in place: the broker makes them anew.
    assert f"{0:020}.index" in names
    assert f"{3:020}.index" not in names


def test_links_lie_beside_the_log_directory_and_go_with_the_snapshot(
    broker: Path, tmp_path: Path
) -> None:
    frozen = freeze([broker], tmp_path / "snapshot")
    assert frozen.copied == []
    place = tmp_path / f".epibackup-kafka-{RUN}-0"
    linked = place / "orders-0" / f"{0:020}.log"
    assert linked.samefile(broker / "orders-0" / f"{0:020}.log")
    assert place.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in broker.iterdir()} == {"orders-0", "meta.properties"}
    freezing.release(str(tmp_path / "snapshot"))
    assert not place.exists()
    assert (broker / "orders-0" / f"{0:020}.log").exists()


class _Trouble(freezing._Files):
    """Does something to the live partition at the first link, as a broker does at any time."""

    def __init__(self, trouble: object) -> None:
        self._trouble = trouble

    def take(self, live: str, frozen: str) -> int:
        trouble, self._trouble = self._trouble, None
        if callable(trouble):
            trouble(Path(live).parent)
        return super().take(live, frozen)


def test_a_segment_that_is_replaced_by_the_cleaner_meanwhile_is_taken_again(
    broker: Path, tmp_path: Path
) -> None:
    cleaned = batch(1, [b"b"])

    def clean(folder: Path) -> None:
        (folder / f"{0:020}.log").rename(folder / f"{0:020}.log.deleted")
        segment(folder, 0, cleaned)

    lengths = freezing.freeze_folder(
        str(broker / "orders-0"), str(tmp_path / "frozen"), _Trouble(clean)
    )
    assert lengths is not None
    assert lengths[f"{0:020}.log"] == len(cleaned)
    assert not [name for name in lengths if name.endswith(".deleted")]
    assert (tmp_path / "frozen" / f"{0:020}.log").read_bytes() == cleaned


@pytest.mark.parametrize("kind", [freezing._Files, freezing._Copies])
def test_a_segment_that_is_replaced_just_after_it_was_taken_is_taken_again(
    broker: Path, tmp_path: Path, kind: type[freezing._Files]
) -> None:
    """The cleaner joins segments: the old one alone would lack what the others held."""
    live, joined = broker / "orders-0", batch(1, [b"b"])

    class Late(kind):  # type: ignore[misc,valid-type]
        def take(self, path: str, frozen: str) -> int:
            taken: int = super().take(path, frozen)
            first = live / f"{0:020}.log"
            if path == str(first) and first.read_bytes() != joined:
                first.rename(f"{first}.deleted")
                first.write_bytes(joined)
            return taken

    lengths = freezing.freeze_folder(str(live), str(tmp_path / "frozen"), Late())
    assert lengths is not None
    assert (tmp_path / "frozen" / f"{0:020}.log").read_bytes() == joined


def test_a_segment_that_is_rolled_meanwhile_is_followed_by_the_next(
    broker: Path, tmp_path: Path
) -> None:
    def roll(folder: Path) -> None:
        with (folder / f"{3:020}.log").open("ab") as log:
            log.write(batch(4, [b"e"]))
        segment(folder, 5, batch(5, [b"f"]))

    for files in (_Trouble(roll), freezing._Copies()):
        frozen = tmp_path / type(files).__name__
        lengths = freezing.freeze_folder(str(broker / "orders-0"), str(frozen), files)
        assert lengths is not None
        assert lengths[f"{3:020}.log"] == len(batch(3, [b"d"]) + batch(4, [b"e"]))
        assert f"{5:020}.log" in lengths
        assert f"{3:020}.index" in lengths


def test_a_copied_segment_gets_what_was_appended_before_it_was_rolled(
    broker: Path, tmp_path: Path
) -> None:
    class Slow(freezing._Copies):
        def take(self, live: str, frozen: str) -> int:
            taken = super().take(live, frozen)
            if live.endswith(f"{3:020}.log"):
                with Path(live).open("ab") as log:
                    log.write(batch(4, [b"e"]))
                segment(Path(live).parent, 5, batch(5, [b"f"]))
            return taken

    frozen = tmp_path / "frozen"
    lengths = freezing.freeze_folder(str(broker / "orders-0"), str(frozen), Slow())
    assert lengths is not None
    whole = batch(3, [b"d"]) + batch(4, [b"e"])
    assert (frozen / f"{3:020}.log").read_bytes() == whole


def test_a_partition_that_is_deleted_meanwhile_is_left_out_and_named(
    broker: Path, tmp_path: Path
) -> None:
    def delete(folder: Path) -> None:
        folder.rename(folder.with_name("orders-0.1234-delete"))

    frozen = tmp_path / "frozen"
    live = str(broker / "orders-0")
    assert freezing.freeze_folder(live, str(frozen), _Trouble(delete)) is None
    assert not frozen.exists()
    assert freeze([broker], tmp_path / "snapshot").partitions == []


def test_offsets_are_put_aside_before_data_and_transactions_last(tmp_path: Path) -> None:
    for name in ("orders-0", "__transaction_state-1", "__consumer_offsets-2", "a-b.c-10"):
        segment(tmp_path / name, 0)
    (tmp_path / "orders-1.0123456789abcdef-delete").mkdir()
    (tmp_path / "orders-2.0123456789abcdef-future").mkdir()
    (tmp_path / "lost+found").mkdir()
    assert freezing.partition_folders(str(tmp_path)) == [
        ("__consumer_offsets", 2),
        ("a-b.c", 10),
        ("orders", 0),
        ("__transaction_state", 1),
    ]


def test_logs_that_cannot_be_linked_are_copied_if_there_is_space(
    broker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.ismount", lambda path: path == str(broker))
    frozen = freeze([broker], tmp_path / "snapshot")
    assert frozen.copied == [str(broker)]
    copy = Path(frozen.partitions[0].folder, f"{0:020}.log")
    assert not copy.samefile(broker / "orders-0" / copy.name)
    assert not list(tmp_path.glob(".epibackup-kafka-*"))
    monkeypatch.setattr(freezing, "free_bytes", lambda _: 1000)
    with pytest.raises(HostError) as refused:
        freeze([broker], tmp_path / "another")
    assert "its copy needs" in refused.value.message
    assert "host_directory" in refused.value.hint


@pytest.mark.parametrize("cut", [0, 1, 30, 60])
def test_a_batch_that_was_being_written_is_cut_off(tmp_path: Path, cut: int) -> None:
    whole = batch(7, [b"x", b"y"])
    path = segment(tmp_path, 7, whole, batch(9, [b"z" * 100])[:cut])
    size = path.stat().st_size
    assert segments.end_of(str(path), size, "/nowhere") == (len(whole), 9)


def test_the_end_is_found_by_the_index_and_without_it(tmp_path: Path) -> None:
    batches = [batch(base, [b"v" * 500]) for base in range(2000)]
    path = segment(tmp_path, 0, *batches)
    size = path.stat().st_size
    length = len(batches[0])
    entries = b"".join(struct.pack(">ii", base, base * length) for base in range(8, 1990, 8))
    index = tmp_path / "index"
    for content in (entries + bytes(8 * 1000), entries, b"", b"\xff" * 800, bytes(8000)):
        index.write_bytes(content)
        assert segments.end_of(str(path), size, str(index)) == (size, 2000)
    index.write_bytes(entries + bytes(8 * 1000))
    shorter = length * 1000 + 10  # the index knows more than the snapshot has
    assert segments.end_of(str(path), shorter, str(index)) == (length * 1000, 1000)


def commit(
    group: str, topic: str, partition: int, offset: int | None
) -> tuple[bytes, bytes | None]:
    """A record of __consumer_offsets, as 2.1 and newer write them."""
    key = struct.pack(">hh", 1, len(group)) + group.encode()
    key += struct.pack(">h", len(topic)) + topic.encode() + struct.pack(">i", partition)
    if offset is None:
        return key, None
    return key, struct.pack(">hqihq", 3, offset, -1, 0, 1_700_000_000_000 + offset)


def offsets_log(
    path: Path, *records: tuple[bytes, bytes | None], codec: int = 0
) -> tuple[str, int]:
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    for number, (key, value) in enumerate(records):
        builder.append(number, 1_600_000_000_000, key, value, [])
    path.write_bytes(builder.build())
    return str(path), path.stat().st_size


def test_groups_have_what_they_committed_last(tmp_path: Path) -> None:
    member = (struct.pack(">hh", 2, 7) + b"billing", b"whatever")
    log = offsets_log(
        tmp_path / "log",
        commit("billing", "orders", 0, 5),
        commit("billing", "orders", 0, 9),
        commit("billing", "orders", 11, 300),
        commit("gone", "orders", 0, 3),
        commit("gone", "orders", 0, None),
        member,
        codec=1,
    )
    found: segments.GroupOffsets = {}
    segments.group_offsets([log], found)
    assert found["billing"] == {
        "orders": {"0": [9, "", 1_700_000_000_009], "11": [300, "", 1_700_000_000_300]}
    }
    assert found["gone"] == {"orders": {}}


def test_offsets_that_cannot_be_read_are_unknown_and_not_empty(tmp_path: Path) -> None:
    records = [commit("billing", "orders", 0, 5)] * 20  # one alone would not be compressed
    log = offsets_log(tmp_path / "log", *records, codec=4)
    with pytest.raises(segments.UnreadableOffsets):
        segments.group_offsets([log], {})


def test_small_topics_share_a_member_and_large_ones_have_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "BUNDLE_BYTES", 1000)
    data = tmp_path / "kafka"
    for name, size in (("a", 400), ("b", 400), ("c", 400), ("big.one", 3000)):
        segment(data / f"{name}-0", 0, batch(0, [b"v" * size]))
    (data / "meta.properties").write_text("broker.id=1\n")
    frozen = freeze([data], tmp_path / "frozen")
    (tmp_path / "snapshot").mkdir()
    snapshot = Snapshot(str(tmp_path / "snapshot"), RUN, {}, Compression("none", 0))
    topics.add_members(topics.measured(frozen, [str(data)]), snapshot)
    assert {member["name"]: member["content"]["parts"] for member in snapshot.members} == {
        "topic-big.one.tar": ["big.one"],
        "topics-0000.tar": ["a", "b"],
        "topics-0001.tar": ["c"],
    }


def test_a_file_that_was_truncated_after_all_fails_its_member(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"short")
    listing = str(tmp_path / "list")
    write_json(listing, {"files": [["0/log", str(tmp_path / "log"), 100]]})
    for method in ("none", "zstd"):
        with pytest.raises(HostError, match="cut short"):
            send_cut_tree(listing, Compression(method, 3), (tmp_path / "out").open("wb"))


def test_only_listeners_of_the_wanted_kind_are_used() -> None:
    listed = "INTERNAL://10.0.0.1:9092, SASL_PLAINTEXT://10.0.0.1:9094,PLAINTEXT://10.0.0.1:9095"
    protocols = "INTERNAL:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT"
    assert listeners(listed, protocols, "PLAINTEXT") == ["10.0.0.1:9092", "10.0.0.1:9095"]
    assert listeners("PLAINTEXT://:9092", "", "PLAINTEXT") == []


def test_partitions_that_no_saved_broker_has_are_a_problem() -> None:
    topic: dict[str, Any] = {
        "partitions": [[0, 0, 5, 10]],
        "assignment": {"0": [1], "1": [2]},
    }
    answers: dict[str, dict[str, Any]] = {
        "kafka1": {"details": {"topics": {"orders": topic}}},
        "kafka2": {"details": {}},
    }
    assert Kafka.conclude(answers) == [
        "these partitions are on none of the saved brokers: orders [1]"
    ]
    topic["partitions"] = [[0, 0, 5, 10], [1, 0, 5, 10]]
    assert Kafka.conclude(answers) == []
