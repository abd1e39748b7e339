"""Trees are frozen, packed and unpacked with all they have; compressors give valid files."""

import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from components.host_agent import agent_archive
from host.command import Program
from host.compression import Compression, choose, compressor, decompressor, gzip_filter
from host.errors import HostError
from host.packing import LINK_FROM_BYTES, freeze, outermost, receive_tree, send_tree
from host.pipeline import Pipeline


def test_a_frozen_tree_has_owners_modes_links_and_attributes(tmp_path: Path) -> None:
    live, frozen = tmp_path / "live", tmp_path / "frozen"
    (live / "folder").mkdir(parents=True)
    (live / "folder").chmod(0o750)
    (live / "folder" / "file").write_text("text")
    (live / "folder" / "file").chmod(0o640)
    os.chown(live / "folder" / "file", 1234, 5678)
    os.utime(live / "folder" / "file", (1, 2))
    os.setxattr(live / "folder" / "file", "user.note", b"kept")
    (live / "link").symlink_to("folder/file")
    (live / "dangling").symlink_to("/nowhere")
    result = freeze([str(live)], str(frozen))
    copy = frozen / str(live).lstrip("/")
    status = (copy / "folder" / "file").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 5678, 0o640)
    assert status.st_mtime == 2
    assert os.getxattr(copy / "folder" / "file", "user.note") == b"kept"
    assert (copy / "folder").stat().st_mode & 0o777 == 0o750
    assert (copy / "link").readlink() == Path("folder/file")
    assert (copy / "dangling").readlink() == Path("/nowhere")
    assert (result.files, result.bytes) == (3, 4)


def test_a_frozen_tree_does_not_change_with_the_live_one(tmp_path: Path) -> None:
    live, frozen = tmp_path / "live", tmp_path / "frozen"
    live.mkdir()
    (live / "small").write_text("before")
    (live / "large").write_bytes(bytes(LINK_FROM_BYTES))
    freeze([str(live)], str(frozen))
    copy = frozen / str(live).lstrip("/")
    (live / "small").write_text("after")
    replacement = live / "large.new"
    replacement.write_bytes(b"\1" * LINK_FROM_BYTES)
    replacement.rename(live / "large")
    assert (copy / "small").read_text() == "before"
    assert (copy / "large").read_bytes() == bytes(LINK_FROM_BYTES)


def test_a_large_file_takes_no_space_when_it_is_frozen(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(LINK_FROM_BYTES))
    freeze([str(large)], str(tmp_path / "frozen"))
    assert large.stat().st_nlink == 2


def test_what_holds_no_data_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "server.socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        result = freeze([str(tmp_path / "nothing"), str(path)], str(tmp_path / "frozen"))
    assert result.skipped == [str(path)]


@pytest.mark.parametrize("method", ["zstd", "gzip", "none"])
def test_a_sent_tree_is_received_as_it_was(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The agent compresses with itself where there is no pigz.
    (tmp_path / "agent.pyz").write_bytes(agent_archive())
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "agent.pyz")])
    base, out = tmp_path / "base", tmp_path / "out"
    (base / "etc").mkdir(parents=True)
    (base / "etc" / "-strange\nname").write_text("x" * 100_000)
    os.setxattr(base / "etc" / "-strange\nname", "user.note", b"kept")
    os.chown(base / "etc" / "-strange\nname", 77, 88)
    (base / "etc" / "hard").hardlink_to(base / "etc" / "-strange\nname")
    packed = tmp_path / "packed"
    with packed.open("wb") as stream:
        send_tree(str(base), Compression(method, 3), stream)
    with packed.open("rb") as stream:
        receive_tree(
            "files.tar" + {"zstd": ".zst", "gzip": ".gz", "none": ""}[method], stream, str(out)
        )
    received = out / "etc" / "-strange\nname"
    assert received.read_text() == "x" * 100_000
    assert os.getxattr(received, "user.note") == b"kept"
    assert (received.stat().st_uid, received.stat().st_gid) == (77, 88)
    assert (out / "etc" / "hard").stat().st_ino == received.stat().st_ino


def test_a_packed_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("evil")
    packed = tmp_path / "packed.tar"
    subprocess.run(
        ["tar", "-C", str(tmp_path), "--transform=s,^,../../,", "-Pcf", str(packed), "evil"],
        check=True,
    )
    with packed.open("rb") as stream, pytest.raises(HostError):
        receive_tree("files.tar", stream, str(tmp_path / "a" / "b"))
    assert (tmp_path / "evil").read_text() == "evil"
    assert not (tmp_path / "a" / "evil").exists()


def test_a_damaged_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(b"\x28\xb5\x2f\xfd\0\0")
    with (tmp_path / "cut").open("rb") as stream, pytest.raises(HostError, match="zstd"):
        receive_tree("files.tar.zst", stream, str(tmp_path / "out"))


@pytest.mark.parametrize("size", [0, 1, 4 << 20, (9 << 20) + 1])
def test_the_gzip_filter_writes_what_gzip_reads(size: int) -> None:
    data = (b"0123456789abcdef" * ((size // 16) + 1))[:size]
    packed = io.BytesIO()
    gzip_filter(io.BytesIO(data), packed, 6)
    done = subprocess.run(["gzip", "-dc"], input=packed.getvalue(), capture_output=True, check=True)
    assert done.stdout == data


def test_zstd_that_is_asked_for_and_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host.command.find", lambda _: None)
    assert choose("auto", None).method == "gzip"
    with pytest.raises(HostError, match="zstd is missing") as caught:
        choose("zstd", None)
    assert "install zstd" in caught.value.hint
    with pytest.raises(HostError, match="zstd is missing"):
        decompressor("shop.dump.zst")


def test_compressors_follow_method_and_level() -> None:
    assert compressor(Compression("zstd", 7)) == ["zstd", "-q", "-c", "-T0", "-7"]
    assert compressor(Compression("none", 0)) is None


def test_a_pipeline_names_the_program_that_failed_and_not_the_one_that_was_cut_off(
    tmp_path: Path,
) -> None:
    with (tmp_path / "out").open("wb") as out:
        pipeline = Pipeline(
            [Program(["yes"]), Program(["sh", "-c", "echo no space >&2; exit 3"])], stdout=out
        )
        with pytest.raises(HostError, match=r"sh failed with exit code 3: no space"):
            pipeline.finish()


def test_a_missing_program_in_a_pipeline_ends_the_others() -> None:
    with pytest.raises(HostError, match="no-such-program is missing"):
        Pipeline([Program(["sleep", "600"]), Program(["no-such-program"])])


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        (
            ["/etc/haproxy/a", "/etc/haproxy", "/etc/haproxy-x/b"],
            ["/etc/haproxy", "/etc/haproxy-x/b"],
        ),
        (["/a", "/a"], ["/a"]),
        ([], []),
    ],
)
def test_paths_inside_others_are_left_out(paths: list[str], kept: list[str]) -> None:
    assert outermost(paths) == kept
