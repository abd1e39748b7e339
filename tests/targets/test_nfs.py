"""NFS without a mount, against a real server."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import UsageError
from components.storage.nfs import Nfs
from components.storage.options import TargetOptions
from components.storage.target import Target, open_target
from lab.services.nfs import NfsServer
from tests.targets.contract import MIB, Contract, PutBeside, publish
from tests.targets.nfs_servers import installed, options_for, own, server, shared, target_on

__all__ = ["installed", "own", "server", "shared"]


class TestContract(Contract):
    """What every target keeps."""

    @pytest.fixture
    def target(self, server: NfsServer) -> Target:
        return target_on(server)

    @pytest.fixture
    def put_beside(self, server: NfsServer) -> PutBeside:
        def put(path: str, data: bytes) -> None:
            file = server.export / path
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)

        return put


def test_files_are_for_their_owner_only(server: NfsServer) -> None:
    publish(target_on(server), b"x", "a.zip")
    assert (server.export / "a.zip").stat().st_mode & 0o777 == 0o600


def test_files_belong_to_the_user_that_was_asked_for(server: NfsServer) -> None:
    server.export.chmod(0o777)
    publish(target_on(server, uid=1234, gid=2345), b"x", "a.zip")
    status = (server.export / "a.zip").stat()
    assert (status.st_uid, status.st_gid) == (1234, 2345)


def test_the_free_space_is_that_of_the_servers_disk(server: NfsServer) -> None:
    free = target_on(server).free_bytes()
    status = os.statvfs(server.export)
    assert free is not None
    assert abs(free - status.f_bavail * status.f_frsize) < 1 << 30


def test_a_folder_inside_of_the_export_is_a_target_of_its_own(server: NfsServer) -> None:
    (server.export / "cluster").mkdir()
    target = open_target(f"{server.location}/cluster", options_for(server))
    publish(target, b"x", "a.zip")
    assert (server.export / "cluster" / "a.zip").read_bytes() == b"x"
    assert target.names() == ["a.zip"]


def test_many_names_are_all_listed(server: NfsServer) -> None:
    names = [f"epibackup_c_20261122T{number:06}Z.zip" for number in range(1500)]
    for name in names:
        (server.export / name).touch()
    assert target_on(server).names() == names


def test_the_servers_rpcbind_is_asked_where_no_ports_are_given(
    own: Callable[..., NfsServer],
) -> None:
    server = own(own_network=True)
    script = (
        "import sys; from components.storage.options import TargetOptions\n"
        "from components.storage.target import open_target\n"
        "target = open_target(sys.argv[1], TargetOptions())\n"
        "upload = target.create(['a.zip']); upload.write(b'x'); print(upload.publish())"
    )
    done = subprocess.run(
        server.enter([sys.executable, "-c", script, server.location]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "a.zip\n", done.stderr
    assert (server.export / "a.zip").read_bytes() == b"x"


# -- several writers ------------------------------------------------------------------------------


def _publish_often(location: str, options: TargetOptions, start: Any, results: Any) -> None:
    target = open_target(location, options)
    names = [f"a_{number}" for number in range(100)]
    start.wait()
    results.put([publish(target, str(os.getpid()).encode(), *names) for _ in range(10)])


def test_processes_that_publish_at_once_never_get_one_name_twice(server: NfsServer) -> None:
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(3), context.Queue()
    writers = [
        context.Process(
            target=_publish_often,
            args=(server.location, options_for(server), start, results),
        )
        for _ in range(3)
    ]
    for writer in writers:
        writer.start()
    got = [name for _ in writers for name in results.get(timeout=60)]
    for writer in writers:
        writer.join()
    assert sorted(got) == sorted(f"a_{number}" for number in range(30))
    assert sorted(path.name for path in server.export.iterdir()) == sorted(got)


def _write_and_wait(location: str, options: TargetOptions, ready: Any) -> None:
    upload = open_target(location, options).create(["killed.zip"])
    upload.write(bytes(3 * MIB))
    ready.set()
    signal.pause()


def test_what_a_killed_writer_leaves_is_removed_after_a_day(server: NfsServer) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    arguments = (server.location, options_for(server), ready)
    writer = context.Process(target=_write_and_wait, args=arguments)
    writer.start()
    assert ready.wait(30)
    writer.kill()
    writer.join()
    (left,) = server.export.iterdir()
    target = target_on(server)
    target.check()
    assert left.exists(), "its writer could have lived"
    assert target.names() == []
    others = [server.export / ".hidden", server.export / ".a-b-1-0123abcd.partial.txt"]
    for path in (left, *others):
        path.touch()
        os.utime(path, (time.time() - 25 * 3600,) * 2)
    target.check()
    assert not left.exists()
    assert all(path.exists() for path in others), "somebody else's files were removed"


def test_a_name_that_was_given_before_the_answer_was_lost_is_ours(server: NfsServer) -> None:
    """LINK is sent again over a new connection, and then fails on its own work."""
    upload = target_on(server).create(["a.zip", "a_1.zip"])
    upload.write(b"ours")
    (partial,) = server.export.iterdir()
    os.link(partial, server.export / "a.zip")
    assert upload.publish() == "a.zip"
    assert [path.name for path in server.export.iterdir()] == ["a.zip"]


# -- locations ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    [
        "nfs://server",
        "nfs:///export",
        "nfs://server:2049/export",
        "nfs://user@server/export",
        "nfs://-server/export",
        "nfs://server/export?uid=0",
        "nfs://server/export#x",
        "nfs://server/export/../other",
        "nfs://server/export\n",
        "nfs://server/ex\0port",
        "nfs://server/" + "x" * 1100,
        "nfs://[::1]/export",
    ],
)
def test_a_location_that_cannot_be_one_is_refused(location: str) -> None:
    with pytest.raises(UsageError, match="is not of the form") as caught:
        open_target(location, TargetOptions())
    assert "epibackup:nfs" in caught.value.hint


def test_a_name_that_leads_out_of_the_folder_is_refused(server: NfsServer) -> None:
    target = target_on(server)
    for name in ("../a.zip", "/etc/passwd", "", "..", "a\0b"):
        for ask in (target.open, target.size, target.delete, lambda name: target.create([name])):
            with pytest.raises(UsageError, match="no name of an archive"):
                ask(name)


def test_a_machine_without_the_library_is_told_what_to_install(tmp_path: Path) -> None:
    script = (
        "from components.storage import libnfs\n"
        "from components.errors import UsageError\n"
        "from components.storage.target import open_target\n"
        "from components.storage.options import TargetOptions\n"
        "target = open_target('nfs://127.0.0.1/export', TargetOptions())\n"
        "libnfs.SONAMES = ('libnfs.so.none',)\n"
        "try: target.check()\n"
        "except UsageError as error: print(error.message, '|', error.hint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "libnfs.so.none" in done.stdout
    assert "apt-get install libnfs13" in done.stdout


def test_nothing_is_contacted_before_it_is_used() -> None:
    assert isinstance(open_target("nfs://192.0.2.1/export", TargetOptions()), Nfs)
