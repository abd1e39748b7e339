"""Removing from a target what the retention policy does not keep."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.archive.collector import size_text
from components.errors import EpibackupError, Interrupted, NotFound
from components.retention.holds import is_held
from components.retention.judging import Entry, Verdict, judge
from components.retention.policy import Retention
from components.retention.reading import Known, read_entries
from components.storage.target import Target

Say = Callable[[str], None]


class Removal(BaseModel):
    """An archive that goes, or went."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    run: str
    bytes: int
    reasons: tuple[str, ...]


class Pruned(BaseModel):
    """What became of a prune.

    not_pruned: why nothing was even looked at; empty if it was.
    kept: how many archives of the cluster stay. unknown: those that cannot be read, with why.
    problems: what could not be removed, or not be found out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    removed: list[Removal] = []
    freed_bytes: int = 0
    kept: int = 0
    unknown: dict[str, str] = {}
    problems: list[str] = []
    not_pruned: str = ""


class Forecast(BaseModel):
    """What a run would remove if it is good. unknown: why that cannot be told; empty if it can."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    removes: list[Removal] = []
    unknown: str = ""

    def lines(self) -> list[str]:
        """The forecast for people; says so, too, where nothing would go."""
        if self.unknown:
            return [f"what this run would remove is unknown: {self.unknown}"]
        if not self.removes:
            return ["retention: this run would remove nothing"]
        return [
            f"would be removed after this run, if it is good: {item.key} "
            f"({size_text(item.bytes)}): {', '.join(item.reasons)}"
            for item in self.removes
        ]


def removal_of(verdict: Verdict) -> Removal:
    """A verdict as it is told."""
    entry = verdict.entry
    return Removal(key=entry.key, run=entry.run, bytes=entry.bytes, reasons=verdict.reasons)


def verdicts_on(
    target: Target, policy: Retention, known: Known, expected: Sequence[Entry] = ()
) -> list[Verdict]:
    """What the policy says of the archives on a target, newest first.

    expected: archives that will be there. Raises TargetUnreachable.
    """
    entries = [*read_entries(target, known), *expected]
    verdicts = judge(entries, policy, known.cluster, known.as_of)
    # Asking for locks may cost a request each: only of what would go.
    locked = {
        verdict.entry.key: replace(verdict.entry, locked_until=_lock(target, verdict.entry.key))
        for verdict in verdicts
        if not verdict.keep
    }
    entries = [locked.get(entry.key, entry) for entry in entries]
    return judge(entries, policy, known.cluster, known.as_of)


def remove(target: Target, verdicts: Sequence[Verdict], say: Say) -> Pruned:
    """Remove what the verdicts let go, the oldest first.

    An archive that the target does not let go is no reason to keep the others; a target that no
    longer answers ends it. An archive that was held since it was judged stays.
    """
    removed: list[Removal] = []
    problems: list[str] = []
    for verdict in reversed([verdict for verdict in verdicts if not verdict.keep]):
        key = verdict.entry.key
        try:
            if _remove(target, verdict.entry):
                removed.append(removal_of(verdict))
                say(f"removed {key}: {', '.join(verdict.reasons)}")
            else:
                say(f"kept {key}: it was held, locked or changed just now")
        except Interrupted:
            raise
        except EpibackupError as error:
            problems.append(f"{key} could not be removed: {error.message}" + _hint(error))
            if not _answers(target):
                break
    stay = [verdict for verdict in verdicts if verdict.keep]
    return Pruned(
        removed=removed,
        freed_bytes=sum(item.bytes for item in removed),
        kept=len(verdicts) - len(removed),
        unknown={
            verdict.entry.key: verdict.entry.problem
            for verdict in stay
            if verdict.entry.status is None
        },
        problems=problems,
    )


def _answers(target: Target) -> bool:
    try:
        target.names()
    except EpibackupError:
        return False
    return True


def _lock(target: Target, key: str) -> datetime | None:
    """Until when an archive is locked; None if it is not, or is gone."""
    try:
        return target.locked_until(key)
    except NotFound:
        return None


def _remove(target: Target, entry: Entry) -> bool:
    """Remove one archive; False if it stays, or has gone already."""
    try:
        if is_held(target, entry.key) or target.size(entry.key) != entry.bytes:
            return False
        target.delete(entry.key)
    except NotFound:  # another machine was faster
        return False
    except EpibackupError:
        locked = _lock(target, entry.key)
        if locked and locked > datetime.now(UTC):
            return False
        raise
    return True


def _hint(error: EpibackupError) -> str:
    return f" ({error.hint})" if error.hint else ""


def forecast(
    target: Target,
    policy: Retention,
    known: Known,
    services: frozenset[str],
    groups: frozenset[str],
) -> Forecast:
    """What a good run of these services would remove, as far as it can be told now.

    known: of the run that is to come. groups: all services of the inventory.
    """
    coming = Entry(
        key=f"the archive of run {known.as_of:%Y%m%dT%H%M%SZ}",
        run=f"{known.as_of:%Y%m%dT%H%M%SZ}",
        made=known.as_of,
        cluster=known.cluster,
        bytes=0,
        status="ok",
        services=services,
        inventory=groups,
    )
    try:
        verdicts = verdicts_on(target, policy, known, [coming])
    except EpibackupError as error:
        return Forecast(unknown=f"the target cannot be read: {error.message}")
    return Forecast(removes=[removal_of(verdict) for verdict in verdicts if not verdict.keep])


def as_document(verdict: Verdict) -> dict[str, Any]:
    """A verdict as `--json` prints it."""
    entry = verdict.entry
    return {
        "key": entry.key,
        "run": entry.run,
        "bytes": entry.bytes,
        "status": entry.status or "unknown",
        "keep": verdict.keep,
        "reasons": list(verdict.reasons),
    }
