"""The end of a run: fails the update if a service failed, after the archive is published.

Also the program that this Command runs: `python -m components.gate`.
"""

import json
import sys
from typing import TypedDict

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_command import local

from components.errors import Incomplete
from components.host_agent import quoted


class GateArgs(TypedDict):
    """What the gate looks at."""

    run: str
    """The run's id."""
    failures: Input[list[str]]
    """What failed, a line each; empty if nothing did."""


class Gate(pulumi.ComponentResource):
    """Fails the update, and by that `pulumi up`, if the run is incomplete.

    No output depends on it: what the run saved is kept in the stack's outputs all the same.
    """

    def __init__(self, name: str, args: GateArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("epibackup:index:Gate", name, {}, opts)
        local.Command(
            f"{name}-check",
            create=quoted([sys.executable, "-m", "components.gate", args["run"]]),
            stdin=Output.from_input(args["failures"]).apply(json.dumps),
            logging=local.Logging.NONE,
            add_previous_output_in_env=False,
            opts=ResourceOptions(parent=self),
        )
        self.register_outputs({})


def main(run: str) -> int:
    """Tell what failed; returns the exit code."""
    failures = json.load(sys.stdin)
    if not failures:
        return 0
    lines = [f"run {run} is incomplete; its archive has everything but:", *failures]
    sys.stderr.write("\n".join(lines) + "\n")
    return Incomplete.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
