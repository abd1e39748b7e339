"""Kafka's log files: what is read of them is what consumers would have read, or an error."""

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import (  # type: ignore[import-untyped]
    DefaultRecordBatch,
    DefaultRecordBatchBuilder,
)
from kafka.record.legacy_records import LegacyRecordBatchBuilder  # type: ignore[import-untyped]
from kafka.record.util import calc_crc32c  # type: ignore[import-untyped]

from components.errors import EpibackupError, VerificationFailed
from components.kafka.batches import BatchMaker, stamp
from components.kafka.records import (
    ABORT,
    APPEND_TIME,
    COMMIT,
    CONTROL,
    GZIP,
    HEADER,
    LZ4,
    NONE,
    SNAPPY,
    TRANSACTIONAL,
    ZSTD,
    Record,
    Segment,
    read_batch,
    records,
)
from components.kafka.transactions import Checked, check, committed, committed_records

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
MILLISECONDS = 1_600_000_000_000

Content = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]


PLACES = {
    "attributes": (">h", 21),
    "last_delta": (">i", 23),
    "first_time": (">q", 27),
    "largest_time": (">q", 35),
    "producer": (">q", 43),
}


def reseal(batch: bytearray, base: int, **fields: int) -> bytes:
    """Change a batch's header as a broker would, with the checksum it has then; flags of the
    attributes are added to those it has."""
    struct.pack_into(">q", batch, 0, base)
    for name, value in fields.items():
        kind, place = PLACES[name]
        known = struct.unpack_from(kind, batch, place)[0] if name == "attributes" else 0
        struct.pack_into(kind, batch, place, known | value)
    struct.pack_into(">I", batch, 17, calc_crc32c(memoryview(batch)[21:]))
    return bytes(batch)


def batch_2(
    base: int,
    contents: Sequence[Content],
    codec: int = NONE,
    deltas: Sequence[int] | None = None,
    **fields: int,
) -> bytes:
    """A batch of magic 2, built by kafka-python."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 30)
    for number, (key, value, headers) in enumerate(contents):
        delta = deltas[number] if deltas else number
        builder.append(delta, MILLISECONDS + base + delta, key, value, headers)
    return reseal(builder.build(), base, **fields)


def transactional(base: int, producer: int, count: int = 1, codec: int = NONE) -> bytes:
    contents: list[Content] = [(b"p%d" % producer, b"v%d" % i, []) for i in range(count)]
    return batch_2(base, contents, codec, producer=producer, attributes=TRANSACTIONAL)


def marker(base: int, producer: int, kind: int) -> bytes:
    content: Content = (struct.pack(">hh", 0, kind), struct.pack(">hi", 0, 0), [])
    return batch_2(base, [content], producer=producer, attributes=TRANSACTIONAL | CONTROL)


def legacy(magic: int, offsets: Sequence[int], codec: int = NONE) -> bytes:
    """Messages of magic 0 or 1; compressed ones in one wrapper, with a broker's offsets."""
    if not codec:
        made = b""
        for offset in offsets:
            builder = LegacyRecordBatchBuilder(magic, 0, 1 << 20)
            builder.append(offset, MILLISECONDS + offset, b"k%d" % offset, b"v%d" % offset)
            made += bytes(builder.build())
        return made
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 20)
    for offset in offsets:
        relative = offset - offsets[0] if magic == 1 else offset
        builder.append(relative, MILLISECONDS + offset, b"k%d" % offset, b"v%d" % offset)
    wrapper = bytearray(builder.build())
    struct.pack_into(">q", wrapper, 0, offsets[-1])
    return bytes(wrapper)


def segment(base: int, *batches: bytes) -> Segment:
    return Segment(base, io.BytesIO(b"".join(batches)))


def twice(
    make: Callable[[], list[Segment]], start: int = 0
) -> tuple[Checked, list[tuple[int, bytes | None]]]:
    """Both passes: what was found, and offset and value of the records."""
    checked = check("orders", 0, start, make())
    return checked, [(r.offset, r.value) for r in committed_records(checked, make())]


