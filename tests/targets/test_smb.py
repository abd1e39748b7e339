"""A mounted SMB share as a target, against a real server: what holds for Azure Files over SMB.

The client is smbnetfs, which is as little as a client can have: no hard links, no locks, no flush,
and a file that is open cannot be renamed.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import TargetUnreachable
from components.storage.options import DirectoryOptions, TargetOptions
from components.storage.target import Target, Upload, open_target
from lab.services.faulty_mount import FaultyMount, require_fuse
from lab.services.samba import Samba, require_samba
from tests.targets.contract import Contract, PutBeside, publish

MIB = 1 << 20
LIMIT_SECONDS = 15


@pytest.fixture(scope="module")
def installed() -> None:
    require_samba(print)
    require_fuse(print)


@pytest.fixture(scope="module")
def shared(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samba]:
    """A server for tests that do nothing to it."""
    folder = tmp_path_factory.mktemp("smb")
    with Samba(folder / "samba", folder / "served") as running:
        yield running


@pytest.fixture
def samba(shared: Samba) -> Iterator[Samba]:
    """The server with an empty share. It is emptied by the mount, which remembers what it saw."""
    yield shared
    for path in shared.path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def target_of(samba: Samba) -> Target:
    limits = DirectoryOptions(timeout_seconds=LIMIT_SECONDS)
    return open_target(str(samba.path), TargetOptions(directory=limits))


class TestContract(Contract):
    """What every target keeps."""

    @pytest.fixture
    def target(self, samba: Samba) -> Target:
        return target_of(samba)

    @pytest.fixture
    def put_beside(self, samba: Samba) -> PutBeside:
        def put(path: str, data: bytes) -> None:
            place = samba.served / path
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(data)

        return put


def test_the_share_has_no_hard_links_and_what_arrives_is_what_was_sent(samba: Samba) -> None:
    data = os.urandom(9 * MIB)
    assert publish(target_of(samba), data, "a.zip") == "a.zip"
    with pytest.raises(OSError, match="Operation not permitted"):
        os.link(samba.path / "a.zip", samba.path / "b.zip")
    assert [path.name for path in samba.served.iterdir()] == ["a.zip"]
    assert (samba.served / "a.zip").read_bytes() == data


def test_a_check_leaves_nothing_on_the_share(samba: Samba) -> None:
    """Also where what is open cannot be removed."""
    target_of(samba).check()
    upload = target_of(samba).create(["a.zip"])
    upload.write(b"half")
    upload.abort()
    assert list(samba.served.iterdir()) == []


def test_a_name_that_was_reserved_is_free_again_when_the_rename_fails(
    installed: None, tmp_path: Path
) -> None:
    """Otherwise an empty file would be listed as an archive."""
    with FaultyMount(tmp_path) as mounted, mounted.fault("link", "EPERM"):
        target = open_target(str(mounted.path), TargetOptions())
        upload = target.create(["a.zip"])
        upload.write(b"whole")
        with mounted.fault("rename", "EIO"), pytest.raises(TargetUnreachable):
            upload.publish()
        upload.abort()
        assert list(mounted.served.iterdir()) == []
        assert publish(target, b"whole", "a.zip") == "a.zip"


def test_a_share_that_is_full_leaves_nothing(installed: None, tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "epitest", str(served)], check=True)
    try:
        with Samba(tmp_path / "samba", served) as samba:
            with pytest.raises(TargetUnreachable, match="No space left") as caught:
                publish(target_of(samba), os.urandom(9 * MIB), "a.zip")
            assert "free space there" in caught.value.hint
            assert target_of(samba).names() == []
    finally:
        subprocess.run(["umount", "--lazy", str(served)], check=True)


def test_a_share_that_cannot_be_written_is_refused(installed: None, tmp_path: Path) -> None:
    with Samba(tmp_path / "samba", tmp_path / "served", read_only=True) as samba:
        with pytest.raises(TargetUnreachable) as caught:
            target_of(samba).check()
        assert "right to write" in caught.value.hint


def write_and_publish(upload: Upload, data: bytes) -> None:
    upload.write(data)
    upload.publish()


def test_a_server_that_goes_away_while_writing_is_an_error_in_bounded_time(
    installed: None, tmp_path: Path
) -> None:
    with Samba(tmp_path / "samba", tmp_path / "served") as samba:
        upload = target_of(samba).create(["a.zip"])
        upload.write(bytes(MIB))
        samba.kill()
        start = time.monotonic()
        with pytest.raises(TargetUnreachable):
            write_and_publish(upload, bytes(4 * MIB))
        upload.abort()
        assert time.monotonic() - start < 3 * LIMIT_SECONDS
    assert not (samba.served / "a.zip").exists()
