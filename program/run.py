"""A run: what the Pulumi program declares, and in what order.

`pulumi up` comes here through `__main__`, the command `epibackup` through `program.stack`; both
declare the same resources.
"""

import contextlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pulumi
from pulumi import Input, Output
from pulumi_command import remote

from components.archive.component import Archive, ServiceInput
from components.archive.naming import run_time
from components.coverage import Coverage
from components.errors import PreflightRefused
from components.gate import Gate
from components.host_agent import HostAgent, agent_command, agent_file, agent_hash
from components.service import ServiceBackup, SnapshotHost, service_types
from components.ssh import SshHost
from program import project
from program.catalog import add_entry, entry_of, without
from program.coverage import coverage_of
from program.key_agent import lend_keys, socket_path
from program.plan import Plan, ServicePlan, check_here, problems_here
from program.posture import declare_posture, weaknesses_here
from program.probe import Probed, probe
from program.retention import declare_retention
from program.storage import declare_storage

ERROR_FILE = "archive-error.json"


@dataclass(frozen=True)
class Ready:
    """What a run knows besides its plan.

    probed: what was found on the hosts; None in a preview, which looks at none.
    is_planned: whether the update may be held to what this preview shows (`--save-plan`). Then
    what only the hosts can tell is declared as unknown.
    """

    stack: str
    run: str
    probed: Mapping[str, Probed] | None
    is_planned: bool = False

    @property
    def error_file(self) -> Path:
        """Where the archive process leaves its error."""
        return project.state_folder(self.stack) / ERROR_FILE

    def problem(self, host: str) -> dict[str, str] | None:
        """Why a host cannot be used; None if it can, or if nobody has looked."""
        found = self.probed[host].problem if self.probed is not None else None
        return found.as_json() if found else None


@contextlib.contextmanager
def made_ready(plan: Plan, stack: str, run: str) -> Iterator[Ready]:
    """Look at the hosts and lend Pulumi the keys; the update happens inside this context.

    Raises PreflightRefused if no host can be used, and what `check_here` raises: then nothing
    was changed.
    """
    check_here(plan)
    probed = probe(plan.hosts.values(), plan.settings.host_directory, agent_hash(), stack)
    problems = [found.problem for found in probed.values() if found.problem]
    if len(problems) == len(probed):
        raise PreflightRefused(
            "no host can be used:\n" + "\n".join(problem.message for problem in problems),
            problems[0].hint,
        )
    (project.state_folder(stack) / ERROR_FILE).unlink(missing_ok=True)
    with lend_keys(stack, [host.key_file for host in plan.hosts.values() if host.key_file]):
        yield Ready(stack, run, probed)


def declare(plan: Plan, ready: Ready) -> None:
    """Declare the run's resources and the stack's outputs."""
    itself = _itself()
    storage = declare_storage(plan.settings)
    made = [storage] if storage else []
    posture = declare_posture(plan, ready.run, ready.error_file, itself.get_output("posture"), made)
    after = [*made, posture] if posture else made
    agents = {
        name: HostAgent(
            f"agent-{name}",
            {
                "connection": connection(host, plan, ready.stack),
                "host_directory": plan.settings.host_directory,
                "agent_path": str(agent_file(project.state_folder(ready.stack))),
                "agent_hash": agent_hash(),
                "again": _again(ready, name),
                "after": after,
            },
        )
        for name, host in plan.hosts.items()
        if not ready.problem(name)
    }
    Coverage("coverage", coverage_of(plan))
    services = _declare_services(plan, ready, agents)
    archive = Archive(
        "archive",
        {
            "run": ready.run,
            "request": _request(plan, ready.run),
            "services": [
                ServiceInput(
                    name=service.service, answers=service.answers, problems=service.problems
                )
                for service in services
            ],
            "error_file": ready.error_file,
            "after": after,
        },
    )
    known = itself.get_output("catalog")
    retention = declare_retention(plan, ready.run, archive.result, known)
    pruned = retention.result if retention else Output.from_input(None)
    # The gate comes last: the outputs, which tell what was removed, have to be stored before.
    failures = Output.all(archive.result, pruned).apply(lambda done: failures_of(done[0]))
    Gate("gate", {"run": ready.run, "failures": failures})
    _export(plan, archive, known, pruned)
    if posture:
        told = Output.all(archive.result, posture.result)
        pulumi.export("posture", told.apply(lambda done: done[1]))


def _again(ready: Ready, host: str) -> Input[str]:
    """The run's id if Pulumi has to bring the agent again, though nothing has changed here.

    So it is for a host that never had it, too: then Pulumi would bring it anyway.
    """
    if ready.probed is None:
        return _unknown() if ready.is_planned else ""
    return "" if ready.probed[host].agent_installed else ready.run


def _unknown() -> Output[str]:
    """A text that only the update will know, such as Pulumi makes for outputs in a preview."""

    async def value() -> str:
        return ""

    async def is_known() -> bool:
        return False

    return Output(set(), value(), is_known())


