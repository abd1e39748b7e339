"""A provider plugin that accepts resources of any type and has them as they are asked for.

It stands for a cloud where only the program's side matters: what policies see of resources of the
real SDKs, with values that are unknown before they are made.
"""

import sys
from collections.abc import Mapping

from pulumi.provider.experimental import provider as api
from pulumi.provider.experimental.property_value import Computed, PropertyValue
from pulumi.provider.experimental.server import main as serve
from pulumi.runtime import rpc

MADE = ("arn", "id", "name", "bucketDomainName")
"""Outputs that a cloud tells only of what is there."""

REPLACED_BY = ("bucket", "accountName", "location")
"""Inputs whose change needs a new resource."""


class Echo(api.Provider):
    """Answers with the inputs."""

    async def check(self, request: api.CheckRequest) -> api.CheckResponse:
        """Everything is right."""
        return api.CheckResponse(inputs=dict(request.new_inputs))

    async def diff(self, request: api.DiffRequest) -> api.DiffResponse:
        """Compare inputs."""
        changed = [
            key for key, new in request.new_inputs.items() if new != request.old_state.get(key)
        ]
        return api.DiffResponse(
            changes=bool(changed),
            diffs=changed,
            replaces=[key for key in changed if key in REPLACED_BY],
        )

    async def create(self, request: api.CreateRequest) -> api.CreateResponse:
        """Make it; a preview does not know its outputs."""
        inputs = dict(request.properties)
        if request.preview:
            return api.CreateResponse(properties=_with(inputs, PropertyValue(rpc.UNKNOWN)))
        name = request.urn.rpartition("::")[2]
        return api.CreateResponse(name, _with(inputs, PropertyValue(f"made-{name}")))

    async def update(self, request: api.UpdateRequest) -> api.UpdateResponse:
        """Change it."""
        return api.UpdateResponse(_with({**request.olds, **request.news}, PropertyValue("made")))

    async def delete(self, request: api.DeleteRequest) -> None:
        """Forget it."""


def _with(inputs: Mapping[str, PropertyValue], made: PropertyValue) -> dict[str, PropertyValue]:
    sent = {name: _sent(value) for name, value in inputs.items()}
    return {**dict.fromkeys(MADE, made), **sent}


def _sent(value: PropertyValue) -> PropertyValue:
    """A value as it can be sent: the SDK (3.272) cannot send its own class for unknown values."""
    inner = value.value
    if isinstance(inner, Computed):
        return PropertyValue(rpc.UNKNOWN)
    if isinstance(inner, Mapping):
        return PropertyValue({name: _sent(item) for name, item in inner.items()})
    if isinstance(inner, list | tuple):
        return PropertyValue([_sent(item) for item in inner])
    return value


def main() -> None:
    """Serve until the CLI ends."""
    serve(sys.argv[1:], "7.51.1", Echo())
