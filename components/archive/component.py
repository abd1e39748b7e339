"""The archive of a run, as a Pulumi component."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_command import local

from components.archive.request import ArchiveRequest
from components.host_agent import quoted


class ServiceInput(TypedDict):
    """A service's snapshots."""

    name: str
    """The service."""
    answers: Input[dict[str, dict[str, Any]]]
    """What each host said."""
    problems: Input[list[str]]
    """What is wrong with the service as a whole."""


class ArchiveArgs(TypedDict):
    """What the archive process needs; see ArchiveRequest, whose other fields are in `request`."""

    run: str
    """The run's id."""
    request: Mapping[str, Any]
    """All fields of ArchiveRequest but `services`."""
    services: Sequence[ServiceInput]
    """The snapshots to put into the archive."""
    error_file: Path
    """Where the process leaves its error, if it has one."""
    after: NotRequired[Sequence[pulumi.Resource]]
    """What has to be there first: the storage."""


class Archive(pulumi.ComponentResource):
    """One archive: collected from all hosts, published on the target and read back.

    result: components.archive.request.ArchiveResult, as JSON. It is known only when the archive
    was read back.
    """

    result: Output[dict[str, Any]]

    def __init__(self, name: str, args: ArchiveArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("epibackup:index:Archive", name, {}, opts)
        services = Output.all(*[Output.all(**service) for service in args["services"]])
        made = local.Command(
            f"{name}-make",
            create=quoted(
                [
                    *(sys.executable, "-m", "components.archive"),
                    *("--run", args["run"], "--error-file", str(args["error_file"])),
                ]
            ),
            stdin=services.apply(lambda known: _request(args["request"], known)),
            logging=local.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=ResourceOptions(parent=self, depends_on=list(args.get("after", []))),
        )
        self.result = made.stdout.apply(json.loads)
        self.register_outputs({"result": self.result})


def _request(request: Mapping[str, Any], services: Sequence[Any]) -> str:
    complete = ArchiveRequest.model_validate({**request, "services": services})
    return complete.model_dump_json()
