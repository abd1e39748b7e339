"""The grpc service of the provider: what the engine asks, and which part answers."""

import asyncio
import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING

from google.protobuf.empty_pb2 import Empty

from engine.command_provider import difference, schema
from engine.command_provider.local import LocalCommands, Previous
from engine.command_provider.schema import (
    COPY_FILE,
    LOCAL_COMMAND,
    REMOTE_COMMAND,
    RUN_FUNCTION,
)
from engine.command_provider.values import (
    UNKNOWN,
    Properties,
    contains_secret,
    from_struct,
    reveal,
    secret,
    to_struct,
)
from engine.pins import COMMAND_PROVIDER
from engine.protocol import plugin_pb2, provider_pb2
from engine.serving import EngineLog, Refusal

if TYPE_CHECKING:
    from engine.command_provider.connections import Connections

_OUTPUTS = ("stdout", "stderr", "assets", "archive")
_FILE_PATTERNS = ("assetPaths", "archivePaths")
_CANCELLED = "context canceled"
_CLOSING_SECONDS = 2.0

_Kinds = provider_pb2.PropertyDiff
_KINDS = {
    difference.ADDED: (_Kinds.ADD, _Kinds.ADD_REPLACE),
    difference.DELETED: (_Kinds.DELETE, _Kinds.DELETE_REPLACE),
    difference.UPDATED: (_Kinds.UPDATE, _Kinds.UPDATE_REPLACE),
}


