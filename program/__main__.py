"""The Pulumi entry point: `pulumi up` and `pulumi preview` run this."""

import atexit
import os

import pulumi

from components.archive.naming import checked_run, new_run
from components.errors import EpibackupError
from program.plan import make_plan
from program.project import stack_file
from program.run import Ready, declare, made_ready, tell
from program.settings import read_settings


def main() -> None:
    """Plan, look at the hosts unless this is a preview, and declare."""
    stack = pulumi.get_stack()
    try:
        run = checked_run(os.environ.get("EPIBACKUP_RUN_ID") or new_run())
        config = pulumi.runtime.get_config_env()
        plan = make_plan(read_settings(config, {}, str(stack_file(stack))))
        if pulumi.runtime.is_dry_run():
            # Whoever gives the run's id may want to hold the update to this preview.
            ready = Ready(stack, run, None, is_planned="EPIBACKUP_RUN_ID" in os.environ)
        else:
            # The commands run when this module has ended; the process ends after them.
            context = made_ready(plan, stack, run)
            ready = context.__enter__()
            atexit.register(context.__exit__, None, None, None)
    except EpibackupError as error:
        raise pulumi.RunError(error.message + (f"\n{error.hint}" if error.hint else "")) from error
    tell(plan)
    declare(plan, ready)


main()
