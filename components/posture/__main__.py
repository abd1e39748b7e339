"""The posture process: a request on standard input, how the target is protected on standard output.

It is run by Pulumi's `local.Command` (components.posture.component), after the storage was made
or put right, and before anything is done on a host. An error goes to the file named by
--error-file, too, because Pulumi passes on only text.
"""

import sys

from components.errors import PolicyRefused
from components.posture.judging import Posture, PostureRequest, posture_of, weaker
from components.process import answer
from components.storage.posture import posture


def check(request: PostureRequest) -> Posture:
    """Look at the target; raises PolicyRefused if it has become weaker."""
    found = posture_of(posture(request.target, request.target_options, request.minimum_days))
    worse = weaker(found, request.before, request.accepted)
    if worse:
        raise PolicyRefused(
            "the target is protected less than at the last run: "
            + "; ".join(f"{item.message} ({item.id})" for item in worse),
            f"put it right: {worse[0].remedy}; what the stack has made, pulumi up --refresh puts "
            f"right; or accept it: epibackup:accept: [{', '.join(item.id for item in worse)}]",
        )
    return found


def main(argv: list[str]) -> int:
    """Check; returns the exit code."""
    return answer(argv, "posture", lambda data: check(PostureRequest.model_validate_json(data)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
