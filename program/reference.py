"""The documents that are made from the model of the options: sample, reference page, schema."""

import json
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from components.archive.manifest import Manifest
from program.settings import PREFIX, settings_model

SAMPLE_HEADER = """\
# Stack configuration of epibackup: every option with its description, an example and its default.
# Made by `epibackup config sample`. Copy it to Pulumi.nightly.yaml beside this file and take the #
# away where it stands directly before an option.
config:
"""

REFERENCE_HEADER = """\
# Configuration

Made by `epibackup config reference` from the options' model.

Options are keys of a stack's configuration, `stacks/Pulumi.<stack>.yaml`:

```yaml
config:
  epibackup:build: /srv/epiphany/build/production
  epibackup:target: /mnt/backups
```

`pulumi config set --path` and any editor can change them. Flags of the command win over them for
one run. An unknown or wrong option is an error, with the nearest known name.
`stacks/Pulumi.sample.yaml` has them all with examples.

| option | type | default | what it does |
| --- | --- | --- | --- |
"""


def sample() -> str:
    """`stacks/Pulumi.sample.yaml`: valid YAML in which every option is a comment."""
    lines = [SAMPLE_HEADER]
    for name, field in settings_model().model_fields.items():
        nested = _model(field)
        if nested and not nested.model_fields:
            continue
        lines.append("\n" + _comment(field.description or "", "  "))
        if nested:
            lines.append(f"  #{PREFIX}{name}:\n")
            lines += _examples(nested, "  #  ")
        else:
            lines.append(_example(PREFIX + name, field, "  #"))
    return "".join(lines)


def _examples(model: type[BaseModel], indent: str) -> Iterator[str]:
    """The fields of a section, and of those inside it."""
    for name, field in model.model_fields.items():
        yield _comment(field.description or "", indent)
        nested = _model(field)
        if nested:
            yield f"{indent}{name}:\n"
            yield from _examples(nested, indent + "  ")
        else:
            yield _example(name, field, indent)


def reference() -> str:
    """`docs/configuration.md`: a table of all options."""
    return REFERENCE_HEADER + "".join(_rows(settings_model(), PREFIX))


def schema() -> str:
    """The JSON Schema of the options, for editors and checks."""
    return json.dumps(settings_model().model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def manifest_schema() -> str:
    """`docs/manifest.schema.json`: the JSON Schema of an archive's manifest."""
    made = Manifest.model_json_schema(mode="serialization")
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        nested = _model(field)
        if nested:
            yield from _rows(nested, f"{prefix}{name}.")
        else:
            default = _default(field)
            text = (field.description or "").replace("|", "\\|")
            yield f"| `{prefix}{name}` | {_type(field.annotation)} | {default} | {text} |\n"


def _model(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return "" if value is None else f"`{json.dumps(value)}`"


def _type(annotation: Any) -> str:
    """A type for people: text, number, one of …"""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(one) for one in arguments if one is not type(None))
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return "one of " + ", ".join(f"`{one}`" for one in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"map of {_type(arguments[0])} to {_type(arguments[1])}"
    if issubclass(annotation, BaseModel):
        return "maps with " + ", ".join(f"`{name}`" for name in annotation.model_fields)
    return {str: "text", int: "number", bool: "true or false"}[annotation]


def _comment(text: str, indent: str) -> str:
    wrapped = textwrap.wrap(text, 96 - len(indent))
    return "".join(f"{indent}# {line}\n" for line in wrapped)


def _example(key: str, field: FieldInfo, indent: str) -> str:
    value = (field.examples or [field.get_default(call_default_factory=True)])[0]
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000)
    default = _default(field).strip("`")
    note = f"  # default: {default}" if default not in ("", "[]", "{}") else ""
    return f"{indent}{key}: {text.splitlines()[0]}{note}\n"
