"""How much memory programs take while they work."""

import abc
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

import psutil

from lab import Cluster

INTERVAL_SECONDS = 0.2
AGENT = "/var/lib/epibackup/agent-"


class Watch(abc.ABC):
    """Looks at something five times a second; used as a context manager."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            self.look()

    @abc.abstractmethod
    def look(self) -> None:
        """Look once."""


class PeakMemory(Watch):
    """Watches a process with all it starts here, and the agents on a cluster's hosts.

    Proportional set size: a page that several processes share counts once.
    """

    def __init__(self, process: int, cluster: Cluster) -> None:
        super().__init__()
        self.controller_bytes = 0
        self.agent_bytes = 0
        self._process = psutil.Process(process)
        self._cluster = cluster

    def look(self) -> None:
        """Look once."""
        with suppress(psutil.NoSuchProcess):
            tree = [self._process, *self._process.children(recursive=True)]
            self.controller_bytes = max(self.controller_bytes, _total(tree))
        for host in self._cluster.hosts.values():
            ids = [process.pid for process in host.processes()]
            self.agent_bytes = max(self.agent_bytes, _total(_agents(ids)))


def _agents(ids: Iterable[int]) -> list[psutil.Process]:
    """The agent's processes among those of a host, with the programs they have started."""
    found: dict[int, psutil.Process] = {}
    for pid in ids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if any(AGENT in word for word in process.cmdline()):
                found[pid] = process
                found |= {child.pid: child for child in process.children(recursive=True)}
    return list(found.values())


def _total(processes: Iterable[psutil.Process]) -> int:
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total
