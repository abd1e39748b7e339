"""Which archives stay and which go: a pure function of archives, policy and time.

Rules are applied to each service by itself, so that an archive of one service never takes the
place of one that has them all: an archive stays if one of its services needs it.

Good is what is complete (the run's status is `ok`) and was read back. Only good archives are
counted. An incomplete one stands in for a day, week, month or year that has no good one, without
being counted, and stays as long as nothing good is newer.

Whatever is not known to be safe to remove stays: another cluster's, unreadable ones, those that
are newer than the run that prunes, held, locked, and younger than the minimum.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from components.archive.naming import cluster_label
from components.retention.policy import Retention

NOT_KEPT = "no rule keeps it"

FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Entry:
    """An archive on the target, as far as it is known.

    made: the time of its run, UTC; number: the one behind the run in its name.
    cluster: as its manifest says; of one that cannot be read, as its name says.
    status: its run's; None if the archive cannot be read, and then `problem` says why.
    services: those that are complete in it. inventory: those that the cluster had that day.
    verified: whether it was read back, as far as is known.
    hold: why a person wants it to stay; None if nobody does.
    locked_until: until when the target itself refuses to remove it.
    """

    key: str
    run: str
    made: datetime
    cluster: str
    bytes: int
    status: Literal["ok", "incomplete"] | None
    services: frozenset[str] = frozenset()
    inventory: frozenset[str] = frozenset()
    verified: bool = True
    number: int = 0
    hold: str | None = None
    locked_until: datetime | None = None
    problem: str = ""

    @property
    def is_good(self) -> bool:
        """Whether a person could rely on it."""
        return self.status == "ok" and self.verified

    @property
    def order(self) -> tuple[datetime, int, str]:
        """Archives in the order they were made."""
        return (self.made, self.number, self.key)


@dataclass(frozen=True)
class Verdict:
    """What becomes of an archive, and why: at least one reason."""

    entry: Entry
    keep: bool
    reasons: tuple[str, ...]


def judge(
    entries: Iterable[Entry], policy: Retention, cluster: str, as_of: datetime
) -> list[Verdict]:
    """One verdict for each entry, newest first.

    cluster: whose archives the policy is about, as its manifests name it.
    as_of: the time of the run that prunes, UTC; archives of later runs stay, and are not counted.
    """
    newest_first = sorted(entries, key=lambda entry: entry.order, reverse=True)
    spared = {entry.key: _spared(entry, policy, cluster, as_of) for entry in newest_first}
    judged = [entry for entry in newest_first if not spared[entry.key]]
    wanted = _wanted(judged, policy)
    verdicts = []
    for entry in newest_first:
        reasons = spared[entry.key] or [
            *_protected(entry, policy, as_of),
            *wanted.get(entry.key, []),
        ]
        verdicts.append(Verdict(entry, bool(reasons), tuple(reasons) or (_why_not(entry),)))
    return verdicts


def _spared(entry: Entry, policy: Retention, cluster: str, as_of: datetime) -> list[str]:
    """Why the policy has nothing to say about an archive."""
    if entry.status is None and entry.cluster != cluster_label(cluster):
        return [f"other cluster: {entry.cluster}"]
    if entry.status is not None and entry.cluster != cluster:
        return [f"other cluster: {entry.cluster}"]
    if entry.made > as_of:
        return ["newer than this run"]
    if entry.status is None:
        return [f"unknown: {entry.problem or 'it cannot be read'}"]
    if not policy.is_active:
        return ["no retention policy"]
    return []


def _protected(entry: Entry, policy: Retention, as_of: datetime) -> list[str]:
    """What protects an archive, whatever the rules say."""
    reasons = []
    if entry.hold is not None:
        reasons.append(f"held: {entry.hold}")
    if entry.locked_until and entry.locked_until > as_of:
        until = entry.locked_until
        reasons.append("locked" if until == FOREVER else f"locked until {until:%Y-%m-%d %H:%M} UTC")
    if policy.minimum_days and as_of - entry.made < timedelta(days=policy.minimum_days):
        reasons.append(f"younger than the minimum of {policy.minimum_days} days")
    return reasons


def _why_not(entry: Entry) -> str:
    if entry.status == "incomplete":
        return f"incomplete; {NOT_KEPT}"
    return NOT_KEPT if entry.verified else f"never read back; {NOT_KEPT}"


@dataclass
class _Wanted:
    """Reasons to keep archives, in the order they were found; which services have each."""

    found: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    def add(self, entry: Entry, reason: str, service: str = "") -> None:
        services = self.found.setdefault(entry.key, {}).setdefault(reason, set())
        if service:
            services.add(service)

    def texts(self, entry: Entry, current: frozenset[str]) -> list[str]:
        """The reasons for people: with services where not all of an archive's have it."""
        told = []
        for reason, services in self.found.get(entry.key, {}).items():
            some = services and services < (entry.services & current)
            told.append(f"{reason} ({', '.join(sorted(services))})" if some else reason)
        return told


def _wanted(entries: Sequence[Entry], policy: Retention) -> Mapping[str, list[str]]:
    """What the rules want to keep: reasons by key. The entries are the newest first."""
    last_good = next((entry for entry in entries if entry.is_good), None)
    if not last_good:
        return {entry.key: ["nothing is good yet"] for entry in entries}
    wanted = _Wanted()
    wanted.add(last_good, "last good")
    for entry in entries[: entries.index(last_good)]:
        wanted.add(entry, "newer than the last good")
    if policy.keep_within_days:
        oldest = last_good.made - timedelta(days=policy.keep_within_days)
        for entry in entries:
            if entry.made >= oldest:
                wanted.add(entry, f"within {policy.keep_within_days} days")
    # Of a service that has left the cluster only the last archive stays, or none would ever go.
    current = last_good.inventory | last_good.services
    for service in sorted(frozenset().union(*(entry.services for entry in entries))):
        complete = [entry for entry in entries if service in entry.services]
        good = [entry for entry in complete if entry.is_good]
        newest = (good or complete)[0]
        if newest is not last_good:
            wanted.add(newest, f"last with {service}")
        if service in current:
            for entry in good[: policy.keep_last or 0]:
                wanted.add(entry, f"last {policy.keep_last}", service)
            for kind, count, period in _periods(policy):
                for label, entry in _slots(complete, count, period):
                    wanted.add(entry, f"{kind} {label}", service)
    return {entry.key: wanted.texts(entry, current) for entry in entries}


def _periods(policy: Retention) -> list[tuple[str, int, Callable[[datetime], str]]]:
    """The rules that count periods: name, number, and the period that a time is in."""
    return [
        ("daily", policy.keep_daily or 0, lambda time: f"{time:%Y-%m-%d}"),
        ("weekly", policy.keep_weekly or 0, lambda time: f"{time:%G-W%V}"),
        ("monthly", policy.keep_monthly or 0, lambda time: f"{time:%Y-%m}"),
        ("yearly", policy.keep_yearly or 0, lambda time: f"{time:%Y}"),
    ]


def _slots(
    entries: Sequence[Entry], count: int, period: Callable[[datetime], str]
) -> list[tuple[str, Entry]]:
    """The archive of each of the last `count` periods that have a good one, and of each period
    between them that has none. The entries are the newest first."""
    by_period: dict[str, list[Entry]] = {}
    for entry in entries:
        by_period.setdefault(period(entry.made), []).append(entry)
    slots = []
    for label, found in by_period.items():
        if count <= 0:
            break
        good = next((entry for entry in found if entry.is_good), None)
        slots.append((label, good or found[0]))
        count -= good is not None
    return slots