CONTENTS: list[Content] = [
    (b"key", b"value", [("name", b"header"), ("name", b""), ("none", None)]),
    (None, b"value", []),
    (b"key", None, []),
    (None, None, []),
    (b"", b"x" * 3000, [("ü", b"\xff")]),
]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_records_are_read_as_they_were_written(codec: int) -> None:
    read = records(read_batch("orders-0", batch_2(7, CONTENTS, codec)))
    assert read == [
        Record(7 + number, MILLISECONDS + 7 + number, 0, key, value, headers)
        for number, (key, value, headers) in enumerate(CONTENTS)
    ]


def test_records_with_the_brokers_time_have_it_all() -> None:
    made = batch_2(0, CONTENTS, attributes=APPEND_TIME, largest_time=MILLISECONDS + 99)
    read = records(read_batch("orders-0", made))
    assert {(r.timestamp_ms, r.timestamp_type) for r in read} == {(MILLISECONDS + 99, 1)}


@pytest.mark.parametrize(
    ("magic", "codec"), [(0, 0), (0, GZIP), (0, SNAPPY), (1, 0), (1, GZIP), (1, SNAPPY), (1, LZ4)]
)
def test_older_formats_are_read_with_absolute_offsets(magic: int, codec: int) -> None:
    offsets = [100, 101, 105]  # compaction has taken some
    checked, read = twice(lambda: [segment(100, legacy(magic, offsets, codec))])
    assert read == [(offset, b"v%d" % offset) for offset in offsets]
    assert checked.records == 3
    assert checked.end_offset == 106
    assert checked.newest_ms == (None if magic == 0 else (MILLISECONDS + 105 if not codec else 0))


def test_lz4_of_the_oldest_format_is_said_to_be_unreadable() -> None:
    wrapper = bytearray(legacy(0, [0], GZIP))
    wrapper[17] = LZ4
    struct.pack_into(">I", wrapper, 12, zlib.crc32(wrapper[16:]))
    with pytest.raises(EpibackupError, match="lz4 of message format 0") as caught:
        check("orders", 0, 0, [segment(0, bytes(wrapper))])
    assert not isinstance(caught.value, VerificationFailed)


def test_gaps_of_compaction_stay_gaps_between_offsets() -> None:
    made = batch_2(10, CONTENTS, ZSTD, deltas=[0, 3, 4, 9, 11], last_delta=20)
    _, read = twice(lambda: [segment(10, made), segment(31), segment(40, batch_2(44, CONTENTS))])
    assert [offset for offset, _ in read] == [10, 13, 14, 19, 21, 44, 45, 46, 47, 48]


def test_a_log_whose_last_segment_is_empty_ends_where_that_begins() -> None:
    assert check("orders", 0, 50, [segment(50)]).end_offset == 50


def test_empty_batches_that_keep_a_producers_sequence_are_no_records() -> None:
    empty = bytearray(HEADER.pack(3, HEADER.size - 12, 0, 2, 0, 0, 5, -1, -1, 9, 0, 5, 0))
    checked, read = twice(lambda: [segment(0, reseal(empty, 3), batch_2(9, CONTENTS[:1]))])
    assert [offset for offset, _ in read] == [9]
    assert checked.records == 1


def test_what_was_deleted_before_the_logs_start_is_left_out() -> None:
    made = batch_2(0, CONTENTS, SNAPPY)
    checked, read = twice(lambda: [segment(0, made, batch_2(5, CONTENTS[:1]))], start=3)
    assert [offset for offset, _ in read] == [3, 4, 5]
    assert checked.records == 3


def test_only_transactions_that_were_committed_count() -> None:
    def log() -> list[Segment]:
        first = [
            transactional(0, producer=1, count=2),
            transactional(2, producer=2, count=3, codec=ZSTD),
            batch_2(5, CONTENTS[:1]),
            transactional(6, producer=1),
        ]
        second = [
            marker(7, 1, ABORT),
            transactional(8, producer=1),
            marker(9, 2, COMMIT),
            marker(10, 1, COMMIT),
            transactional(11, producer=1, count=4),  # never ended
            transactional(15, producer=2),
            marker(16, 2, ABORT),
            marker(17, 3, ABORT),  # its records were deleted
        ]
        return [segment(0, *first), segment(7, *second)]

    checked, read = twice(log)
    assert [offset for offset, _ in read] == [2, 3, 4, 5, 8]
    assert checked.records == 5
    assert (checked.aborted, checked.unfinished, checked.control) == (4, 4, 5)
    assert checked.end_offset == 18


