"""A double of Azure Files for tests: started, with a share, and its key in the environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.fileshare import ShareSasPermissions, generate_share_sas

from components.storage.azurefiles import AzureFiles as AzureFilesTarget
from components.storage.options import AzureFilesOptions, TargetOptions
from components.storage.target import open_target
from lab.services.azure_files import AzureFiles


@contextmanager
def with_azure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureFiles]:
    """The service with the share `backups`."""
    for name in list(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_", "MSI_")):
            monkeypatch.delenv(name)
    home = folder / "azure"
    home.mkdir()
    with AzureFiles(home) as service:
        monkeypatch.setenv("AZURE_STORAGE_KEY", service.account.key)
        service.account.make_share("backups")
        yield service


def options(azure: AzureFiles, **others: Any) -> TargetOptions:
    """The options of a target there."""
    values = {"endpoint": azure.endpoint, "ca_file": str(azure.certificate), **others}
    return TargetOptions(azurefiles=AzureFilesOptions(**values))


def target_of(azure: AzureFiles, folder: str = "/nightly/kafka", **others: Any) -> AzureFilesTarget:
    """A target there."""
    url = f"azurefiles://{azure.account.name}/backups{folder}"
    found = open_target(url, options(azure, **others))
    assert isinstance(found, AzureFilesTarget)
    return found


def share_sas(azure: AzureFiles, permissions: str, hours: float = 1) -> str:
    """A SAS token of the share, made by the SDK."""
    return generate_share_sas(
        azure.account.name,
        "backups",
        azure.account.key,
        permission=ShareSasPermissions.from_string(permissions),
        expiry=datetime.now(UTC) + timedelta(hours=hours),
    )


def use_sas(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """Put a SAS token into the environment, in the place of the key."""
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
