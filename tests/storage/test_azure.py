"""A file share made by Pulumi: real SDK and engine, a double of the provider that keeps a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.support.projects import Project
from tests.storage.conftest import Storage
from tests.storage.doubles.azure import SUBSCRIPTION

ARGS: dict[str, Any] = {"resource_group": "backups", "account": "acme", "share": "archives"}
ACCOUNT = f"{SUBSCRIPTION}/resourceGroups/backups/providers/Microsoft.Storage/storageAccounts/acme"
SHARE = f"{ACCOUNT}/fileServices/default/shares/archives"
PERSON = "11111111-2222-3333-4444-555555555555"
SUBNET = (
    f"{SUBSCRIPTION}/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/main"
    "/subnets/backup"
)


@pytest.fixture
def storage(storage_project: Project) -> Storage:
    return Storage(storage_project, "components.storage.provision.azure", "AzureStorage")


@pytest.fixture
def azure(storage_project: Project) -> Path:
    """The file that is the cloud."""
    return Path(storage_project.environment["EPIBACKUP_TEST_AZURE"])


def there(azure: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(azure.read_text())
    return found


def test_a_share_is_private_encrypted_and_made_once(storage: Storage, azure: Path) -> None:
    storage.up({**ARGS, "folder": "production"}).succeeded()
    account = there(azure)[ACCOUNT]
    assert account["enableHttpsTrafficOnly"] is True
    assert account["minimumTlsVersion"] == "TLS1_2"
    assert account["allowBlobPublicAccess"] is False
    assert account["allowSharedKeyAccess"] is False
    assert account["networkRuleSet"]["defaultAction"] == "Allow"
    service = there(azure)[f"{ACCOUNT}/fileServices/default"]
    assert service["shareDeleteRetentionPolicy"] == {"enabled": True, "days": 14}
    smb = service["protocolSettings"]["smb"]
    assert smb["versions"] == "SMB3.1.1"
    assert smb["channelEncryption"] == "AES-256-GCM"
    assert smb["authenticationMethods"] == "Kerberos"
    share = there(azure)[SHARE]
    assert (share["shareQuota"], share["accessTier"]) == (1024, "Cool")
    assert len(there(azure)) == 3
    assert storage.project.exports()["location"] == "azurefiles://acme/archives/production"
    storage.up({**ARGS, "folder": "production"}, "--expect-no-changes").succeeded()
    storage.drift().succeeded()


def test_networks_roles_and_a_private_endpoint_are_made_when_asked_for(
    storage: Storage, azure: Path
) -> None:
    args = {
        **ARGS,
        "private_endpoint_subnet_id": SUBNET,
        "writer_principal_ids": [PERSON],
        "reader_principal_ids": [PERSON],
        "allow_shared_key": True,
        "infrastructure_encryption": True,
    }
    storage.up(args).succeeded()
    account = there(azure)[ACCOUNT]
    assert account["networkRuleSet"]["defaultAction"] == "Deny"
    assert account["publicNetworkAccess"] == "Disabled"
    assert account["encryption"]["requireInfrastructureEncryption"] is True
    service = there(azure)[f"{ACCOUNT}/fileServices/default"]
    assert service["protocolSettings"]["smb"]["authenticationMethods"] == "NTLMv2;Kerberos"
    roles = {
        made["roleDefinitionId"].rpartition("/")[2]
        for name, made in there(azure).items()
        if "roleAssignments" in name
    }
    assert roles == {"69566ab7-960f-475b-8e7c-b3118f30c6bd", "b8eda974-7b85-4f76-af95-65846b26df6d"}
    [endpoint] = [made for name, made in there(azure).items() if "privateEndpoints" in name]
    assert endpoint["subnet"] == {"id": SUBNET}
    assert endpoint["privateLinkServiceConnections"][0]["privateLinkServiceId"] == ACCOUNT

    changed = {**args, "allowed_ip_ranges": ["198.51.100.0/24"], "quota_gib": 2048}
    run = storage.up(changed).succeeded()
    account = there(azure)[ACCOUNT]
    assert account["publicNetworkAccess"] == "Enabled"
    assert account["networkRuleSet"]["ipRules"][0]["iPAddressOrRange"] == "198.51.100.0/24"
    operations = {name: op for name, op in run.operations().items() if op != "same"}
    assert operations == {"storage-account": "update", "storage-share": "update"}


def test_drift_is_seen_and_repaired(storage: Storage, azure: Path) -> None:
    storage.up(ARGS).succeeded()
    weakened = there(azure)
    weakened[ACCOUNT]["enableHttpsTrafficOnly"] = False
    weakened[ACCOUNT]["minimumTlsVersion"] = "TLS1_0"
    azure.write_text(json.dumps(weakened))
    run = storage.drift().failed()
    assert run.code == 7
    assert "storage-account" in run.text
    storage.up(ARGS, "--refresh").succeeded()
    account = there(azure)[ACCOUNT]
    assert (account["enableHttpsTrafficOnly"], account["minimumTlsVersion"]) == (True, "TLS1_2")


def test_a_destroy_is_refused(storage: Storage, azure: Path) -> None:
    storage.up(ARGS).succeeded()
    assert "protected" in storage.project.destroy().failed().text
    assert {ACCOUNT, SHARE} <= there(azure).keys()


def test_an_account_that_exists_is_taken_over(storage: Storage, azure: Path) -> None:
    storage.up(ARGS).succeeded()
    state = Path(storage.project.folder / "backend")
    for path in state.rglob("test.json*"):
        path.unlink()
    assert "already existing" in storage.up(ARGS).failed().text
    taken = {**ARGS, "import_ids": {"account": ACCOUNT, "share": SHARE}}
    run = storage.up(taken).succeeded()
    assert run.operations()["storage-account"] == "import"
    assert run.operations()["storage-share"] == "import"
    storage.up(ARGS, "--expect-no-changes").succeeded()
