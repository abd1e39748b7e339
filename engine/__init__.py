"""The Pulumi engine: found where there is one, obtained where there is none.

`find` returns at once the engine that can be used as things are; `obtain` fetches or builds what is
missing. `docs/engine.md` says which one is used and why.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.errors import EngineError as EngineError
    from engine.selection import Engine as Engine
    from engine.selection import Origin as Origin
    from engine.selection import find as find
    from engine.selection import obtain as obtain

__all__ = ["Engine", "EngineError", "Origin", "find", "obtain"]


def __getattr__(name: str) -> object:
    """Import the API when it is asked for: the plugins in this package start without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from engine import errors, selection

    return getattr(errors if name == "EngineError" else selection, name)
