"""The small executables that the CLI looks for by name, made for the environment that runs this.

They lie in `libexec/epibackup` of the environment rather than in its `bin`: an activated
environment must not put them before an official installation.
"""

import os
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from engine.cache import cache_folder, write_whole
from engine.errors import EngineError

_LANGUAGE_HOST = "pulumi-language-python"
_COMMAND_PROVIDER = "pulumi-resource-command"
_ENGINE = "engine"


def interpreter() -> str:
    """Return the interpreter that the launchers start."""
    return sys.executable


def engine_folder(cli: Path) -> Path:
    """Return a folder with a CLI, as `pulumi`, and the embedded language host.

    They lie side by side, because the CLI warns about a language host that it finds elsewhere.
    """
    folder = language_host_folder(_ENGINE)
    _place(cli, folder / "pulumi")
    return folder


def language_host_folder(name: str = "language") -> Path:
    """Return a folder with the embedded language host."""
    folder = _folder(name)
    _write(folder / _LANGUAGE_HOST, "engine.language_host.__main__")
    return folder


def provider_folder() -> Path:
    """Return a folder with the embedded `command` provider."""
    folder = _folder("provider")
    _write(folder / _COMMAND_PROVIDER, "engine.command_provider.__main__")
    return folder


def is_ours(folder: Path) -> bool:
    """Whether a folder is one of these, of this environment."""
    return folder.name == "bin" and folder.parent.parent in _homes()


def _folder(name: str) -> Path:
    """Return a folder in the environment, or in the cache if the environment cannot be written.

    It is called `bin`, because Pulumi's Automation API (`PulumiCommand(root=...)`) looks there.
    """
    for home in _homes():
        folder = home / name / "bin"
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    raise EngineError(
        f"neither {' nor '.join(map(str, _homes()))} can be written",
        "Make one of them writable; the launchers of the embedded engine go there.",
    )


def _homes() -> tuple[Path, Path]:
    environment = Path(sys.prefix)
    of_this_environment = str(environment).strip("/").replace("/", "-")
    return (
        environment / "libexec" / "epibackup",
        cache_folder() / "launchers" / of_this_environment,
    )


def _write(path: Path, module: str) -> None:
    """Write a launcher, if it is not there or was made for something else."""
    # Isolated (-I): neither the folder that the CLI works in nor PYTHONPATH, both a stranger's, may
    # shadow what is imported. The added entry is for a package that is only on the path.
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parents[1])!r}); "
        f"from {module} import main; main()"
    )
    command = f"exec {shlex.quote(sys.executable)} -I -c {shlex.quote(code)}"
    text = f'#!/bin/sh\n{command} "$@"\n'
    with suppress(OSError):
        if path.read_text("utf-8") == text:
            return
    write_whole(path, text, mode=0o755)


def _place(cli: Path, path: Path) -> None:
    """Link the CLI, or copy it where links do not reach."""
    with suppress(OSError):
        there, wanted = path.stat(), cli.stat()
        if os.path.samestat(there, wanted):
            return
        if (there.st_size, there.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns):
            return
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    try:
        try:
            unfinished.hardlink_to(cli)
        except OSError:
            shutil.copy2(cli, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
