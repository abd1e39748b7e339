"""The command `epibackup`: flags in, exit codes out. What commands do is in `program.commands`."""

import logging
import signal
import sys
from typing import Annotated, Any

import typer
from typer._click.exceptions import ClickException  # what every usage error of typer's is

from components.errors import EpibackupError, Interrupted, UsageError
from program.cli_options import (
    DEFAULT_STACK,
    Build,
    Format,
    Json,
    RunId,
    Service,
    Skip,
    Stack,
    Target,
    WantedRun,
    Yes,
)
from program.cli_setup import config_app, engine_app

app = typer.Typer(
    name="epibackup",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Back up and restore every stateful service of an Epiphany cluster.\n\n"
        "Without a command it backs up:\n\n"
        "  [bold]epibackup -b /path/to/build/CLUSTER -t /where/to[/bold]\n\n"
        "A run is an update of a Pulumi stack; `pulumi up -s nightly` makes the same one."
    ),
    epilog="Exit codes: 0 good, 2 usage, 3 incomplete, 4 refused, 5 policy, 6 not found, 7 locked, "
    "8 target, 9 verification, 130 interrupted; see docs/exit-codes.md.",
)
catalog_app = typer.Typer()
app.add_typer(catalog_app, name="catalog", rich_help_panel="Every day")
app.add_typer(engine_app, name="engine", rich_help_panel="Set-up")
app.add_typer(config_app, name="config", rich_help_panel="Set-up")


def _flags(
    build: str | None = None,
    target: str | None = None,
    service: list[str] | None = None,
    skip: list[str] | None = None,
    container: str | None = None,
) -> dict[str, Any]:
    """Flags under the options' names; None where nothing was given."""
    return {
        "build": build,
        "target": target,
        "services": service or None,
        "skip": skip or None,
        "format": container,
    }


