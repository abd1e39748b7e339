"""The schema that is served, and the check of inputs against it."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engine.command_provider.values import (
    Properties,
    Value,
    is_archive,
    is_asset,
    is_secret,
    is_unknown,
    reveal,
    secret,
)

LOCAL_COMMAND = "command:local:Command"
REMOTE_COMMAND = "command:remote:Command"
COPY_TO_REMOTE = "command:remote:CopyToRemote"
COPY_FILE = "command:remote:CopyFile"
RUN_FUNCTION = "command:local:run"

_PYTHON_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "number": (int, float),
    "integer": (int, float),
    "array": list,
    "object": dict,
}


@dataclass(frozen=True)
class Failure:
    """An input that cannot be used."""

    property: str
    reason: str


@cache
def schema_text() -> str:
    """Return the schema as JSON."""
    return Path(__file__).with_name("schema.json").read_text("utf-8")


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(schema_text())
    return schema


def input_names(resource_type: str) -> frozenset[str]:
    """Return the names of a resource's inputs.

    :raises KeyError: there is no such resource.
    """
    return frozenset(_schema()["resources"][resource_type]["inputProperties"])


def is_resource(resource_type: str) -> bool:
    """Whether the schema has this resource."""
    return resource_type in _schema()["resources"]


def check(resource_type: str, inputs: Properties) -> tuple[Properties, list[Failure]]:
    """Return a resource's inputs with defaults and marks of secrets, and what is wrong with them.

    The official provider fills in the same defaults; if this one did not, changing between the two
    would look like a change of inputs and run every command again.

    :raises KeyError: there is no such resource.
    """
    resource = _schema()["resources"][resource_type]
    required = resource.get("requiredInputs", [])
    checked, failures = _checked(resource["inputProperties"], required, inputs, "")
    if resource_type == COPY_TO_REMOTE and not failures:
        failures = _source_failures(reveal(checked["source"]))
    return checked, failures


def check_arguments(function: str, arguments: Properties) -> tuple[Properties, list[Failure]]:
    """Return a function's arguments with defaults, and what is wrong with them.

    :raises KeyError: there is no such function.
    """
    specification = _schema()["functions"][function]["inputs"]
    return _checked(specification["properties"], specification["required"], arguments, "")


def _source_failures(source: Value) -> list[Failure]:
    """Say why a source cannot be copied.

    The released official provider takes the same kinds; only its unreleased sources take more.
    """
    fault = ""
    if is_asset(source) and source.get("uri"):
        fault = "the asset must be a FileAsset or a StringAsset"
    if is_archive(source) and not source.get("path"):
        fault = "the archive must be the path of a file or directory"
    return [Failure("source", fault)] if fault else []


def _checked(
    properties: dict[str, Any], required: list[str], values: Properties, above: str
) -> tuple[Properties, list[Failure]]:
    filled: Properties = {}
    failures = [
        Failure(above + name, "a value is required") for name in required if name not in values
    ]
    for name, specification in properties.items():
        if name in values:
            value, faults = _value(specification, values[name], above + name)
            filled[name] = value
            failures += faults
        elif "default" in specification:
            filled[name] = specification["default"]
    return filled, failures


def _value(specification: dict[str, Any], value: Value, path: str) -> tuple[Value, list[Failure]]:
    """Check one value; a mark of a secret stays around it."""
    if is_secret(value) or specification.get("secret"):
        bare = value["value"] if is_secret(value) else value
        filled, failures = _value({**specification, "secret": False}, bare, path)
        return secret(filled), failures
    if is_unknown(value):
        return value, []
    reference: str = specification.get("$ref", "")
    if reference.startswith("#/types/"):
        return _reference(_schema()["types"][reference.removeprefix("#/types/")], value, path)
    if reference or "oneOf" in specification:
        wants_file = reference != "pulumi.json#/Any"
        fits = not wants_file or is_asset(value) or is_archive(value)
        return value, [] if fits else [Failure(path, "an asset or an archive is expected")]
    failures = _type_failures(specification["type"], value, path)
    item = specification.get("items") or specification.get("additionalProperties")
    if item and not failures:
        members = value.items() if isinstance(value, dict) else enumerate(value)
        failures = [
            fault
            for key, member in members
            for fault in _value(item, member, f"{path}[{key!r}]")[1]
        ]
    return value, failures


def _reference(
    specification: dict[str, Any], value: Value, path: str
) -> tuple[Value, list[Failure]]:
    failures = _type_failures(specification["type"], value, path)
    if failures or "properties" not in specification:
        return value, failures
    return _checked(specification["properties"], specification["required"], value, f"{path}.")


def _type_failures(expected: str, value: Value, path: str) -> list[Failure]:
    value = reveal(value)
    fits = isinstance(value, _PYTHON_TYPES[expected])
    if isinstance(value, bool) and expected != "boolean":
        fits = False
    return [] if fits else [Failure(path, f"a value of type {expected} is expected")]
