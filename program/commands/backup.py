"""`epibackup [backup]` and `epibackup plan`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.archive.naming import checked_run, new_run
from components.errors import Incomplete
from program import output, project
from program.options import Settings
from program.plan import Plan, make_plan, problems_here
from program.progress import RunProgress
from program.run import failures_of
from program.settings import read_settings
from program.stack import BackupStack, engine


def settings_for(stack: str, flags: Mapping[str, Any]) -> Settings:
    """A stack's settings with this call's flags; raises UsageError."""
    absolute = {name: _absolute(name, value) for name, value in flags.items()}
    config = project.stack_config(stack)
    return read_settings(config, absolute, str(project.stack_file(stack)))


def plan_for(stack: str, flags: Mapping[str, Any]) -> Plan:
    """The plan for a stack with this run's flags; raises UsageError."""
    return make_plan(settings_for(stack, flags))


def _absolute(name: str, value: Any) -> Any:
    """A path as the user means it: from the folder where the command was called."""
    if name in ("build", "target") and value and "://" not in value:
        return str(Path(value).expanduser().absolute())
    return value


def backup(stack: str, flags: Mapping[str, Any], run: str | None, as_json: bool) -> None:
    """Make a run, and tell what became of it; raises Incomplete if a service failed."""
    run = checked_run(run) if run else new_run()
    plan = plan_for(stack, flags)
    made = BackupStack(stack, engine(output.say))
    known = project.stack_config(stack)
    needed = {"build": str(plan.build), "target": plan.target}
    remember = {name: value for name, value in needed.items() if f"epibackup:{name}" not in known}
    with RunProgress(output.console) as progress:
        outputs = made.update(plan, run, progress.see, remember)
    if remember:
        kept = " and ".join(remember)
        output.say(f"remembered for the stack {stack}, in {project.stack_file(stack)}: {kept}")
    failures = failures_of(outputs)
    if not as_json:
        output.print_run(outputs)
    if failures:
        raise Incomplete(
            f"run {run} is incomplete: " + "; ".join(failures),
            f"the archive has everything else: epibackup show {run} -s {stack}",
            document_of(outputs),
        )
    if as_json:
        output.print_json(document_of(outputs))
        return
    output.say(f"look inside: epibackup show {run} -s {stack}")
    output.say(f"restore it:  epibackup restore {run} -s {stack} --dry-run")


def document_of(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """A run as `--json` prints it."""
    return {name: outputs[name] for name in ("run", "status", "archive_key", "archive", "manifest")}


def plan(stack: str, flags: Mapping[str, Any], as_json: bool) -> None:
    """Tell what a run would do; contacts no host."""
    made = plan_for(stack, flags)
    if as_json:
        output.print_json(_plan_document(made))
        return
    output.say(f"cluster {made.cluster}, epicli {made.epicli_version or 'version unknown'}")
    output.say(f"target {made.target}, format {made.settings.format}")
    rows = output.table("service", "host", "address", "host key")
    for service in made.services:
        for name in service.hosts:
            host = made.hosts[name]
            key = host.host_keys[0].split()[0] if host.host_keys else "not known: epibackup trust"
            rows.add_row(service.title, name, f"{host.user}@{host.address}:{host.port}", key)
    output.console.print(rows)
    output.print_missing([item.model_dump() for item in made.missing])
    for warning in [*made.warnings, *problems_here(made)]:
        output.say(f"warning: {warning}")


def _plan_document(made: Plan) -> dict[str, Any]:
    return {
        "cluster": made.cluster,
        "epicli_version": made.epicli_version,
        "build": str(made.build),
        "target": made.target,
        "services": [
            {"name": service.name, "hosts": list(service.hosts)} for service in made.services
        ],
        "hosts": {
            name: {
                "address": host.address,
                "port": host.port,
                "user": host.user,
                "host_key_known": bool(host.host_keys),
            }
            for name, host in made.hosts.items()
        },
        "missing": [item.model_dump() for item in made.missing],
        "warnings": [*made.warnings, *problems_here(made)],
    }
