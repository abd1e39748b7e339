"""Putting a broker's logs aside while it goes on: hard links, and a length for each.

Segments are only appended to, so the first bytes of one never change: a link and a length are
a snapshot, whatever is appended or deleted afterwards. (A replica may be truncated when another
broker becomes its leader: only of what nobody was promised.) Kafka replaces, renames and
deletes files of a partition at any time, so its folder is looked at again until nothing has
changed between two looks.
"""

import contextlib
import os
import re
import shutil
import stat
import time
from typing import Dict, List, NamedTuple, Optional, Tuple

from host.errors import HostError
from host.packing import free_bytes

PARTITION = re.compile(r"([a-zA-Z0-9._-]{1,249})-(\d+)")
"""A partition's folder. Those of deleted topics and of moves between disks end otherwise
(LocalLog: `-delete`, `-future`, `-stray`)."""

SEGMENT = re.compile(r"\d{20}\.log")
OF_SEGMENT = re.compile(r"\d{20}\.(log|index|timeindex|txnindex)")
KEPT = re.compile(
    r"\d{20}\.(log|index|timeindex|txnindex|snapshot)|leader-epoch-checkpoint|partition\.metadata"
)
"""What a partition is made of. Not `.deleted`, `.cleaned`, `.tmp`: on their way out or unfinished;
not `.kafka_cleanshutdown`: a cut log has to be recovered."""

FIRST = "__consumer_offsets"
LAST = "__transaction_state"
LOOKS = 200
RESERVE_BYTES = 1 << 30


class FrozenPartition(NamedTuple):
    """A partition put aside: its folder in the snapshot, the live one, and the length of each
    file by name. `segments` are names in the order of their offsets."""

    topic: str
    number: int
    log_dir: int
    folder: str
    live: str
    lengths: Dict[str, int]

    @property
    def segments(self) -> List[str]:
        return sorted(name for name in self.lengths if SEGMENT.fullmatch(name))


class Frozen(NamedTuple):
    """All partitions of a broker; `deleted` went away meanwhile; `copied` are log directories
    whose files could not be linked."""

    partitions: List[FrozenPartition]
    deleted: List[str]
    copied: List[str]


def partition_folders(log_dir: str) -> List[Tuple[str, int]]:
    """Topic and number of the partitions in a log directory, consumer offsets first (so that no
    group is ahead of its data), transactions last (so that those whose end is seen somewhere can
    be finished)."""
    found = []
    for entry in os.scandir(log_dir):
        match = PARTITION.fullmatch(entry.name)
        if match and entry.is_dir(follow_symlinks=False):
            found.append((match.group(1), int(match.group(2))))
    return sorted(found, key=lambda item: (item[0] != FIRST, item[0] == LAST, item))


def freeze(log_dirs: List[str], folder: str, run: str) -> Frozen:
    """Put all logs aside; `folder` is the snapshot's own, where copies and pointers to links go.

    Raises HostError if there is no space for copies where links are not possible.
    """
    partitions: List[FrozenPartition] = []
    deleted: List[str] = []
    copied: List[str] = []
    for number, log_dir in enumerate(log_dirs):
        place = _place(log_dir, folder, run, number)
        files = _Files() if place.links else _Copies()
        if not place.links:
            copied.append(log_dir)
            _check_space(log_dir, place.path)
        for topic, partition in partition_folders(log_dir):
            name = "%s-%d" % (topic, partition)
            live = os.path.join(log_dir, name)
            frozen = os.path.join(place.path, name)
            lengths = freeze_folder(live, frozen, files)
            if lengths is None:
                deleted.append(name)
            else:
                partitions.append(FrozenPartition(topic, partition, number, frozen, live, lengths))
    return Frozen(partitions, deleted, copied)


class _Place(NamedTuple):
    path: str
    links: bool


def _place(log_dir: str, folder: str, run: str, number: int) -> _Place:
    """Where a log directory is frozen: beside it if that is the same file system, because a
    folder inside it would keep the broker from starting; else in the snapshot's own folder."""
    parent = os.path.dirname(log_dir)
    beside = os.path.join(parent, ".epibackup-kafka-%s-%d" % (run, number))
    pointer = os.path.join(folder, "links-%d" % number)
    os.symlink(beside, pointer)  # before there is anything: `release` follows it after a kill
    shutil.rmtree(beside, ignore_errors=True)
    if _same_mount(log_dir, parent):
        os.mkdir(beside, 0o700)
        if _can_link(log_dir, beside):
            return _Place(beside, True)
        os.rmdir(beside)
    os.unlink(pointer)
    inside = os.path.join(folder, "copies-%d" % number)
    os.mkdir(inside, 0o700)
    return _Place(inside, False)


def _same_mount(log_dir: str, parent: str) -> bool:
    return not os.path.ismount(log_dir) and os.stat(log_dir).st_dev == os.stat(parent).st_dev


def _can_link(log_dir: str, beside: str) -> bool:
    """Whether a file of the log directory can be linked: not on every file system, and not from
    one bind mount to another."""
    for name in ("meta.properties", "recovery-point-offset-checkpoint"):
        probe = os.path.join(beside, "probe")
        try:
            os.link(os.path.join(log_dir, name), probe)
        except FileNotFoundError:
            continue
        except OSError:
            return False
        os.unlink(probe)
        return True
    return False


