"""`epibackup restore`."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.prompt import Confirm

from components.archive.naming import cluster_label
from components.archive.reader import ArchiveReader, open_archive
from components.errors import EpibackupError, PreflightRefused, UsageError
from components.host_agent import agent_hash
from components.ssh import SshClients, SshHost
from program import output
from program.build_directory import BuildDirectory, read_build_directory
from program.commands.backup import settings_for
from program.commands.looking import target_for
from program.inventory import unknown_name
from program.options import Settings
from program.plan import check_key, ssh_host
from program.probe import probe
from program.restore import HostRestore, Restorer, Wanted, plan_restore
from program.runs import find_run


def restore(
    stack: str,
    flags: Mapping[str, Any],
    run: str,
    wanted: Wanted,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Bring parts of a run back to the hosts of the build directory, or show how."""
    settings = settings_for(stack, flags)
    build = build_of(settings)
    target = target_for(stack, flags)
    # Where -t is given, the archives may be another cluster's: that is how one is moved.
    cluster = None if flags.get("target") else cluster_label(settings.cluster or build.cluster)
    found = find_run(target, run, cluster, list(wanted.services))
    with open_archive(target, found.key) as reader:
        manifest = reader.manifest()
        planned = plan_restore(manifest, wanted)
        hosts = _hosts(planned, settings, build)
        _check_hosts(hosts, settings.host_directory, stack)
        output.say(f"run {found.run} of {manifest.cluster} from {target.url}/{found.key}")
        with SshClients(hosts) as clients:
            restorer = Restorer(clients, found.run, settings.host_directory, output.say)
            restorer.install(planned)
            steps = _describe(restorer, planned, as_json)
            if dry_run:
                _finish({"run": found.run, "dry_run": True, "hosts": steps}, as_json)
                return
            _confirm(yes, found.run)
            reports = _carry_out(restorer, reader, planned)
    _finish({"run": found.run, "dry_run": False, "hosts": reports}, as_json)


def build_of(settings: Settings) -> BuildDirectory:
    """The build directory, which says how hosts are reached; raises UsageError."""
    if not settings.build:
        raise UsageError(
            "the build directory is not known",
            "give it with -b /path/to/build/CLUSTER, or set epibackup:build",
        )
    return read_build_directory(Path(settings.build))


def _hosts(
    planned: Sequence[HostRestore], settings: Settings, build: BuildDirectory
) -> list[SshHost]:
    """How the hosts that get data are reached; raises UsageError for one nobody knows."""
    known = build.inventory.hosts
    found = {}
    for item in planned:
        if item.host not in known:
            error = unknown_name("host in this inventory:", item.host, list(known))
            raise UsageError(
                error.message,
                f"{error.hint}; data of a host that is gone goes elsewhere with "
                f"--host-map {item.source}=NEW",
            )
        found[item.host] = ssh_host(known[item.host], settings)
    return list(found.values())


def _check_hosts(hosts: list[SshHost], host_directory: str, stack: str) -> None:
    """All hosts of a restore must be usable: half a restore helps nobody."""
    for host in hosts:
        check_key(host)
    probed = probe(hosts, host_directory, agent_hash(), stack)
    problems = [found.problem for found in probed.values() if found.problem]
    if problems:
        raise PreflightRefused("\n".join(problem.message for problem in problems), problems[0].hint)


def _describe(
    restorer: Restorer, planned: Sequence[HostRestore], as_json: bool
) -> list[dict[str, Any]]:
    """Ask every host what it would do, and tell."""
    described = []
    for item in planned:
        answer = restorer.describe(item)
        described.append(
            {
                "service": item.service,
                "host": item.host,
                "from": item.source,
                "steps": answer["steps"],
            }
        )
        if not as_json:
            origin = "" if item.source == item.host else f" (saved from {item.source})"
            output.console.print(
                f"{item.service} on {item.host}{origin}", style="bold", markup=False
            )
            for number, step in enumerate(answer["steps"], start=1):
                output.say(f"  {number}. {step}")
    return described


def _confirm(yes: bool, run: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("a restore has to be confirmed", "look at --dry-run, then add --yes")
    if not Confirm.ask(f"Restore run {run} as shown?", console=output.console, default=False):
        raise UsageError("nothing was restored: not confirmed")


def _carry_out(
    restorer: Restorer, reader: ArchiveReader, planned: Sequence[HostRestore]
) -> list[dict[str, Any]]:
    """Deliver everything, then restore host by host; the first failure ends it."""
    reports = []
    try:
        restorer.deliver(reader, planned)
        for item in planned:
            answer = restorer.restore(item)
            reports.append(
                {
                    "service": item.service,
                    "host": item.host,
                    "from": item.source,
                    **{key: answer[key] for key in ("steps", "warnings", "kept")},
                }
            )
    except EpibackupError as error:
        restorer.forget(planned)
        done = [f"{report['service']} on {report['host']}" for report in reports]
        untouched = (
            "what was restored before stays: " + ", ".join(done)
            if done
            else "nothing live was changed"
        )
        raise type(error)(f"{error.message}\n{untouched}", error.hint) from error
    return reports


def _finish(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(document)
        return
    if document["dry_run"]:
        output.say("dry run: nothing was changed")
        return
    output.say("restored and compared with the backup")
    for report in document["hosts"]:
        for kept in report["kept"]:
            output.say(f"old data on {report['host']}: {kept}")
    if any(report["kept"] for report in document["hosts"]):
        output.say("remove old data when it is no longer needed: epibackup clean --discard")
