"""Mixed data for hosts: half logs, a quarter programs and libraries, a quarter random bytes.

In large files, as the services that have much data keep it: segments, dumps, blocks.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
SET_BYTES = 512 * MIB
"""The data is made once in this size and copied: copies are farther apart than the window that
zstd -3 and gzip look back through (2 MiB, 32 KiB), so they compress like new data."""

_FILE_BYTES = 64 * MIB
_WORDS = (
    *("GET", "POST", "order", "customer", "invoice", "timeout", "accepted", "refused", "retry"),
    *("partition", "leader", "replica", "checkpoint", "connection", "session", "commit", "queue"),
)


def make_set(folder: Path, programs: Path) -> None:
    """Make one set of mixed data below `folder`, the same on every call.

    programs: a tree to take real programs and libraries from, of at least 128 MiB.
    """
    chance = random.Random(20261122)  # noqa: S311 - data for a benchmark, not a secret
    (folder / "logs").mkdir(parents=True)
    for number in range(SET_BYTES // 2 // _FILE_BYTES):
        with (folder / "logs" / f"service-{number}.log").open("w") as file:
            file.writelines(_log_lines(chance, _FILE_BYTES))
    (folder / "random").mkdir()
    for number in range(SET_BYTES // 4 // _FILE_BYTES):
        (folder / "random" / f"{number}.bin").write_bytes(chance.randbytes(_FILE_BYTES))
    (folder / "programs").mkdir()
    _join_programs(programs, folder / "programs", SET_BYTES // 4)


def fill(folder: Path, copies: int, data_set: Path) -> int:
    """Put copies of a set below `folder`; returns how many bytes of files are there."""
    for number in range(copies):
        shutil.copytree(data_set, folder / f"set-{number}")
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _log_lines(chance: random.Random, size: int) -> Iterator[str]:
    moment = 1767225600.0
    written = 0
    while written < size:
        moment += chance.random()
        words = " ".join(chance.choices(_WORDS, k=6))
        line = (
            f"{moment:.3f} host{chance.randrange(40)} service[{chance.randrange(30000)}]: "
            f"{words} id={chance.getrandbits(64):016x} took={chance.randrange(5000)}ms\n"
        )
        written += len(line)
        yield line


def _join_programs(source: Path, folder: Path, size: int) -> None:
    """Write real programs and libraries one after the other into files of 64 MiB."""
    copied = 0
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with (folder / f"{copied // _FILE_BYTES}.bin").open("ab") as file:
                file.write(path.read_bytes())
            copied += path.stat().st_size
            if copied >= size:
                return
    raise ValueError(f"{source} has less than {size} bytes of files")
