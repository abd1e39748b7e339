"""What every target has to keep: a class of tests that the tests of each target inherit."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.errors import NotFound, TargetUnreachable
from components.storage.target import Target

MIB = 1 << 20
PutBeside = Callable[[str, bytes], None]


def publish(target: Target, data: bytes, *names: str) -> str:
    upload = target.create(names)
    upload.write(data)
    return upload.publish()


def publish_or_abort(target: Target, count: int) -> str:
    """What a run does with its upload: whatever happens, it is ended."""
    upload = target.create(["a.zip"])
    try:
        upload.write(some_bytes(count))
        return upload.publish()
    finally:
        upload.abort()


def some_bytes(count: int) -> bytes:
    """Bytes without a pattern, the same on every call."""
    return random.Random(20261122).randbytes(count)  # noqa: S311 - not a secret


class Contract:
    """The tests; a subclass has two fixtures.

    target: a target, which is empty. put_beside: puts a file there by other means than the target,
    by its path (`folder/file`), as somebody else would who uses the same place.
    """

    def test_a_published_archive_is_listed_read_and_deleted(self, target: Target) -> None:
        assert publish(target, b"0123456789", "a.zip") == "a.zip"
        assert target.names() == ["a.zip"]
        assert target.size("a.zip") == 10
        with target.open("a.zip") as stream:
            stream.seek(3)
            assert stream.read(4) == b"3456"
        target.delete("a.zip")
        target.delete("a.zip")
        assert target.names() == []

    def test_an_unfinished_archive_is_not_listed_and_leaves_nothing(self, target: Target) -> None:
        upload = target.create(["a.zip"])
        upload.write(b"half")
        assert target.names() == []
        upload.abort()
        upload.abort()
        assert target.names() == []

    def test_a_taken_name_is_never_overwritten(self, target: Target) -> None:
        publish(target, b"first", "a.zip")
        assert publish(target, b"second", "a.zip", "a_1.zip") == "a_1.zip"
        with target.open("a.zip") as stream:
            assert stream.read() == b"first"

    def test_two_uploads_at_once_get_two_names(self, target: Target) -> None:
        one, two = target.create(["a", "a_1"]), target.create(["a", "a_1"])
        one.write(b"one")
        two.write(b"two")
        names = {one.publish(), two.publish()}
        assert names == {"a", "a_1"}

    def test_a_check_leaves_nothing_behind(self, target: Target) -> None:
        target.check()
        assert target.names() == []

    def test_what_is_not_there_is_not_found(self, target: Target) -> None:
        for ask in (target.open, target.size):
            with pytest.raises(NotFound, match=r"no none\.zip") as caught:
                ask("none.zip")
            assert caught.value.exit_code == 6

    # -- what is written is what is read ----------------------------------------------------------

    def test_large_writes_in_odd_pieces_are_read_as_they_were_written(self, target: Target) -> None:
        data = some_bytes(40 * MIB)
        chance = random.Random(1)  # noqa: S311 - not a secret
        buffer = bytearray(3 * MIB)
        upload = target.create(["large.zip"])
        start = 0
        while start < len(data):
            size = min(int(2 ** chance.uniform(0, 21.5)), len(buffer), len(data) - start)
            buffer[:size] = data[start : start + size]
            upload.write(memoryview(buffer)[:size])
            buffer[:size] = bytes(size)  # the caller needs it for the next piece
            start += size
        assert upload.publish() == "large.zip"
        assert target.size("large.zip") == len(data)

        with target.open("large.zip") as stream:
            read = bytearray()
            while chunk := stream.read(MIB):
                read += chunk
        assert read == data, "it is not what was written"

    def test_any_position_can_be_read_and_beyond_the_end_there_is_nothing(
        self, target: Target
    ) -> None:
        data = some_bytes(12 * MIB)
        publish(target, data, "a.zip")
        chance = random.Random(2)  # noqa: S311 - not a secret
        with target.open("a.zip") as stream:
            assert stream.seekable()
            assert stream.seek(-22, 2) == len(data) - 22
            assert stream.read() == data[-22:]
            for _ in range(40):
                start = chance.randrange(len(data))
                size = chance.choice([1, 30, 4096, 70_000, 2 * MIB])
                stream.seek(start)
                assert stream.read(size) == data[start : start + size], (start, size)
                assert stream.tell() == min(start + size, len(data))
            stream.seek(len(data))
            assert stream.read(10) == b""
            stream.seek(len(data) + 1000)
            assert stream.read(10) == b""
            stream.seek(-5, 2)
            assert stream.read(10) == data[-5:]

    def test_an_empty_archive_is_an_archive(self, target: Target) -> None:
        assert target.create(["empty.zip"]).publish() == "empty.zip"
        assert target.size("empty.zip") == 0
        with target.open("empty.zip") as stream:
            assert stream.read(10) == b""
        assert target.names() == ["empty.zip"]

    def test_several_threads_read_at_once(self, target: Target) -> None:
        data = some_bytes(6 * MIB)
        publish(target, data, "a.zip")

        def read(number: int) -> bool:
            start = number * len(data) // 6
            with target.open("a.zip") as stream:
                stream.seek(start)
                return stream.read() == data[start:]

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(read, range(6)))

    # -- uploads ----------------------------------------------------------------------------------

    def test_an_upload_that_was_aborted_cannot_be_published(self, target: Target) -> None:
        upload = target.create(["a.zip"])
        upload.write(b"half")
        upload.abort()
        with pytest.raises(TargetUnreachable):
            upload.publish()
        assert target.names() == []

    def test_aborting_after_publishing_leaves_the_archive(self, target: Target) -> None:
        upload = target.create(["a.zip"])
        upload.write(b"whole")
        upload.publish()
        upload.abort()
        with target.open("a.zip") as stream:
            assert stream.read() == b"whole"

    # -- names ------------------------------------------------------------------------------------

    def test_folders_and_what_is_in_them_are_not_listed(
        self, target: Target, put_beside: PutBeside
    ) -> None:
        put_beside("folder/file.zip", b"somebody's")
        put_beside("file.txt", b"somebody's")
        publish(target, b"ours", "a.zip")
        assert target.names() == ["a.zip", "file.txt"]

    def test_a_name_that_somebody_else_has_taken_is_not_overwritten(
        self, target: Target, put_beside: PutBeside
    ) -> None:
        put_beside("a.zip", b"somebody's")
        assert publish(target, b"ours", "a.zip", "a_1.zip") == "a_1.zip"
        with target.open("a.zip") as stream:
            assert stream.read() == b"somebody's"

    def test_names_of_archives_are_kept_as_they_are(self, target: Target) -> None:
        names = ["epibackup_a.b-C_20261122T013000Z.zip", "epibackup_a.b-C_20261122T013000Z.tar.gz"]
        for name in names:
            publish(target, b"x", name)
        assert target.names() == sorted(names)
