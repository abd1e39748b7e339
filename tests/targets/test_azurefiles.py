"""Azure Files as a target, on a double of the service: what works."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from components.errors import UsageError, VerificationFailed
from components.storage.azurefiles.service import Service, parse_location
from components.storage.target import Target, open_target
from lab.services.azure_files import AzureFiles, TokenService
from tests.targets.azure import options, share_sas, target_of, use_sas, with_azure
from tests.targets.contract import Contract, PutBeside, publish

MIB = 1 << 20


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureFiles]:
    with with_azure(tmp_path, monkeypatch) as service:
        yield service


class TestContract(Contract):
    """What every target keeps."""

    @pytest.fixture
    def target(self, azure: AzureFiles) -> Target:
        return target_of(azure)

    @pytest.fixture
    def put_beside(self, azure: AzureFiles) -> PutBeside:
        folder = azure.account.folder / "backups" / "nightly" / "kafka"
        return lambda path, data: azure.account.add(folder / path, data)


class TestContractInTheShareItself(Contract):
    """The same without a folder, and with the rights of a share's SAS."""

    @pytest.fixture
    def target(self, azure: AzureFiles, monkeypatch: pytest.MonkeyPatch) -> Target:
        use_sas(monkeypatch, share_sas(azure, "rcwdl"))
        return target_of(azure, folder="")

    @pytest.fixture
    def put_beside(self, azure: AzureFiles) -> PutBeside:
        folder = azure.account.folder / "backups"
        return lambda path, data: azure.account.add(folder / path, data)


