"""Errors that cross a process boundary: a file beside Pulumi's own messages, which are text."""

import json
import os
from pathlib import Path

from components import errors
from components.errors import EpibackupError


def write_error(path: Path, error: EpibackupError) -> None:
    """Leave an error for the command that waits for this process."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        json.dump(error.as_json(), stream)


def read_error(path: Path) -> EpibackupError | None:
    """The error that was left; None if there is none."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    for kind in vars(errors).values():
        if isinstance(kind, type) and getattr(kind, "code", None) == document.get("code"):
            error = kind(document["message"], document["hint"])
            return error if isinstance(error, EpibackupError) else None
    return EpibackupError(str(document.get("message")), str(document.get("hint", "")))
