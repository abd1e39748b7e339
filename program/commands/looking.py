"""`epibackup list` and `show`, which look at the target, and `catalog`, which asks the stack."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.archive.collector import size_text
from components.archive.naming import cluster_label
from components.errors import EpibackupError, NotFound, UsageError
from components.storage.target import Target, open_target
from engine import find
from program import output
from program.build_directory import read_build_directory
from program.commands.backup import settings_for
from program.options import Settings
from program.runs import Run, find_run, list_runs
from program.stack import BackupStack, engine
from program.storage import target_of


def target_for(stack: str, flags: Mapping[str, Any]) -> Target:
    """The target of a stack, or of -t; raises UsageError if neither names one."""
    settings = settings_for(stack, flags)
    target = target_of(settings)
    if not target:
        raise UsageError("the target is not known", "give it with -t, or set epibackup:target")
    return open_target(target, settings.target_options())


def cluster_of(settings: Settings) -> str:
    """The cluster that a stack is of; raises UsageError if nobody says."""
    if settings.cluster:
        return settings.cluster
    if not settings.build:
        raise UsageError(
            "whose archives is not known: a target may be shared",
            "give the build directory with -b, or set epibackup:build or epibackup:cluster",
        )
    return read_build_directory(Path(settings.build)).cluster


def known_catalog(stack: str) -> list[dict[str, Any]]:
    """What the stack knows of its runs; empty where there is no stack or no engine yet."""
    found = find()
    if found is None:
        return []
    try:
        return list(BackupStack(stack, found).outputs().get("catalog") or [])
    except NotFound:
        return []
    except EpibackupError as error:
        output.say(f"warning: the stack's catalog cannot be read: {error.message}")
        return []


def list_command(stack: str, flags: Mapping[str, Any], as_json: bool) -> None:
    """Tell what can be restored, newest first."""
    target = target_for(stack, flags)
    runs = list(list_runs(target))
    if as_json:
        output.print_json({"target": target.url, "runs": [_document(run) for run in runs]})
        return
    if not runs:
        output.say(f"there is no archive in {target.url}")
        return
    rows = output.table("run", "cluster", "status", "size", "services")
    for run in runs:
        services = ""
        if run.manifest:
            services = ", ".join(
                service.name + ("" if service.status == "ok" else " (failed)")
                for service in run.manifest.services
            )
        rows.add_row(
            run.run,
            run.cluster,
            output.status_text(_status(run)),
            size_text(run.bytes),
            services or run.problem,
        )
    output.console.print(rows)


def catalog(stack: str, as_json: bool) -> None:
    """Tell what the stack knows of its runs; the target may have lost some since."""
    entries = BackupStack(stack, engine(output.say)).outputs().get("catalog", [])
    if as_json:
        output.print_json({"stack": stack, "catalog": entries})
        return
    rows = output.table("run", "status", "size", "services")
    for entry in entries:
        services = [
            name if status == "ok" else f"{name} (failed)"
            for name, status in entry["services"].items()
        ]
        rows.add_row(
            entry["run"],
            output.status_text(entry["status"]),
            size_text(int(entry["bytes"])),
            ", ".join(services),
        )
    output.console.print(rows)


def show(stack: str, flags: Mapping[str, Any], wanted: str, members: bool, as_json: bool) -> None:
    """Tell what is in a run."""
    target = target_for(stack, flags)
    run = find_run(target, wanted, None, []) if wanted != "latest" else _newest(target)
    if run.manifest is None:
        raise UsageError(run.problem)
    document = run.manifest.model_dump(mode="json")
    if as_json:
        output.print_json({**_document(run), "manifest": document})
        return
    output.say(f"run {run.run} of {run.cluster}: {_status(run)}")
    output.say(f"archive {target.url}/{run.key} ({size_text(run.bytes)})")
    output.console.print(output.services_table(document["services"]))
    if members:
        rows = output.table("member", "part", "stored", "files")
        for member in run.manifest.members():
            part = output.shortened(member.part_names())
            rows.add_row(member.path, part, size_text(member.stored_bytes), str(len(member.parts)))
        output.console.print(rows)
    output.print_missing(document["missing"])
    output.say(f"restore it: epibackup restore {run.run} -s {stack} --dry-run")


def _newest(target: Target) -> Run:
    """The newest archive, complete or not."""
    for run in list_runs(target):
        if run.manifest:
            return run
    return find_run(target, "latest", None, [])


def _status(run: Run) -> str:
    return run.manifest.status if run.manifest else "damaged"


def _document(run: Run) -> dict[str, Any]:
    services = run.manifest.services if run.manifest else []
    return {
        "run": run.run,
        "cluster": cluster_label(run.cluster),
        "key": run.key,
        "bytes": run.bytes,
        "status": _status(run),
        "problem": run.problem,
        "services": {service.name: service.status for service in services},
    }