def test_a_managed_identity_does_as_well_as_a_key(
    azure: AzureFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The double takes tokens only with the intent `backup`, as the service does."""
    azure.account.keys_allowed = False
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    (token,) = azure.account.tokens
    with TokenService(token) as identity:
        for name, value in identity.environment.items():
            monkeypatch.setenv(name, value)
        target = target_of(azure)
        assert publish(target, b"0123456789", "a.zip") == "a.zip"
        with target.open("a.zip") as stream:
            assert stream.read() == b"0123456789"
        assert target.names() == ["a.zip"]
        assert target.free_bytes() is None, "an identity for files cannot know the quota"


def test_a_connection_string_says_where_the_service_is(
    azure: AzureFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azure.connection_string)
    target = target_of(azure, endpoint=None)
    assert publish(target, b"x", "a.zip") == "a.zip"


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (None, "https://epibackup1.file.core.windows.net"),
        ("core.usgovcloudapi.net", "https://epibackup1.file.core.usgovcloudapi.net"),
        ("https://files.example.com/", "https://files.example.com"),
    ],
)
def test_the_endpoint_is_the_clouds_or_ones_own(
    azure: AzureFiles, endpoint: str | None, expected: str
) -> None:
    chosen = options(azure, endpoint=endpoint).azurefiles
    assert Service(parse_location("azurefiles://epibackup1/share"), chosen).endpoint == expected


@pytest.mark.parametrize(
    "location",
    [
        "azurefiles://",
        "azurefiles://account1",
        "azurefiles://Account/share",
        "azurefiles://account1/Share",
        "azurefiles://account1/a--b",
        "azurefiles://account1/share/../other",
        "azurefiles://account1/share//folder",
        "azurefiles://account1/share/folder.",
        "azurefiles://account1/share/a*b",
    ],
)
def test_a_location_that_cannot_be_is_refused_and_says_how_to_write_it(
    azure: AzureFiles, location: str
) -> None:
    with pytest.raises(UsageError) as caught:
        open_target(location, options(azure))
    assert "azurefiles://ACCOUNT/SHARE" in caught.value.hint


@pytest.mark.parametrize(
    "location", ["azurefiles://acc/shr?sv=1&sig=hunter2", "azurefiles://acc:hunter2@host/shr"]
)
def test_credentials_in_a_location_are_refused_and_not_repeated(
    azure: AzureFiles, location: str
) -> None:
    with pytest.raises(UsageError, match="credentials do not belong there") as caught:
        open_target(location, options(azure))
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_a_check_does_not_make_the_folder_and_the_first_archive_does(azure: AzureFiles) -> None:
    target = target_of(azure)
    target.check()
    share = azure.account.folder / "backups"
    assert list(share.iterdir()) == []
    assert target.names() == []
    publish(target, b"x", "a.zip")
    assert [path.relative_to(share) for path in share.rglob("*.zip")] == [
        Path("nightly/kafka/a.zip")
    ]


@pytest.mark.parametrize("use", ["key", "sas"])
def test_folders_may_have_any_name_that_the_service_takes(
    azure: AzureFiles, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    if use == "sas":
        use_sas(monkeypatch, share_sas(azure, "rcwdl"))
    target = target_of(azure, folder="/a b/Übung & more+")
    assert publish(target, b"x", "a.zip", "a_1.zip") == "a.zip"
    assert publish(target, b"y", "a.zip", "a_1.zip") == "a_1.zip"
    assert target.names() == ["a.zip", "a_1.zip"]
    assert (azure.account.folder / "backups" / "a b" / "Übung & more+" / "a.zip").exists()


def test_long_lists_come_in_pages(azure: AzureFiles) -> None:
    target = target_of(azure)
    publish(target, b"x", "a-000")
    azure.account.page_size = 3
    folder = azure.account.folder / "backups" / "nightly" / "kafka"
    for number in range(1, 20):
        azure.account.add(folder / f"a-{number:03}", b"x")
    (folder / "folder").mkdir()
    azure.account.add(folder / ".hidden", b"x")
    assert target.names() == [f"a-{number:03}" for number in range(20)]
    assert azure.account.times("list", 200) > 6


def test_what_is_free_is_the_quota_without_what_is_used(azure: AzureFiles) -> None:
    azure.account.quota_bytes = 2 << 30
    target = target_of(azure)
    publish(target, bytes(5 * MIB), "a.zip")
    assert target.free_bytes() == (2 << 30) - 5 * MIB


def test_what_is_free_is_unknown_to_who_may_not_ask(
    azure: AzureFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_sas(monkeypatch, share_sas(azure, "rcwdl"))
    target = target_of(azure)
    target.check()
    assert target.free_bytes() is None


def test_an_archive_that_grows_beyond_what_was_reserved_has_its_own_size(
    azure: AzureFiles,
) -> None:
    target = target_of(azure)
    upload = target.create(["a.zip"])
    for number in range(70):
        upload.write(bytes([number]) * MIB)
    upload.write(b"end")
    upload.publish()
    assert target.size("a.zip") == 70 * MIB + 3
    with target.open("a.zip") as stream:
        for number in range(70):
            assert stream.read(MIB) == bytes([number]) * MIB
        assert stream.read() == b"end"
    assert azure.account.times("resize", 200) == 3


def test_the_last_space_of_a_quota_can_be_used(azure: AzureFiles) -> None:
    azure.account.quota_bytes = 10 * MIB
    target = target_of(azure)
    assert publish(target, bytes(9 * MIB), "a.zip") == "a.zip"
    assert target.size("a.zip") == 9 * MIB


def test_many_writers_at_once_each_get_a_name_of_their_own(azure: AzureFiles) -> None:
    names = ["a", *(f"a_{number}" for number in range(1, 8))]
    taken: dict[str, bytes] = {}
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        data = f"writer {number}".encode()
        upload = target_of(azure).create(names)
        upload.write(data)
        barrier.wait(30)
        taken[upload.publish()] = data

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(names)
    target = target_of(azure)
    for name, data in taken.items():
        with target.open(name) as stream:
            assert stream.read() == data


_WRITER = """
import os, signal, sys
from components.storage.options import TargetOptions
from components.storage.target import open_target
upload = open_target(sys.argv[1], TargetOptions.model_validate_json(sys.argv[2])).create(["k.zip"])
upload.write(bytes(9 << 20))
print("written", flush=True)
signal.pause()
"""


def test_what_a_killed_writer_leaves_is_seen_by_nobody_and_removed_after_a_day(
    azure: AzureFiles,
) -> None:
    target = target_of(azure)
    command = [sys.executable, "-c", _WRITER, target.url, options(azure).model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.send_signal(signal.SIGKILL)
    folder = azure.account.folder / "backups" / "nightly" / "kafka"
    (left,) = folder.iterdir()
    assert re.fullmatch(r"\.k\.zip-.+\.partial", left.name)
    azure.account.add(folder / ".not-ours.partial", b"x")
    assert target.names() == []
    azure.account.make_older(timedelta(hours=23))
    target.check()
    assert left.exists(), "it may still be at work"
    azure.account.make_older(timedelta(hours=2))
    target.check()
    assert [path.name for path in folder.iterdir()] == [".not-ours.partial"]


def test_a_file_that_is_changed_while_it_is_read_is_not_mixed(azure: AzureFiles) -> None:
    target = target_of(azure)
    publish(target, os.urandom(9 * MIB), "a.zip")
    place = azure.account.folder / "backups" / "nightly" / "kafka" / "a.zip"
    with target.open("a.zip") as stream:
        assert len(stream.read(1000)) == 1000
        azure.account.add(place, os.urandom(9 * MIB))
        with pytest.raises(VerificationFailed, match=r"a\.zip .* was changed while it was read"):
            stream.read()


def test_a_file_that_is_cut_while_it_is_read_is_told(azure: AzureFiles) -> None:
    target = target_of(azure)
    publish(target, os.urandom(9 * MIB), "a.zip")
    place = azure.account.folder / "backups" / "nightly" / "kafka" / "a.zip"
    with target.open("a.zip") as stream:
        azure.account.add(place, b"short")
        stream.seek(8 * MIB)
        with pytest.raises(VerificationFailed, match="was changed while it was read"):
            stream.read(1)
