"""The check of the target's protection, as a Pulumi component."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_command import local

from components.host_agent import quoted
from components.posture.judging import PostureRequest


class PostureCheckArgs(TypedDict):
    """What the posture process needs."""

    run: str
    """The run's id."""
    request: Mapping[str, Any]
    """All fields of PostureRequest but `before`."""
    before: Input[Sequence[str] | None]
    """What was weak at the last run, by id; None if nobody knows."""
    error_file: Path
    """Where the process leaves its error, if it has one."""
    after: Sequence[pulumi.Resource]
    """The storage, which has to be made or put right first."""


class PostureCheck(pulumi.ComponentResource):
    """Refuses the run if the target is protected less than at the last one.

    result: components.posture.judging.Posture, as JSON.
    """

    result: Output[dict[str, Any]]

    def __init__(
        self, name: str, args: PostureCheckArgs, opts: ResourceOptions | None = None
    ) -> None:
        super().__init__("epibackup:index:PostureCheck", name, {}, opts)
        before = Output.from_input(args["before"])
        checked = local.Command(
            f"{name}-ask",
            create=quoted(
                [
                    *(sys.executable, "-m", "components.posture"),
                    *("--run", args["run"], "--error-file", str(args["error_file"])),
                ]
            ),
            stdin=before.apply(lambda known: _request(args["request"], known)),
            logging=local.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=ResourceOptions(parent=self, depends_on=list(args["after"])),
        )
        self.result = checked.stdout.apply(json.loads)
        self.register_outputs({"result": self.result})


def _request(request: Mapping[str, Any], before: Sequence[str] | None) -> str:
    return PostureRequest.model_validate({**request, "before": before}).model_dump_json()
