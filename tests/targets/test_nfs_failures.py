"""NFS servers that refuse, fail and go."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import TargetUnreachable
from components.storage.options import NfsOptions, TargetOptions
from components.storage.target import Target, open_target
from lab.services.faulty_mount import FaultyMount
from lab.services.nfs import NfsServer
from tests.targets.contract import MIB, publish, publish_or_abort, some_bytes
from tests.targets.nfs_servers import (
    faulty,
    installed,
    options_for,
    own,
    server,
    shared,
    target_on,
)

__all__ = ["faulty", "installed", "own", "server", "shared"]

SHORT_SECONDS = 5


# -- servers that refuse --------------------------------------------------------------------------


def refused(target: Target) -> TargetUnreachable:
    start = time.monotonic()
    with pytest.raises(TargetUnreachable) as caught:
        target.check()
    assert time.monotonic() - start < 40
    assert caught.value.exit_code == 8
    assert caught.value.hint
    return caught.value


def test_a_server_that_is_not_there_is_said(server: NfsServer) -> None:
    nobody = TargetOptions(nfs=NfsOptions(port=server.port, mount_port=1))
    error = refused(open_target(server.location, nobody))
    assert "cannot be used" in error.message
    assert "127.0.0.1" in error.hint


def test_a_server_without_a_known_name_is_said() -> None:
    error = refused(open_target("nfs://no-such-server.invalid/export", TargetOptions()))
    assert "name is not known" in error.message


def test_a_server_that_says_nothing_is_given_up(own: Callable[..., NfsServer]) -> None:
    server = own()
    server.pause()
    start = time.monotonic()
    error = refused(target_on(server, timeout_seconds=SHORT_SECONDS))
    assert time.monotonic() - start < SHORT_SECONDS + 5
    assert f"no answer for {SHORT_SECONDS} seconds" in error.message


def test_a_path_that_is_not_exported_is_said(server: NfsServer) -> None:
    error = refused(open_target("nfs://127.0.0.1/elsewhere", options_for(server)))
    assert "may not be mounted from this machine, or does not exist" in error.message


def test_a_folder_that_does_not_exist_in_the_export_is_said(server: NfsServer) -> None:
    error = refused(open_target(f"{server.location}/none", options_for(server)))
    assert "does not exist" in error.message or "NOENT" in error.message


def test_an_export_for_other_machines_is_said(own: Callable[..., NfsServer]) -> None:
    server = own("Access_Type = NONE;", "CLIENT { Clients = 192.0.2.1; Access_Type = RW; }")
    assert "may not be mounted from this machine" in refused(target_on(server)).message


def test_an_export_for_reading_is_said(own: Callable[..., NfsServer]) -> None:
    error = refused(target_on(own("Access_Type = RO;")))
    assert "read-only" in error.message
    assert error.hint == "export it for writing"


def test_a_user_who_may_not_write_is_said(server: NfsServer) -> None:
    server.export.chmod(0o755)
    error = refused(target_on(server, uid=4321, gid=4321))
    assert "permission denied" in error.message
    assert "uid and gid" in error.hint


def test_a_server_that_wants_a_privileged_port_is_said(own: Callable[..., NfsServer]) -> None:
    server = own("PrivilegedPort = true;")
    server.export.chmod(0o777)
    target_on(server).check()  # root has one
    options = options_for(server).model_dump_json()
    script = (
        "import os, sys; from components.storage.options import TargetOptions\n"
        "from components.storage.target import open_target\n"
        "from components.errors import TargetUnreachable\n"
        "target = open_target(sys.argv[1], TargetOptions.model_validate_json(sys.argv[2]))\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: target.check()\n"
        "except TargetUnreachable as error: print(error.message, '|', error.hint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, server.location, options],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "below 1024" in done.stdout
    assert "run as root or set `insecure`" in done.stdout


def test_a_server_with_version_4_only_is_said(own: Callable[..., NfsServer]) -> None:
    error = refused(target_on(own(protocols=(4,))))
    assert "NFS version 3" in error.hint
    assert "mount it" in error.hint


def test_a_full_disk_is_said_and_nothing_is_left(
    own: Callable[..., NfsServer], tmp_path: Path
) -> None:
    export = tmp_path / "small"
    export.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "epitest", str(export)], check=True)
    try:
        target = target_on(own(export=export))
        with pytest.raises(TargetUnreachable, match="no space left on its disk") as caught:
            publish_or_abort(target, 12 * MIB)
        assert "choose another target" in caught.value.hint
        assert list(export.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(export)], check=True)


@pytest.mark.parametrize(
    ("operation", "name", "message"),
    [
        ("write", "EDQUOT", "the user's quota is used up"),
        ("fsync", "EDQUOT", "the user's quota is used up"),
        ("fsync", "EIO", "NFS3ERR_IO"),
        ("write", "EFBIG", "larger than a file may be there"),
        ("create", "ENOSPC", "no space left on its disk"),
        ("link", "ENOSPC", "no space left on its disk"),
    ],
)
def test_a_disk_that_fails_is_said_and_nothing_is_left(
    faulty: FaultyMount, own: Callable[..., NfsServer], operation: str, name: str, message: str
) -> None:
    target = target_on(own(export=faulty.path))
    with faulty.fault(operation, name), pytest.raises(TargetUnreachable) as caught:
        publish_or_abort(target, 3 * MIB)
    assert message in caught.value.message
    assert caught.value.hint
    assert list(faulty.served.iterdir()) == []


@pytest.mark.parametrize("name", ["EPERM", "EOPNOTSUPP"])
def test_without_hard_links_the_name_is_still_taken_exclusively(
    faulty: FaultyMount, own: Callable[..., NfsServer], name: str
) -> None:
    target = target_on(own(export=faulty.path))
    with faulty.fault("link", name):
        assert publish(target, b"one", "a", "a_1") == "a"
        assert publish(target, b"two", "a", "a_1") == "a_1"
    assert {path.name: path.read_bytes() for path in faulty.served.iterdir()} == {
        "a": b"one",
        "a_1": b"two",
    }


def test_a_name_that_was_reserved_is_free_again_when_the_rename_fails(
    faulty: FaultyMount, own: Callable[..., NfsServer]
) -> None:
    """Otherwise an empty file would be listed as an archive."""
    target = target_on(own(export=faulty.path))
    with faulty.fault("link", "EPERM"):
        with faulty.fault("rename", "EIO"), pytest.raises(TargetUnreachable, match="NFS3ERR_IO"):
            publish_or_abort(target, MIB)
        assert list(faulty.served.iterdir()) == []
        assert publish(target, b"whole", "a.zip") == "a.zip"


def test_a_folder_that_is_replaced_while_it_is_written_to_is_said(
    own: Callable[..., NfsServer],
) -> None:
    server = own()
    upload = target_on(server).create(["a.zip"])
    upload.write(bytes(MIB))
    shutil.rmtree(server.export)
    server.export.mkdir()
    with pytest.raises(TargetUnreachable, match=r"stale file handle|is gone"):
        upload.publish()
    upload.abort()


# -- servers that go ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["pause", "kill"])
def test_a_server_that_goes_while_it_is_written_to_is_given_up(
    own: Callable[..., NfsServer], way: str
) -> None:
    server = own()
    upload = target_on(server, timeout_seconds=SHORT_SECONDS).create(["a.zip"])
    upload.write(bytes(20 * MIB))
    getattr(server, way)()
    start = time.monotonic()
    with pytest.raises(TargetUnreachable, match=f"no answer for {SHORT_SECONDS} seconds"):
        upload.write(bytes(20 * MIB))
    upload.abort()
    with pytest.raises(TargetUnreachable):
        upload.publish()
    assert time.monotonic() - start < SHORT_SECONDS + 5


@pytest.mark.parametrize("way", ["pause", "kill"])
def test_a_server_that_goes_while_it_is_read_from_is_given_up(
    own: Callable[..., NfsServer], way: str
) -> None:
    server = own()
    target = target_on(server, timeout_seconds=SHORT_SECONDS)
    publish(target, bytes(20 * MIB), "a.zip")
    with target.open("a.zip") as stream:
        assert len(stream.read(MIB)) == MIB
        getattr(server, way)()
        start = time.monotonic()
        with pytest.raises(TargetUnreachable, match=f"no answer for {SHORT_SECONDS} seconds"):
            stream.read(5 * MIB)
        assert time.monotonic() - start < SHORT_SECONDS + 5


@pytest.mark.parametrize("way", ["pause", "kill"])
def test_a_server_that_comes_back_in_time_goes_on(own: Callable[..., NfsServer], way: str) -> None:
    server = own()
    data = some_bytes(64 * MIB)
    target = target_on(server, timeout_seconds=60)
    upload = target.create(["a.zip"])
    upload.write(data[: 20 * MIB])
    getattr(server, way)()
    timer = threading.Timer(2, {"pause": server.resume, "kill": lambda: _restart(server)}[way])
    timer.start()
    upload.write(data[20 * MIB :])
    timer.join()
    assert upload.publish() == "a.zip"
    with target.open("a.zip") as stream:
        assert stream.read() == data
    assert [path.name for path in server.export.iterdir()] == ["a.zip"]


def _restart(server: NfsServer) -> None:
    server.kill()
    server.start()
