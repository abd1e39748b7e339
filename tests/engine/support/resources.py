"""Resources of the `command` provider, described as data."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.engine.support import inline_program
from tests.engine.support.projects import STACK, Project, Run

# Makes resources in a program of its own; there, inputs are plain data.
_PROGRAM = """
import json
from pathlib import Path

import pulumi
from pulumi_command import local, remote

kinds = {"local": local.Command, "remote": remote.Command}
made = {}
for item in json.loads(Path("resources.json").read_text()):
    options = pulumi.ResourceOptions(depends_on=[made[name] for name in item["after"]])
    made[item["name"]] = kinds[item["kind"]](item["name"], opts=options, **item["inputs"])
"""


@dataclass(frozen=True)
class Resource:
    """A resource: its name, what it is, and its inputs as the Python SDK names them."""

    name: str
    kind: str
    inputs: dict[str, Any]
    after: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


def local(name: str, *after: str, **inputs: Any) -> Resource:
    """Describe a `command:local:Command` that comes after others."""
    return Resource(name, "local", inputs, list(after))


class ProgramServer:
    """A process that serves programs to CLIs: see `inline_program`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", inline_program.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def serve(self, resources: tuple[Resource, ...]) -> tuple[int, int]:
        """Serve the program that makes these resources; return its port and its process."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests
        assert answers
        pickle.dump(resources, requests)
        requests.flush()
        port, process = answers.readline().split()
        return int(port), int(process)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


class CommandProject(Project):
    """A project with resources of the `command` provider.

    The CLI gets its program as from Pulumi's Automation API and needs no language host: that is
    faster, and leaves the provider as the only thing that is tested.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], pulumi: Path, programs: ProgramServer
    ) -> None:
        super().__init__(folder, environment, pulumi)
        self._programs = programs

    def up_with(self, *resources: Resource, flags: tuple[str, ...] = ()) -> Run:
        """Update the stack so that it has these resources."""
        return self._run_with("up", resources, ("--yes", "--skip-preview", *flags))

    def preview_with(self, *resources: Resource) -> Run:
        """Preview the update to these resources."""
        return self._run_with("preview", resources, ())

    def _run_with(
        self, command: str, resources: tuple[Resource, ...], flags: tuple[str, ...]
    ) -> Run:
        if not (self.folder / "Pulumi.yaml").exists():
            self.write("")
        port, program = self._programs.serve(resources)
        try:
            return self.run(command, f"--client=127.0.0.1:{port}", *flags, stack=STACK)
        finally:
            os.kill(program, signal.SIGKILL)

    def start_with(self, *resources: Resource) -> "subprocess.Popen[str]":
        """Start the update to these resources, with a language host and a program of its own."""
        self.write(_PROGRAM)
        text = json.dumps([asdict(resource) for resource in resources])
        (self.folder / "resources.json").write_text(text)
        return self.start("up", "--yes", "--skip-preview")

    def has(self, name: str) -> bool:
        """Whether there is a resource of this name in the state."""
        return any(resource["urn"].endswith(f"::{name}") for resource in self.resources())
