"""The user's cache folder: what is built or downloaded once, and what was found out once."""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import EngineError

_REMEMBERED_SECONDS = 7 * 24 * 3600


def cache_folder() -> Path:
    """Return the folder for engines, below `$XDG_CACHE_HOME` or `~/.cache`; make it if needed.

    :raises EngineError: it cannot be made.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "epibackup" / "engine"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"the cache folder {folder} cannot be made: {error.strerror}",
            "Set XDG_CACHE_HOME to a folder that can be written.",
        ) from error
    return folder


@contextmanager
def locked(name: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Let one process at a time do something; the lock ends with the process.

    :param name: of the lock.
    :param on_wait: is called when another process has it, before waiting.
    """
    with (cache_folder() / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_whole(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file in one step: others see the old one or the new one."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    Path(file.name).chmod(mode)
    Path(file.name).replace(path)


class Findings:
    """What could not be reached, so that not every call tries it again; forgotten after a week."""

    def __init__(self) -> None:
        self._file = cache_folder() / "findings.json"

    def recall(self, subject: str) -> str | None:
        """Return why a subject was out of reach, if that is known and not too old."""
        found = self._read().get(subject)
        if found and 0 <= time.time() - float(found["at"]) < _REMEMBERED_SECONDS:
            return str(found["reason"])
        return None

    def remember(self, subject: str, reason: str) -> None:
        """Note that a subject is out of reach."""
        self._write({**self._read(), subject: {"at": time.time(), "reason": reason}})

    def forget(self, subject: str) -> None:
        """Forget what is known of a subject."""
        known = self._read()
        if known.pop(subject, None):
            self._write(known)

    def _read(self) -> dict[str, dict[str, float | str]]:
        with suppress(OSError, ValueError):
            known = json.loads(self._file.read_text("utf-8"))
            if isinstance(known, dict):
                return known
        return {}

    def _write(self, known: dict[str, dict[str, float | str]]) -> None:
        write_whole(self._file, json.dumps(known, indent=1))
