"""Fixtures: the engine with provider doubles on its PATH, and a server that speaks S3 and IAM."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

import engine
from tests.engine.conftest import embedded_engine, engine_environment, project
from tests.engine.support.projects import Project, Run

__all__ = ["embedded_engine", "engine_environment", "project"]

ROOT = Path(__file__).parents[2]

PROGRAM = """
import json, pathlib, pulumi
from {module} import {component}
made = {component}("storage", json.loads(pathlib.Path("args.json").read_text()))
for name, value in vars(made).items():
    if isinstance(value, pulumi.Output) and not name.startswith("_"):
        pulumi.export(name, value)
"""


@pytest.fixture(scope="session")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the doubles' executables."""
    folder = tmp_path_factory.mktemp("doubles")
    for package, module in (("aws", "aws"), ("azure-native", "azure")):
        path = folder / f"pulumi-resource-{package}"
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
            f"from tests.storage.doubles.{module} import main; main()"
        )
        command = shlex.join([sys.executable, "-c", code])
        path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def cloud() -> Iterator[Mapping[str, str]]:
    """A server that speaks S3 and IAM, as environment variables; also this process's own."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "only for tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables
    server.stop()


@pytest.fixture
def s3(cloud: Mapping[str, str]) -> Any:
    """A client of that server, for looking at and changing things behind Pulumi's back."""
    return boto3.Session().client("s3")


class Storage:
    """A project with one storage component, whose arguments are set between updates."""

    def __init__(self, project: Project, module: str, component: str) -> None:
        self.project = project
        project.write(PROGRAM.format(module=module, component=component))

    def up(self, args: Mapping[str, Any], *flags: str) -> Run:
        """Update with these arguments."""
        self.set(args)
        return self.project.up(*flags)

    def set(self, args: Mapping[str, Any]) -> None:
        """Set the arguments."""
        (self.project.folder / "args.json").write_text(json.dumps(args))

    def drift(self) -> Run:
        """Look for drift, changing nothing."""
        return self.project.run("refresh", "--preview-only", "--expect-no-changes")


@pytest.fixture
def storage_project(
    tmp_path: Path,
    embedded_engine: engine.Engine,
    engine_environment: Mapping[str, str],
    doubles: Path,
    cloud: Mapping[str, str],
) -> Project:
    """An empty project whose engine has the doubles."""
    path = os.pathsep.join((str(doubles), engine_environment["PATH"]))
    environment = {
        **engine_environment,
        **cloud,
        "PATH": path,
        "EPIBACKUP_TEST_AZURE": str(tmp_path / "azure.json"),
    }
    return Project(tmp_path / "project", environment, embedded_engine.pulumi)
