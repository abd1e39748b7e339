"""Which compression a host can do, and the programs that do it."""

import os
import sys
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Deque, List, NamedTuple, Optional

from host import command
from host.errors import HostError

BLOCK_BYTES = 4 << 20
"""What one thread of the gzip filter compresses at a time."""

SUFFIXES = {"zstd": ".zst", "gzip": ".gz", "none": ""}


class Compression(NamedTuple):
    """method: zstd, gzip or none; level: as the method's own program understands it."""

    method: str
    level: int


def choose(method: str, level: Optional[int]) -> Compression:
    """The compression for this host.

    method: auto (zstd where it is installed, else gzip), zstd, gzip or none.
    level: None for the method's usual one (zstd 3, gzip 6).
    Raises HostError if zstd is asked for by name and not installed.
    """
    if method == "auto":
        method = "zstd" if command.find("zstd") else "gzip"
    if method == "zstd" and not command.find("zstd"):
        raise HostError(
            "zstd is missing on this host",
            "install zstd, or set epibackup:compression method to auto or gzip",
        )
    if level is None:
        level = {"zstd": 3, "gzip": 6}.get(method, 0)
    return Compression(method, level)


def compressor(compression: Compression) -> Optional[List[str]]:
    """The program that compresses its standard input on all cores; None for method none.

    zstd writes a checksum of the content into each frame (zstd(1), --check, its default).
    """
    if compression.method == "zstd":
        return ["zstd", "-q", "-c", "-T0", "-%d" % compression.level]
    if compression.method == "gzip":
        if command.find("pigz"):
            return ["pigz", "-c", "-%d" % compression.level]
        return [sys.executable, sys.argv[0], "gzip", "--level", str(compression.level)]
    return None


def decompressor(path: str) -> Optional[List[str]]:
    """The program that decompresses a stored file of that name; None if it is not compressed.

    Raises HostError if the host lacks it.
    """
    for suffix, program in ((".zst", "zstd"), (".gz", "gzip")):
        if path.endswith(suffix):
            if not command.find(program):
                raise HostError(
                    "%s is missing on this host, and %s was made with it" % (program, path),
                    "install %s" % program,
                )
            return [program, "-d", "-q", "-c"]
    return None


def gzip_filter(source: IO[bytes], destination: IO[bytes], level: int) -> None:
    """Compress `source` to `destination` on all cores, as gzip members one after the other.

    Concatenated members are one valid gzip file (RFC 1952, section 2.2). Memory is about
    four blocks a core.
    """
    cores = os.cpu_count() or 1

    def member(block: bytes) -> bytes:
        packer = zlib.compressobj(level, zlib.DEFLATED, 31)
        return packer.compress(block) + packer.flush()

    with ThreadPoolExecutor(cores) as pool:
        pending: Deque[Future[bytes]] = deque()
        block = source.read(BLOCK_BYTES)
        empty = not block
        while block or pending:
            if block and len(pending) < 2 * cores:
                pending.append(pool.submit(member, block))
                block = source.read(BLOCK_BYTES)
                continue
            destination.write(pending.popleft().result())
        if empty:
            destination.write(member(b""))
    destination.flush()
