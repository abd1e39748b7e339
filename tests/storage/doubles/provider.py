"""A provider plugin whose resources are what a server or a file really has: reads really read."""

import abc
import json
import secrets
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from pulumi.provider.experimental import provider as api
from pulumi.provider.experimental.property_value import Computed, PropertyValue
from pulumi.provider.experimental.server import main as serve
from pulumi.runtime import rpc

Values = dict[str, Any]


class Kind(abc.ABC):
    """One type of resource.

    replaced_by: inputs whose change needs a new resource. named: the input that gets the
    resource's own name and some random digits where the program gives none.
    """

    replaced_by: ClassVar[tuple[str, ...]] = ()
    named: ClassVar[str] = ""
    computed: ClassVar[tuple[str, ...]] = ()
    """Outputs that are known only once the resource is there."""

    @abc.abstractmethod
    def create(self, inputs: Values) -> str:
        """Make it; returns its id."""

    @abc.abstractmethod
    def read(self, resource_id: str) -> Values | None:
        """Its state as it is now; None if it is gone."""

    @abc.abstractmethod
    def update(self, resource_id: str, inputs: Values) -> None:
        """Change it."""

    @abc.abstractmethod
    def delete(self, resource_id: str) -> None:
        """Remove it."""


class Double(api.Provider):
    """Serves kinds of resources by their type tokens."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self._kinds = kinds

    async def check(self, request: api.CheckRequest) -> api.CheckResponse:
        """Give a name to what has none."""
        inputs = dict(request.new_inputs)
        named = self._kind(request.type).named
        if named and named not in inputs:
            old = request.old_inputs.get(named)
            inputs[named] = old or PropertyValue(f"{request.name}-{secrets.token_hex(4)}")
        return api.CheckResponse(inputs=inputs)

    async def diff(self, request: api.DiffRequest) -> api.DiffResponse:
        """Compare inputs with the state."""
        old, new = plain_map(request.old_state), plain_map(request.new_inputs)
        ignored = {name.partition(".")[0] for name in request.ignore_changes}
        changed = [key for key in new if new[key] != old.get(key) and key not in ignored]
        replaced = [key for key in changed if key in self._kind(request.type).replaced_by]
        kind = api.PropertyDiffKind
        return api.DiffResponse(
            changes=bool(changed),
            diffs=changed,
            replaces=replaced,
            detailed_diff={
                key: api.PropertyDiff(kind.UPDATE_REPLACE if key in replaced else kind.UPDATE, True)
                for key in changed
            },
        )

    async def create(self, request: api.CreateRequest) -> api.CreateResponse:
        """Make a resource, or in a preview say what is not known yet."""
        kind = self._kind(request.type)
        if request.preview:
            unknown = {name: PropertyValue(rpc.UNKNOWN) for name in kind.computed}
            known = {name: _sendable(value) for name, value in request.properties.items()}
            return api.CreateResponse(properties={**known, **unknown})
        made = kind.create(plain_map(request.properties))
        return api.CreateResponse(made, marshalled(kind.read(made) or {}))

    async def read(self, request: api.ReadRequest) -> api.ReadResponse:
        """What is really there."""
        kind = self._kind(request.type)
        found = kind.read(request.resource_id)
        if found is None:
            return api.ReadResponse(resource_id="")
        state = marshalled(found)
        inputs = {name: value for name, value in state.items() if name not in kind.computed}
        return api.ReadResponse(request.resource_id, state, inputs)

    async def update(self, request: api.UpdateRequest) -> api.UpdateResponse:
        """Change a resource."""
        kind = self._kind(request.type)
        if request.preview:
            news = {name: _sendable(value) for name, value in request.news.items()}
            return api.UpdateResponse({**request.olds, **news})
        kind.update(request.resource_id, plain_map(request.news))
        return api.UpdateResponse(marshalled(kind.read(request.resource_id) or {}))

    async def delete(self, request: api.DeleteRequest) -> None:
        """Remove a resource."""
        self._kind(request.type).delete(request.resource_id)

    def _kind(self, qualified: str) -> Kind:
        token = qualified.rpartition("$")[2]  # the types of its parents come before it
        if token not in self._kinds:
            raise ValueError(f"this double has no {token}")
        return self._kinds[token]


def plain_map(values: Mapping[str, PropertyValue]) -> Values:
    """Values as Python knows them."""
    return {name: plain(value) for name, value in values.items()}


def plain(value: PropertyValue) -> Any:
    """A value as Python knows it."""
    inner = value.value
    if isinstance(inner, Computed):
        return rpc.UNKNOWN
    if isinstance(inner, Mapping):
        return plain_map(inner)
    if isinstance(inner, list | tuple):
        return [plain(item) for item in inner]
    return inner


def _sendable(value: PropertyValue) -> PropertyValue:
    """A value in which unknowns are texts, as they travel: the SDK cannot send its own Computed
    (pulumi 3.272)."""
    inner = value.value
    if isinstance(inner, Computed):
        return PropertyValue(rpc.UNKNOWN)
    if isinstance(inner, Mapping):
        return value.with_value({name: _sendable(item) for name, item in inner.items()})
    if isinstance(inner, list | tuple):
        return value.with_value([_sendable(item) for item in inner])
    return value


def marshalled(values: Mapping[str, Any]) -> dict[str, PropertyValue]:
    """Values as the engine takes them."""
    return {name: _value(value) for name, value in values.items()}


def _value(value: Any) -> PropertyValue:
    if isinstance(value, Mapping):
        return PropertyValue(marshalled(value))
    if isinstance(value, list | tuple):
        return PropertyValue([_value(item) for item in value])
    return PropertyValue(float(value) if type(value) is int else value)


def same_json(text: str | None) -> str:
    """A document in the form that programs write it, so that only its content counts."""
    return json.dumps(json.loads(text or "{}"), sort_keys=True)


def run(kinds: Mapping[str, Kind], version: str) -> None:
    """Serve until the CLI ends."""
    serve(sys.argv[1:], version, Double(kinds))