class Provider:
    """Answers the engine's calls of `ResourceProvider`.

    Inputs come with their marks of secrets (the provider says that it accepts them), so that the
    values can be kept out of errors and of what is shown. They are handed back as outputs, marks
    included; what a command writes is not secret by itself, as with the official provider.
    """

    def __init__(self, log: EngineLog) -> None:
        self._log = log
        self._local = LocalCommands()
        self._connections: Connections | None = None
        self._is_cancelled = False

    # What the provider is.

    async def get_plugin_info(self, _: Empty) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=COMMAND_PROVIDER)

    async def get_schema(self, _: provider_pb2.GetSchemaRequest) -> provider_pb2.GetSchemaResponse:
        return provider_pb2.GetSchemaResponse(schema=schema.schema_text())

    async def handshake(
        self, request: provider_pb2.ProviderHandshakeRequest
    ) -> provider_pb2.ProviderHandshakeResponse:
        self._log.connect(request.engine_address)
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    async def attach(self, request: plugin_pb2.PluginAttach) -> Empty:
        self._log.connect(request.address)
        return Empty()

    async def check_config(self, request: provider_pb2.CheckRequest) -> provider_pb2.CheckResponse:
        return provider_pb2.CheckResponse(inputs=request.news)

    async def diff_config(self, _: provider_pb2.DiffRequest) -> provider_pb2.DiffResponse:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    async def configure(self, _: provider_pb2.ConfigureRequest) -> provider_pb2.ConfigureResponse:
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    # What would happen.

    async def check(self, request: provider_pb2.CheckRequest) -> provider_pb2.CheckResponse:
        kind = _type(request.urn)
        inputs, failures = schema.check(kind, from_struct(request.news))
        return provider_pb2.CheckResponse(
            inputs=to_struct(inputs),
            failures=[
                provider_pb2.CheckFailure(property=failure.property, reason=failure.reason)
                for failure in failures
            ],
        )

    async def diff(self, request: provider_pb2.DiffRequest) -> provider_pb2.DiffResponse:
        kind = _type(request.urn)
        old = from_struct(request.old_inputs) or from_struct(request.olds)
        old = {name: value for name, value in old.items() if name in schema.input_names(kind)}
        changes = difference.changes(reveal(old), reveal(from_struct(request.news)))
        response = provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME
            if changes
            else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=changes,
            hasDetailedDiff=True,
        )
        for path, change in changes.items():
            # A copied file is not updated; a new trigger makes a new resource.
            replaces = kind == COPY_FILE or path.startswith("triggers")
            response.detailedDiff[path].kind = _KINDS[change][replaces]
            response.detailedDiff[path].inputDiff = True
            if replaces:
                response.replaces.append(path)
        return response

    # What happens.

    async def create(self, request: provider_pb2.CreateRequest) -> provider_pb2.CreateResponse:
        kind = _type(request.urn)
        inputs = from_struct(request.properties)
        outputs: Properties = {}
        if kind in (LOCAL_COMMAND, REMOTE_COMMAND):
            if request.preview:
                outputs = _unknown_outputs(inputs)
            else:
                outputs = {"stdout": "", "stderr": ""} | await self._run(
                    request.urn, inputs, "create", Previous(), request.timeout
                )
        elif not request.preview:
            await self._copy(request.urn, inputs, request.timeout)
        name = request.urn.rsplit("::", 1)[-1] if kind in (LOCAL_COMMAND, REMOTE_COMMAND) else ""
        return provider_pb2.CreateResponse(
            id="" if request.preview else name + os.urandom(4).hex(),
            properties=to_struct(inputs | outputs),
        )

    async def update(self, request: provider_pb2.UpdateRequest) -> provider_pb2.UpdateResponse:
        kind = _type(request.urn)
        inputs = from_struct(request.news)
        old = from_struct(request.olds)
        outputs: Properties = {}
        if kind in (LOCAL_COMMAND, REMOTE_COMMAND):
            if request.preview:
                outputs = _unknown_outputs(inputs)
            else:
                outputs = {name: old[name] for name in _OUTPUTS if name in old}
                outputs |= await self._run(
                    request.urn,
                    inputs,
                    "update" if "update" in inputs else "create",
                    _previous(old),
                    request.timeout,
                )
        elif not request.preview and _is_copy_due(old, inputs):
            await self._copy(request.urn, inputs, request.timeout)
        return provider_pb2.UpdateResponse(properties=to_struct(inputs | outputs))

    async def read(self, request: provider_pb2.ReadRequest) -> provider_pb2.ReadResponse:
        # There is nothing to look at: a command has run, and its result is what is stored.
        return provider_pb2.ReadResponse(
            id=request.id, properties=request.properties, inputs=request.inputs
        )

    async def delete(self, request: provider_pb2.DeleteRequest) -> Empty:
        if _type(request.urn) in (LOCAL_COMMAND, REMOTE_COMMAND):
            old = from_struct(request.properties)
            inputs = {name: old[name] for name in old if name not in _FILE_PATTERNS}
            await self._run(request.urn, inputs, "delete", _previous(old), request.timeout)
        return Empty()

    async def invoke(self, request: provider_pb2.InvokeRequest) -> provider_pb2.InvokeResponse:
        if request.tok != RUN_FUNCTION:
            raise Refusal(f"there is no function {request.tok}")
        arguments, failures = schema.check_arguments(RUN_FUNCTION, from_struct(request.args))
        if failures:
            return provider_pb2.InvokeResponse(
                failures=[
                    provider_pb2.CheckFailure(property=failure.property, reason=failure.reason)
                    for failure in failures
                ]
            )
        outputs = await self._run("", arguments, "command", Previous(), 0)
        if contains_secret(arguments):
            outputs = {name: secret(value) for name, value in outputs.items()}
        response = provider_pb2.InvokeResponse()
        getattr(response, "return").CopyFrom(to_struct(arguments | outputs))
        return response

    async def cancel(self, _: Empty) -> Empty:
        """End what runs here. Commands on hosts run on, and their results are recorded.

        The engine also calls this at the end of an update that was not cancelled.
        """
        self._is_cancelled = True
        self._local.end()
        if self._connections:
            self._connections.stop_dialling()
        return Empty()

    async def close(self) -> None:
        """End everything: the CLI is gone or wants this process to go."""
        self._is_cancelled = True
        self._local.end()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._local.wait(), _CLOSING_SECONDS)
        if self._connections:
            await self._connections.close()

    async def _run(
        self, urn: str, inputs: Properties, action: str, previous: Previous, timeout: float
    ) -> Properties:
        """Run the command of an input, if it is there, and return its outputs."""
        command = reveal(inputs.get(action))
        if command is None:
            return {}
        if self._is_cancelled:
            raise Refusal(_CANCELLED)
        show = partial(self._log.status, urn=urn)
        if urn and _type(urn) == REMOTE_COMMAND:
            from engine.command_provider.remote import RemoteCommands

            return await RemoteCommands(self._connections_to_hosts()).run(
                command,
                inputs,
                previous=previous,
                timeout_seconds=timeout,
                show=show,
                warn=partial(self._log.warning, urn=urn),
            )
        return await self._local.run(
            command, inputs, previous=previous, timeout_seconds=timeout, show=show
        )

    async def _copy(self, urn: str, inputs: Properties, timeout: float) -> None:
        from engine.command_provider.copying import copy_file, copy_source

        if self._is_cancelled:
            raise Refusal(_CANCELLED)
        copy = copy_file if _type(urn) == COPY_FILE else copy_source
        await copy(
            self._connections_to_hosts(),
            inputs,
            timeout_seconds=timeout,
            show=partial(self._log.status, urn=urn),
        )

    def _connections_to_hosts(self) -> "Connections":
        # Here and above, what needs asyncssh is imported when it is needed: that takes a quarter of
        # a second, and a preview or a local command never does.
        from engine.command_provider.connections import Connections

        if self._connections is None:
            self._connections = Connections()
        return self._connections


def _type(urn: str) -> str:
    """Return the type of a resource: the last part of the third field of its URN.

    :raises Refusal: the provider has no such resource.
    """
    kind = urn.split("::")[2].rsplit("$", 1)[-1]
    if not schema.is_resource(kind):
        raise Refusal(f"the embedded command provider has no resource {kind}")
    return kind


def _previous(old: Properties) -> Previous:
    return Previous(reveal(old.get("stdout")) or "", reveal(old.get("stderr")) or "")


def _unknown_outputs(inputs: Properties) -> Properties:
    names = ["stdout", "stderr"]
    names += ["assets"] if "assetPaths" in inputs else []
    names += ["archive"] if "archivePaths" in inputs else []
    return dict.fromkeys(names, UNKNOWN)


def _is_copy_due(old: Properties, new: Properties) -> bool:
    """Whether content or target changed; another connection alone copies nothing."""
    names = ("source", "remotePath")
    changes = difference.changes(
        {name: reveal(old.get(name)) for name in names},
        {name: reveal(new.get(name)) for name in names},
    )
    return bool(changes)
