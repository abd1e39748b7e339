"""What is no longer as it was made or told: storage, its protection, and the archives."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from components.archive.collector import size_text
from components.archive.naming import ARCHIVE, cluster_label
from components.archive.reader import open_archive
from components.errors import EpibackupError, NotFound, TargetUnreachable
from components.posture.judging import posture_of, weaker
from components.storage.posture import posture
from components.storage.target import Target
from program.gate import STORAGE
from program.plan import Plan
from program.posture import request_of, weak_before
from program.preview import Change

READERS = 8
"""Archives that are looked at the same time."""

Kind = Literal["storage", "protection", "archive"]
Level = Literal["drift", "note", "unknown"]


class Difference(BaseModel):
    """Something that is not as it was.

    level: drift is what somebody has to look at, note what may be meant so, unknown what could
    not be looked at.
    remedy: what to do.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    what: str
    level: Level
    message: str
    remedy: str


def storage_differences(changes: Sequence[Change]) -> list[Difference]:
    """What providers say of the resources that the stack has made."""
    found = []
    for change in changes:
        if change.type.startswith("pulumi:"):  # such as the stack's reference to itself
            continue
        kind = change.type.rpartition(":")[2]
        if change.op == "delete":
            message, remedy = "is gone", "make it again: pulumi up --refresh"
        else:
            properties = ", ".join(change.properties) or "something"
            message = f"was changed behind Pulumi's back: {properties}"
            remedy = "put it right: pulumi up --refresh; or change the configuration"
        level: Level = "drift" if STORAGE.fullmatch(change.type) else "note"
        found.append(
            Difference(
                kind="storage",
                what=f"{kind} {change.name}",
                level=level,
                message=message,
                remedy=remedy,
            )
        )
    return found


def protection_differences(plan: Plan, before: Mapping[str, Any] | None) -> list[Difference]:
    """How the target is protected, against how it was at the last run.

    before: the output `posture` of the last run; None if there is none.
    """
    request = request_of(plan)
    found = posture_of(
        posture(plan.target, plan.settings.target_options(), request["minimum_days"])
    )
    worse = {item.id for item in weaker(found, weak_before(plan, before), plan.settings.accept)}
    differences = []
    for item in found.findings:
        level: Level = "unknown" if item.level == "unknown" else "note"
        message = item.message
        if item.id in worse:
            level = "drift"
        elif item.level == "weak":
            accepted = item.id in plan.settings.accept
            message += " (accepted)" if accepted else " (as at the last run)" if before else ""
        differences.append(
            Difference(
                kind="protection", what=item.id, level=level, message=message, remedy=item.remedy
            )
        )
    return differences


def archive_differences(
    target: Target, catalog: Sequence[Mapping[str, Any]], cluster: str
) -> list[Difference]:
    """Archives that the catalog has and the target has not, or not the same; and the other way
    round. Raises TargetUnreachable if the target cannot be listed."""
    names = target.names()
    present = set(names)

    def look(entry: Mapping[str, Any]) -> Difference | None:
        return _archive_difference(target, entry, entry["key"] in present)

    with ThreadPoolExecutor(READERS) as pool:
        found = [difference for difference in pool.map(look, catalog) if difference]
    known = {entry["key"] for entry in catalog}
    for name in names:
        match = ARCHIVE.fullmatch(name)
        if match and match["cluster"] == cluster_label(cluster) and name not in known:
            found.append(
                Difference(
                    kind="archive",
                    what=name,
                    level="note",
                    message="is on the target, and this stack does not know it",
                    remedy="take it into the catalog: epibackup catalog rebuild",
                )
            )
    return found


def _archive_difference(
    target: Target, entry: Mapping[str, Any], is_present: bool
) -> Difference | None:
    key = entry["key"]

    def drift(message: str, remedy: str) -> Difference:
        return Difference(kind="archive", what=key, level="drift", message=message, remedy=remedy)

    lost = "bring it back from a copy or an old version; then, or if it was meant so: "
    lost += "epibackup catalog rebuild"
    if not is_present:
        return drift("is in the catalog, and gone from the target", lost)
    try:
        size = target.size(key)
        if size != entry["bytes"]:
            message = f"has {size_text(size)} and had {size_text(entry['bytes'])}"
            return drift(f"{message}: it is not what was stored", lost)
        with open_archive(target, key) as reader:
            digest = hashlib.sha256(reader.manifest_bytes()).hexdigest()
    except NotFound:
        return drift("is in the catalog, and gone from the target", lost)
    except TargetUnreachable as error:
        return Difference(
            kind="archive", what=key, level="unknown", message=error.message, remedy=error.hint
        )
    except EpibackupError as error:
        return drift(error.message, lost)
    if digest != entry["sha256"]:
        return drift("has another manifest than the one that was stored", lost)
    return None
