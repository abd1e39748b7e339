"""`epibackup prune` and `epibackup hold`."""

import getpass
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from components.archive.collector import size_text
from components.archive.naming import ARCHIVE, checked_run, cluster_label
from components.errors import EpibackupError, NotFound, TargetUnreachable, UsageError
from components.retention import holds
from components.retention.judging import Verdict
from components.retention.pruning import Pruned, as_document, remove, verdicts_on
from components.retention.reading import Known
from components.storage.target import Target
from engine import find
from program import output
from program.catalog import verified_in, without
from program.commands.backup import settings_for
from program.commands.care import confirmed
from program.commands.looking import cluster_of, known_catalog, target_for
from program.stack import BackupStack


def prune(stack: str, flags: Mapping[str, Any], dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove what the policy does not keep, once a person has seen it.

    Raises UsageError without a policy or without a confirmation, TargetUnreachable if something
    could not be removed.
    """
    settings = settings_for(stack, flags)
    policy = settings.retention
    if not policy.is_active:
        raise UsageError(
            f"the stack {stack} has no retention policy: nothing is ever removed",
            "say what to keep: epibackup:retention in the stack's configuration, such as "
            "keep_daily: 7 (docs/retention.md)",
        )
    target = target_for(stack, flags)
    cluster = cluster_of(settings)
    known = Known(cluster, datetime.now(UTC), verified_in(known_catalog(stack)))
    verdicts = verdicts_on(target, policy, known)
    if not as_json:
        print_verdicts(verdicts)
    going = [verdict for verdict in verdicts if not verdict.keep]
    if going and not dry_run:
        question = f"Remove {archives(len(going))} from {target.url}?"
        if not yes and not confirmed(question):
            raise UsageError("nothing was removed: not confirmed")
    pruned = Pruned(kept=len(verdicts)) if dry_run else remove(target, verdicts, output.say)
    if pruned.removed:
        _forget(stack, [item.key for item in pruned.removed])
    document = {
        "target": target.url,
        "cluster": cluster,
        "dry_run": dry_run,
        "archives": [as_document(verdict) for verdict in verdicts],
        "removed": [item.key for item in pruned.removed],
        "freed_bytes": pruned.freed_bytes,
    }
    if pruned.problems:
        raise TargetUnreachable("; ".join(pruned.problems), "try again", document)
    if as_json:
        output.print_json(document)
        return
    if dry_run:
        output.say("dry run: nothing was removed")
    elif pruned.removed:
        freed = size_text(pruned.freed_bytes)
        output.say(f"removed {archives(len(pruned.removed))}, {freed} freed")
    else:
        output.say("there is nothing to remove")


def archives(number: int) -> str:
    """So many archives."""
    return f"{number} archive{'' if number == 1 else 's'}"


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """What stays and what goes, with reasons."""
    if not verdicts:
        output.say("there is no archive of this cluster")
        return
    rows = output.table("archive", "status", "size", "verdict", "why")
    for verdict in verdicts:
        entry = verdict.entry
        rows.add_row(
            entry.key,
            output.status_text(entry.status or "unknown"),
            size_text(entry.bytes),
            Text("keep", style="green") if verdict.keep else Text("remove", style="yellow"),
            Text(", ".join(verdict.reasons)),
        )
    output.console.print(rows)
    going = [verdict.entry.bytes for verdict in verdicts if not verdict.keep]
    if going:
        output.say(f"to remove: {archives(len(going))}, {size_text(sum(going))}")


def _forget(stack: str, removed: Sequence[str]) -> None:
    """Take what was removed out of the stack's catalog. The target is the truth: what keeps us
    from it is a warning, and `epibackup catalog rebuild` mends it."""
    known = known_catalog(stack)
    left = without(known, removed)
    found = find()
    if found is None or len(left) == len(known):
        return
    try:
        BackupStack(stack, found).set_catalog(left)
    except EpibackupError as error:
        output.say(
            f"warning: the stack's catalog still lists what was removed: {error.message}; "
            f"later: epibackup catalog rebuild -s {stack}"
        )


# -- holds ----------------------------------------------------------------------------------------


def list_holds(stack: str, flags: Mapping[str, Any], as_json: bool) -> None:
    """Tell which archives are held, and why."""
    target = target_for(stack, flags)
    names = target.names()
    rows = output.table("archive", "since", "by", "reason")
    found = []
    for key in holds.held_keys(names):
        try:
            known = holds.read_hold(target, key)
        except NotFound:  # released just now
            continue
        found.append({"key": key, **(known.model_dump(mode="json") if known else {"reason": None})})
        gone = "" if key in names else " (the archive is gone)"
        if known:
            since = f"{known.since:%Y-%m-%d %H:%M}"
            rows.add_row(key + gone, since, Text(known.by), Text(known.reason))
        else:
            rows.add_row(key + gone, "unknown", "unknown", holds.UNREADABLE)
    if as_json:
        output.print_json({"target": target.url, "holds": found})
    elif found:
        output.console.print(rows)
    else:
        output.say(f"nothing is held in {target.url}")


def hold(
    stack: str,
    flags: Mapping[str, Any],
    run: str,
    reason: str | None,
    release: bool,
    as_json: bool,
) -> None:
    """Hold the archives of a run, or end that; raises NotFound and UsageError."""
    if release == (reason is not None):
        raise UsageError(
            "either a reason or an end", f"epibackup hold {run} --reason TEXT, or --release"
        )
    target = target_for(stack, flags)
    names = target.names()
    if release:
        keys = _of_run(target, holds.held_keys(names), run, stack, flags, "hold of run")
        for key in keys:
            holds.release(target, key)
            output.say(f"{key} is no longer held")
    else:
        keys = _of_run(target, names, run, stack, flags, "run")
        user = f"{getpass.getuser()}@{socket.gethostname()}"
        for key in keys:
            made = holds.hold(target, key, reason or "", user, datetime.now(UTC))
            output.say(f"{key} is held: {made.reason}")
    if as_json:
        output.print_json({"target": target.url, "held": not release, "keys": keys})


def _of_run(
    target: Target,
    names: Sequence[str],
    wanted: str,
    stack: str,
    flags: Mapping[str, Any],
    what: str,
) -> list[str]:
    """The archives of a run, or the one of that very name; of this stack's cluster, where several
    clusters have a run of that time."""
    if wanted in names and ARCHIVE.fullmatch(wanted):
        return [wanted]
    checked_run(wanted)
    matches = [match for name in names if (match := ARCHIVE.fullmatch(name))]
    found = [match for match in matches if match["run"] == wanted]
    if len({match["cluster"] for match in found}) > 1:
        label = cluster_label(cluster_of(settings_for(stack, flags)))
        found = [match for match in found if match["cluster"] == label]
    if not found:
        raise NotFound(f"there is no {what} {wanted} in {target.url}", "epibackup list shows them")
    return [match[0] for match in found]
