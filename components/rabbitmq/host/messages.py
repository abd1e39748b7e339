"""A node's data directory, copied while the node is stopped for a moment.

Most of it is copied before, while the node runs; when it is stopped, only what has changed since
is copied again. Not hard links: the node writes into its files in place.
"""

import os
import shutil
import stat
import time
from typing import Any, Dict, List, NamedTuple, Optional

from host.errors import HostError
from host.packing import free_bytes, outermost

RACY_SECONDS = 3
"""A file changed this shortly before it was looked at may change again within one tick of its
clock; it counts as changed."""
RESERVE_BYTES = 256 << 20


class Copied(NamedTuple):
    """What `copy` has done; files and bytes are those copied this time, total_bytes is all."""

    files: int
    bytes: int
    total_bytes: int


def data_paths(described: Dict[str, Any]) -> List[str]:
    """Where a node keeps its messages: its data directory, and what was moved out of it."""
    data = described["data"]
    others = [described.get(key) for key in ("quorum_data", "stream_data", "feature_flags")]
    feature_flags = data + "-feature_flags"  # its default place (rabbit_env, since 3.8)
    paths = [data, *(path for path in [*others, feature_flags] if path)]
    return outermost([path for path in paths if os.path.lexists(path)])


def size_of(paths: List[str]) -> int:
    """The size of all files in and below paths, in bytes; they may change meanwhile."""
    return sum(os.lstat(path).st_size for path in _existing(paths) if os.path.isfile(path))


def require_space(paths: List[str], folder: str) -> None:
    """Raise HostError if a copy of `paths` would fill the disk of `folder`."""
    needed, free = size_of(paths), free_bytes(folder)
    if free - RESERVE_BYTES < needed:
        raise HostError(
            "a copy of the messages needs %d MiB, and %s has %d MiB free"
            % (needed >> 20, folder, free >> 20),
            "free space, or set epibackup:host_directory to a folder on a larger disk",
        )


def copy(paths: List[str], destination: str, final: bool) -> Copied:
    """Make `destination` hold copies of files and folders, each at its own path without the first
    slash; a second call copies only what has changed, and removes what is gone.

    final: the node is stopped. While it runs, files come and go.
    """
    begun = time.time()
    files = copied = total = 0
    wanted = set()
    for path in _existing(paths):
        target = os.path.join(destination, path.lstrip("/"))
        wanted.add(target)
        try:
            status = os.lstat(path)
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
            if _is_copied(status, target, begun):
                continue
            copied += _copy_entry(path, status, target, None if final else begun)
            files += 1
        except FileNotFoundError:
            if final:
                raise
    _remove_others(destination, wanted)
    return Copied(files, copied, total)


def _existing(paths: List[str]) -> List[str]:
    """Paths, the folders above them, and all below them; parents first."""
    found = []
    for path in paths:
        parts = path.strip("/").split("/")
        found += ["/" + "/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        for parent, folders, files in os.walk(path):
            found += [os.path.join(parent, name) for name in sorted(folders + files)]
    return list(dict.fromkeys(found))


def _is_copied(status: os.stat_result, target: str, begun: float) -> bool:
    if not stat.S_ISREG(status.st_mode) or status.st_mtime > begun - RACY_SECONDS:
        return False
    try:
        there = os.lstat(target)
    except FileNotFoundError:
        return False
    # The copy carries the time of the file as it was before it was copied.
    return (there.st_size, there.st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def _copy_entry(path: str, status: os.stat_result, target: str, begun: Optional[float]) -> int:
    """Copy one file, folder or link; returns the bytes copied.

    begun: when the copying of a node that runs was begun; None for a stopped one.
    """
    if stat.S_ISDIR(status.st_mode):
        os.makedirs(target, exist_ok=True)
    elif stat.S_ISREG(status.st_mode):
        shutil.copyfile(path, target, follow_symlinks=False)
    elif stat.S_ISLNK(status.st_mode):
        if os.path.lexists(target):
            os.unlink(target)
        os.symlink(os.readlink(path), target)
    else:
        return 0  # sockets and pipes hold no data
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return 0
    os.chmod(target, stat.S_IMODE(status.st_mode))
    # What changed just now gets a time that no file has, so that it is copied again.
    fresh = begun is not None and status.st_mtime > begun - RACY_SECONDS
    os.utime(target, ns=(status.st_atime_ns, 0 if fresh else status.st_mtime_ns))
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _remove_others(destination: str, wanted: Any) -> None:
    for parent, folders, files in os.walk(destination, topdown=False):
        for name in files + folders:
            path = os.path.join(parent, name)
            if path not in wanted:
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)
