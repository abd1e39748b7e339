"""The command `epibackup`: flags in, exit codes out. What commands do is in `program.commands`."""

import logging
import signal
import sys
from typing import Annotated, Any

import typer
from typer._click.exceptions import ClickException  # what every usage error of typer's is

from components.errors import EpibackupError, Interrupted, UsageError
from program.options import Settings
from program.project import DEFAULT_STACK

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
    epilog="Exit codes: 0 good, 2 usage, 3 incomplete, 4 refused, 6 not found, 7 locked, "
    "8 target, 9 verification, 130 interrupted; see docs/exit-codes.md.",
)
engine_app = typer.Typer()
config_app = typer.Typer(help="The stack configuration: sample, reference and what is in force.")
app.add_typer(engine_app, name="engine", rich_help_panel="Set-up")
app.add_typer(config_app, name="config", rich_help_panel="Set-up")


def _text(name: str) -> str:
    """An option's description, from the one model of all options."""
    return (Settings.model_fields[name].description or "").partition(" Also -")[0]


Build = Annotated[str | None, typer.Option("--build", "-b", metavar="DIR", help=_text("build"))]
Target = Annotated[str | None, typer.Option("--target", "-t", metavar="PATH", help=_text("target"))]
Stack = Annotated[
    str, typer.Option("--stack", "-s", metavar="NAME", help="The Pulumi stack of this cluster.")
]
Service = Annotated[
    list[str] | None, typer.Option("--service", metavar="NAME", help=_text("services"))
]
Skip = Annotated[list[str] | None, typer.Option("--skip", metavar="NAME", help=_text("skip"))]
Format = Annotated[str | None, typer.Option("--format", metavar="FORMAT", help=_text("format"))]
RunId = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN",
        envvar="EPIBACKUP_RUN_ID",
        show_envvar=False,
        help="The run's id. Given again, a run that failed goes on where it stopped. "
        "Default: the time now, such as 20261122T013000Z.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, errors included.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
WantedRun = Annotated[
    str, typer.Argument(metavar="[latest|RUN]", help="A run's id, or the newest good one.")
]


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
) -> None:
    """Save everything the inventory has into one archive. This is also the default."""
    from program.commands.backup import backup as command

    command(stack, _flags(build, target, service, skip, container), run, as_json)


@app.command(rich_help_panel="Every day")
def plan(
    build: Build = None,
    target: Target = None,
    stack: Stack = DEFAULT_STACK,
    service: Service = None,
    skip: Skip = None,
    container: Format = None,
    as_json: Json = False,
) -> None:
    """Show what a backup would save, and what it would not. Contacts no host."""
    from program.commands.backup import plan as command

    command(stack, _flags(build, target, service, skip, container), as_json)


@app.command(name="list", rich_help_panel="Every day")
def list_runs(target: Target = None, stack: Stack = DEFAULT_STACK, as_json: Json = False) -> None:
    """List the archives that are on the target, newest first."""
    from program.commands.looking import list_command

    list_command(stack, _flags(target=target), as_json)


@app.command(rich_help_panel="Every day")
def catalog(stack: Stack = DEFAULT_STACK, as_json: Json = False) -> None:
    """Show the stack's own list of its runs, as `pulumi stack output catalog` has it."""
    from program.commands.looking import catalog as command

    command(stack, as_json)


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


@engine_app.callback(invoke_without_command=True)
def engine_by_default(context: typer.Context) -> None:
    """The Pulumi engine: which one is used, and getting one."""
    if context.invoked_subcommand is None:
        engine_show()


@engine_app.command(name="show")
def engine_show(as_json: Json = False) -> None:
    """Say which engine is in use, and why."""
    from program.commands.care import engine_show as command

    command(as_json)


@engine_app.command(name="obtain")
def engine_obtain() -> None:
    """Get a Pulumi engine: installed, downloaded or built, whatever can be had."""
    from program import output
    from program.stack import engine

    output.say(engine(output.say).reason)


@engine_app.command(name="env")
def engine_env() -> None:
    """Print settings for `pulumi` by hand: eval "$(epibackup engine env)"."""
    from program.commands.care import engine_env as command

    command()


@config_app.command()
def sample() -> None:
    """Print a commented sample of the stack configuration."""
    from program import reference

    sys.stdout.write(reference.sample())


@config_app.command(name="reference")
def config_reference() -> None:
    """Print the reference page of all options (docs/configuration.md)."""
    from program import reference

    sys.stdout.write(reference.reference())


@config_app.command()
def schema() -> None:
    """Print the options' JSON Schema."""
    from program import reference

    sys.stdout.write(reference.schema())


@config_app.command(name="manifest-schema")
def manifest_schema() -> None:
    """Print the JSON Schema of an archive's manifest (docs/manifest.schema.json)."""
    from program import reference

    sys.stdout.write(reference.manifest_schema())


@config_app.command(name="show")
def config_show(stack: Stack = DEFAULT_STACK) -> None:
    """Print the options in force for a stack, defaults included."""
    from program.commands.backup import settings_for

    sys.stdout.write(settings_for(stack, {}).model_dump_json(indent=2) + "\n")


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
