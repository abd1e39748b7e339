"""`epibackup plan`: what a run would do, what has changed, and whether policies allow it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from components.archive.naming import checked_run, new_run
from components.errors import NotFound
from program import output, project
from program.commands.backup import plan_for
from program.commands.looking import known_catalog
from program.comparison import NOT_KNOWN, Comparison, compare
from program.coverage import uncovered
from program.gate import check_steps, refuse, storage_changes
from program.plan import Plan, problems_here
from program.posture import weaknesses_here
from program.preview import MANDATORY, Preview, Violation
from program.retention import forecast_of
from program.stack import BackupStack, engine

POLICY_PACK = project.ROOT / "policy"

LEVEL_STYLES = {MANDATORY: "bold red"}


@dataclass(frozen=True)
class Looks:
    """What a plan looks at besides the configuration and the build directory.

    diff: the stack's last run, and what the engine would change.
    gate: the policies; policy_config: a JSON file that configures them.
    save_to: the file to save Pulumi's plan in; run: the id of the run that it is for.
    """

    diff: bool = False
    gate: bool = False
    policy_config: str | None = None
    save_to: str | None = None
    run: str | None = None

    @property
    def need_engine(self) -> bool:
        """Whether the engine has to be asked."""
        return self.diff or self.gate or self.save_to is not None


def plan(stack: str, flags: Mapping[str, Any], looks: Looks, as_json: bool) -> None:
    """Tell what a run would do; contacts no host.

    Raises PolicyRefused if the gate refuses it.
    """
    made = plan_for(stack, flags)
    run = checked_run(looks.run) if looks.run else new_run()
    document = plan_document(made)
    known = known_catalog(stack) if made.settings.retention.is_active else []
    pruning = forecast_of(made, run, known)
    document["retention"] = pruning.model_dump() if pruning else None
    if not as_json:
        print_plan(made)
        for line in pruning.lines() if pruning else []:
            output.say(line)
    violations: list[Violation] = []
    if looks.need_engine:
        pulumi = BackupStack(stack, engine(output.say))
        preview = _preview(pulumi, made, run, looks)
        violations = [*preview.violations, *check_steps(preview)] if looks.gate else []
        if looks.diff:
            comparison = compare(made, _last_outputs(pulumi))
            document["since_last_run"] = comparison.model_dump()
            document["storage_changes"] = storage_changes(preview)
            if not as_json:
                _print_changes(comparison, preview)
        if looks.gate:
            document["violations"] = [vars(found) for found in violations]
            if not as_json:
                _print_violations(violations)
        _finish_saving(looks, run, stack, violations, document)
    refuse(violations, document)
    if as_json:
        output.print_json(document)


def _preview(pulumi: BackupStack, made: Plan, run: str, looks: Looks) -> Preview:
    return pulumi.preview(
        made,
        run,
        policy_pack=str(POLICY_PACK) if looks.gate else None,
        policy_config=_absolute(looks.policy_config),
        save_to=_absolute(looks.save_to),
    )


def _absolute(path: str | None) -> str | None:
    """A path as the user means it; the engine works in another folder."""
    return str(Path(path).expanduser().absolute()) if path else None


def _last_outputs(pulumi: BackupStack) -> dict[str, Any]:
    try:
        return pulumi.outputs()
    except NotFound:
        return {}


def _finish_saving(
    looks: Looks,
    run: str,
    stack: str,
    violations: list[Violation],
    document: dict[str, Any],
) -> None:
    """Tell how to go on with a saved plan; a refused one is not kept."""
    if not looks.save_to:
        return
    path = Path(_absolute(looks.save_to) or "")
    if any(found.level == MANDATORY for found in violations):
        path.unlink(missing_ok=True)
        return
    path.chmod(0o600)
    document["saved_plan"] = {"path": str(path), "run": run}
    output.say(f"saved the plan of run {run}; carry it out:")
    output.say(f"  epibackup backup --plan {path} --run {run} -s {stack}")


def print_plan(made: Plan) -> None:
    """What is saved and where from, and what is not."""
    output.say(f"cluster {made.cluster}, epicli {made.epicli_version or 'version unknown'}")
    output.say(f"target {made.target}, format {made.settings.format}")
    rows = output.table("service", "host", "address", "host key")
    for service in made.services:
        for name in service.hosts:
            host = made.hosts[name]
            key = host.host_keys[0].split()[0] if host.host_keys else "not known: epibackup trust"
            rows.add_row(service.title, name, f"{host.user}@{host.address}:{host.port}", key)
    output.console.print(rows)
    for item in made.missing:
        output.print_missing([item.model_dump()])
        exempt = uncovered(item, made.settings.exempt).get("exempt")
        if exempt:
            output.say(f"  exempt until {exempt['until']}, {exempt['owner']}: {exempt['reason']}")
    for warning in [*made.warnings, *problems_here(made), *weaknesses_here(made)]:
        output.say(f"warning: {warning}")


def _print_changes(comparison: Comparison, preview: Preview) -> None:
    if comparison.run is None:
        output.say("changes: this stack has no run to compare with")
    else:
        output.say(f"changes since run {comparison.run} ({comparison.status}):")
        for line in comparison.lines() or ["none in the inventory and the settings"]:
            output.say(f"  {line}")
        output.say(f"  {NOT_KNOWN}")
    lines = storage_changes(preview)
    output.say("storage changes:" if lines else "storage changes: none")
    for line in lines:
        output.say(f"  {line}")


def _print_violations(violations: list[Violation]) -> None:
    if not violations:
        output.say("policies: all are kept")
    for found in violations:
        style = LEVEL_STYLES.get(found.level, "yellow")
        # The first line of Pulumi's message is the policy's description.
        said = found.message.rpartition("\n")[2]
        output.console.print(Text(f"{found.level} {found.policy}: ", style=style) + Text(said))


def plan_document(made: Plan) -> dict[str, Any]:
    """A plan as `--json` prints it."""
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
        "missing": [uncovered(item, made.settings.exempt) for item in made.missing],
        "warnings": [*made.warnings, *problems_here(made), *weaknesses_here(made)],
    }
