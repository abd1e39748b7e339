"""A stack of the real project with a backend of its own, for previews."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
EPIBACKUP = Path(sys.executable).with_name("epibackup")
BUILD = ROOT / "tests" / "builds" / "2.0-onprem"
HOSTS = ("loadbalancer1", "kafka1", "kafka2", "postgresql1", "postgresql2", "rabbitmq1")
GAPS = (
    "repository", "image_registry", "kubernetes_master", "logging", "opensearch_dashboards",
    "prometheus", "grafana", "opensearch",
)  # fmt: skip
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


class Stack:
    """A stack and its configuration."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.file = ROOT / "stacks" / f"Pulumi.{name}.yaml"
        assert not self.file.exists(), f"the stack {name} belongs to another test"
        (folder / "backend").mkdir()
        (folder / "target").mkdir(mode=0o700)
        self.target = folder / "target"
        self.environment = {
            **os.environ,
            "PULUMI_BACKEND_URL": f"file://{folder / 'backend'}",
            "PULUMI_HOME": str(folder / "pulumi"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
            "COLUMNS": "300",
            "HOME": str(folder),  # nobody's known_hosts
        }
        self.environment.pop("EPIBACKUP_RUN_ID", None)
        # The engine that is built already.
        self.environment.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))

    def configure(self, **options: Any) -> None:
        """Write the configuration: the sample build, and these options."""
        values = {"build": str(BUILD), "target": str(self.target), **options}
        config = {f"epibackup:{name}": value for name, value in values.items()}
        known = yaml.safe_load(self.file.read_text()) if self.file.exists() else {}
        self.file.write_text(yaml.safe_dump({**known, "config": config}))

    def configure_well(self, **options: Any) -> None:
        """A configuration that every policy accepts."""
        exempt = [
            {"what": gap, "owner": "jane", "reason": "made again", "until": "2027-01-31"}
            for gap in GAPS
        ]
        well = {"exempt": exempt, "host_keys": dict.fromkeys(HOSTS, KEY), **options}
        self.configure(**well)

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run epibackup."""
        return self._run([str(EPIBACKUP), *arguments, "-s", self.name], environment)

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run epibackup with --json; returns its document."""
        done = self.run(*arguments, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        made = json.loads(done.stdout)
        assert isinstance(made, dict)
        return made

    def pulumi(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run Pulumi for this stack."""
        return self.pulumi_alone(*arguments, "-s", self.name, **environment)

    def pulumi_alone(
        self, *arguments: str, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run Pulumi by hand, as a user does after `eval "$(epibackup engine env)"`."""
        script = 'eval "$("$0" engine env)" && exec pulumi "$@"'
        command = ["bash", "-c", script, str(EPIBACKUP), *arguments, "--non-interactive"]
        return self._run(command, environment)

    def _run(
        self, command: list[str], environment: dict[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@contextmanager
def stack_of_tests(name: str, folder: Path) -> Iterator[Stack]:
    """A stack that is forgotten afterwards."""
    made = Stack(name, folder)
    try:
        yield made
    finally:
        made.file.unlink(missing_ok=True)
