"""Flags and arguments that several commands have."""

from typing import Annotated

import typer

from program.options import Settings
from program.project import DEFAULT_STACK

__all__ = [
    "DEFAULT_STACK",
    "Build",
    "Format",
    "Json",
    "RunId",
    "Service",
    "Skip",
    "Stack",
    "Target",
    "WantedRun",
    "Yes",
]


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
