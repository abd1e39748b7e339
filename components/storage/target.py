"""The interface of a target, and finding the right one for what the user wrote."""

import abc
from collections.abc import Iterable
from typing import BinaryIO

from components.errors import UsageError

Data = bytes | bytearray | memoryview


class Upload(abc.ABC):
    """An archive on its way. Nobody can see it before `publish`.

    Every method raises TargetUnreachable if the target fails, with what to do.
    """

    @abc.abstractmethod
    def write(self, data: Data) -> None:
        """Append bytes; they may be reused by the caller when this returns."""

    @abc.abstractmethod
    def publish(self, names: Iterable[str]) -> str:
        """Make the archive visible, whole and durable, under the first name that is free.

        Who is first is decided by the target itself, so that two runs never overwrite each
        other. Returns the name it got. Nothing can be written after that.
        """

    @abc.abstractmethod
    def abort(self) -> None:
        """Remove what was written; harmless when called again or after `publish`."""


class Target(abc.ABC):
    """A place for archives: a flat list of names.

    url: as the user wrote it, without credentials.
    Every method raises TargetUnreachable if the target cannot be reached or refuses.
    """

    url: str

    @abc.abstractmethod
    def check(self) -> None:
        """Make sure that an archive could be written now; leaves nothing behind."""

    @abc.abstractmethod
    def free_bytes(self) -> int | None:
        """Free space; None where the target has no such limit or does not tell."""

    @abc.abstractmethod
    def create(self, label: str) -> Upload:
        """Begin an archive; `label` tells people what an unfinished one belongs to."""

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


def open_target(location: str) -> Target:
    """The target for a location; contacts nothing.

    Raises UsageError for a location that this version cannot use.
    """
    from components.storage.directory import Directory

    scheme, separator, _ = location.partition("://")
    if separator:
        raise UsageError(
            f"the target {location} cannot be used: this version has no target {scheme}://",
            "use the path of a folder, which may be a mounted share: -t /mnt/backups",
        )
    if not location.startswith("/"):
        raise UsageError(
            f"the target {location} is not an absolute path", f"write -t /…/{location}"
        )
    return Directory(location)
