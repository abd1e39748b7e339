"""Folders on network file systems: on a real mount whose server fails on request."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from components.errors import TargetUnreachable
from components.storage.directory import Directory
from components.storage.mounted import MountedDirectory, directory_target
from components.storage.network import network_file_system
from components.storage.options import DirectoryOptions, TargetOptions
from components.storage.target import Target, open_target
from lab.services.faulty_mount import KIND, FaultyMount, require_fuse
from tests.targets.contract import (
    MIB,
    Contract,
    PutBeside,
    publish,
    publish_or_abort,
    some_bytes,
)

LIMIT_SECONDS = 5
"""The least that can be set."""


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[FaultyMount]:
    require_fuse(print)
    with FaultyMount(tmp_path) as made:
        yield made


def target_on(mounted: FaultyMount, seconds: int = 120) -> Target:
    options = TargetOptions(directory=DirectoryOptions(timeout_seconds=seconds))
    return open_target(str(mounted.path), options)


class TestContract(Contract):
    """What every target keeps."""

    @pytest.fixture
    def target(self, mounted: FaultyMount) -> Target:
        target = target_on(mounted)
        assert isinstance(target, MountedDirectory)
        return target

    @pytest.fixture
    def put_beside(self, mounted: FaultyMount) -> PutBeside:
        def put(path: str, data: bytes) -> None:
            file = mounted.served / path
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)

        return put


# -- what is a network file system ----------------------------------------------------------------


def test_a_network_file_system_is_known_by_its_type(mounted: FaultyMount, tmp_path: Path) -> None:
    assert network_file_system(str(mounted.path)) == KIND
    assert network_file_system(f"{mounted.path}/a/folder/of/it") == KIND
    assert network_file_system(str(tmp_path)) is None
    assert network_file_system(f"{tmp_path}/missing") is None


def test_links_to_a_network_file_system_are_followed(mounted: FaultyMount, tmp_path: Path) -> None:
    (tmp_path / "absolute").symlink_to(mounted.path)
    (tmp_path / "relative").symlink_to("mount")
    (tmp_path / "twice").symlink_to("relative/")
    (tmp_path / "round").symlink_to("round")
    for name in ("absolute", "relative", "twice"):
        assert network_file_system(f"{tmp_path}/{name}") == KIND, name
    assert network_file_system(f"{tmp_path}/round") is None


def test_the_type_is_found_without_asking_the_server(mounted: FaultyMount, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(mounted.path)
    with mounted.fault("all", "block"):
        assert network_file_system(f"{tmp_path}/link/folder") == KIND


def test_a_local_folder_is_used_directly(tmp_path: Path) -> None:
    assert isinstance(directory_target(str(tmp_path), DirectoryOptions()), Directory)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuse", "autofs"])
def test_the_kernels_own_network_file_systems_are_known(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines as mountinfo has them (proc(5)): this kernel has none of these to mount."""
    lines = [
        "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw",
        f"90 22 0:50 / /mnt/a\\040b rw,relatime shared:9 - {kind} server:/export rw,vers=4.2",
        "91 22 254:2 / /mnt/disk rw,relatime - fuseblk /dev/vdb1 rw",
    ]
    read = Path.read_text

    def mountinfo(path: Path, *arguments: str, **options: str) -> str:
        told = str(path) == "/proc/self/mountinfo"
        return "\n".join(lines) if told else read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", mountinfo)
    assert network_file_system("/mnt/a b/backups") == kind
    assert network_file_system("/mnt/disk/backups") is None
    assert network_file_system("/mnt") is None


# -- servers that say nothing ---------------------------------------------------------------------


def given_up(work: Callable[[], object]) -> TargetUnreachable:
    """The error of work that has to end in time."""
    start = time.monotonic()
    with pytest.raises(TargetUnreachable) as caught:
        work()
    assert time.monotonic() - start < LIMIT_SECONDS + 5
    assert f"has not answered for {LIMIT_SECONDS} seconds" in caught.value.message
    assert KIND in caught.value.message
    assert "umount -f -l" in caught.value.hint
    return caught.value