def connection(host: SshHost, plan: Plan, stack: str) -> remote.ConnectionArgs:
    """How Pulumi reaches a host. There is no key in it: an agent has that."""
    return remote.ConnectionArgs(
        host=host.address,
        port=host.port,
        user=host.user,
        host_key=host.host_keys[0] if host.host_keys else None,
        # The user's own agent is found by the provider through SSH_AUTH_SOCK.
        agent_socket_path=str(socket_path(stack)) if host.key_file else None,
        dial_error_limit=2,
        per_dial_timeout=plan.settings.ssh.connect_timeout_seconds,
    )


def _declare_services(
    plan: Plan, ready: Ready, agents: Mapping[str, HostAgent]
) -> list[ServiceBackup]:
    types = service_types()
    made: dict[str, ServiceBackup] = {}
    for service in in_order(plan.services):
        usable = [name for name in service.hosts if name in agents]
        problems = {name: ready.problem(name) for name in service.hosts}
        hosts = [
            SnapshotHost(
                name=name,
                connection=connection(plan.hosts[name], plan, ready.stack),
                agent=agents[name],
            )
            for name in usable
        ]
        kind = types[service.name]
        made[service.name] = kind(
            service.name,
            {
                "run": ready.run,
                "agent_hash": agent_hash(),
                "host_directory": plan.settings.host_directory,
                "timeout_seconds": plan.settings.snapshot_timeout_seconds,
                "settings": service.settings,
                "compression": plan.settings.compression.model_dump(),
                "hosts": hosts,
                "unreachable": {name: told for name, told in problems.items() if told},
                "earlier": [made[name] for name in kind.after if name in made],
            },
        )
    return list(made.values())


def in_order(services: Sequence[ServicePlan]) -> list[ServicePlan]:
    """Services so that each comes after those it has to be saved after."""
    types = service_types()
    by_name = {service.name: service for service in services}
    order = TopologicalSorter({name: types[name].after for name in by_name}).static_order()
    return [by_name[name] for name in order if name in by_name]


def _request(plan: Plan, run: str) -> dict[str, Any]:
    """The part of the archive's request that is known beforehand."""
    return {
        "run": run,
        "cluster": plan.cluster,
        "started": run_time(run),
        "epicli_version": plan.epicli_version,
        "epibackup_version": importlib.metadata.version("epibackup"),
        "target": plan.target,
        "target_options": plan.settings.target_options().model_dump(),
        "container": plan.settings.format,
        "parallel": plan.settings.parallel_transfers,
        "agent": agent_command(plan.settings.host_directory, agent_hash()),
        "hosts": [host.as_json() for host in plan.hosts.values()],
        "missing": [item.model_dump() for item in plan.missing],
        "inventory": plan.groups,
    }


def failures_of(result: Mapping[str, Any]) -> list[str]:
    """What failed in a run, a line each."""
    lines = []
    for service in result["manifest"]["services"]:
        lines += [f"{service['name']}: {problem}" for problem in service["problems"]]
        for host in service["hosts"]:
            if host["error"]:
                hint = f" ({host['error']['hint']})" if host["error"]["hint"] else ""
                lines.append(
                    f"{service['name']} on {host['host']}: {host['error']['message']}{hint}"
                )
    return lines


def _itself() -> pulumi.StackReference:
    """The outputs of the stack's last run; before the first, all are None."""
    return pulumi.StackReference(
        "catalog",
        stack_name=f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}",
    )


def _export(plan: Plan, archive: Archive, known: Output[Any], pruned: Output[Any]) -> None:
    """The outputs. All depend on the archive: a run without one leaves the last one's.

    known: the catalog until now. pruned: what retention has done; None without a policy.
    """
    result = archive.result
    catalog = Output.all(result, known, pruned).apply(
        lambda done: without(
            add_entry(done[1] or [], entry_of(done[0])),
            [item["key"] for item in (done[2] or {}).get("removed", [])],
        )
    )
    pulumi.export("run", result.apply(lambda made: made["manifest"]["run"]))
    pulumi.export("status", result.apply(lambda made: made["manifest"]["status"]))
    pulumi.export("archive_key", result.apply(lambda made: made["key"]))
    pulumi.export(
        "archive",
        result.apply(
            lambda made: {
                "target": plan.target,
                "key": made["key"],
                "bytes": made["bytes"],
                "manifest_sha256": made["sha256"],
                "verified": made["verified"],
                "warnings": made["warnings"],
            }
        ),
    )
    pulumi.export("manifest", result.apply(lambda made: made["manifest"]))
    pulumi.export("catalog", catalog)
    if plan.settings.retention.is_active:
        pulumi.export("retention", pruned)


def tell(plan: Plan) -> None:
    """Say in Pulumi's own messages what is left out; shown by preview and update."""
    here = problems_here(plan) if pulumi.runtime.is_dry_run() else []
    for warning in [*plan.warnings, *here, *weaknesses_here(plan)]:
        pulumi.log.warn(warning)
    for item in plan.missing:
        pulumi.log.info(f"not saved: {item.what} on {', '.join(item.hosts)}: {item.reason}")