def test_a_log_may_end_within_a_batch() -> None:
    whole, cut = batch_2(0, CONTENTS), batch_2(5, CONTENTS)
    for length in (1, 16, 17, 60, 61, len(cut) - 1):
        checked, read = twice(lambda length=length: [segment(0, whole + cut[:length])])  # type: ignore[misc]
        assert [offset for offset, _ in read] == [0, 1, 2, 3, 4]
        assert checked.end_offset == 5


def test_zeros_behind_the_last_batch_are_no_data() -> None:
    checked = check("orders", 0, 0, [segment(0, batch_2(0, CONTENTS), bytes(5000))])
    assert checked.end_offset == 5


@pytest.mark.parametrize("tail", [b"\0" * 7, bytes(400), batch_2(5, CONTENTS)[:70]])
def test_only_the_last_segment_may_be_cut(tail: bytes) -> None:
    log = [segment(0, batch_2(0, CONTENTS) + tail), segment(5, batch_2(5, CONTENTS))]
    with pytest.raises(VerificationFailed, match=r"orders-0: .* offset 5: the segment before"):
        check("orders", 0, 0, log)


@given(st.data())
def test_any_flipped_bit_of_a_whole_log_is_found(data: st.DataObject) -> None:
    made = bytearray(
        batch_2(0, CONTENTS, LZ4) + legacy(1, [5, 6, 7], 1) + legacy(0, [8]) + batch_2(9, CONTENTS)
    )
    intact = [(r.offset, r.key, r.value) for r in _all(bytes(made))]
    position = data.draw(st.integers(0, len(made) - 1))
    made[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = [(r.offset, r.key, r.value) for r in _all(bytes(made))]
    except VerificationFailed:
        return
    # Offsets, lengths and leader epochs are outside of the checksum: they may only cut the log,
    # which the manifest's end offset shows, or give the same records other offsets.
    assert [record[1:] for record in found] == [record[1:] for record in intact][: len(found)]


def _all(log: bytes) -> list[Record]:
    checked = check("orders", 0, 0, [segment(0, log)])
    return list(committed_records(checked, [segment(0, log)]))


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ([segment(0, batch_2(5, CONTENTS), batch_2(4, CONTENTS))], "goes back to offset 4"),
        ([segment(0, batch_2(5, CONTENTS)), segment(9)], "it begins before 10"),
        ([segment(8, batch_2(5, CONTENTS))], "goes back to offset 5"),
        (
            [segment(0, struct.pack(">qi", 0, (1 << 30) + 1) + bytes(70))],
            "says it has 1073741825 bytes",
        ),
        ([segment(0, struct.pack(">qi", 0, -5) + bytes(70))], "says it has -5 bytes"),
        ([segment(0, struct.pack(">qiib", 0, 20, 0, 9) + bytes(70))], "the unknown format 9"),
        ([segment(0, struct.pack(">qiib", 0, 20, 0, 2) + bytes(70))], "shorter than its header"),
        ([segment(0, struct.pack(">qiib", 0, 15, 0, 1) + bytes(70))], "shorter than its header"),
    ],
)
def test_what_no_broker_writes_is_damage(log: list[Segment], message: str) -> None:
    with pytest.raises(VerificationFailed, match=message) as caught:
        check("orders", 0, 0, log)
    assert "orders-0" in caught.value.message
    assert "another run" in caught.value.hint


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_batch_that_cannot_be_decompressed_is_damage(codec: int) -> None:
    # Its checksum is right, but the codec is another.
    made = batch_2(0, CONTENTS * 9, attributes=codec)
    with pytest.raises(VerificationFailed, match=r"orders-0.*: a batch cannot be"):
        list(records(read_batch("orders-0", made)))