def release(folder: str) -> None:
    """Remove what `freeze` put beside log directories."""
    for name in os.listdir(folder):
        if name.startswith("links-"):
            place = os.readlink(os.path.join(folder, name))
            if os.path.basename(place).startswith(".epibackup-kafka-"):
                shutil.rmtree(place, ignore_errors=True)


def _check_space(log_dir: str, place: str) -> None:
    needed = 0
    for parent, _, files in os.walk(log_dir):
        for name in files:
            try:
                needed += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    free = free_bytes(place)
    if free - RESERVE_BYTES < needed:
        raise HostError(
            "%s cannot be linked, because it is a mount point or its file system has no hard "
            "links; its copy needs %d MiB, and %s has %d MiB free"
            % (log_dir, needed >> 20, place, free >> 20),
            "free space, or set epibackup:host_directory to a folder on a larger disk; best of "
            "all, have log.dirs name a folder below the mount point",
        )


class _Files:
    """Files taken by hard links, which grow with their files."""

    def take(self, live: str, frozen: str) -> int:
        """Put a file aside; returns the inode of what was taken, because the live name may be
        another file's by now. Raises FileNotFoundError if it is gone."""
        os.link(live, frozen)
        return os.stat(frozen).st_ino

    def complete(self, live: str, frozen: str) -> bool:
        """Take what was appended since; whether there was any."""
        del live, frozen
        return False


class _Copies(_Files):
    """Files taken by copies: most of them in the first look, what has changed in the next."""

    def take(self, live: str, frozen: str) -> int:
        with open(live, "rb", buffering=0) as source, open(frozen, "wb", buffering=0) as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
            status = os.fstat(source.fileno())
        os.chown(frozen, status.st_uid, status.st_gid)
        return status.st_ino

    def complete(self, live: str, frozen: str) -> bool:
        done = os.path.getsize(frozen)
        if os.path.getsize(live) <= done:
            return False
        with open(live, "rb", buffering=0) as source, open(frozen, "ab", buffering=0) as copy:
            source.seek(done)
            shutil.copyfileobj(source, copy, 1 << 20)
        return True


def freeze_folder(live: str, frozen: str, files: _Files) -> Optional[Dict[str, int]]:
    """Put one partition aside; returns the length of each file, None if it was deleted meanwhile.

    Raises HostError if it changes faster than it can be taken.
    """
    had: Dict[str, int] = {}
    os.mkdir(frozen, 0o700)
    with contextlib.suppress(FileNotFoundError):  # the first look finds that it is gone
        status = os.stat(live)
        os.chown(frozen, status.st_uid, status.st_gid)
        os.chmod(frozen, stat.S_IMODE(status.st_mode))
    for _ in range(LOOKS):
        seen = _look(live)
        if seen is None:
            shutil.rmtree(frozen)
            return None
        if any(name.endswith(".swap") for name in seen):
            time.sleep(0.05)  # the cleaner is putting a segment in the place of others
            continue
        wanted = {name: inode for name, inode in seen.items() if _is_kept(name, seen)}
        if wanted == had and not _complete(live, frozen, sorted(had), files):
            return {name: os.path.getsize(os.path.join(frozen, name)) for name in sorted(had)}
        for name in [name for name in had if wanted.get(name) != had[name]]:
            os.unlink(os.path.join(frozen, name))
            del had[name]
        for name in sorted(set(wanted) - set(had)):
            target = os.path.join(frozen, name)
            try:
                had[name] = files.take(os.path.join(live, name), target)
            except FileNotFoundError:
                if os.path.lexists(target):
                    os.unlink(target)
    raise HostError(
        "the segments of %s change faster than they can be put aside" % live,
        "run again when the log cleaner has less to do",
    )


def _look(live: str) -> Optional[Dict[str, int]]:
    """The files of a partition's folder and their inodes; None if it is gone."""
    try:
        return {entry.name: os.stat(entry.path).st_ino for entry in os.scandir(live)}
    except FileNotFoundError:
        if os.path.isdir(live):
            return _look(live)  # a file went away between listing and looking
        return None


def _is_kept(name: str, names: Dict[str, int]) -> bool:
    """Whether a file belongs to the snapshot. The indexes of the newest segment do not: they are
    written in place, and made again when the log is recovered."""
    if not KEPT.fullmatch(name):
        return False
    if OF_SEGMENT.fullmatch(name) and not name.endswith(".log"):
        newest = max((other for other in names if SEGMENT.fullmatch(other)), default="")
        return name[:20] != newest[:20]
    return True


def _complete(live: str, frozen: str, names: List[str], files: _Files) -> bool:
    """Take what was appended to segments that are no longer the newest; whether there was any.
    The newest is cut where it is."""
    grown = False
    for name in [name for name in names if SEGMENT.fullmatch(name)][:-1]:
        with contextlib.suppress(FileNotFoundError):  # the next look finds that it is gone
            grown |= files.complete(os.path.join(live, name), os.path.join(frozen, name))
    return grown
