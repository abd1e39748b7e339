"""Property values as the engine sends them: plain data in which some objects are special.

A special object has a signature key (sdk/go/common/resource/sig in pulumi/pulumi). Values stay in
this form, because most of them are only handed back: an input is also an output, with its secrets,
assets and unknowns as they were.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

from google.protobuf.struct_pb2 import Struct
from google.protobuf.struct_pb2 import Value as ProtobufValue

Value: TypeAlias = Any
"""None, bool, float, str, or a list or dict of these."""
Properties: TypeAlias = dict[str, Any]

_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - a signature, the same everywhere
_ASSET = "c44067f5952c0a294b673a41bacd8c17"
_ARCHIVE = "0def7320c3a5731c473e5ecbe6d01bc7"

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""Stands for a value that is not known before the update."""
_UNKNOWNS = frozenset(
    (
        UNKNOWN,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # of a bool
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # of a number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # of a list
        "030794c1-ac77-496b-92df-f27374a8bd58",  # of an asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # of an archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # of an object
    )
)


def from_struct(struct: Struct) -> Properties:
    """Read a message; keys without a value are left out."""
    return {
        key: _from_protobuf(value)
        for key, value in struct.fields.items()
        if value.WhichOneof("kind") not in (None, "null_value")
    }


def _from_protobuf(value: ProtobufValue) -> Value:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [_from_protobuf(item) for item in value.list_value.values]
        case "bool_value":
            return value.bool_value
        case "number_value":
            return value.number_value
        case _:
            return None


def to_struct(properties: Properties) -> Struct:
    """Write a message."""
    struct = Struct()
    struct.update(properties)
    return struct


def secret(value: Value) -> Value:
    """Mark a value as secret, if it is not."""
    return value if is_secret(value) else {_SIGNATURE: _SECRET, "value": value}


def asset(path: str, sha256: str) -> Value:
    """Return a file asset."""
    return {_SIGNATURE: _ASSET, "path": path, "hash": sha256}


def archive(assets: Properties) -> Value:
    """Return an archive of assets by their paths in it."""
    return {_SIGNATURE: _ARCHIVE, "assets": assets}


def is_secret(value: Value) -> bool:
    """Whether a value is marked as secret."""
    return isinstance(value, dict) and value.get(_SIGNATURE) == _SECRET


def is_asset(value: Value) -> bool:
    """Whether a (revealed) value is an asset."""
    return isinstance(value, dict) and value.get(_SIGNATURE) == _ASSET


def is_archive(value: Value) -> bool:
    """Whether a (revealed) value is an archive."""
    return isinstance(value, dict) and value.get(_SIGNATURE) == _ARCHIVE


def is_unknown(value: Value) -> bool:
    """Whether a (revealed) value is one that is not known yet."""
    return isinstance(value, str) and value in _UNKNOWNS


def reveal(value: Value) -> Value:
    """Return a value without the marks of secrets, at any depth."""
    if isinstance(value, dict):
        if is_secret(value):
            return reveal(value.get("value"))
        return {key: reveal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [reveal(item) for item in value]
    return value


def contains_secret(value: Value) -> bool:
    """Whether there is a secret in a value, at any depth."""
    if isinstance(value, dict):
        return is_secret(value) or any(contains_secret(item) for item in value.values())
    return isinstance(value, list) and any(contains_secret(item) for item in value)


def secret_texts(value: Value) -> Iterator[str]:
    """Yield every text that is inside a secret, at any depth."""
    if is_secret(value):
        yield from _texts(reveal(value))
    elif isinstance(value, dict):
        for item in value.values():
            yield from secret_texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from secret_texts(item)


def _texts(value: Value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
