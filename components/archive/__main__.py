"""The archive process: a request on standard input, the result on standard output.

It is run by Pulumi's `local.Command` (components.archive.component). Progress goes to standard
error. An error is told there too, and as JSON to the file named by --error-file, because Pulumi
passes on only text.
"""

import argparse
import sys
from pathlib import Path

from components.archive.making import make_archive
from components.archive.request import ArchiveRequest
from components.errors import EpibackupError
from components.outcome import write_error
from components.process import end_in_good_order, end_with_parent, read_request, say


def main(argv: list[str]) -> int:
    """Make the archive; returns the exit code."""
    parser = argparse.ArgumentParser(prog="epibackup-archive")
    parser.add_argument("--run", required=True)
    parser.add_argument("--error-file", type=Path, required=True)
    arguments = parser.parse_args(argv)
    end_in_good_order("the archive process")
    end_with_parent()
    arguments.error_file.unlink(missing_ok=True)
    try:
        result = make_archive(ArchiveRequest.model_validate_json(read_request()), say)
    except EpibackupError as error:
        write_error(arguments.error_file, error)
        say(f"error: {error.message}" + (f" ({error.hint})" if error.hint else ""))
        return error.exit_code
    sys.stdout.write(result.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
