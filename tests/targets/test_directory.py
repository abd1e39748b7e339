"""A folder as a target."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from components.errors import TargetUnreachable, UsageError
from components.storage.directory import Directory
from components.storage.options import TargetOptions
from components.storage.target import Target, open_target
from tests.targets.contract import Contract, PutBeside, publish


class TestContract(Contract):
    """What every target keeps."""

    @pytest.fixture
    def target(self, tmp_path: Path) -> Target:
        folder = tmp_path / "target"
        folder.mkdir(mode=0o700)
        return Directory(str(folder))

    @pytest.fixture
    def put_beside(self, tmp_path: Path) -> PutBeside:
        def put(path: str, data: bytes) -> None:
            file = tmp_path / "target" / path
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)

        return put


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    publish(Directory(str(tmp_path)), b"x", "a.zip")
    assert (tmp_path / "a.zip").stat().st_mode & 0o777 == 0o600


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "mount"
    with pytest.raises(TargetUnreachable, match="does not exist"):
        Directory(str(missing)).check()
    assert not missing.exists()


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TargetUnreachable, match="is not a folder"):
        Directory(str(tmp_path / "file")).check()


def _write_and_wait(folder: str, ready: "multiprocessing.synchronize.Event") -> None:
    upload = Directory(folder).create(["killed.zip"])
    upload.write(b"half an archive")
    ready.set()
    signal.pause()


def test_what_a_killed_writer_leaves_is_removed_by_the_next_and_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    writer = context.Process(target=_write_and_wait, args=(str(tmp_path), ready))
    writer.start()
    assert ready.wait(30)
    target = Directory(str(tmp_path))
    target.check()
    assert len(list(tmp_path.iterdir())) == 1, "a living writer's file was removed"
    writer.kill()
    writer.join()
    target.check()
    assert list(tmp_path.iterdir()) == []


def test_without_hard_links_the_name_is_still_taken_exclusively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    target = Directory(str(tmp_path))
    monkeypatch.setattr(os, "link", refuse)
    assert publish(target, b"one", "a", "a_1") == "a"
    assert publish(target, b"two", "a", "a_1") == "a_1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a_1"]


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "free space"), (errno.ESTALE, "mount it again")]
)
def test_a_target_that_fails_while_writing_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    upload = Directory(str(tmp_path)).create(["a.zip"])

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(TargetUnreachable) as caught:
        upload.write(b"x")
    monkeypatch.undo()
    upload.abort()
    assert hint in caught.value.hint
    assert caught.value.exit_code == 8
    assert list(tmp_path.iterdir()) == []


def test_a_location_that_this_version_cannot_use_is_refused() -> None:
    with pytest.raises(UsageError, match="no target ftp://"):
        open_target("ftp://server/folder", TargetOptions())