@pytest.mark.parametrize("action", ["check", "names", "free_bytes"])
def test_a_dead_mount_is_given_up(mounted: FaultyMount, action: str) -> None:
    with mounted.fault("all", "block"):
        given_up(getattr(target_on(mounted, LIMIT_SECONDS), action))


@pytest.mark.parametrize("operation", ["write", "all"])
def test_a_server_that_goes_while_it_is_written_to_is_given_up(
    mounted: FaultyMount, operation: str
) -> None:
    target = target_on(mounted, LIMIT_SECONDS)
    upload = target.create(["a.zip"])
    upload.write(bytes(2 * MIB))
    with mounted.fault(operation, "block"):
        given_up(lambda: upload.write(bytes(8 * MIB)))
        start = time.monotonic()
        upload.abort()
        with pytest.raises(TargetUnreachable):
            upload.publish()
        assert time.monotonic() - start < 1, "the second error has to be a quick one"


@pytest.mark.parametrize("operation", ["fsync", "flush", "link"])
def test_a_server_that_goes_at_the_end_is_given_up(mounted: FaultyMount, operation: str) -> None:
    upload = target_on(mounted, LIMIT_SECONDS).create(["a.zip"])
    upload.write(bytes(2 * MIB))
    with mounted.fault(operation, "block"):
        given_up(upload.publish)
        upload.abort()
    # What had been asked of the server before may still happen; half an archive never has a name.
    left = [path for path in mounted.served.iterdir() if not path.name.startswith(".")]
    assert all(path.stat().st_size == 2 * MIB for path in left)


def test_a_server_that_goes_while_it_is_read_from_is_given_up(mounted: FaultyMount) -> None:
    target = target_on(mounted, LIMIT_SECONDS)
    publish(target, bytes(20 * MIB), "a.zip")
    with target.open("a.zip") as stream:
        assert len(stream.read(MIB)) == MIB
        with mounted.fault("read", "block"):
            given_up(lambda: stream.read(10 * MIB))


def test_a_server_that_comes_back_in_time_goes_on(mounted: FaultyMount) -> None:
    data = some_bytes(12 * MIB)
    target = target_on(mounted, 60)
    upload = target.create(["a.zip"])
    upload.write(data[:MIB])
    with mounted.fault("all", "block"):
        writing = threading.Thread(target=upload.write, args=(data[MIB:],))
        writing.start()
        writing.join(2)
        assert writing.is_alive(), "nothing was blocked"
    writing.join(30)
    assert upload.publish() == "a.zip"
    with target.open("a.zip") as stream:
        assert stream.read() == data


def users_of(mounted: FaultyMount) -> list[psutil.Process]:
    """The processes that use a mount for others."""
    wanted = {"components.storage.mounted", str(mounted.path)}
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if wanted <= set(process.info["cmdline"] or [])  # None for those that have just ended
    ]


def test_a_process_whose_mount_is_dead_can_end(mounted: FaultyMount) -> None:
    """What waits in the kernel cannot be killed; whoever waits for our output must not wait."""
    options = DirectoryOptions(timeout_seconds=LIMIT_SECONDS).model_dump_json()
    script = (
        "import sys\n"
        "from components.errors import TargetUnreachable\n"
        "from components.storage.mounted import directory_target\n"
        "from components.storage.options import DirectoryOptions\n"
        "options = DirectoryOptions.model_validate_json(sys.argv[2])\n"
        "upload = directory_target(sys.argv[1], options).create(['a.zip'])\n"
        "print('begun', flush=True)\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    for _ in range(8): upload.write(bytes(1 << 20))\n"
        "    upload.publish()\n"
        "except TargetUnreachable as error: print(error.message)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(mounted.path), options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout
        assert running.stdout.readline() == "begun\n"
        with mounted.fault("write", "block"):
            output, _ = running.communicate("go on\n", timeout=LIMIT_SECONDS + 10)
            assert "has not answered" in output
            assert running.returncode == 0
            # It would not have helped to kill what uses the mount.
            assert [process.status() for process in users_of(mounted)] == [psutil.STATUS_DISK_SLEEP]


# -- servers that refuse --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "name", "hint"),
    [
        ("write", "ENOSPC", "free space"),
        ("write", "ESTALE", "mount it again"),
        ("write", "EIO", "dmesg"),
        ("fsync", "EDQUOT", "raise the quota"),
        ("flush", "EDQUOT", "raise the quota"),  # told only when the file is closed
        ("link", "ESTALE", "mount it again"),
        ("create", "EACCES", "give this user the right"),
        ("create", "EROFS", "mount it for writing"),
    ],
)
def test_an_error_of_the_server_is_told_and_nothing_has_a_name(
    mounted: FaultyMount, operation: str, name: str, hint: str
) -> None:
    target = target_on(mounted)
    with mounted.fault(operation, name), pytest.raises(TargetUnreachable) as caught:
        publish_or_abort(target, 3 * MIB)
    assert os.strerror(getattr(errno, name)) in caught.value.message
    assert hint in caught.value.hint
    assert list(mounted.served.iterdir()) == []


