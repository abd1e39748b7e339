"""What is on a target, as the retention policy looks at it."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from components.archive.manifest import Manifest
from components.archive.naming import ARCHIVE, cluster_label, run_time
from components.archive.reader import open_archive
from components.errors import EpibackupError, NotFound
from components.retention.holds import UNREADABLE, held_keys, read_hold
from components.retention.judging import Entry
from components.service import service_types
from components.storage.target import Target

READERS = 8
"""Manifests that are read at the same time."""

READ_BACK = timedelta(days=1)
"""An archive that a stack's catalog does not have, such as another machine's, may be one that is
being read back right now, and is removed if that fails. When its run is this old, it counts."""


@dataclass(frozen=True)
class Known:
    """What is known besides what the target says.

    cluster: whose archives are read. as_of: the time of the run that asks, UTC.
    verified: of which archives it is known whether they were read back, by key.
    """

    cluster: str
    as_of: datetime
    verified: Mapping[str, bool]


def read_entries(target: Target, known: Known) -> list[Entry]:
    """The archives whose names are of a cluster, with what their manifests say.

    One that goes away meanwhile is left out. Raises TargetUnreachable if the target cannot even
    be listed.
    """
    names = target.names()
    held = set(held_keys(names))
    service_types()  # found once, before the threads ask for them

    def read(name: str) -> Entry | None:
        entry = _named(name, known.cluster)
        try:
            return entry and _read(target, entry, known, held)
        except NotFound:
            return None

    with ThreadPoolExecutor(READERS) as pool:
        return [entry for entry in pool.map(read, names) if entry]


def _named(name: str, cluster: str) -> Entry | None:
    """What a name tells; None if it is no archive of ours and of this cluster."""
    match = ARCHIVE.fullmatch(name)
    if not match or match["cluster"] != cluster_label(cluster):
        return None
    try:
        made = run_time(match["run"])
    except ValueError:  # looks like a run and is none: 20261399T000000Z
        return None
    return Entry(
        key=name,
        run=match["run"],
        made=made,
        cluster=match["cluster"],
        bytes=0,
        status=None,
        number=int(match["number"] or 0),
    )


def _read(target: Target, entry: Entry, known: Known, held: set[str]) -> Entry:
    """Raises NotFound if the archive is gone."""
    entry = replace(
        entry,
        bytes=target.size(entry.key),
        hold=_reason(target, entry.key) if entry.key in held else None,
    )
    try:
        with open_archive(target, entry.key) as reader:
            manifest = reader.manifest()
    except NotFound:
        raise
    except EpibackupError as error:
        return replace(entry, problem=error.message)
    except Exception as error:  # whatever somebody has put there: it stays, and the run goes on
        return replace(entry, problem=f"{type(error).__name__}: {error}")
    if manifest.run != entry.run:
        return replace(entry, problem=f"its manifest is of the run {manifest.run}")
    return replace(
        entry,
        cluster=manifest.cluster,
        status=manifest.status,
        services=frozenset(service.name for service in manifest.services if service.status == "ok"),
        inventory=services_of(manifest),
        verified=known.verified.get(entry.key, known.as_of - entry.made >= READ_BACK),
    )


def services_of(manifest: Manifest) -> frozenset[str]:
    """The services that a cluster had on the day of an archive, saved or not."""
    asked_for = {service.name for service in manifest.services}
    return in_groups(manifest.inventory) | asked_for


def in_groups(groups: Mapping[str, list[str]]) -> frozenset[str]:
    """The services that hosts of an inventory's groups have."""
    return frozenset(
        name
        for name, kind in service_types().items()
        if any(groups.get(group) for group in kind.groups)
    )


def _reason(target: Target, key: str) -> str | None:
    try:
        found = read_hold(target, key)
    except NotFound:  # released just now
        return None
    return found.reason if found else UNREADABLE
