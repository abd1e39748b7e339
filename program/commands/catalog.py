"""`epibackup catalog rebuild`."""

import hashlib
from collections.abc import Mapping
from typing import Any

from components.archive.naming import cluster_label
from components.archive.reader import open_archive
from components.errors import NotFound
from program import output
from program.catalog import add_entry, entry_from
from program.commands.backup import settings_for
from program.commands.looking import cluster_of, target_for
from program.runs import list_runs
from program.stack import BackupStack, engine


def rebuild(stack: str, flags: Mapping[str, Any], as_json: bool) -> None:
    """Make the stack's catalog again from what is on the target, which is the truth."""
    target = target_for(stack, flags)
    cluster = cluster_label(cluster_of(settings_for(stack, flags)))
    made = BackupStack(stack, engine(output.say))
    try:
        before = made.outputs().get("catalog") or []
    except NotFound:  # whoever has lost the state begins with a new stack
        before = []
    known = {(entry["key"], entry["sha256"]): entry["verified"] for entry in before}
    after: list[dict[str, Any]] = []
    unreadable: dict[str, str] = {}
    for run in list_runs(target, cluster):
        if run.manifest is None:
            unreadable[run.key] = run.problem
            continue
        with open_archive(target, run.key) as reader:
            sha256 = hashlib.sha256(reader.manifest_bytes()).hexdigest()
        verified = known.get((run.key, sha256))
        after = add_entry(after, entry_from(run.manifest, run.key, run.bytes, sha256, verified))
    made.set_catalog(after)
    keys_before = {entry["key"] for entry in before}
    keys_after = {entry["key"] for entry in after}
    document = {
        "stack": stack,
        "catalog": after,
        "added": sorted(keys_after - keys_before),
        "dropped": sorted(keys_before - keys_after),
        "unreadable": unreadable,
    }
    if as_json:
        output.print_json(document)
        return
    for key, problem in unreadable.items():
        output.say(f"warning: {key} cannot be read and is left out: {problem}")
    output.say(
        f"the catalog of {stack} has {len(after)} runs: {len(document['added'])} added, "
        f"{len(document['dropped'])} dropped"
    )
