"""The messages of Pulumi's plugin protocol, without the rest of its SDK.

Every `pulumi preview` and `up` starts the plugins of this package anew, and importing `pulumi`
costs a quarter of a second, half of it for parts that a plugin never uses. The generated messages
live in `pulumi/runtime/proto`; here they are imported with empty stand-ins for the packages around
them, which are taken away again afterwards.

Only the plugins' own processes import this module: where `pulumi` itself is wanted, use that.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_PARENTS = ("pulumi", "pulumi.runtime", "pulumi.runtime.proto")


def _put_stand_ins() -> list[str]:
    """Make empty packages for those that are not imported yet, and return their names."""
    missing = [name for name in _PARENTS if name not in sys.modules]
    if not missing:
        return []
    spec = importlib.util.find_spec("pulumi")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the Python package 'pulumi' is not installed", name="pulumi")
    folder = Path(spec.origin).parent
    for name in missing:
        stand_in = ModuleType(name)
        stand_in.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = stand_in
    return missing


_stand_ins = _put_stand_ins()
try:
    from pulumi.runtime.proto import (
        analyzer_pb2,
        engine_pb2,
        language_pb2,
        plugin_pb2,
        provider_pb2,
    )
finally:
    for _name in _stand_ins:
        del sys.modules[_name]

__all__ = ["analyzer_pb2", "engine_pb2", "language_pb2", "plugin_pb2", "provider_pb2"]
