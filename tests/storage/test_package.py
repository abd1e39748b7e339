"""The checkout as a component provider: its schema, and a program in Go that uses it."""

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components.storage.provision.options import AwsOptions, AzureOptions
from engine.golang import go_toolchain
from lab.machine import cache_folder, locked
from tests.engine.support.projects import Project
from tests.storage.conftest import ROOT

CONSUMER = Path(__file__).with_name("consumer")


@pytest.fixture(scope="session")
def consumer() -> Path:
    """The program, built once for its sources: two minutes of two cores with empty caches."""
    sources = b"".join((CONSUMER / name).read_bytes() for name in ("main.go", "go.mod", "go.sum"))
    folder = cache_folder() / f"consumer-{hashlib.sha256(sources).hexdigest()[:12]}"
    folder.mkdir(exist_ok=True)
    program = folder / "consumer"
    with locked(folder / "lock", print):
        if not program.exists():
            go = go_toolchain((1, 25), print)
            unfinished = folder / "unfinished"
            subprocess.run(
                [go.executable, "build", "-o", unfinished, "."],
                cwd=CONSUMER,
                env={**os.environ, "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"},
                check=True,
            )
            unfinished.rename(program)
    return program


@pytest.fixture
def schema(project: Project, tmp_path: Path) -> dict[str, Any]:
    """The schema, asked of the entry file itself: asked of the folder, the CLI would first install
    dependencies into the environment that these tests run in."""
    plugin = tmp_path / "pulumi-resource-epibackup"
    plugin.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(ROOT)])} "$@"\n')
    plugin.chmod(0o755)
    project.write("")
    made: dict[str, Any] = json.loads(project.cli("package", "get-schema", str(plugin)))
    return made


def test_the_schema_has_the_storage_components_with_a_text_for_everything(
    schema: dict[str, Any],
) -> None:
    assert schema["name"] == "epibackup"
    assert set(schema["resources"]) == {
        "epibackup:index:AwsStorage",
        "epibackup:index:AzureStorage",
        "epibackup:index:DirectoryStorage",
        "epibackup:index:ExistingStorage",
    }
    for component in schema["resources"].values():
        assert component["isComponent"]
        assert component["description"]
        for field in (*component["inputProperties"].values(), *component["properties"].values()):
            assert field["description"], field
    bucket = schema["resources"]["epibackup:index:AwsStorage"]
    assert bucket["requiredInputs"] == ["bucket"]
    # What other resources make can be handed on.
    assert "plain" not in bucket["inputProperties"]["kmsKeyArn"]


@pytest.mark.parametrize(
    ("component", "options", "own"),
    [("AwsStorage", AwsOptions, {"minimum_days"}), ("AzureStorage", AzureOptions, set())],
)
def test_components_take_just_the_options_of_the_configuration(
    schema: dict[str, Any], component: str, options: Any, own: set[str]
) -> None:
    given = schema["resources"][f"epibackup:index:{component}"]["inputProperties"]
    wanted = {*options.model_fields, *own}
    assert set(given) == {_camel(name) for name in wanted}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def run_consumer(
    consumer: Path, project: Project, bucket: str
) -> "subprocess.CompletedProcess[str]":
    project.write("")
    plugins = {"providers": [{"name": "epibackup", "path": str(ROOT)}]}
    settings = {"name": "consumer", "runtime": "go", "plugins": plugins}
    (project.folder / "Pulumi.yaml").write_text(json.dumps(settings))
    return subprocess.run(
        [consumer, project.folder],
        env={**project.environment, "CONSUMER_BUCKET": bucket},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_a_program_in_go_makes_a_bucket(
    consumer: Path, storage_project: Project, cloud: Mapping[str, str], s3: Any
) -> None:
    done = run_consumer(consumer, storage_project, "from-go")
    assert done.returncode == 0, done.stderr
    told = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert told["location"] == "s3://from-go/production"
    assert "/backups-writer-" in told["writer_role"]
    assert s3.get_bucket_versioning(Bucket="from-go")["Status"] == "Enabled"
    found = s3.get_bucket_lifecycle_configuration(Bucket="from-go")["Rules"]
    lifecycle = {rule["ID"]: rule for rule in found}
    assert lifecycle["archives"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}
    assert lifecycle["storage-classes"]["Transitions"][0]["StorageClass"] == "GLACIER_IR"


def test_a_program_in_go_is_told_what_is_wrong_with_its_arguments(
    consumer: Path, storage_project: Project
) -> None:
    done = run_consumer(consumer, storage_project, "Not_A_Bucket")
    assert done.returncode == 1
    assert "'Not_A_Bucket' cannot be a bucket's name" in done.stderr + done.stdout
