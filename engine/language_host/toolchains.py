"""Which interpreter runs a program, and how its dependencies get there.

`runtime.options` of Pulumi.yaml, PulumiPolicy.yaml or PulumiPlugin.yaml say it: `virtualenv` (a
folder, relative to the project) and `toolchain` (`pip`, `uv` or `poetry`; else the lock file that
is found decides). Names, defaults and errors follow Pulumi's own host (sdk/python/toolchain).
"""

import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from google.protobuf.json_format import MessageToDict

from engine.language_host.processes import Children, Command
from engine.protocol import language_pb2
from engine.serving import Refusal

PIP = "pip"
UV = "uv"
POETRY = "poetry"
_LOCKS = {"uv.lock": UV, "poetry.lock": POETRY}
_TYPE_CHECKERS = ("mypy", "pyright")

_LIST_PACKAGES = """
import json, re
from importlib.metadata import distributions
packages, required = {}, set()
for found in distributions():
    name = re.sub(r"[-_.]+", "-", found.metadata["Name"] or "").lower()
    packages.setdefault(name, found.version)
    for line in found.requires or ():
        required.add(re.sub(r"[-_.]+", "-", re.match(r"[\\w.-]*", line)[0]).lower())
print(json.dumps({"packages": packages, "required": sorted(required)}))
"""


@dataclass(frozen=True)
class Options:
    """The runtime options of a project, a policy pack or a plugin."""

    root: Path
    program_folder: Path
    virtualenv: Path | None
    toolchain: str
    type_checker: str

    @classmethod
    def from_info(cls, info: language_pb2.ProgramInfo) -> Self:
        """Read them.

        :raises Refusal: a value cannot be used.
        """
        root = Path(info.root_directory)
        program_folder = Path(info.program_directory)
        values = MessageToDict(info.options)
        for name in ("virtualenv", "toolchain", "typechecker"):
            if not isinstance(values.get(name, ""), str):
                raise Refusal(f"the runtime option {name} must be a text")
        toolchain = values.get("toolchain") or _by_lock(program_folder)
        if toolchain not in (PIP, UV, POETRY):
            raise Refusal(f"the runtime option toolchain is {toolchain}: use pip, uv or poetry")
        type_checker = values.get("typechecker", "")
        if type_checker and type_checker not in _TYPE_CHECKERS:
            raise Refusal(f"the runtime option typechecker is {type_checker}: use mypy or pyright")
        virtualenv = root / values["virtualenv"] if values.get("virtualenv") else None
        return cls(root, program_folder, virtualenv, toolchain, type_checker)

    def of_plugin(self, *, is_installed: bool) -> Self:
        """Return those of a plugin, which has its environment in `venv` unless it says otherwise.

        :param is_installed: use that folder only if the environment is there. Pulumi's host takes
            it in any case and fails; a plugin with nothing but Pulumi's SDK needs none.
        """
        usual = self.root / "venv"
        if self.toolchain != PIP or self.virtualenv is not None:
            return self
        if is_installed and not _is_virtualenv(usual):
            return self
        return replace(self, virtualenv=usual)


