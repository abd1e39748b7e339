"""Azure Files as a target."""

import io
from collections.abc import Sequence
from datetime import datetime
from typing import BinaryIO, cast

from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.fileshare import FileProperties, ShareFileClient, ShareProperties

from components.errors import TargetUnreachable, VerificationFailed
from components.storage.azurefiles.problems import MISSING, error_code, explained
from components.storage.azurefiles.reader import RangedFile, fetch_range
from components.storage.azurefiles.service import Service, parse_location
from components.storage.azurefiles.upload import AzureFilesUpload
from components.storage.options import TargetOptions
from components.storage.partial import ABANDONED_SECONDS, PARTIAL, partial_name
from components.storage.target import Target, Upload


class AzureFiles(Target):
    """A folder of a share, by the REST service. It is made with the first archive."""

    def __init__(self, location: str, options: TargetOptions) -> None:
        self._location = parse_location(location)
        self._service = Service(self._location, options.azurefiles)
        self.url = self._location.url

    def check(self) -> None:
        """Write and remove a small file, and remove what killed runs have left."""
        with explained(self._service):
            share = self._share_properties()
            if share and "NFS" in (share.protocols or []):
                raise TargetUnreachable(
                    f"{self.url} is an NFS share, whose files the REST service cannot rename",
                    "mount it and give its path, or use an SMB share",
                )
            now = self._probe()
            self._remove_abandoned(now)

    def free_bytes(self) -> int | None:
        """What is left of the quota; None for credentials that may not ask.

        Neither a share's SAS nor an identity with a role for files alone may.
        """
        with explained(self._service):
            share = self._share_properties()
            if not share or not share.quota:
                return None
            return max(0, (int(share.quota) << 30) - int(self._service.share.get_share_stats()))

    def create(self, names: Sequence[str]) -> Upload:
        """Begin an archive; makes the folder if need be."""
        self.check()
        with explained(self._service):
            for depth in range(1, len(self._location.folder) + 1):
                path = "/".join(self._location.folder[:depth])
                try:
                    self._service.share.get_directory_client(path).create_directory()
                except ResourceExistsError:
                    continue
        return AzureFilesUpload(self._service, names)

    def names(self) -> list[str]:
        """See Target; a folder that nobody has made yet has no names."""
        with explained(self._service):
            return sorted(
                str(item.name)
                for item in self._listed()
                if not item.is_directory and not str(item.name).startswith(".")
            )

    def size(self, name: str) -> int:
        """See Target."""
        return int(self._properties(name).size)

    def open(self, name: str) -> BinaryIO:
        """See Target; raises VerificationFailed while reading if the file is changed meanwhile."""
        properties = self._properties(name)
        file = self._file(name)

        # Get File takes no If-Match, so every answer is compared.
        def fetch(start: int, length: int) -> bytes:
            with explained(self._service, name):
                try:
                    data, etag = fetch_range(file, start, length, self._service.options.retries)
                except HttpResponseError as error:
                    if error_code(error) == "InvalidRange":
                        raise self._changed(name) from None
                    raise
            if etag != properties.etag or len(data) != length:
                raise self._changed(name)
            return data

        reader = RangedFile(int(properties.size), fetch)
        return cast(BinaryIO, io.BufferedReader(reader, 64 << 10))

    def delete(self, name: str) -> None:
        """See Target."""
        with explained(self._service):
            try:
                self._file(name).delete_file()
            except ResourceNotFoundError as error:
                if error_code(error) not in MISSING:
                    raise

    def _file(self, name: str) -> ShareFileClient:
        return self._service.share.get_file_client(self._location.path(name))

    def _properties(self, name: str) -> FileProperties:
        with explained(self._service, name):
            return self._file(name).get_file_properties()

    def _share_properties(self) -> ShareProperties | None:
        """What the service knows of the share; None for credentials that may not ask.

        Where more is wrong, whatever comes next tells it.
        """
        try:
            return self._service.share.get_share_properties()
        except HttpResponseError as error:
            if error.status_code in (400, 401, 403):
                return None
            raise

    def _changed(self, name: str) -> VerificationFailed:
        return VerificationFailed(
            f"{name} in {self.url} was changed while it was read", "find out who writes there"
        )

    def _probe(self) -> datetime:
        """Write a file where archives go, or in the first folder above it that is there, and
        remove it; returns the service's time."""
        name, folders = partial_name("check"), list(self._location.folder)
        while True:
            file = self._service.share.get_file_client("/".join([*folders, name]))
            try:
                file.create_file(1)
                break
            except ResourceNotFoundError as error:
                if not folders or error_code(error) not in MISSING:
                    raise
                folders.pop()
        try:
            made = file.upload_range(b"\0", 0, 1, validate_content="md5")
        finally:
            file.delete_file()
        return cast(datetime, made["last_modified"])

    def _listed(self, start: str | None = None) -> list[FileProperties]:
        folder = self._service.share.get_directory_client("/".join(self._location.folder))
        try:
            found = folder.list_directories_and_files(start, include=["timestamps"])
            return [cast(FileProperties, item) for item in found]
        except ResourceNotFoundError as error:
            if error_code(error) not in MISSING:
                raise
            return []

    def _remove_abandoned(self, now: datetime) -> None:
        """Remove unfinished archives that nobody has written to for a day.

        A lease cannot tell that its holder is alive: those of files do not end by themselves, and
        "Lease File" has no renewal. A writer at work changes its file with every range.
        """
        for item in self._listed("."):
            told = (item.last_modified, item.last_write_time)
            changed = [time for time in told if isinstance(time, datetime)]
            if item.is_directory or not changed or not PARTIAL.fullmatch(str(item.name)):
                continue
            if (now - max(changed)).total_seconds() > ABANDONED_SECONDS:
                try:
                    self._file(str(item.name)).delete_file()
                except HttpResponseError:
                    continue  # another run was faster, or the next one will do it
