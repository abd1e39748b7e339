"""Fixtures: projects whose engine has a provider for everything, and the pack."""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import engine
from tests.engine.conftest import embedded_engine, engine_environment
from tests.engine.support.projects import Project, Run

__all__ = ["embedded_engine", "engine_environment"]

ROOT = Path(__file__).parents[2]
PACK = ROOT / "policy"


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with executables that the CLI takes for the plugins of clouds."""
    folder = tmp_path_factory.mktemp("echo")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.policy.echo import main; main()"
    )
    for package in ("aws", "azure-native"):
        path = folder / f"pulumi-resource-{package}"
        path.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-c", code])} "$@"\n')
        path.chmod(0o755)
    return folder


class Gated:
    """A project that is previewed with the pack."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def preview(self, program: str, config: Mapping[str, Any] | None = None) -> Run:
        """Preview a program; `config` is the pack's."""
        self.project.write(program)
        flags = ["--policy-pack", str(PACK)]
        if config is not None:
            path = self.project.folder / "policy-config.json"
            path.write_text(json.dumps(config))
            flags += ["--policy-pack-config", str(path)]
        return self.project.preview(*flags)


def violations(run: Run) -> dict[str, list[str]]:
    """What mandatory policies said: messages by policy."""
    found: dict[str, list[str]] = {}
    for event in run.events:
        told = event.get("policyEvent")
        if told and told["enforcementLevel"] == "mandatory":
            found.setdefault(told["policyName"], []).append(told["message"])
    return found


@pytest.fixture
def gated(
    tmp_path: Path,
    embedded_engine: engine.Engine,
    engine_environment: dict[str, str],
    echo: Path,
) -> Gated:
    """An empty project with the pack."""
    path = os.pathsep.join((str(echo), engine_environment["PATH"]))
    environment = {**engine_environment, "PATH": path, "AWS_REGION": "eu-central-1"}
    return Gated(Project(tmp_path / "project", environment, embedded_engine.pulumi))