def test_an_error_while_reading_is_no_damage_of_the_archive(mounted: FaultyMount) -> None:
    target = target_on(mounted)
    publish(target, bytes(8 * MIB), "a.zip")
    fault = mounted.fault("read", "ESTALE")
    raised = pytest.raises(TargetUnreachable, match="Stale file handle")
    with target.open("a.zip") as stream, fault, raised:
        stream.read()


@pytest.mark.parametrize("name", ["EPERM", "EOPNOTSUPP", "ENOSYS"])
def test_without_hard_links_the_name_is_still_taken_exclusively(
    mounted: FaultyMount, name: str
) -> None:
    target = target_on(mounted)
    with mounted.fault("link", name):
        assert publish(target, b"one", "a", "a_1") == "a"
        assert publish(target, b"two", "a", "a_1") == "a_1"
    assert {path.name: path.read_bytes() for path in mounted.served.iterdir()} == {
        "a": b"one",
        "a_1": b"two",
    }


def test_a_name_that_was_given_before_the_answer_was_lost_is_ours(mounted: FaultyMount) -> None:
    """NFS sends a link again when its answer was lost, and then it fails on its own work."""
    upload = target_on(mounted).create(["a.zip", "a_1.zip"])
    upload.write(b"ours")
    (partial,) = mounted.path.iterdir()
    os.link(partial, mounted.path / "a.zip")
    assert upload.publish() == "a.zip"
    assert [path.name for path in mounted.served.iterdir()] == ["a.zip"]


def test_a_mount_whose_server_has_ended_is_said(mounted: FaultyMount) -> None:
    target = target_on(mounted)
    target.check()
    mounted.die()
    for work in (target.check, target.names, target.free_bytes):
        with pytest.raises(TargetUnreachable) as caught:
            work()
        assert caught.value.hint == "check its server and the network, and mount it again"


# -- what is left ---------------------------------------------------------------------------------


def test_a_check_removes_what_is_unfinished_for_a_day_and_nothing_younger(
    mounted: FaultyMount,
) -> None:
    """Locks do not tell: the writer may be on another machine."""
    old = mounted.served / ".a.zip-other-host-77-0123abcd.partial"
    young = mounted.served / ".b.zip-other-host-78-0123abcd.partial"
    foreign = mounted.served / ".something.partial"
    for path in (old, young, foreign):
        path.touch()
    for path in (old, foreign):
        os.utime(path, (time.time() - 25 * 3600,) * 2)
    target_on(mounted).check()
    assert sorted(path.name for path in mounted.served.iterdir()) == sorted(
        [young.name, foreign.name]
    )


def test_what_a_killed_process_has_begun_is_removed(mounted: FaultyMount) -> None:
    script = (
        "import sys, time\n"
        "from components.storage.mounted import directory_target\n"
        "from components.storage.options import DirectoryOptions\n"
        "upload = directory_target(sys.argv[1], DirectoryOptions()).create(['a.zip'])\n"
        "upload.write(bytes(1 << 20))\n"
        "print('begun', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(mounted.path)], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout
        assert running.stdout.readline() == "begun\n"
        assert len(list(mounted.served.iterdir())) == 1
        running.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while list(mounted.served.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(mounted.served.iterdir()) == []
