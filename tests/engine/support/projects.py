"""Pulumi projects in a temporary folder, run by the CLI with a backend of their own."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STACK = "test"
_TIMEOUT_SECONDS = 240


@dataclass(frozen=True)
class Run:
    """What one run of the CLI did."""

    code: int
    text: str
    events: list[dict[str, Any]] = field(repr=False)

    def succeeded(self) -> "Run":
        """Fail the test if the run failed."""
        assert self.code == 0, self.text
        return self

    def failed(self) -> "Run":
        """Fail the test if the run did not fail."""
        assert self.code != 0, self.text
        return self

    def operations(self) -> dict[str, str]:
        """Return what was done with each resource, the last step of each."""
        steps = [event["resourcePreEvent"]["metadata"] for event in self.events
                 if "resourcePreEvent" in event]  # fmt: skip
        return {step["urn"].rsplit("::", 1)[-1]: step["op"] for step in steps}

    def differences(self, name: str) -> list[str]:
        """Return the paths of the inputs of a resource that changed."""
        for event in self.events:
            metadata = event.get("resourcePreEvent", {}).get("metadata", {})
            if metadata.get("urn", "").endswith(f"::{name}") and metadata.get("detailedDiff"):
                return sorted(metadata["detailedDiff"])
        return []

    def errors(self, name: str) -> str:
        """Return the errors shown for a resource."""
        return "".join(self._messages(name, "error"))

    def warnings(self, name: str) -> str:
        """Return the warnings shown for a resource."""
        return "".join(self._messages(name, "warning"))

    def live_lines(self, name: str) -> list[str]:
        """Return the lines that were shown for a resource while it was worked on."""
        messages = self._messages(name, "info", is_ephemeral=True)
        return [line for message in messages for line in message.splitlines()]

    def _messages(self, name: str, severity: str, *, is_ephemeral: bool = False) -> list[str]:
        diagnostics = [event["diagnosticEvent"] for event in self.events
                       if "diagnosticEvent" in event]  # fmt: skip
        return [
            diagnostic["message"].removesuffix("\n")
            for diagnostic in diagnostics
            if diagnostic["severity"] == severity
            and diagnostic.get("urn", "").endswith(f"::{name}")
            and (not is_ephemeral or diagnostic.get("ephemeral"))
        ]


class Project:
    """A project with one stack."""

    def __init__(self, folder: Path, environment: Mapping[str, str], pulumi: Path) -> None:
        self.folder = folder
        self.pulumi = pulumi
        self.name = folder.name.lower().replace("_", "-")
        self._backend = folder / "backend"
        self._events = folder / "events.json"
        self.environment = {
            **environment,
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{self._backend}",
            "PULUMI_CONFIG_PASSPHRASE": "only for tests",
            "PULUMI_DEBUG_COMMANDS": "true",
            # The CLI spends a third of a short run on collecting garbage.
            "GOGC": "400",
            "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
        }

    def write(
        self, program: str, *, main: str = "", options: Mapping[str, str] | None = None
    ) -> None:
        """Write `Pulumi.yaml` and the program.

        :param main: of `Pulumi.yaml`; the program goes there.
        :param options: of the runtime.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._backend.mkdir(exist_ok=True)
        runtime = {"name": "python", "options": dict(options or {})}
        project: dict[str, Any] = {"name": self.name, "runtime": runtime}
        if main:
            project["main"] = main
        (self.folder / "Pulumi.yaml").write_text(json.dumps(project))
        path = self.folder / main
        path = path if path.suffix == ".py" else path / "__main__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(program)

    def up(self, *flags: str, stack: str = STACK) -> Run:
        """Update the stack."""
        return self.run("up", "--yes", "--skip-preview", *flags, stack=stack)

    def preview(self, *flags: str) -> Run:
        """Preview an update."""
        return self.run("preview", *flags)

    def destroy(self, *flags: str) -> Run:
        """Destroy the stack's resources."""
        return self.run("destroy", "--yes", "--skip-preview", *flags)

    def run(self, command: str, *flags: str, stack: str = STACK) -> Run:
        """Run a command that reports events, to its end."""
        process = self.start(command, *flags, stack=stack)
        text, _ = process.communicate(timeout=_TIMEOUT_SECONDS)
        return self.result(process.returncode, text)

    def start(self, command: str, *flags: str, stack: str = STACK) -> subprocess.Popen[str]:
        """Start a command that reports events, in a process group of its own."""
        self.make_stack(stack)
        self._events.unlink(missing_ok=True)
        return subprocess.Popen(
            [
                self.pulumi, command, "--stack", stack, "--non-interactive", "--color", "never",
                "--event-log", self._events, *flags,
            ],
            cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip

    def result(self, code: int, text: str) -> Run:
        """Return what a started command did, after its end."""
        events = []
        if self._events.exists():
            lines = self._events.read_text(errors="replace").splitlines()
            events = [json.loads(line) for line in lines if line.endswith("}")]
        return Run(code, text, events)

    def cli(self, *arguments: str) -> str:
        """Run any other command and return its stdout."""
        result = subprocess.run(
            [self.pulumi, *arguments], cwd=self.folder, env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def outputs(self, name: str) -> dict[str, Any]:
        """Return a resource's outputs as they are in the state."""
        found = [resource for resource in self.resources() if resource["urn"].endswith(f"::{name}")]
        assert found, f"no resource {name} in the state"
        outputs: dict[str, Any] = found[-1].get("outputs", {})
        return outputs

    def exports(self) -> dict[str, Any]:
        """Return the stack's outputs as they are in the state."""
        return self.outputs(f"{self.name}-{STACK}")

    def resources(self) -> list[dict[str, Any]]:
        """Return all resources in the state."""
        return list((self._deployment().get("resources")) or [])

    def pending(self) -> list[str]:
        """Return the kinds of the operations that were interrupted."""
        return [item["type"] for item in self._deployment().get("pending_operations") or []]

    def state_text(self) -> str:
        """Return the state as it is stored."""
        return self._state_file(STACK).read_text()

    def make_stack(self, stack: str) -> None:
        """Make a stack without asking the CLI, which would take half a second."""
        path = self._state_file(stack)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint = {"stack": f"organization/{self.name}/{stack}", "latest": None}
            path.write_text(json.dumps({"version": 3, "checkpoint": checkpoint}))
            (self._backend / ".pulumi" / "meta.yaml").write_text("version: 1\n")

    def _state_file(self, stack: str) -> Path:
        return self._backend / ".pulumi" / "stacks" / self.name / f"{stack}.json"

    def _deployment(self) -> dict[str, Any]:
        deployment: dict[str, Any] = json.loads(self.state_text())["checkpoint"]["latest"] or {}
        return deployment


def interrupt(process: subprocess.Popen[str]) -> None:
    """Do what Ctrl-C in a terminal does: the CLI gets it, its plugins have groups of their own."""
    os.kill(process.pid, signal.SIGINT)
