"""`epibackup engine` and `epibackup config`."""

import sys

import typer

from program.cli_options import DEFAULT_STACK, Json, Stack

engine_app = typer.Typer()
config_app = typer.Typer(help="The stack configuration: sample, reference and what is in force.")


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
