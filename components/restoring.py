"""What the controller's side of a service gets to know when it takes part in a restore."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from components.archive.manifest import ServiceRecord
from components.archive.reader import ArchiveReader
from components.ssh import SshClients

Say = Callable[[str], None]


@dataclass(frozen=True)
class RestoreContext:
    """A restore of one service, as the controller sees it.

    record: the service in the manifest.
    reader: the archive.
    clients: connections to `hosts`, the service's hosts in the inventory of today.
    settings: the service's section of the stack configuration.
    parts: those that were chosen; empty for all. rename: from a part's saved name to its new one.
    say: takes a line of progress or a warning.
    live: what the service on a host says about itself (`HostService.discover`); raises
        EpibackupError if it is not there.
    """

    record: ServiceRecord
    reader: ArchiveReader
    clients: SshClients
    hosts: Sequence[str]
    settings: Any
    say: Say
    live: Callable[[str], dict[str, Any]]
    parts: Sequence[str] = ()
    rename: Mapping[str, str] = field(default_factory=dict)


class ControllerRestore(Protocol):
    """A restore into a running service that the controller does itself."""

    def plan(self) -> list[str]:
        """The steps, for a dry run; raises EpibackupError if it cannot be done. Changes nothing."""
        ...

    def run(self) -> dict[str, Any]:
        """Do it; returns a report with `warnings`. Raises EpibackupError, having undone it."""
        ...