@dataclass(frozen=True)
class Python:
    """An interpreter, and the environment that it belongs to."""

    executable: Path
    virtualenv: Path | None

    def activated(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return environment variables as an activated virtual environment has them."""
        if self.virtualenv is None:
            return dict(environment)
        path = os.pathsep.join((str(self.virtualenv / "bin"), environment.get("PATH", "")))
        changed = {**environment, "PATH": path, "VIRTUAL_ENV": str(self.virtualenv)}
        changed.pop("PYTHONHOME", None)
        return changed


class Toolchain:
    """Does what the options of one project ask for."""

    def __init__(self, options: Options, children: Children) -> None:
        self._options = options
        self._children = children

    async def python(self) -> Python:
        """Return the interpreter; with uv, its environment is brought up to date first.

        :raises Refusal: there is none.
        """
        match self._options.toolchain:
            case "uv":
                virtualenv = self._uv_virtualenv()
                if _upwards(self._options.program_folder, "pyproject.toml"):
                    await self._children.output(self._uv("sync", "--inexact"))
            case "poetry":
                self._require_poetry()
                command = self._command("poetry", "env", "info", "--path")
                virtualenv = Path((await self._children.output(command)).strip())
            case _ if self._options.virtualenv is None:
                return Python(_ambient_python(), None)
            case _:
                virtualenv = self._options.virtualenv
        if not _is_virtualenv(virtualenv):
            raise Refusal(
                f"there is no virtual environment at {virtualenv}, where the runtime options look "
                f"for it; make it with `python3 -m venv {virtualenv}` and install the program's "
                "dependencies into it"
            )
        return Python(virtualenv / "bin" / "python", virtualenv)

    def is_installed(self) -> bool:
        """Whether the environment is there, or is none of the host's business."""
        match self._options.toolchain:
            case "uv":
                # `uv sync` makes it when the program is run.
                return True
            case "poetry":
                return True
            case _:
                folder = self._options.virtualenv
                return folder is None or (folder.exists() and any(folder.iterdir()))

    async def install(self) -> AsyncIterator[tuple[str, bytes]]:
        """Make the environment and install the program's dependencies; yield what that prints.

        :raises Refusal: a step failed.
        """
        for command in self._install_commands():
            async for part in self._children.stream(command):
                if not isinstance(part, int):
                    yield part
                elif part:
                    name = " ".join(map(str, command.arguments))
                    raise Refusal(f"installing the dependencies failed: {name}: exit code {part}")

    def _install_commands(self) -> list[Command]:
        options = self._options
        if options.toolchain == UV:
            return [self._uv("sync")]
        if options.toolchain == POETRY:
            self._require_poetry()
            return [self._command("poetry", "install", "--no-ansi")]
        python = _ambient_python()
        commands = []
        if options.virtualenv is not None:
            commands.append(self._command(python, "-m", "venv", options.virtualenv))
            python = options.virtualenv / "bin" / "python"
        if (options.program_folder / "requirements.txt").exists():
            commands.append(self._command(python, "-m", "pip", "install", "-r", "requirements.txt"))
        return commands

    async def packages(self, *, transitive: bool) -> dict[str, str]:
        """Return the installed packages with their versions.

        :param transitive: also those that others require.
        """
        python = await self.python()
        command = self._command(python.executable, "-c", _LIST_PACKAGES)
        found = json.loads(await self._children.output(command))
        packages: dict[str, str] = found["packages"]
        hidden = set() if transitive else set(found["required"])
        return {name: packages[name] for name in sorted(packages) if name not in hidden}

    async def version(self) -> tuple[Path, str]:
        """Return the interpreter with its version.

        The CLI asks for it in every update, so the interpreter is only started if no file says it.
        """
        python = await self.python()
        if version := _noted_version(python):
            return python.executable, version
        command = self._command(
            python.executable, "-c", "import platform; print(platform.python_version())"
        )
        return python.executable, (await self._children.output(command)).strip()

    def _command(self, *arguments: str | Path) -> Command:
        return Command(arguments, self._options.program_folder, os.environ)

    def _uv(self, *arguments: str) -> Command:
        environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(self._uv_virtualenv())}
        return Command(("uv", *arguments), self._options.program_folder, environment)

    def _uv_virtualenv(self) -> Path:
        if shutil.which("uv") is None:
            raise Refusal("the toolchain uv is asked for, and there is no `uv` on PATH")
        if self._options.virtualenv is not None:
            return self._options.virtualenv
        folder = self._options.program_folder
        project = _upwards(folder, "uv.lock") or _upwards(folder, "pyproject.toml") or folder
        return project / os.environ.get("UV_PROJECT_ENVIRONMENT", ".venv")

    @staticmethod
    def _require_poetry() -> None:
        if shutil.which("poetry") is None:
            raise Refusal("the toolchain poetry is asked for, and there is no `poetry` on PATH")


def _ambient_python() -> Path:
    """Return the interpreter for a project without an environment of its own."""
    named = os.environ.get("PULUMI_PYTHON_CMD")
    for name in [named] if named else ["python3", "python"]:
        if found := shutil.which(name):
            return Path(found)
    raise Refusal(f"there is no {named or 'python3'} on PATH")


def _noted_version(python: Python) -> str | None:
    """Return the version that a virtual environment has written down when it was made."""
    if python.virtualenv is None:
        return None
    try:
        lines = (python.virtualenv / "pyvenv.cfg").read_text("utf-8").splitlines()
    except OSError:
        return None
    noted = dict(line.split(" = ", 1) for line in lines if " = " in line)
    # `python -m venv` writes the first, virtualenv and uv write the second.
    version = noted.get("version") or noted.get("version_info", "")
    return ".".join(version.split(".")[:3]) or None


def _is_virtualenv(folder: Path) -> bool:
    return (folder / "bin" / "python").is_file()


def _by_lock(folder: Path) -> str:
    return next((tool for name, tool in _LOCKS.items() if _upwards(folder, name)), PIP)


def _upwards(folder: Path, name: str) -> Path | None:
    """Return the nearest folder, from this one upwards, that has a file of this name."""
    return next((place for place in (folder, *folder.parents) if (place / name).exists()), None)
