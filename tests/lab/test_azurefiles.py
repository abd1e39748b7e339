"""The product with an Azure Files share as its target: a real cluster, a double of the service."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Site
from lab.services.azure_files import AzureFiles
from tests.lab.product import Product, product
from tests.lab.round_trip import goes_and_comes_back

RUN = "20261122T013000Z"


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[AzureFiles]:
    folder = tmp_path / "azure"
    folder.mkdir()
    with AzureFiles(folder) as service:
        service.account.make_share("backups")
        yield service


@pytest.fixture
def epibackup(site: Site, azure: AzureFiles, tmp_path: Path) -> Iterator[Product]:
    with product(site.cluster, tmp_path, "test-azurefiles") as made:
        for name in list(made.environment):
            if name.startswith("AZURE_"):
                del made.environment[name]
        made.environment["AZURE_STORAGE_KEY"] = azure.account.key
        made.configure(
            target=f"azurefiles://{azure.account.name}/backups/nightly",
            azurefiles={"endpoint": azure.endpoint, "ca_file": str(azure.certificate)},
        )
        yield made
        assert made.leftovers() == {}, "something was left on the hosts"


def stored(azure: AzureFiles) -> list[str]:
    """All files of the share, unfinished ones included."""
    share = azure.account.folder / "backups"
    return [str(path.relative_to(share)) for path in share.rglob("*") if path.is_file()]


def test_a_run_goes_to_the_share_and_comes_back_from_there(
    epibackup: Product, clean_site: Site, azure: AzureFiles
) -> None:
    made = goes_and_comes_back(epibackup, clean_site)
    assert stored(azure) == [f"nightly/{made['archive_key']}"]


def test_no_secret_is_in_the_state_or_the_configuration(
    epibackup: Product, site: Site, azure: AzureFiles
) -> None:
    made = epibackup.run("backup", "--service", "haproxy")
    assert made.returncode == 0, made.stderr
    state = epibackup.pulumi("stack", "export", "--show-secrets")
    assert "azurefiles://" in state.stdout, state.stderr
    for text in (made.stdout, made.stderr, state.stdout, epibackup.stack_file.read_text()):
        assert azure.account.key not in text


def test_a_wrong_key_is_told_before_anything_is_written_and_the_run_goes_on_with_the_right_one(
    epibackup: Product, site: Site, azure: AzureFiles
) -> None:
    epibackup.environment["AZURE_STORAGE_KEY"] = "d3Jvbmcga2V5"
    error = epibackup.backup("--run", RUN, "--service", "haproxy", code=8)["error"]
    assert error["code"] == "target_unreachable"
    assert "the account key in AZURE_STORAGE_KEY is not accepted" in error["message"]
    assert "d3Jvbmcga2V5" not in json.dumps(error)
    assert stored(azure) == []
    epibackup.environment["AZURE_STORAGE_KEY"] = azure.account.key
    assert epibackup.backup("--run", RUN, "--service", "haproxy")["run"] == RUN


def test_a_share_that_is_full_leaves_nothing_and_the_run_goes_on_when_it_is_larger(
    epibackup: Product, site: Site, azure: AzureFiles
) -> None:
    azure.account.quota_bytes = 1000
    error = epibackup.backup("--run", RUN, "--service", "haproxy", code=8)["error"]
    assert "is full" in error["message"] or "free" in error["message"]
    assert stored(azure) == []
    azure.account.quota_bytes = 1 << 30
    assert epibackup.backup("--run", RUN, "--service", "haproxy")["status"] == "ok"
