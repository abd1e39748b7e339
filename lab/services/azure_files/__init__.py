"""A double of Azure Files' REST service: there is no emulator of it.

It keeps files on disk and is strict about what the public REST reference says the service is
strict about: signatures (signatures.py), the clock, names, parents, ranges of at most 4 MiB within
the file's size, Content-MD5, renames that must not overwrite, the quota, and how errors look. Lists
come in short pages.

What it does not check or have: leases, snapshots, SMB's locks, permissions and attributes, several
accounts, the account's network rules, NFS shares, and the accuracy of the share's usage, which the
service updates late. Its quota counts the sizes of files, written or not.
"""

from lab.services.azure_files.identity import TokenService
from lab.services.azure_files.server import AzureFiles

__all__ = ["AzureFiles", "TokenService"]
