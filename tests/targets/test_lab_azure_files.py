"""The double of Azure Files refuses what the service refuses."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError
from azure.storage.fileshare import ShareClient

from components.storage.azurefiles.problems import error_code
from lab.services.azure_files import AzureFiles
from tests.targets.azure import with_azure

MIB = 1 << 20


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureFiles]:
    with with_azure(tmp_path, monkeypatch) as service:
        yield service


@pytest.fixture
def share(azure: AzureFiles) -> Iterator[ShareClient]:
    client = ShareClient(
        azure.endpoint,
        "backups",
        credential=AzureNamedKeyCredential(azure.account.name, azure.account.key),
        connection_verify=str(azure.certificate),
    )
    with client:
        client.get_file_client("a").create_file(MIB)
        yield client


@pytest.mark.parametrize(
    ("operation", "status", "code"),
    [
        (
            lambda share: share.get_file_client("a").upload_range(bytes(5 * MIB), 0, 5 * MIB),
            413,
            "RequestBodyTooLarge",
        ),
        (
            lambda share: share.get_file_client("a").upload_range(b"xy", MIB - 1, 2),
            416,
            "InvalidRange",
        ),
        (
            lambda share: share.get_file_client("a").upload_range(
                b"x", 0, 1, headers={"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}
            ),
            400,
            "Md5Mismatch",
        ),
        (
            lambda share: share.get_file_client("b").upload_range(b"x", 0, 1),
            404,
            "ResourceNotFound",
        ),
        (lambda share: share.get_file_client("no/b").create_file(1), 404, "ParentNotFound"),
        (lambda share: share.get_file_client("b*").create_file(1), 400, "InvalidResourceName"),
        (lambda share: share.get_file_client("b").create_file(5 << 40), 400, "InvalidHeaderValue"),
        (
            lambda share: share.get_file_client("a").resize_file(2 << 40),
            403,
            "ShareSizeLimitReached",
        ),
        (lambda share: share.get_file_client("a").rename_file("a"), 409, "ResourceAlreadyExists"),
        (lambda share: share.get_file_client("b").rename_file("c"), 404, "ResourceNotFound"),
        (
            lambda share: share.get_file_client("a").download_file(MIB, 1),
            416,
            "InvalidRange",
        ),
        (lambda share: list(share.list_directories_and_files("no")), 404, "ResourceNotFound"),
    ],
)
def test_what_the_service_refuses_is_refused(
    share: ShareClient, operation: Callable[[ShareClient], object], status: int, code: str
) -> None:
    with pytest.raises(HttpResponseError) as caught:
        operation(share)
    assert (caught.value.status_code, error_code(caught.value)) == (status, code)


def test_a_rename_that_may_overwrite_does(azure: AzureFiles, share: ShareClient) -> None:
    azure.account.add(azure.account.folder / "backups" / "b", b"old")
    share.get_file_client("a").rename_file("b", overwrite=True)
    assert [item.name for item in share.list_directories_and_files()] == ["b"]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "NoAuthenticationInformation"),
        ({"Authorization": "Bearer {token}"}, 400, "MissingRequiredHeader"),
        (
            {"Authorization": "Bearer other", "x-ms-file-request-intent": "backup"},
            401,
            "InvalidAuthenticationInfo",
        ),
        ({"Authorization": "Bearer {token}", "x-ms-date": None}, 400, "MissingRequiredHeader"),
        ({"Authorization": "Bearer {token}", "x-ms-version": None}, 400, "MissingRequiredHeader"),
    ],
)
def test_who_does_not_prove_who_asks_is_refused(
    azure: AzureFiles, headers: dict[str, str | None], status: int, code: str
) -> None:
    (token,) = azure.account.tokens
    sent: dict[str, str | None] = {"x-ms-version": "2026-02-06", "x-ms-date": "now", **headers}
    answer = requests.get(
        f"{azure.endpoint}/backups/a",
        headers={name: value.format(token=token) for name, value in sent.items() if value},
        verify=str(azure.certificate),
        timeout=30,
    )
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (status, code)
    assert f"<Code>{code}</Code>" in answer.text
