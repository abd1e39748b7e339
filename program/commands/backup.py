"""`epibackup [backup]`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.archive.naming import checked_run, new_run
from components.errors import Incomplete, UsageError
from program import output, project
from program.options import Settings
from program.plan import Plan, make_plan
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


def backup(
    stack: str,
    flags: Mapping[str, Any],
    run: str | None,
    as_json: bool,
    plan_file: str | None = None,
) -> None:
    """Make a run, and tell what became of it; raises Incomplete if a service failed.

    plan_file: a plan that `epibackup plan --save-plan` saved for this very run.
    """
    held_to = checked_plan_file(plan_file, run) if plan_file else None
    run = checked_run(run) if run else new_run()
    plan = plan_for(stack, flags)
    made = BackupStack(stack, engine(output.say))
    known = project.stack_config(stack)
    # A target that follows from the storage is not written down a second time.
    needed = {"build": str(plan.build), "target": plan.settings.target}
    remember = {
        name: value for name, value in needed.items() if value and f"epibackup:{name}" not in known
    }
    with RunProgress(output.console) as progress:
        outputs = made.update(plan, run, progress.see, remember, held_to)
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


def checked_plan_file(path: str, run: str | None) -> str:
    """The absolute path of a saved plan; raises UsageError if it cannot be used."""
    if not run:
        raise UsageError(
            "a saved plan is for one run, whose id is missing",
            "add the --run that epibackup plan --save-plan has told",
        )
    found = Path(path).expanduser().absolute()
    if not found.is_file():
        raise UsageError(f"there is no plan {found}", "epibackup plan --save-plan saves one")
    return str(found)


def document_of(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """A run as `--json` prints it."""
    made = {name: outputs[name] for name in ("run", "status", "archive_key", "archive", "manifest")}
    if outputs.get("retention"):
        made["retention"] = outputs["retention"]
    return made
