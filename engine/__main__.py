"""Looks at the engine without the rest of the product: `python -m engine find|obtain|env`."""

import shlex
import sys
from typing import TextIO

import engine


def main() -> int:
    """Do what the first argument says and return the exit code."""
    action = sys.argv[1] if len(sys.argv) > 1 else "find"
    found: engine.Engine | None
    try:
        if action == "obtain":
            found = engine.obtain(lambda text: _say(sys.stderr, text))
        else:
            found = engine.find()
    except engine.EngineError as error:
        _say(sys.stderr, f"{error.message}\n{error.hint}")
        return 1
    if found is None:
        _say(sys.stderr, "no engine is ready; `python -m engine obtain` gets one")
        return 1
    if action == "env":
        for name, value in found.environment().items():
            _say(sys.stdout, f"export {name}={shlex.quote(value)}")
    else:
        _say(sys.stdout, f"{found.pulumi} {found.version} ({found.origin}: {found.reason})")
        _say(sys.stdout, f"command provider: {found.provider_origin}")
    return 0


def _say(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
