"""Files by patterns, for the outputs `assets` and `archive` of a local command."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from engine.command_provider.values import Properties, asset


def find_assets(folder: Path, patterns: list[str]) -> Properties:
    """Return an asset for each file below a folder that the patterns choose, by its path there.

    Patterns are those of gobwas/glob with `/` as separator; they are applied in order, and one
    after `!` takes files out again.

    :raises OSError: a file cannot be read.
    :raises ValueError: a pattern is malformed.
    """
    rules = [(_expression(pattern.removeprefix("!")), pattern[:1] == "!") for pattern in patterns]
    chosen = {}
    for path in _files(folder):
        is_chosen = False
        for expression, excludes in rules:
            if expression.fullmatch(path):
                is_chosen = not excludes
        if is_chosen:
            with (folder / path).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            chosen[path] = asset(str(folder / path), digest)
    return chosen


def _files(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        # A link to a folder is neither followed nor a file.
        folders.sort()
        for name in sorted(names):
            yield str((Path(parent) / name).relative_to(folder))


def _expression(pattern: str) -> re.Pattern[str]:
    """Translate a pattern to a regular expression."""
    translated = ""
    depth = 0
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            is_double = pattern[position : position + 1] == "*"
            translated += ".*" if is_double else "[^/]*"
            position += is_double
        elif character == "?":
            translated += "[^/]"
        elif character == "[":
            end = pattern.find("]", position + 1)
            if end < 0:
                raise ValueError(f"the pattern {pattern!r} has a [ without a ]")
            translated += _character_class(pattern[position:end])
            position = end + 1
        elif character == "\\" and position < len(pattern):
            translated += re.escape(pattern[position])
            position += 1
        elif character == "{":
            depth += 1
            translated += "(?:"
        elif character == "}" and depth:
            depth -= 1
            translated += ")"
        elif character == "," and depth:
            translated += "|"
        else:
            translated += re.escape(character)
    if depth:
        raise ValueError(f"the pattern {pattern!r} has a {{ without a }}")
    return re.compile(translated, re.DOTALL)


def _character_class(content: str) -> str:
    negation = "^" if content[:1] == "!" else ""
    members = content[1:] if negation else content
    if len(members) == 3 and members[1] == "-":
        return f"[{negation}{re.escape(members[0])}-{re.escape(members[2])}]"
    return f"[{negation}{re.escape(members)}]"
