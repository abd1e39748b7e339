"""What changed between the old and the new inputs of a resource."""

import re

from engine.command_provider.values import Properties, Value, is_archive, is_asset

_PLAIN_NAME = re.compile(r"[A-Za-z_$][\w$]*\Z")

ADDED = "added"
DELETED = "deleted"
UPDATED = "updated"


def changes(old: Properties, new: Properties) -> dict[str, str]:
    """Return each changed path (`connection.host`, `triggers[0]`) with the kind of its change.

    :param old: old inputs, revealed: a value that only became secret did not change.
    :param new: new inputs, revealed.
    """
    found: dict[str, str] = {}
    _compare(old, new, "", found)
    return found


def _compare(old: Value, new: Value, path: str, found: dict[str, str]) -> None:
    if _is_plain_object(old) and _is_plain_object(new):
        for key in {**old, **new}:
            _member(old.get(key), new.get(key), _below(path, key), found)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            _member(
                old[index] if index < len(old) else None,
                new[index] if index < len(new) else None,
                f"{path}[{index}]",
                found,
            )
    elif not _same(old, new):
        found[path] = UPDATED


def _member(old: Value, new: Value, path: str, found: dict[str, str]) -> None:
    if old is None and new is None:
        return
    if old is None:
        found[path] = ADDED
    elif new is None:
        found[path] = DELETED
    else:
        _compare(old, new, path, found)


def _is_plain_object(value: Value) -> bool:
    return isinstance(value, dict) and not is_asset(value) and not is_archive(value)


def _same(old: Value, new: Value) -> bool:
    """Compare two leaves; files are the same when their content is, wherever they lie."""
    for kind in (is_asset, is_archive):
        if kind(old) and kind(new) and old.get("hash") and new.get("hash"):
            return bool(old["hash"] == new["hash"])
    return bool(old == new)


def _below(path: str, key: str) -> str:
    """Write a property path as the engine does (sdk/go/common/resource/property_path.go)."""
    if not _PLAIN_NAME.match(key):
        quoted = key.replace('"', '\\"')
        return f'{path}["{quoted}"]'
    return f"{path}.{key}" if path else key
