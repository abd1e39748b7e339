"""ZooKeeper's files on disk: snapshots that are whole, and transaction logs up to their last
whole entry (FileSnap, FileTxnLog of 3.4 to 3.9)."""

import os
import re
import struct
import zlib
from typing import List, NamedTuple, Optional, Tuple

SNAPSHOT = re.compile(r"snapshot\.([0-9a-f]+)")
LOG = re.compile(r"log\.([0-9a-f]+)")
SNAPSHOT_MAGIC = b"ZKSN"
LOG_MAGIC = b"ZKLG"
LOG_HEADER_BYTES = 16
SEAL = b"\0\0\0\1/"
"""The end of a snapshot: behind its checksum, the text "/" with its length."""

EPOCHS = ("currentEpoch", "acceptedEpoch")


class Log(NamedTuple):
    """A transaction log: its path, its length up to the last whole entry, and that one's
    transaction id; None if it has no entry."""

    path: str
    length: int
    last: Optional[int]


def newest_snapshot(folder: str) -> Optional[str]:
    """The path of the newest whole snapshot in a version-2 folder; None if there is none."""
    for _, name in sorted(_numbered(folder, SNAPSHOT), reverse=True):
        path = os.path.join(folder, name)
        try:
            if is_whole(path):
                return path
        except FileNotFoundError:
            continue  # purged meanwhile
    return None


def has_snapshots(folder: str) -> bool:
    """Whether a version-2 folder has any snapshot, whole or not."""
    return bool(_numbered(folder, SNAPSHOT))


def is_whole(path: str) -> bool:
    """Whether a snapshot was written to its end: its seal is there and its checksum is right.

    Snapshots that are compressed (snapshot.compression.method, 3.6) have other names.
    """
    with open(path, "rb") as stream:
        if stream.read(4) != SNAPSHOT_MAGIC:
            return False
        stream.seek(0, os.SEEK_END)
        size = stream.tell()
        if size < 4 + 8 + len(SEAL):
            return False
        stream.seek(size - 8 - len(SEAL))
        (expected,) = struct.unpack(">q", stream.read(8))
        if stream.read() != SEAL:
            return False
        stream.seek(0)
        checksum, left = 1, size - 8 - len(SEAL)
        while left:
            chunk = stream.read(min(left, 1 << 20))
            checksum = zlib.adler32(chunk, checksum)
            left -= len(chunk)
        return checksum == int(expected)


def zxid_of(path: str) -> int:
    """The transaction id in a file's name."""
    return int(os.path.basename(path).partition(".")[2], 16)


def logs_since(folder: str, zxid: int) -> List[str]:
    """The logs that hold all transactions after `zxid`: the last one that begins at or before it,
    and those after; oldest first."""
    numbered = sorted(_numbered(folder, LOG))
    before = [item for item in numbered if item[0] <= zxid]
    after = [item for item in numbered if item[0] > zxid]
    return [os.path.join(folder, name) for _, name in [*before[-1:], *after]]


def _numbered(folder: str, pattern: "re.Pattern[str]") -> List[Tuple[int, str]]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    matches = [(pattern.fullmatch(name), name) for name in names]
    return [(int(match.group(1), 16), name) for match, name in matches if match]


def read_log(path: str) -> Log:
    """Where a log's last whole entry ends; what is behind was being written, or is padding.

    An entry is its checksum (8 bytes), length (4), transaction – which begins with session (8),
    number (4) and transaction id (8) – and 0x42.
    """
    with open(path, "rb") as stream:
        if stream.read(4) != LOG_MAGIC:
            return Log(path, 0, None)
        end, last = LOG_HEADER_BYTES, None
        stream.seek(end)
        while True:
            header = stream.read(12)
            if len(header) < 12:
                break
            checksum, length = struct.unpack(">qi", header)
            if length <= 0:
                break
            entry = stream.read(length + 1)
            if len(entry) <= length or entry[-1:] != b"B":
                break
            if zlib.adler32(entry[:length]) != checksum:
                break
            (last,) = struct.unpack_from(">q", entry, 12)
            end += 12 + length + 1
        return Log(path, end, last)
