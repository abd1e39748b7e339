"""The archive process: a request on standard input, the result on standard output.

It is run by Pulumi's `local.Command` (components.archive.component). Progress goes to standard
error. An error is told there too, and as JSON to the file named by --error-file, because Pulumi
passes on only text.
"""

import sys

from components.archive.making import make_archive
from components.archive.request import ArchiveRequest
from components.process import answer, say


def main(argv: list[str]) -> int:
    """Make the archive; returns the exit code."""
    return answer(
        argv,
        "archive",
        lambda data: make_archive(ArchiveRequest.model_validate_json(data), say),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
