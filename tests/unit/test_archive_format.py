"""Parts, containers and reading back: what is written is what ordinary tools read."""

import hashlib
import io
import subprocess
import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.archive.container import container_writer
from components.archive.manifest import FORMAT, HostRecord, Manifest, Member, Part, ServiceRecord
from components.archive.naming import ARCHIVE, archive_names, checked_run, part_path
from components.archive.parts import LARGEST_PART_BYTES, PART_BYTES, part_bytes, read_parts
from components.archive.reader import open_archive, verify
from components.archive.restore_notes import restore_notes
from components.errors import EpibackupError, UsageError, VerificationFailed
from components.storage.directory import Directory
from components.storage.target import Data, Upload

STARTED = datetime(2026, 11, 22, 1, 30, tzinfo=UTC)


class Trickle(io.RawIOBase):
    """A stream that gives a few bytes at a time, as a pipe does."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = io.BytesIO(data)
        self._step = step

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        chunk = self._data.read(min(self._step, len(view)))
        view[: len(chunk)] = chunk
        return len(chunk)


@given(st.binary(max_size=400), st.integers(1, 64), st.integers(1, 50))
def test_parts_joined_are_the_stream_and_only_the_last_is_marked(
    data: bytes, size: int, step: int
) -> None:
    parts = [(bytes(part), last) for part, last in read_parts(Trickle(data, step), size)]
    assert b"".join(part for part, _ in parts) == data
    assert [last for _, last in parts] == [False] * (len(parts) - 1) + [True]
    assert all(len(part) == size for part, _ in parts[:-1])


@given(st.integers(0, 1 << 50))
def test_parts_grow_with_the_member_and_never_beyond_the_limit(size: int) -> None:
    chosen = part_bytes(size)
    assert PART_BYTES <= chosen <= LARGEST_PART_BYTES
    if size <= 4 << 40:
        assert size / chosen < 9000


def archive_of(target: Directory, container: str, files: dict[str, bytes]) -> str:
    """Publish an archive with these files, a manifest for them included."""
    members = [
        Member(
            path=path,
            kind="file",
            stored_bytes=len(data),
            parts=[Part(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())],
        )
        for path, data in files.items()
    ]
    host = HostRecord(host="db1", address="127.0.0.1", status="ok", members=members)
    manifest = Manifest(
        format=FORMAT,
        run="20261122T013000Z",
        cluster="prod",
        status="ok",
        started=STARTED,
        finished=STARTED,
        epibackup_version="0.1.0",
        services=[ServiceRecord(name="postgresql", status="ok", hosts=[host])],
        missing=[],
        inventory={},
    )
    upload = target.create(list(archive_names("prod", manifest.run, container)))
    writer = container_writer(container, upload, STARTED)
    for path, data in files.items():
        writer.add(path, memoryview(data))
    writer.add("manifest.json", manifest.model_dump_json().encode())
    writer.close()
    return upload.publish()


FILES = {"postgresql/db1/globals.sql": b"one" * 1000, "postgresql/db1/a%20b.dump": b"\0\xff" * 77}


@pytest.mark.parametrize("container", ["zip", "tar.gz"])
def test_what_was_written_is_read_back_and_verified(tmp_path: Path, container: str) -> None:
    target = Directory(str(tmp_path))
    key = archive_of(target, container, FILES)
    checked: list[int] = []
    with open_archive(target, key) as reader:
        manifest = verify(reader, checked.append)
        contents = {member.path: b"".join(reader.chunks(member)) for member in manifest.members()}
    assert contents == FILES
    assert sum(checked) == sum(len(data) for data in FILES.values())


def test_a_file_that_no_manifest_names_is_compared_with_what_was_sent(tmp_path: Path) -> None:
    target = Directory(str(tmp_path))
    key = archive_of(target, "zip", {**FILES, "RESTORE.md": b"how to get everything back"})
    with open_archive(target, key) as reader:
        verify(reader, lambda _: None, {"RESTORE.md": b"how to get everything back"})
        with pytest.raises(VerificationFailed, match=r"RESTORE\.md"):
            verify(reader, lambda _: None, {"RESTORE.md": b"how to get everything hack"})
        with pytest.raises(VerificationFailed, match="NOTES"):
            verify(reader, lambda _: None, {"NOTES": b""})


def test_a_zip_is_read_by_unzip_and_has_no_deferred_checksums(tmp_path: Path) -> None:
    key = archive_of(Directory(str(tmp_path)), "zip", FILES)
    done = subprocess.run(
        ["unzip", "-tq", str(tmp_path / key)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(tmp_path / key) as archive:
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            assert not entry.flag_bits & 0x08
            assert entry.external_attr >> 16 == 0o100600


def test_a_tar_gz_is_read_by_tar(tmp_path: Path) -> None:
    key = archive_of(Directory(str(tmp_path)), "tar.gz", FILES)
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "xzf", str(tmp_path / key), "-C", str(out)], check=True)
    for path, data in FILES.items():
        assert (out / path).read_bytes() == data
    with tarfile.open(tmp_path / key) as archive:
        assert {entry.mode for entry in archive} == {0o600}


class Sparse(Upload):
    """Writes zeros as holes, so that a large archive needs no space."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, data: Data) -> None:
        if len(data) >= 1 << 20:
            self._file.seek(len(data), io.SEEK_CUR)
        else:
            self._file.write(data)

    def publish(self) -> str:
        self._file.close()
        return "large.zip"

    def abort(self) -> None:
        self._file.close()


