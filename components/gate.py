"""The end of a run: fails the update if a service failed, after the archive is published."""

from typing import TypedDict

import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi_command import local

from components.errors import Incomplete
from components.host_agent import quoted

OUTPUTS_SECONDS = 3
"""How long a failure is held back: the engine stops at the first one, and the stack's outputs,
which the program sends at the same time as this Command, would not be stored. (Telling the engine
to continue on errors is no way out: then a run without an archive would empty the outputs.)"""

CHECK = f"""
failures=$(cat)
[ -z "$failures" ] && exit 0
printf 'run %s is incomplete; its archive has everything but:\n%s\n' "$1" "$failures" >&2
sleep {OUTPUTS_SECONDS}
exit {Incomplete.exit_code}
"""
"""Run by sh, which starts at once, with a line for each failure on its standard input."""


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
            create=quoted(["sh", "-c", CHECK, "gate", args["run"]]),
            stdin=Output.from_input(args["failures"]).apply("\n".join),
            logging=local.Logging.NONE,
            add_previous_output_in_env=False,
            opts=ResourceOptions(parent=self),
        )
        self.register_outputs({})
