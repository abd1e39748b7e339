"""What is installed on this machine: CLIs on PATH, their versions, their language hosts."""

import json
import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path

from engine import launchers, pins
from engine.cache import cache_folder, write_whole

_VERSION_SECONDS = 30
_LANGUAGE_HOST = "pulumi-language-python"
_BINARY_STARTS = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")


def search_path() -> list[Path]:
    """Return the folders of PATH."""
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return [Path(entry) for entry in entries if entry]


def find_on_path(name: str) -> Path | None:
    """Return a program on PATH that is not one of our own launchers."""
    for folder in search_path():
        candidate = folder / name
        if not launchers.is_ours(folder) and candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    return None


def has_language_host(cli: Path) -> bool:
    """Whether a CLI will find a language host for Python that is not ours."""
    return find_on_path(_LANGUAGE_HOST) is not None or (
        cli.resolve().with_name(_LANGUAGE_HOST).exists()
    )


def is_new_enough(version: str) -> bool:
    """Whether a CLI of this version is used; a pre-release counts as its release."""
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return numbers is not None and tuple(map(int, numbers.groups())) >= pins.OLDEST_CLI


def cli_version(cli: Path) -> str | None:
    """Return a CLI's version, without `v`; None if it does not tell.

    Asking takes a quarter of a second, so the answer of a binary is kept as long as the file is the
    same. A script may stand for a different binary in each folder; it is asked each time.
    """
    memory = cache_folder() / "versions.json"
    known: dict[str, list[int | str]] = {}
    with suppress(OSError, ValueError):
        known = json.loads(memory.read_text("utf-8"))
    try:
        path = cli.resolve()
        status = path.stat()
        with path.open("rb") as file:
            is_binary = file.read(4) in _BINARY_STARTS
    except OSError:
        return None
    mark: list[int | str] = [status.st_size, status.st_mtime_ns, status.st_ino]
    entry = known.get(str(path), [])
    if is_binary and entry[:-1] == mark:
        return str(entry[-1])
    version = _ask(cli)
    if is_binary and version:
        with suppress(OSError):
            write_whole(memory, json.dumps({**known, str(path): [*mark, version]}))
    return version


def _ask(cli: Path) -> str | None:
    environment = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        result = subprocess.run(
            [cli, "version"], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=_VERSION_SECONDS, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    found = re.fullmatch(r"v?(\d+\.\d+\.\d+\S*)", result.stdout.strip())
    return found[1] if found else None
