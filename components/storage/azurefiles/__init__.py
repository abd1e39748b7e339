"""Azure Files as a target, by its REST service."""

from components.storage.azurefiles.target import AzureFiles

__all__ = ["AzureFiles"]
