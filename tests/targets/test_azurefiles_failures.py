"""Azure Files as a target, on a double of the service: what goes wrong, and how it is told."""

import base64
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.errors import EpibackupError, TargetUnreachable, UsageError
from components.storage.azurefiles import AzureFiles as AzureFilesTarget
from lab.services.azure_files import AzureFiles, TokenService
from lab.services.azure_files.account import Fault
from tests.targets.azure import options, share_sas, target_of, use_sas, with_azure
from tests.targets.contract import publish

MIB = 1 << 20
QUICK: dict[str, Any] = {"retries": 1, "connect_timeout_seconds": 1, "read_timeout_seconds": 1}

Break = Callable[[AzureFiles, pytest.MonkeyPatch], None]


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureFiles]:
    with with_azure(tmp_path, monkeypatch) as service:
        yield service


def secrets_of(azure: AzureFiles) -> list[str]:
    """What must not be seen: keys, tokens and signatures, as they are and as URLs have them."""
    found = [azure.account.key, *azure.account.tokens]
    for name in ("KEY", "SAS_TOKEN", "CONNECTION_STRING"):
        if value := os.environ.get(f"AZURE_STORAGE_{name}"):
            found += [value, value.rpartition("sig=")[2]]
    return found


def assert_tells(azure: AzureFiles, error: EpibackupError, message: str, hint: str) -> None:
    """The error says what is wrong and what to do, and no secret, not even in its traceback."""
    assert message in error.message
    assert hint in error.hint
    printed = "".join(traceback.format_exception(error))
    for secret in secrets_of(azure):
        assert secret not in f"{error.message} {error.hint} {printed} {error!r}"


