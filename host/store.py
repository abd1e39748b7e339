"""Where the agent keeps its things on a host: snapshots, deliveries and locks.

DIRECTORY/                        root, 0700 (default /var/lib/epibackup)
  agent-<hash>.pyz                the agent; put there by components.host_agent
  locks/<service>                 held while a snapshot is made or a service restored
  snapshots/<run>/<service>/      what a run's snapshot put aside, and snapshot.json
  restore/<run>/<service>/        what a restore was sent, and its journal
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from typing import Any, Dict, Iterator, List, NamedTuple

from host.errors import HostError

KEEP_SECONDS = 12 * 3600
"""How long a snapshot of a run that was not finished stays, so that the run can be resumed."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Leftover(NamedTuple):
    """What a run or a restore left on this host; kind: snapshots or restore."""

    kind: str
    run: str
    service: str
    path: str
    age_seconds: int


def checked_name(name: str) -> str:
    """A run id or service name that is safe as the name of a folder; else HostError."""
    if not NAME.fullmatch(name):
        raise HostError("%r is no valid name for a run or a service" % name)
    return name


class Store:
    """The agent's folder on this host."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def snapshot_folder(self, run: str, service: str) -> str:
        """Where the snapshot of a service belongs; it need not exist."""
        return self._folder("snapshots", run, service)

    def restore_folder(self, run: str, service: str) -> str:
        """Where the members for a service's restore belong; it need not exist."""
        return self._folder("restore", run, service)

    def _folder(self, kind: str, run: str, service: str) -> str:
        return os.path.join(self.directory, kind, checked_name(run), checked_name(service))

    @contextlib.contextmanager
    def lock(self, service: str, purpose: str) -> Iterator[None]:
        """Hold the lock of a service on this host, for a snapshot or a restore.

        Raises HostError, saying who holds it, if another process does. The kernel frees the
        lock when its holder dies, however it dies.
        """
        folder = os.path.join(self.directory, "locks")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(os.path.join(folder, checked_name(service)), "a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise HostError(
                    "%s is busy with another operation on this host: %s"
                    % (service, lock.read().strip() or "unknown"),
                    "wait until it has ended, or end that process",
                ) from None
            lock.truncate(0)
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            lock.write("%s, process %d, since %s" % (purpose, os.getpid(), now))
            lock.flush()
            yield

    @contextlib.contextmanager
    def reading(self, folder: str) -> Iterator[None]:
        """Keep a snapshot's folder from being removed while it is sent."""
        with _folder_lock(folder, fcntl.LOCK_SH):
            yield

    def remove(self, folder: str) -> bool:
        """Remove a snapshot's or a delivery's folder; False if it is being read just now."""
        if not os.path.isdir(folder):
            return True
        try:
            with _folder_lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(folder)
        except BlockingIOError:
            return False
        parent = os.path.dirname(folder)
        with contextlib.suppress(OSError):  # not empty: other services of that run are there
            os.rmdir(parent)
        return True

    def leftovers(self) -> List[Leftover]:
        """All snapshots and deliveries on this host, oldest first."""
        found = []
        for kind in ("snapshots", "restore"):
            base = os.path.join(self.directory, kind)
            for run in sorted(os.listdir(base)) if os.path.isdir(base) else []:
                for service in sorted(os.listdir(os.path.join(base, run))):
                    path = os.path.join(base, run, service)
                    age = int(time.time() - os.lstat(path).st_mtime)
                    found.append(Leftover(kind, run, service, path, age))
        return sorted(found, key=lambda leftover: -leftover.age_seconds)

    def old_snapshots(self, run: str, service: str) -> List[Leftover]:
        """What earlier runs of a service left, and any service's that is too old to be resumed."""
        return [
            leftover
            for leftover in self.leftovers()
            if leftover.kind == "snapshots"
            and leftover.run != run
            and (leftover.service == service or leftover.age_seconds > KEEP_SECONDS)
        ]


@contextlib.contextmanager
def _folder_lock(folder: str, operation: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def write_json(path: str, document: Dict[str, Any]) -> None:
    """Write a document so that a reader sees all of it or nothing."""
    partial = path + ".partial"
    with open(partial, "w") as stream:
        os.chmod(partial, 0o600)
        json.dump(document, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(partial, path)


def read_json(path: str) -> Dict[str, Any]:
    """Read what `write_json` wrote; raises FileNotFoundError if it is not there."""
    with open(path) as stream:
        document = json.load(stream)
    if not isinstance(document, dict):
        raise HostError("%s does not hold a JSON object" % path)
    return document