def remade(
    batches: Sequence[bytes], start: int = 0, largest: int = 1 << 20, alone: int = 1 << 30
) -> list[bytes]:
    """What would be produced, as the broker gets it."""

    def log() -> list[Segment]:
        return [segment(0, *batches)]

    checked = check("orders", 0, start, log())
    maker = BatchMaker(start, largest, alone)
    made: list[Any] = []
    for batch in committed(checked, log()):
        made += maker.add(batch)
    made += maker.rest()
    assert sum(item.records for item in made) == checked.records
    sent = []
    for item in made:
        stamp(item.data, 77, 3, 12)
        sent.append(bytes(item.data))
    return sent


def contents(batch: bytes) -> list[tuple[Any, ...]]:
    """A batch's records as kafka-python reads them."""
    return [(r.timestamp, r.key, r.value, r.headers) for r in DefaultRecordBatch(batch)]


@pytest.mark.parametrize("alone", [0, 1 << 30], ids=["as they are", "new batches"])
@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_produced_batches_hold_the_saved_records(codec: int, alone: int) -> None:
    saved = [batch_2(0, CONTENTS * 3, codec), batch_2(15, CONTENTS, codec)]
    sent = remade(saved, alone=alone)
    assert len(sent) == (2 if alone == 0 else 1)
    assert [c for b in sent for c in contents(b)] == [c for b in saved for c in contents(b)]
    for made in sent:
        found = DefaultRecordBatch(made)
        assert found.validate_crc()
        assert (found.producer_id, found.producer_epoch, found.base_sequence) == (77, 3, 12)
        assert (found.base_offset, found.last_offset_delta) == (0, found.records_count - 1)
        assert found.compression_type == codec


def test_produced_batches_are_neither_transactional_nor_of_the_brokers_time() -> None:
    saved = [
        transactional(0, producer=5),
        marker(1, 5, COMMIT),
        batch_2(2, CONTENTS, attributes=APPEND_TIME, largest_time=MILLISECONDS + 50),
    ]
    sent = remade(saved, alone=0)
    assert [DefaultRecordBatch(made).attributes for made in sent] == [0, 0]
    assert {c[0] for c in contents(sent[1])} == {MILLISECONDS + 50}


def test_gaps_and_older_formats_become_batches_without_gaps() -> None:
    saved = [legacy(0, [0]), legacy(1, [1, 2], 1), batch_2(3, CONTENTS, deltas=[0, 2, 3, 5, 8])]
    sent = remade(saved, alone=0)
    assert [DefaultRecordBatch(made).records_count for made in sent] == [1, 2, 5]
    for made in sent:
        offsets = [record.offset for record in DefaultRecordBatch(made)]
        assert offsets == list(range(len(offsets)))
    assert contents(sent[0]) == [(-1, b"k0", b"v0", [])]
    assert contents(sent[1])[0] == (MILLISECONDS + 1, b"k1", b"v1", [])


def test_a_new_batch_is_not_larger_than_asked_unless_one_record_is() -> None:
    large: Content = (b"k", b"x" * 9000, [])
    saved = [batch_2(0, [CONTENTS[0]] * 500 + [large] + [CONTENTS[0]] * 500)]
    sent = remade(saved, largest=2000)
    sizes = [len(made) for made in sent]
    assert sorted(sizes)[-1] > 9000
    assert sorted(sizes)[-2] < 4000
    assert [c for b in sent for c in contents(b)] == contents(saved[0])


records_of_any_kind = st.lists(
    st.tuples(
        st.one_of(st.none(), st.binary(max_size=40)),
        st.one_of(st.none(), st.binary(max_size=200)),
        st.lists(
            st.tuples(st.text(max_size=8), st.one_of(st.none(), st.binary(max_size=8))), max_size=3
        ),
    ),
    min_size=1,
    max_size=12,
)


@given(records_of_any_kind, st.integers(0, 4), st.integers(1, 300), st.integers(0, 3))
def test_any_record_comes_back_as_it_was(
    saved: list[Content], codec: int, largest: int, start: int
) -> None:
    made = batch_2(0, saved, codec)
    sent = remade([made], start=start, largest=largest)
    assert [c for b in sent for c in contents(b)] == contents(made)[start:]
