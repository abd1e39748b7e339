"""Finding runs on the target: the truth about what can be restored."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from components.archive.manifest import Manifest
from components.archive.naming import ARCHIVE, checked_run
from components.archive.reader import open_archive
from components.errors import NotFound, TargetUnreachable, UsageError, VerificationFailed
from components.storage.target import Target


@dataclass(frozen=True)
class Run:
    """An archive on the target. manifest: None if it cannot be read; problem says why."""

    run: str
    key: str
    cluster: str
    bytes: int
    manifest: Manifest | None
    problem: str


def list_runs(target: Target, cluster: str | None = None) -> Iterator[Run]:
    """All archives of the target, newest first; other files are left out.

    cluster: only those of that cluster (as in archive names); None for all.
    """
    for key in sorted(target.names(), key=_order, reverse=True):
        match = ARCHIVE.fullmatch(key)
        if match and cluster in (None, match["cluster"]):
            run = _read(target, key, match["run"], match["cluster"])
            if run:
                yield run


def find_run(target: Target, wanted: str, cluster: str | None, services: list[str]) -> Run:
    """The run with that id, or – for `latest` – the newest that has the services complete.

    services: empty for all that a run has. Raises NotFound, or what is wrong with the archive.
    """
    if wanted != "latest":
        checked_run(wanted)
        keys = [key for key in target.names() if _is(key, wanted, cluster)]
        if not keys:
            raise NotFound(f"there is no run {wanted} in {target.url}", "epibackup list shows them")
        # Of several archives of a run the last one is the most complete.
        key = max(keys, key=_order)
        match = ARCHIVE.fullmatch(key)
        return _opened(target, key, wanted, match["cluster"] if match else "")
    for run in list_runs(target, cluster):
        if run.manifest and _has(run.manifest, services):
            return run
    needed = f" with {', '.join(services)} complete" if services else ""
    raise NotFound(f"there is no run{needed} in {target.url}", "epibackup list shows them")


def _has(manifest: Manifest, services: list[str]) -> bool:
    complete = {service.name for service in manifest.services if service.status == "ok"}
    if services:
        return set(services) <= complete
    return manifest.status == "ok"


def _is(key: str, run: str, cluster: str | None) -> bool:
    match = ARCHIVE.fullmatch(key)
    return match is not None and match["run"] == run and cluster in (None, match["cluster"])


def _order(key: str) -> tuple[str, int, str]:
    """Archives in the order they were made: by run, then by the number behind it."""
    match = ARCHIVE.fullmatch(key)
    if not match:
        return ("", 0, key)
    return (match["run"], int(match["number"] or 0), key)


def _opened(target: Target, key: str, run: str, cluster: str) -> Run:
    with open_archive(target, key) as reader:
        return Run(run, key, cluster, target.size(key), reader.manifest(), "")


def _read(target: Target, key: str, run: str, cluster: str) -> Run | None:
    """An archive, readable or not; None if another machine's retention has just removed it."""
    with contextlib.suppress(NotFound):
        problem = ""
        try:
            return _opened(target, key, run, cluster)
        except (VerificationFailed, UsageError, TargetUnreachable) as error:
            problem = error.message
        return Run(run, key, cluster, target.size(key), None, problem)
    return None
