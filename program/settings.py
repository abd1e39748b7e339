"""The stack configuration, read and checked.

Keys are `epibackup:<name>` in `stacks/Pulumi.<stack>.yaml`; a service's options are in a key of
its own name (`epibackup:postgresql`). Flags of the command are the same options for one run.
"""

import difflib
import functools
import json
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, Field, ValidationError, create_model

from components.errors import UsageError
from components.service import service_types
from program.options import Settings
from program.project import ROOT

PREFIX = "epibackup:"


@functools.cache
def settings_model() -> type[Settings]:
    """The model with a section for every service."""
    sections: dict[str, Any] = {
        name: (
            kind.settings_model,
            Field(default_factory=kind.settings_model, description=f"Options of {kind.title}."),
        )
        for name, kind in service_types().items()
    }
    model = create_model("StackSettings", __base__=Settings, **sections)
    return cast(type[Settings], model)


def read_settings(config: Mapping[str, Any], overrides: Mapping[str, Any], source: str) -> Settings:
    """Settings from a stack's configuration, where `overrides` of flags win.

    config: all keys of the stack, with values as they are in its file or as Pulumi hands them
    over: lists and objects as JSON. source: the configuration's file, for messages.
    Raises UsageError for everything that is wrong, with the key and what to write instead.
    """
    model = settings_model()
    values: dict[str, Any] = {}
    for key, text in config.items():
        if key.startswith(PREFIX):
            values[key.removeprefix(PREFIX)] = _decoded(text)
    if isinstance(values.get("build"), str):
        # A path in the checkout is the same for every machine and working directory.
        values["build"] = str(ROOT / values["build"])
    values |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_problem(model, dict(item), source) for item in error.errors()]
        message, hint = problems[0]
        more = "".join(f"\n{text}" for text, _ in problems[1:])
        raise UsageError(message + more, hint) from None


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(("[", "{")):
        try:
            return json.loads(value)
        except ValueError:
            return value  # the model's check says what is expected
    return value


def _problem(model: type[BaseModel], error: dict[str, Any], source: str) -> tuple[str, str]:
    """One thing that is wrong, in words: file, key, what is wrong, what to write."""
    location = [str(part) for part in error["loc"]]
    key = PREFIX + ".".join(location)
    if error["type"] != "extra_forbidden":
        return f"{source}: {key}: {error['msg']}", f"{key} was {error['input']!r}"
    names = list(_fields(model, location[:-1]))
    close = difflib.get_close_matches(location[-1], names, 1)
    hint = f"did you mean {close[0]}?" if close else f"known are: {', '.join(sorted(names))}"
    return f"{source}: unknown option {key}", hint


def _fields(model: type[BaseModel], path: list[str]) -> Mapping[str, Any]:
    for name in path:
        annotation = model.model_fields[name].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return {}
        model = annotation
    return model.model_fields
