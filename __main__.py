"""The component provider `epibackup`: what `pulumi package add` of this folder runs."""

import importlib.metadata

from pulumi.provider.experimental import component_provider_host

from components.storage.provision.aws import AwsStorage
from components.storage.provision.azure import AzureStorage
from components.storage.provision.directory import DirectoryStorage
from components.storage.provision.existing import ExistingStorage

if __name__ == "__main__":
    component_provider_host(
        name="epibackup",
        version=importlib.metadata.version("epibackup"),
        components=[AwsStorage, AzureStorage, DirectoryStorage, ExistingStorage],
    )
