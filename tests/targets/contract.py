"""What every target has to keep: a class of tests that the tests of each target inherit."""

import pytest

from components.errors import NotFound
from components.storage.target import Target


def publish(target: Target, data: bytes, *names: str) -> str:
    upload = target.create(names)
    upload.write(data)
    return upload.publish()


class Contract:
    """The tests; a subclass has the fixture `target`, which is empty."""

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
