"""Names: of runs, archives, members and parts."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from components.archive.container import SUFFIXES
from components.errors import UsageError

RUN = re.compile(r"\d{8}T\d{6}Z")
ARCHIVE = re.compile(
    r"epibackup_(?P<cluster>[^_]+)_(?P<run>\d{8}T\d{6}Z)(?:_(?P<number>\d+))?(?P<suffix>\.zip|\.tar\.gz)"
)


def new_run() -> str:
    """A run id for now: its UTC time, such as 20261122T013000Z."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def checked_run(run: str) -> str:
    """A run id that somebody gave; raises UsageError if it is none."""
    try:
        run_time(run)
    except ValueError:
        raise UsageError(
            f"{run!r} is no run id", "a run id is a UTC time such as 20261122T013000Z"
        ) from None
    return run


def run_time(run: str) -> datetime:
    """The time of a run, UTC; raises ValueError if it is no run id."""
    if not RUN.fullmatch(run):
        raise ValueError(run)
    return datetime.strptime(run, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def archive_names(cluster: str, run: str, container: str) -> Iterator[str]:
    """The names an archive may get, in order of preference."""
    stem = f"epibackup_{cluster_label(cluster)}_{run}"
    yield stem + SUFFIXES[container]
    for number in range(1, 1000):
        yield f"{stem}_{number}{SUFFIXES[container]}"


def cluster_label(cluster: str) -> str:
    """A cluster's name as it is used in file names."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", cluster).strip("-.") or "cluster"


def run_of(archive: str) -> str | None:
    """The run that an archive's name tells; None if it is no archive of ours."""
    match = ARCHIVE.fullmatch(archive)
    return match["run"] if match else None


def part_path(member: str, number: int) -> str:
    """The name of a part of a member that is cut: kafka/kafka1/data.tar.zst.0003."""
    return f"{member}.{number:04d}"
