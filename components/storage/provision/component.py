"""What the components of storage share: checking arguments, finding SDKs, options of children."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import pulumi
from pulumi import Output, ResourceOptions
from pydantic import ValidationError

from components.errors import UsageError
from components.storage.options import Section

Options = TypeVar("Options", bound=Section)


def checked(
    model: type[Options], component: str, args: Mapping[str, Any], needed: Sequence[str]
) -> Options:
    """A component's arguments as the options of the same name.

    What is an output of another resource is not known yet and is left out: the cloud checks it.
    Raises UsageError, in words.
    """
    known: dict[str, Any] = {}
    for name, value in args.items():
        if isinstance(value, Sequence) and not isinstance(value, str):
            known[name] = [item for item in value if not isinstance(item, Output)]
        elif value is not None and not isinstance(value, Output):
            known[name] = value
    missing = [name for name in needed if not args.get(name)]
    if missing:
        raise UsageError(f"{component} needs {', '.join(missing)}")
    try:
        return model.model_validate(known)
    except ValidationError as error:
        told = [
            ".".join(["", *map(str, item["loc"])]) + ": " + item["msg"] for item in error.errors()
        ]
        raise UsageError(f"{component}{'; '.join(told)}") from None


SDKS = {"aws": "pulumi_aws", "azure": "pulumi_azure_native"}
"""The Python package of each cloud, by the extra of epibackup that brings it."""


def require_sdk(extra: str) -> None:
    """Make sure that a cloud's SDK is installed, without importing it; raises UsageError."""
    package = SDKS[extra]
    if importlib.util.find_spec(package) is None:
        raise UsageError(
            f"storage of the kind {extra} needs the Python package "
            f"{package.replace('_', '-')}, and it is not installed",
            f"pip install 'epibackup[{extra}]'",
        )


def sdk(extra: str, module: str) -> Any:
    """A module of a cloud's SDK, imported only where it is used: they are large.

    Raises UsageError if it is not installed.
    """
    require_sdk(extra)
    return importlib.import_module(f"{SDKS[extra]}.{module}")


def kept(
    parent: pulumi.Resource,
    part: str,
    args: Mapping[str, Any],
    depends_on: Sequence[pulumi.Resource] = (),
    ignore_changes: Sequence[str] = (),
) -> ResourceOptions:
    """Options of a part that holds data or protects it: not destroyed, unless that is asked for."""
    return ResourceOptions(
        parent=parent,
        protect=args.get("protect", True),
        retain_on_delete=args.get("retain_on_delete", True),
        import_=(args.get("import_ids") or {}).get(part),
        depends_on=list(depends_on),
        ignore_changes=list(ignore_changes),
    )


def texts(value: Any) -> Output[list[str]]:
    """A list whose items may be outputs of other resources."""
    return cast(Output[list[str]], Output.all(*(value or [])))
