"""`pulumi-resource-azure-native`: the types that AzureStorage uses, kept in a JSON file.

The file is named by EPIBACKUP_TEST_AZURE; a test that changes it makes drift. Strict about names
that are taken and parents that are missing; it knows nothing of what Azure does with the values.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from tests.storage.doubles.provider import Kind, Values, run

VERSION = "3.29.0"
SUBSCRIPTION = "/subscriptions/00000000-0000-0000-0000-000000000001"


@contextmanager
def resources() -> Iterator[dict[str, Any]]:
    """All resources by id; changes are stored. The engine asks for several at the same time."""
    path = Path(os.environ["EPIBACKUP_TEST_AZURE"])
    with path.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        known = json.loads(stream.read() or "{}")
        yield known
        stream.truncate(0)
        stream.write(json.dumps(known, indent=1))


class AzureKind(Kind):
    """A resource with an id made of its inputs."""

    computed = ("name",)
    path: ClassVar[str] = ""
    """The id, with the names of inputs in braces."""
    always_there: ClassVar[bool] = False
    """Whether Azure makes it with its parent, so that it is only ever set."""

    def create(self, inputs: Values) -> str:
        made = self.path.format(subscription=SUBSCRIPTION, **inputs)
        parent = made.rpartition("/fileServices/")[0]
        with resources() as known:
            if made in known and not self.always_there:
                raise ValueError(f"cannot create already existing resource '{made}'")
            if parent and parent not in known:
                raise ValueError(f"ParentResourceNotFound: {parent}")
            known[made] = inputs
        return made

    def read(self, resource_id: str) -> Values | None:
        with resources() as known:
            found = known.get(resource_id)
        return None if found is None else {**found, "name": resource_id.rpartition("/")[2]}

    def update(self, resource_id: str, inputs: Values) -> None:
        with resources() as known:
            known[resource_id] = inputs

    def delete(self, resource_id: str) -> None:
        with resources() as known:
            known.pop(resource_id)


ACCOUNT = (
    "{subscription}/resourceGroups/{resourceGroupName}/providers/Microsoft.Storage"
    "/storageAccounts/{accountName}"
)


class Account(AzureKind):
    """azure-native:storage:StorageAccount"""

    path = ACCOUNT
    replaced_by = ("accountName", "resourceGroupName", "location")


class FileService(AzureKind):
    """azure-native:storage:FileServiceProperties"""

    path = ACCOUNT + "/fileServices/{fileServicesName}"
    always_there = True
    replaced_by = ("accountName", "resourceGroupName")


class Share(AzureKind):
    """azure-native:storage:FileShare"""

    path = ACCOUNT + "/fileServices/default/shares/{shareName}"
    replaced_by = ("accountName", "resourceGroupName", "shareName")


class Assignment(AzureKind):
    """azure-native:authorization:RoleAssignment"""

    named = "roleAssignmentName"
    path = "{scope}/providers/Microsoft.Authorization/roleAssignments/{roleAssignmentName}"
    replaced_by = ("scope", "principalId", "roleDefinitionId")


class Endpoint(AzureKind):
    """azure-native:network:PrivateEndpoint"""

    named = "privateEndpointName"
    path = (
        "{subscription}/resourceGroups/{resourceGroupName}/providers/Microsoft.Network"
        "/privateEndpoints/{privateEndpointName}"
    )


KINDS: dict[str, Kind] = {
    "azure-native:storage:StorageAccount": Account(),
    "azure-native:storage:FileServiceProperties": FileService(),
    "azure-native:storage:FileShare": Share(),
    "azure-native:authorization:RoleAssignment": Assignment(),
    "azure-native:network:PrivateEndpoint": Endpoint(),
}


def main() -> None:
    """The executable."""
    run(KINDS, VERSION)