def test_a_zip_of_more_than_4_gib_is_whole(tmp_path: Path) -> None:
    upload = Sparse(tmp_path / "large.zip")
    writer = container_writer("zip", upload, STARTED)
    zeros = bytes(256 << 20)
    for number in range(17):
        writer.add(part_path("kafka/kafka1/data.tar", number), zeros)
    writer.add("manifest.json", b"the last one, beyond 4 GiB")
    writer.close()
    upload.publish()
    with zipfile.ZipFile(tmp_path / "large.zip") as archive:
        assert archive.read("manifest.json") == b"the last one, beyond 4 GiB"
        assert archive.getinfo("manifest.json").header_offset > 4 << 30
        assert archive.read("kafka/kafka1/data.tar.0016")[:1] == b"\0"


def test_a_zip_of_more_than_65535_files_is_whole(tmp_path: Path) -> None:
    target = Directory(str(tmp_path))
    key = archive_of(target, "zip", {f"s/h/{number}": b"x" for number in range(66_000)})
    with open_archive(target, key) as reader:
        assert len(reader.paths()) == 66_001
        assert len(reader.manifest().members()) == 66_000


@pytest.mark.parametrize("container", ["zip", "tar.gz"])
@pytest.mark.parametrize("cut", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_archive_is_said_to_be_damaged(tmp_path: Path, container: str, cut: float) -> None:
    target = Directory(str(tmp_path))
    key = archive_of(target, container, FILES)
    data = (tmp_path / key).read_bytes()
    (tmp_path / key).write_bytes(data[: int(len(data) * cut)])

    def read() -> None:
        with open_archive(target, key) as reader:
            verify(reader, lambda _: None)

    with pytest.raises(VerificationFailed, match="damaged or cut") as caught:
        read()
    assert caught.value.exit_code == 9


def test_every_flipped_byte_of_a_member_is_found(tmp_path: Path) -> None:
    target = Directory(str(tmp_path))
    key = archive_of(target, "zip", {"s/h/member": b"0123456789"})
    whole = (tmp_path / key).read_bytes()
    start = whole.index(b"0123456789")
    for position in range(start, start + 10):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        (tmp_path / key).write_bytes(damaged)
        with open_archive(target, key) as reader, pytest.raises(VerificationFailed):
            verify(reader, lambda _: None)


def test_an_archive_without_a_named_part_is_damaged(tmp_path: Path) -> None:
    target = Directory(str(tmp_path))
    key = archive_of(target, "zip", FILES)
    with zipfile.ZipFile(tmp_path / key) as whole:
        manifest = whole.read("manifest.json")
    with zipfile.ZipFile(tmp_path / key, "w") as less:
        less.writestr("manifest.json", manifest)
    with open_archive(target, key) as reader, pytest.raises(VerificationFailed, match="missing"):
        verify(reader, lambda _: None)


@pytest.mark.parametrize(
    ("manifest", "error", "message"),
    [
        (b'{"format": 99, "epibackup_version": "7.0"}', UsageError, "format 99"),
        (b"{", VerificationFailed, "damaged"),
        (b"[]", VerificationFailed, "damaged"),
        (b'{"format": 1}', VerificationFailed, "damaged"),
    ],
)
def test_a_manifest_that_cannot_be_understood_is_refused(
    tmp_path: Path, manifest: bytes, error: type[EpibackupError], message: str
) -> None:
    name = "epibackup_prod_20261122T013000Z.zip"
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("manifest.json", manifest)
    with open_archive(Directory(str(tmp_path)), name) as reader, pytest.raises(error) as caught:
        reader.manifest()
    assert message in caught.value.message
    if error is UsageError:
        assert "7.0" in caught.value.hint


def test_names_go_up_from_the_plain_one() -> None:
    names = archive_names("My Cluster_1", "20261122T013000Z", "zip")
    assert next(names) == "epibackup_My-Cluster-1_20261122T013000Z.zip"
    assert next(names) == "epibackup_My-Cluster-1_20261122T013000Z_1.zip"
    match = ARCHIVE.fullmatch(next(names))
    assert match
    assert match["run"] == "20261122T013000Z"


@pytest.mark.parametrize("run", ["", "latest", "20261322T013000Z", "2026-11-22", "20261122T013000"])
def test_a_run_id_that_is_none_is_refused(run: str) -> None:
    with pytest.raises(UsageError, match="is no run id"):
        checked_run(run)


def test_the_notes_join_parts_and_name_what_is_not_there(tmp_path: Path) -> None:
    part = Part(path="postgresql/db1/shop.dump.zst.0000", bytes=1, sha256="0")
    second = Part(path="postgresql/db1/shop.dump.zst.0001", bytes=1, sha256="0")
    member = Member(
        path="postgresql/db1/shop.dump.zst", kind="file", stored_bytes=2, parts=[part, second]
    )
    manifest = Manifest(
        format=FORMAT,
        run="20261122T013000Z",
        cluster="prod",
        status="incomplete",
        started=STARTED,
        finished=STARTED,
        epibackup_version="0.1.0",
        services=[
            ServiceRecord(
                name="postgresql",
                status="ok",
                hosts=[HostRecord(host="db1", address="", status="ok", members=[member])],
            )
        ],
        missing=[],
        inventory={},
    )
    notes = restore_notes(manifest)
    assert "cat postgresql/db1/shop.dump.zst.???? | zstd -dc > postgresql/db1/shop.dump" in notes
    assert "pg_restore" in notes