def wrong_key(azure: AzureFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_KEY", base64.b64encode(os.urandom(64)).decode())


def no_keys(azure: AzureFiles, _: pytest.MonkeyPatch) -> None:
    azure.account.keys_allowed = False


def no_share(azure: AzureFiles, _: pytest.MonkeyPatch) -> None:
    (azure.account.folder / "backups").rmdir()


def full(azure: AzureFiles, _: pytest.MonkeyPatch) -> None:
    azure.account.quota_bytes = 0


def slow_clock(azure: AzureFiles, _: pytest.MonkeyPatch) -> None:
    azure.account.clock_offset_seconds = 20 * 60


def nfs_share(azure: AzureFiles, _: pytest.MonkeyPatch) -> None:
    azure.account.protocols = "NFS"


def expired_sas(azure: AzureFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    use_sas(monkeypatch, share_sas(azure, "rcwdl", hours=-1))


def changed_sas(azure: AzureFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    use_sas(monkeypatch, share_sas(azure, "rl").replace("sp=rl", "sp=rcwdl"))


def reading_sas(azure: AzureFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    use_sas(monkeypatch, share_sas(azure, "rl"))


def unknown_token(azure: AzureFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    azure.account.tokens.clear()


def busy(azure: AzureFiles, _: pytest.MonkeyPatch) -> None:
    azure.account.fail("create_file", "busy", 2)


@pytest.mark.parametrize(
    ("break_it", "message", "hint"),
    [
        (wrong_key, "the account key in AZURE_STORAGE_KEY is not accepted", "belongs to"),
        (no_keys, "takes no keys and no SAS tokens", "Storage File Data Privileged Contributor"),
        (no_share, "there is no such share", "az storage share-rm create"),
        (full, "the share is full", "raise its quota"),
        (slow_clock, "this machine's clock is 20 minutes behind the service's", "set the clock"),
        (nfs_share, "is an NFS share", "mount it"),
        (expired_sas, "the SAS token in AZURE_STORAGE_SAS_TOKEN has expired at", "generate-sas"),
        (changed_sas, "the SAS token in AZURE_STORAGE_SAS_TOKEN is not accepted", "belongs to"),
        (reading_sas, "has not the right to do that", "rcwdl"),
        (busy, "the service is busy, also when asked again", "later"),
    ],
)
def test_a_refusal_is_told_in_words_with_what_to_do(
    azure: AzureFiles,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Break,
    message: str,
    hint: str,
) -> None:
    break_it(azure, monkeypatch)
    with pytest.raises(TargetUnreachable) as caught:
        target_of(azure, **QUICK).check()
    assert_tells(azure, caught.value, message, hint)
    assert caught.value.exit_code == 8


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("KEY", "hunter2-is-no-base64!", "the account key in AZURE_STORAGE_KEY is not base64"),
        ("SAS_TOKEN", "sv=hunter2", "AZURE_STORAGE_SAS_TOKEN holds no SAS token"),
        ("CONNECTION_STRING", "hunter2", "AZURE_STORAGE_CONNECTION_STRING is no connection string"),
        (
            "CONNECTION_STRING",
            "AccountName=other;AccountKey=aHVudGVyMg==",
            "is for the storage account other, and the target is in epibackuplab",
        ),
        (
            "CONNECTION_STRING",
            "AccountName=epibackuplab;EndpointSuffix=core.windows.net",
            "has neither AccountKey nor SharedAccessSignature",
        ),
        (
            "CONNECTION_STRING",
            "AccountName=epibackuplab;AccountKey=aHVudGVyMg==;FileEndpoint=http://localhost:1",
            "is not used over http",
        ),
    ],
)
def test_credentials_that_cannot_be_right_are_told_and_not_repeated(
    azure: AzureFiles, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv(f"AZURE_STORAGE_{variable}", value)
    with pytest.raises(UsageError) as caught:
        target_of(azure, endpoint=None).check()
    assert message in caught.value.message
    for secret in ("hunter2", "aHVudGVyMg=="):
        assert secret not in "".join(traceback.format_exception(caught.value))


def test_without_any_credentials_it_says_which_there_could_be(
    azure: AzureFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    # Without it the SDK asks for a virtual machine's identity at an address outside.
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "dev")
    start = time.monotonic()
    with pytest.raises(TargetUnreachable, match="there are no credentials") as caught:
        target_of(azure).check()
    assert "AZURE_STORAGE_KEY" in caught.value.hint
    assert "az login" in caught.value.hint
    assert bounded(start), "waiting brings no credentials"


def test_an_identity_that_is_not_accepted_is_told(
    azure: AzureFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    with TokenService("an-unknown-token") as identity:
        for name, value in identity.environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(TargetUnreachable, match=r"identity .* is not accepted") as caught:
            target_of(azure).check()
    assert "an-unknown-token" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"ca_file": None}, "is not trusted: self-signed certificate", "azurefiles ca_file"),
        ({"endpoint": "https://localhost:1"}, "refuses the connection", "azurefiles endpoint"),
        ({"endpoint": "https://nowhere.invalid"}, "is not known", "DNS"),
    ],
)
def test_a_service_that_cannot_be_reached_is_told(
    azure: AzureFiles,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    message: str,
    hint: str,
) -> None:
    use_sas(monkeypatch, share_sas(azure, "rcwdl"))
    with pytest.raises(TargetUnreachable) as caught:
        target_of(azure, **QUICK, **changes).check()
    assert_tells(azure, caught.value, message, hint)


@pytest.mark.parametrize("fault", ["busy", "cut", "lost"])
@pytest.mark.parametrize("operation", ["put_range", "resize", "rename"])
def test_what_fails_once_is_sent_again(azure: AzureFiles, operation: str, fault: Fault) -> None:
    """Also where it was done and only the answer was lost: a name is not taken twice."""
    target = target_of(azure, retries=2)
    data = os.urandom(5 * MIB)
    upload = target.create(["a.zip", "a_1.zip"])
    azure.account.fail(operation, fault)
    upload.write(data)
    assert upload.publish() == "a.zip"
    assert target.names() == ["a.zip"]
    with target.open("a.zip") as stream:
        assert stream.read() == data
    assert azure.account.times(operation, 503 if fault == "busy" else 0) >= 1


@pytest.mark.parametrize("fault", ["busy", "cut", "half", "hang"])
def test_reading_goes_on_where_an_answer_breaks_off(azure: AzureFiles, fault: Fault) -> None:
    target = target_of(azure, **QUICK)
    data = os.urandom(9 * MIB)
    publish(target, data, "a.zip")
    with target.open("a.zip") as stream:
        found = stream.read(1000)
        azure.account.fail("get_file", fault)
        assert found + stream.read() == data


def test_a_range_that_arrives_changed_is_refused_by_the_service(azure: AzureFiles) -> None:
    target = target_of(azure)
    upload = target.create(["a.zip"])
    azure.account.fail("put_range", "flip")
    upload.write(bytes(MIB))
    with pytest.raises(TargetUnreachable) as caught:
        upload.publish()
    upload.abort()
    assert_tells(azure, caught.value, "what arrived is not what was sent", "run again")
    assert target.names() == []


def test_an_archive_with_a_hole_is_not_published(azure: AzureFiles) -> None:
    target = target_of(azure, parallel=1)
    upload = target.create(["a.zip"])
    azure.account.fail("put_range", "flip")
    with pytest.raises(TargetUnreachable, match="is not what was sent"):
        upload.write(bytes(9 * MIB))
    with pytest.raises(TargetUnreachable, match="a part of the archive is not written"):
        upload.publish()
    upload.abort()
    assert list((azure.account.folder / "backups" / "nightly" / "kafka").iterdir()) == []


def test_a_quota_that_is_reached_while_writing_is_told_and_leaves_nothing(
    azure: AzureFiles,
) -> None:
    azure.account.quota_bytes = 10 * MIB
    target = target_of(azure)
    upload = target.create(["a.zip"])
    with pytest.raises(TargetUnreachable) as caught:
        upload.write(bytes(20 * MIB))
    upload.abort()
    assert_tells(azure, caught.value, "the share is full", "--quota GIB")
    assert list((azure.account.folder / "backups" / "nightly" / "kafka").iterdir()) == []


def bounded(start: float) -> bool:
    """Whether the time has passed that QUICK may take: 2 tries of a second, 2 s between, twice."""
    return time.monotonic() - start < 20


def test_a_service_that_goes_away_while_writing_is_an_error_in_bounded_time(
    azure: AzureFiles,
) -> None:
    upload = target_of(azure, **QUICK).create(["a.zip"])
    upload.write(bytes(9 * MIB))
    azure.stop()
    start = time.monotonic()
    with pytest.raises(TargetUnreachable) as caught:
        upload.write(bytes(40 * MIB))
    upload.abort()
    assert bounded(start)
    assert_tells(azure, caught.value, "refuses the connection", "network")


def test_a_service_that_goes_away_while_reading_is_an_error_in_bounded_time(
    azure: AzureFiles,
) -> None:
    target = target_of(azure, **QUICK)
    publish(target, bytes(30 * MIB), "a.zip")
    with target.open("a.zip") as stream:
        stream.read(1000)
        azure.stop()
        start = time.monotonic()
        with pytest.raises(TargetUnreachable) as caught:
            stream.read()
        assert bounded(start)
    assert_tells(azure, caught.value, "refuses the connection", "network")


@pytest.mark.parametrize("operation", ["put_range", "create_file", "rename"])
def test_a_service_that_never_answers_is_an_error_in_bounded_time(
    azure: AzureFiles, operation: str
) -> None:
    target = target_of(azure, **QUICK)
    azure.account.fail(operation, "hang", 2)
    start = time.monotonic()
    with pytest.raises(TargetUnreachable) as caught:
        publish(target, b"x", "a.zip")
    assert bounded(start)
    assert_tells(azure, caught.value, "does not answer, also when asked again", "network")


def test_credentials_are_in_no_log_and_no_representation(
    azure: AzureFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use_sas(monkeypatch, share_sas(azure, "rcwdl"))
    caplog.set_level(logging.INFO)
    target: AzureFilesTarget = target_of(azure, **QUICK)
    azure.account.fail("put_range", "busy")
    azure.account.fail("rename", "cut")
    publish(target, bytes(MIB), "a.zip")
    with target.open("a.zip") as stream:
        stream.read()
    assert caplog.records, "the SDK's own log was not captured"
    told = caplog.text + repr(target) + repr(vars(target)) + repr(options(azure))
    told += repr(target._service.credentials)
    for secret in secrets_of(azure):
        assert secret not in told
