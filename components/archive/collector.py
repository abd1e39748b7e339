"""Moving members from all hosts into the container, at the same time and without a spool."""

import hashlib
import io
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

from components.archive.container import ContainerWriter
from components.archive.manifest import Member, Part
from components.archive.naming import part_path
from components.archive.parts import part_bytes, read_parts
from components.errors import EpibackupError
from components.ssh import UNREACHABLE, SshClients

STREAMS_PER_HOST = 4
"""sshd allows ten sessions a connection by default (sshd_config(5), MaxSessions)."""


@dataclass(frozen=True)
class Source:
    """A member of a snapshot on a host.

    command: what to run there; its standard output is the member as it is stored.
    expected_bytes: about how much that will be; None if nobody knows.
    """

    service: str
    host: str
    name: str
    kind: str
    raw_bytes: int | None
    expected_bytes: int | None
    content: dict[str, Any]
    command: Sequence[str]

    @property
    def path(self) -> str:
        """The member's path in the archive."""
        return f"{self.service}/{self.host}/{self.name}"


@dataclass
class Collected:
    """What became of a source: its member, or why there is none and what is left of it."""

    source: Source
    member: Member | None = None
    failure: str = ""
    discarded: list[str] = field(default_factory=list)


class Progress:
    """Bytes so far, for all streams together."""

    def __init__(self, expected_bytes: int, say: Callable[[str], None]) -> None:
        self._expected = expected_bytes
        self._say = say
        self._done = 0
        self._started = time.monotonic()
        self._told = 0.0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """Count bytes; tells about it at most twice a second."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._told < 0.5:
                return
            self._told = now
            rate = self._done / max(now - self._started, 0.001)
            share = min(99, 100 * self._done // self._expected) if self._expected else 0
            text = f"{share}% collected {size_text(self._done)}, {size_text(int(rate))}/s"
        self._say(text)


def size_text(count: int) -> str:
    """A size for people: 1.4 GiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


class Collector:
    """Pulls sources into a container.

    parallel: how many streams at the same time, over all hosts. Memory is about one part a
    stream, whatever the members' sizes.
    """

    def __init__(
        self,
        clients: SshClients,
        container: ContainerWriter,
        parallel: int,
        progress: Progress,
    ) -> None:
        self._clients = clients
        self._container = container
        self._parallel = parallel
        self._progress = progress
        self._lock = threading.Lock()
        self._hosts: dict[str, threading.Semaphore] = {}
        self._fatal: EpibackupError | None = None

    def collect(self, sources: Sequence[Source]) -> list[Collected]:
        """Collect all sources, the largest first; results are in the order of `sources`.

        A source that fails is a result. Raises TargetUnreachable if the container cannot be
        written: then there is no use in going on.
        """
        self._hosts = {source.host: threading.Semaphore(STREAMS_PER_HOST) for source in sources}
        order = sorted(
            range(len(sources)), key=lambda i: sources[i].expected_bytes or 0, reverse=True
        )
        with ThreadPoolExecutor(self._parallel) as pool:
            futures = {index: pool.submit(self._collect, sources[index]) for index in order}
        if self._fatal:
            raise self._fatal
        return [futures[index].result() for index in range(len(sources))]

    def _collect(self, source: Source) -> Collected:
        if self._fatal:
            return Collected(source, failure="not collected, because the target failed")
        with self._hosts[source.host], tempfile.TemporaryFile() as errors:
            result = Collected(source)
            parts: list[Part] = []
            with self._clients.reading(source.host, source.command, errors) as process:
                try:
                    self._store(source, process, parts)
                except EpibackupError as error:
                    self._fatal = error
            errors.seek(0)
            output = errors.read().decode(errors="replace").strip()
            if self._fatal or process.returncode != 0:
                result.discarded = [part.path for part in parts]
                result.failure = _explain(source, process.returncode, output)
                return result
            result.member = Member(
                path=source.path,
                kind=cast(Any, source.kind),
                raw_bytes=source.raw_bytes,
                stored_bytes=sum(part.bytes for part in parts),
                parts=parts,
                content=source.content,
            )
            return result

    def _store(self, source: Source, process: "subprocess.Popen[bytes]", parts: list[Part]) -> None:
        stream = cast(io.RawIOBase, process.stdout)
        for data, last in read_parts(stream, part_bytes(source.expected_bytes)):
            if self._fatal:
                return
            if last and process.wait() != 0 and not parts:
                return  # nothing of it is stored yet, so nothing of it will be
            single = last and not parts
            path = source.path if single else part_path(source.path, len(parts))
            digest = hashlib.sha256(data).hexdigest()
            with self._lock:
                self._container.add(path, data)
            parts.append(Part(path=path, bytes=len(data), sha256=digest))
            self._progress.add(len(data))


def _explain(source: Source, code: int, output: str) -> str:
    last = "\n".join(output.splitlines()[-8:])
    if code == UNREACHABLE:
        return f"the connection to {source.host} broke while {source.name} was sent: {last}"
    return f"{source.name} could not be sent from {source.host}: {last or f'exit code {code}'}"
