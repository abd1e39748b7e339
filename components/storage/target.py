"""The interface of a target, and finding the right one for what the user wrote."""

import abc
import importlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import BinaryIO

from components.errors import UsageError
from components.storage.options import TargetOptions

Data = bytes | bytearray | memoryview

SCHEMES: dict[str, tuple[str, str]] = {
    "azurefiles": ("components.storage.azurefiles", "AzureFiles"),
    "nfs": ("components.storage.nfs", "Nfs"),
    "s3": ("components.storage.s3", "S3"),
}
"""URL schemes, and where their targets are: module and class. Each is made with the location and
the options of all targets, and raises UsageError for what is wrong in them; it contacts nothing."""


class Upload(abc.ABC):
    """An archive on its way. Nobody can see it before `publish`.

    Every method raises TargetUnreachable if the target fails, with what to do.
    """

    @abc.abstractmethod
    def write(self, data: Data) -> None:
        """Append bytes; they may be reused by the caller when this returns."""

    @abc.abstractmethod
    def publish(self) -> str:
        """Make the archive visible, whole and durable, under the first of its names that is free.

        Who is first is decided by the target itself, so that two runs never overwrite each
        other. Returns the name it got. Nothing can be written after that. Raises
        TargetUnreachable, too, for an upload that was aborted, and VerificationFailed if the
        target says that it has stored something else.
        """

    @abc.abstractmethod
    def abort(self) -> None:
        """Remove what was written; harmless when called again or after `publish`."""


class Target(abc.ABC):
    """A place for archives: a flat list of names.

    url: as the user wrote it, without credentials.
    reads_back: whether an archive is read back before its run counts as good; where it is not,
    `publish` itself compares what the target says it has stored with what was written.
    Every method raises TargetUnreachable if the target cannot be reached or refuses.
    """

    url: str
    reads_back: bool = True

    @abc.abstractmethod
    def check(self) -> None:
        """Make sure that an archive could be written now; leaves nothing behind."""

    @abc.abstractmethod
    def free_bytes(self) -> int | None:
        """Free space; None where the target has no such limit or does not tell."""

    @abc.abstractmethod
    def create(self, names: Sequence[str]) -> Upload:
        """Begin an archive that gets the first of `names` that is free: now, or once it is
        published, as the target can decide it. The first name also tells people what an
        unfinished archive belongs to."""

    @abc.abstractmethod
    def names(self) -> list[str]:
        """The names of all published files, sorted; unfinished ones are not among them."""

    @abc.abstractmethod
    def size(self, name: str) -> int:
        """A published file's size in bytes; raises NotFound if there is none of that name."""

    @abc.abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open a published file for reading at any position; raises NotFound."""

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """Remove a published file; nothing happens if it is gone already."""

    def locked_until(self, name: str) -> datetime | None:  # noqa: ARG002
        """Until when, UTC, the store itself refuses to remove a published file (an object lock);
        the greatest time for a lock without an end. None where there is no lock, or where stores
        of this kind have none."""
        return None


def open_target(location: str, options: TargetOptions) -> Target:
    """The target for a location; contacts nothing.

    Raises UsageError for a location or options that cannot be used.
    """
    from components.storage.mounted import directory_target

    scheme, separator, _ = location.partition("://")
    if separator and scheme in SCHEMES:
        module, name = SCHEMES[scheme]
        kind: Callable[[str, TargetOptions], Target] = getattr(
            importlib.import_module(module), name
        )
        return kind(location, options)
    if separator:
        known = ", ".join(f"{known}://" for known in SCHEMES)
        raise UsageError(
            f"the target {location} cannot be used: there is no target {scheme}://",
            f"use the path of a folder, which may be a mounted share, or {known}",
        )
    if not location.startswith("/"):
        raise UsageError(
            f"the target {location} is not an absolute path", f"write -t /…/{location}"
        )
    return directory_target(location, options.directory)
