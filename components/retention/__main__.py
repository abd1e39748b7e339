"""The retention process: a request on standard input, what became of it on standard output.

It is run by Pulumi's `local.Command` (components.retention.component), after the archive was read
back. What it cannot do is told in its answer, not by its exit code: the archive is good whatever
becomes of older ones, and a Command that fails would keep the run from the stack's outputs.
"""

import argparse
import sys

from components.archive.naming import run_time
from components.errors import EpibackupError, Interrupted
from components.process import Say, end_in_good_order, end_with_parent, read_request, say
from components.retention.pruning import Pruned, remove, verdicts_on
from components.retention.reading import Known
from components.retention.request import RetentionRequest
from components.storage.target import open_target


def prune(request: RetentionRequest, told: Say) -> Pruned:
    """Carry the policy out after a good run; raises Interrupted."""
    if request.not_pruned:
        return Pruned(not_pruned=request.not_pruned)
    try:
        target = open_target(request.target, request.target_options)
        known = Known(request.cluster, run_time(request.run), request.verified)
        return remove(target, verdicts_on(target, request.policy, known), told)
    except Interrupted:
        raise
    except EpibackupError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return Pruned(problems=[f"nothing was removed: {error.message}{hint}"])


def main(argv: list[str]) -> int:
    """Prune; returns the exit code."""
    parser = argparse.ArgumentParser(prog="epibackup-retention")
    parser.add_argument("--run", required=True)
    parser.parse_args(argv)
    end_in_good_order("the retention process")
    end_with_parent()
    try:
        answer = prune(RetentionRequest.model_validate_json(read_request()), say)
    except Interrupted as error:
        say(f"error: {error.message}")
        return error.exit_code
    sys.stdout.write(answer.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
