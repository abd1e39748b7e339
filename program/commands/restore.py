"""`epibackup restore`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.prompt import Confirm

from components.archive.manifest import Manifest, ServiceRecord
from components.archive.naming import cluster_label
from components.archive.reader import ArchiveReader, open_archive
from components.errors import EpibackupError, PreflightRefused, UsageError
from components.host_agent import agent_hash
from components.restoring import ControllerRestore, RestoreContext
from components.service import service_types
from components.ssh import SshClients, SshHost
from program import output
from program.build_directory import BuildDirectory, read_build_directory
from program.commands.backup import settings_for
from program.commands.looking import target_for
from program.inventory import unknown_name
from program.options import Settings
from program.plan import check_key, ssh_host
from program.probe import probe
from program.restore import HostRestore, Planned, Restorer, Wanted, plan_restore
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
            addresses = {host.name: host.address for host in hosts}
            directory = settings.host_directory
            restorer = Restorer(clients, addresses, found.run, directory, output.say)
            work = _Work(planned, manifest, reader, clients, restorer, settings, wanted, build)
            steps = work.describe(as_json)
            if dry_run:
                _finish({"run": found.run, "dry_run": True, **steps}, as_json)
                return
            _confirm(yes, found.run)
            reports = work.carry_out()
    _finish({"run": found.run, "dry_run": False, **reports}, as_json)


def build_of(settings: Settings) -> BuildDirectory:
    """The build directory, which says how hosts are reached; raises UsageError."""
    if not settings.build:
        raise UsageError(
            "the build directory is not known",
            "give it with -b /path/to/build/CLUSTER, or set epibackup:build",
        )
    return read_build_directory(Path(settings.build))


def _hosts(planned: Planned, settings: Settings, build: BuildDirectory) -> list[SshHost]:
    """How the hosts that get data are reached; raises UsageError for one nobody knows."""
    known = build.inventory.hosts
    found: dict[str, SshHost] = {}
    for record in planned.by_controller:
        found |= {name: ssh_host(known[name], settings) for name in service_hosts(record, build)}
    for item in planned.on_hosts:
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


def service_hosts(record: ServiceRecord, build: BuildDirectory) -> list[str]:
    """A service's hosts in the inventory of today; raises UsageError if it has none."""
    groups = service_types()[record.name].groups
    names = [name for group in groups for name in build.inventory.groups.get(group, [])]
    if not names:
        raise UsageError(
            f"the inventory has no host in {' or '.join(groups)}: {record.name} runs nowhere",
            "give the build directory of the cluster to restore into: -b",
        )
    return list(dict.fromkeys(names))


def _show_steps(title: str, steps: Sequence[str]) -> None:
    output.console.print(title, style="bold", markup=False)
    for number, step in enumerate(steps, start=1):
        output.say(f"  {number}. {step}")


def _confirm(yes: bool, run: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("a restore has to be confirmed", "look at --dry-run, then add --yes")
    if not Confirm.ask(f"Restore run {run} as shown?", console=output.console, default=False):
        raise UsageError("nothing was restored: not confirmed")


@dataclass
class _Work:
    """A planned restore and what it needs.

    inside: the restores into running services, by service.
    compared: what services said of what was restored.
    """

    planned: Planned
    manifest: Manifest
    reader: ArchiveReader
    clients: SshClients
    restorer: Restorer
    settings: Settings
    wanted: Wanted
    build: BuildDirectory
    inside: dict[str, ControllerRestore] = field(default_factory=dict)
    compared: list[dict[str, Any]] = field(default_factory=list)

    def describe(self, as_json: bool) -> dict[str, Any]:
        """Ask every host, and the controller's own side, what it would do; and tell."""
        self.restorer.install(self.planned.on_hosts)
        self.restorer.map_hosts(self.planned.on_hosts)
        described = []
        for item in self.planned.on_hosts:
            steps = self.restorer.describe(item)["steps"]
            described.append({**_names(item), "steps": steps})
            if not as_json:
                origin = "" if item.source == item.host else f" (saved from {item.source})"
                _show_steps(f"{item.service} on {item.host}{origin}", steps)
        running = []
        for record in self.planned.by_controller:
            work = self._controller_restore(record)
            self.inside[record.name] = work
            steps = work.plan()
            running.append({"service": record.name, "steps": steps})
            if not as_json:
                _show_steps(f"{record.name}, as it runs", steps)
        return {"hosts": described, "services": running}

    def carry_out(self) -> dict[str, Any]:
        """Deliver everything, then restore group by group; the first failure ends it."""
        reports: list[dict[str, Any]] = []
        running: list[dict[str, Any]] = []
        try:
            self.restorer.deliver(self.reader, self.planned.on_hosts)
            for group in self.planned.groups():
                answers = self.restorer.restore(group, partial(self._compare, group))
                reports += [
                    {**_names(item), **{key: answer[key] for key in ("steps", "warnings", "kept")}}
                    for item, answer in zip(group, answers, strict=True)
                ]
            for name, work in self.inside.items():
                running.append({"service": name, **work.run()})
        except EpibackupError as error:
            self.restorer.forget(self.planned.on_hosts)
            done = [f"{report['service']} on {report['host']}" for report in reports]
            done += [report["service"] for report in running]
            untouched = (
                "what was restored before stays: " + ", ".join(done)
                if done
                else "nothing live was changed"
            )
            raise type(error)(f"{error.message}\n{untouched}", error.hint) from error
        return {"hosts": reports, "services": [*self.compared, *running]}

    def _compare(self, group: Sequence[HostRestore]) -> None:
        """Have the services of a group look at what was restored."""
        for name in sorted({item.service for item in group}):
            record = next(record for record in self.manifest.services if record.name == name)
            hosts = [item.host for item in group if item.service == name]
            warnings = service_types()[name].compare(self._context(record, hosts))
            self.compared.append({"service": name, "warnings": warnings})
            for warning in warnings:
                output.say(f"warning: {warning}")

    def _controller_restore(self, record: ServiceRecord) -> ControllerRestore:
        context = self._context(record, service_hosts(record, self.build))
        return service_types()[record.name].controller_restore(context)

    def _context(self, record: ServiceRecord, hosts: Sequence[str]) -> RestoreContext:
        return RestoreContext(
            record=record,
            reader=self.reader,
            clients=self.clients,
            hosts=hosts,
            settings=self.settings.of_service(record.name),
            say=output.say,
            live=partial(self.restorer.discover, record.name),
            parts=self.wanted.parts,
            rename=self.wanted.rename,
        )


def _names(item: HostRestore) -> dict[str, Any]:
    return {"service": item.service, "host": item.host, "from": item.source}


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
