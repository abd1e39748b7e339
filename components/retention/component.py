"""The retention of a run, as a Pulumi component."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_command import local

from components.host_agent import quoted
from components.retention.request import RetentionRequest


class RetentionArgs(TypedDict):
    """What the retention process needs, and what previews and policies look at."""

    run: str
    """The run's id."""
    request: Mapping[str, Any]
    """All fields of RetentionRequest but `verified` and `not_pruned`."""
    verified: Input[Mapping[str, bool]]
    """Of which archives it is known whether they were read back, by name."""
    not_pruned: Input[str]
    """Why nothing may be removed after this run; empty if it is good."""
    policy: Mapping[str, int]
    """The rules that are set, as in the stack's configuration."""
    removes: Input[Sequence[str]]
    """The archives that a good run would remove; unknown in a preview that cannot tell."""


class Retention(pulumi.ComponentResource):
    """Removes archives that the policy does not keep, after a run that is good.

    It does nothing after any other run, and comes before the gate all the same: no output may
    depend on the gate, and the catalog has to tell what was removed.

    result: components.retention.pruning.Pruned, as JSON.
    """

    result: Output[dict[str, Any]]

    def __init__(self, name: str, args: RetentionArgs, opts: ResourceOptions | None = None) -> None:
        shown = {"policy": args["policy"], "removes": args["removes"]}
        super().__init__("epibackup:index:Retention", name, shown, opts)
        request = Output.all(verified=args["verified"], not_pruned=args["not_pruned"])
        pruned = local.Command(
            f"{name}-prune",
            create=quoted([sys.executable, "-m", "components.retention", "--run", args["run"]]),
            stdin=request.apply(lambda known: _request(args["request"], known)),
            logging=local.Logging.STDERR,
            add_previous_output_in_env=False,
            opts=ResourceOptions(parent=self),
        )
        self.result = pruned.stdout.apply(json.loads)
        self.register_outputs({"result": self.result})


def _request(request: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    return RetentionRequest.model_validate({**request, **known}).model_dump_json()