@app.callback(invoke_without_command=True)
def backup_by_default(
    context: typer.Context,
    build: Build = None,
    target: Target = None,
    stack: Stack = DEFAULT_STACK,
    service: Service = None,
    skip: Skip = None,
    container: Format = None,
    run: RunId = None,
    as_json: Json = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Back up, unless a command says otherwise."""
    if version:
        import importlib.metadata

        sys.stdout.write(f"epibackup {importlib.metadata.version('epibackup')}\n")
        return
    if context.invoked_subcommand is None:
        backup(build, target, stack, service, skip, container, run, as_json)
    elif build or target or service or skip or container:  # a run may be in the environment
        raise UsageError(
            f"flags before {context.invoked_subcommand} have no effect",
            f"put them behind it: epibackup {context.invoked_subcommand} …",
        )


@app.command(rich_help_panel="Every day")
def backup(
    build: Build = None,
    target: Target = None,
    stack: Stack = DEFAULT_STACK,
    service: Service = None,
    skip: Skip = None,
    container: Format = None,
    run: RunId = None,
    as_json: Json = False,
    plan_file: Annotated[
        str | None,
        typer.Option("--plan", metavar="FILE", help="Do what a saved plan says, or nothing."),
    ] = None,
) -> None:
    """Save everything the inventory has into one archive. This is also the default."""
    from program.commands.backup import backup as command

    command(stack, _flags(build, target, service, skip, container), run, as_json, plan_file)


@app.command(rich_help_panel="Every day")
def plan(
    build: Build = None,
    target: Target = None,
    stack: Stack = DEFAULT_STACK,
    service: Service = None,
    skip: Skip = None,
    container: Format = None,
    diff: Annotated[
        bool,
        typer.Option("--diff", help="Also what has changed since the last run, and in storage."),
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate", help="Also the policies; ends with code 5 if one refuses.")
    ] = False,
    policy_config: Annotated[
        str | None,
        typer.Option("--policy-config", metavar="FILE", help="JSON that configures policies."),
    ] = None,
    save_plan: Annotated[
        str | None,
        typer.Option("--save-plan", metavar="FILE", help="Save the plan for backup --plan."),
    ] = None,
    run: RunId = None,
    as_json: Json = False,
) -> None:
    """Show what a backup would save, and what it would not. Contacts no host."""
    from program.commands.plan import Looks
    from program.commands.plan import plan as command

    looks = Looks(diff, gate, policy_config, save_plan, run)
    command(stack, _flags(build, target, service, skip, container), looks, as_json)


@app.command(name="list", rich_help_panel="Every day")
def list_runs(target: Target = None, stack: Stack = DEFAULT_STACK, as_json: Json = False) -> None:
    """List the archives that are on the target, newest first."""
    from program.commands.looking import list_command

    list_command(stack, _flags(target=target), as_json)


@catalog_app.callback(invoke_without_command=True)
def catalog(context: typer.Context, stack: Stack = DEFAULT_STACK, as_json: Json = False) -> None:
    """Show the stack's own list of its runs, as `pulumi stack output catalog` has it."""
    from program.commands.looking import catalog as command

    if context.invoked_subcommand is None:
        command(stack, as_json)
    elif as_json or stack != DEFAULT_STACK:
        raise UsageError("flags before rebuild have no effect", "epibackup catalog rebuild …")


@catalog_app.command(name="rebuild")
def catalog_rebuild(
    build: Build = None, target: Target = None, stack: Stack = DEFAULT_STACK, as_json: Json = False
) -> None:
    """Make that list again from what is on the target, which is the truth."""
    from program.commands.catalog import rebuild as command

    command(stack, _flags(build, target), as_json)


@app.command(rich_help_panel="Every day")
def show(
    run: Annotated[
        str, typer.Argument(metavar="[latest|RUN]", help="A run's id, or the newest, good or not.")
    ] = "latest",
    target: Target = None,
    stack: Stack = DEFAULT_STACK,
    members: Annotated[bool, typer.Option("--members", help="List every member.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is in an archive, and what is not."""
    from program.commands.looking import show as command

    command(stack, _flags(target=target), run, members, as_json)


@app.command(rich_help_panel="Every day")
def restore(
    run: WantedRun = "latest",
    build: Build = None,
    target: Target = None,
    stack: Stack = DEFAULT_STACK,
    service: Annotated[
        list[str] | None,
        typer.Option("--service", metavar="NAME", help="Only this service; may be repeated."),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part", metavar="NAME", help="Only this part, such as a database; may be repeated."
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option("--rename", metavar="OLD=NEW", help="Restore a part under another name."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="NAME", help="Only what was saved from this host."),
    ] = None,
    host_map: Annotated[
        list[str] | None,
        typer.Option("--host-map", metavar="OLD=NEW", help="Restore a host's data onto another."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show every step, on every host; change nothing.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Bring services back. New data is proven beside the old before anything is replaced."""
    from program.commands.restore import restore as command
    from program.restore import Wanted

    wanted = Wanted(
        services=service or [],
        parts=part or [],
        hosts=host or [],
        host_map=_pairs("--host-map", host_map),
        rename=_pairs("--rename", rename),
    )
    command(stack, _flags(build, target), run, wanted, dry_run, yes, as_json)


def _pairs(flag: str, values: list[str] | None) -> dict[str, str]:
    pairs = {}
    for value in values or []:
        old, separator, new = value.partition("=")
        if not separator or not old or not new:
            raise UsageError(f"{flag} {value} is no pair", f"write {flag} OLD=NEW")
        pairs[old] = new
    return pairs


@app.command(rich_help_panel="Care")
def drift(
    build: Build = None,
    target: Target = None,
    stack: Stack = DEFAULT_STACK,
    as_json: Json = False,
) -> None:
    """Tell what has changed behind the stack's back: storage, its protection, archives."""
    from program.commands.drift import drift as command

    command(stack, _flags(build, target), as_json)


@app.command(rich_help_panel="Set-up")
def trust(
    hosts: Annotated[list[str] | None, typer.Argument(help="Only these hosts.")] = None,
    build: Build = None,
    stack: Stack = DEFAULT_STACK,
    replace: Annotated[
        bool, typer.Option("--replace", help="Look also at hosts whose key is known.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Look at the hosts' ssh keys and pin them in the stack's configuration."""
    from program.commands.care import trust as command

    command(stack, _flags(build), hosts or [], replace, yes)


@app.command(rich_help_panel="Care")
def unlock(
    stack: Stack = DEFAULT_STACK,
    force: Annotated[
        bool, typer.Option("--force", help="Also a lock whose run may still be at work.")
    ] = False,
) -> None:
    """Explain a stack's lock, and remove it if its run was killed."""
    from program.commands.care import unlock as command

    command(stack, force)


@app.command(rich_help_panel="Care")
def clean(
    build: Build = None,
    target: Target = None,
    stack: Stack = DEFAULT_STACK,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove snapshots and deliveries of ended runs.")
    ] = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Remove old data that restores have put aside.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List what killed runs and restores have left on the hosts; remove it on request."""
    from program.commands.care import clean as command

    command(stack, _flags(build, target), remove, discard, as_json)


@app.command(rich_help_panel="Care")
def prune(
    build: Build = None,
    target: Target = None,
    stack: Stack = DEFAULT_STACK,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go and why; remove nothing.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Remove the archives that the retention policy does not keep."""
    from program.commands.prune import prune as command

    command(stack, _flags(build, target), dry_run, yes, as_json)


@app.command(rich_help_panel="Care")
def hold(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run's id, or an archive's name.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why it has to stay.")
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="End the hold.")] = False,
    build: Build = None,
    target: Target = None,
    stack: Stack = DEFAULT_STACK,
    as_json: Json = False,
) -> None:
    """Keep a run's archive whatever the retention policy says; without RUN, list the holds."""
    from program.commands import prune as commands

    if run is None:
        if reason is not None or release:
            raise UsageError("which run is not said", "epibackup hold RUN; epibackup list")
        commands.list_holds(stack, _flags(build, target), as_json)
    else:
        commands.hold(stack, _flags(build, target), run, reason, release, as_json)


def main() -> None:
    """Run the command and end with its exit code; see components.errors."""
    from program import output

    signal.signal(signal.SIGTERM, _terminated)
    logging.disable(logging.WARNING)
    as_json = "--json" in sys.argv
    try:
        code = app(standalone_mode=False)
    except EpibackupError as error:
        output.print_error(error, as_json)
        code = error.exit_code
    except ClickException as error:
        output.print_error(UsageError(error.format_message(), "epibackup --help"), as_json)
        code = UsageError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        output.print_error(Interrupted("interrupted"), as_json)
        code = Interrupted.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _terminated(*_: object) -> None:
    raise KeyboardInterrupt
