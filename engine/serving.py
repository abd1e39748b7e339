"""What the two embedded plugins share: serving grpc to the CLI, and ending when it ends.

The CLI starts a plugin with the engine's address as last argument, reads the port from the first
line on its stdout, and at the end calls `Cancel` and sends SIGINT to its process group (5 s later
SIGKILL). It also holds the write end of the plugin's stdin: when the CLI dies, whatever way, that
pipe reports its end, which is how a plugin learns of it at once.
"""

import asyncio
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message_factory import GetMessageClass

from engine.protocol import engine_pb2

# The limit that Pulumi itself uses on both sides (sdk/go/common/util/rpcutil).
_MESSAGE_LIMIT_BYTES = 400 * 1024 * 1024
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", _MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_LIMIT_BYTES),
]

_UNARY_STREAM = (False, True)


class Refusal(Exception):
    """A request cannot be fulfilled; the text is shown to the person at the CLI."""

    def __init__(self, message: str, code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> None:
        super().__init__(message)
        self.code = code


class EngineLog:
    """Messages to the display of the CLI.

    Calls never raise: when the engine is gone there is nobody left to tell.
    """

    def __init__(self, address: str) -> None:
        """:param address: of the engine, `host:port`; empty when there is none yet."""
        self._call: Callable[[Any], Awaitable[Any]] | None = None
        if address:
            self.connect(address)

    def connect(self, address: str) -> None:
        """Send to the engine at this address from now on."""
        channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._call = channel.unary_unary(
            "/pulumirpc.Engine/Log",
            request_serializer=engine_pb2.LogRequest.SerializeToString,
            response_deserializer=Empty.FromString,
        )

    async def status(self, text: str, urn: str = "") -> None:
        """Show a line of progress; it is not kept after the update."""
        await self._send(engine_pb2.INFO, text, urn, ephemeral=True)

    async def warning(self, text: str, urn: str = "") -> None:
        """Show a warning."""
        await self._send(engine_pb2.WARNING, text, urn, ephemeral=False)

    async def error(self, text: str, urn: str = "") -> None:
        """Show an error; it makes the update fail."""
        await self._send(engine_pb2.ERROR, text, urn, ephemeral=False)

    async def _send(self, severity: Any, text: str, urn: str, *, ephemeral: bool) -> None:
        if self._call is None:
            return
        request = engine_pb2.LogRequest(
            severity=severity, message=text, urn=urn, ephemeral=ephemeral
        )
        try:
            await self._call(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self._call = None


def service_handler(service: ServiceDescriptor, implementation: object) -> grpc.GenericRpcHandler:
    """Serve a grpc service by the methods of an object.

    A call of `GetPluginInfo` goes to the method `get_plugin_info`, a coroutine (or for a stream an
    asynchronous generator) that takes the request. What the object does not have is answered with
    UNIMPLEMENTED, which the CLI treats as "this plugin cannot do that".
    """
    handlers = {}
    for method in service.methods:
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method.name).lower()
        function = getattr(implementation, name, None)
        if function is None:
            continue
        streams = (method.client_streaming, method.server_streaming)
        make, wrap = (
            (grpc.unary_stream_rpc_method_handler, _streaming)
            if streams == _UNARY_STREAM
            else (grpc.unary_unary_rpc_method_handler, _single)
        )
        handlers[method.name] = make(
            wrap(function),
            request_deserializer=_message_class(method.input_type).FromString,
            response_serializer=_message_class(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _message_class(descriptor: Descriptor) -> Any:
    return GetMessageClass(descriptor)


def _single(function: Callable[[Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    async def answer(request: Any, context: Any) -> Any:
        try:
            return await function(request)
        except Refusal as refusal:
            await context.abort(refusal.code, str(refusal))

    return answer


def _streaming(
    function: Callable[[Any], AsyncIterator[Any]],
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for part in function(request):
                yield part
        except Refusal as refusal:
            await context.abort(refusal.code, str(refusal))

    return answer


def engine_address(arguments: list[str]) -> str:
    """The engine's address in a plugin's arguments: the last one, after the logging flags."""
    return arguments[-1] if arguments and not arguments[-1].startswith("-") else ""


async def serve(handler: grpc.GenericRpcHandler, close: Callable[[], Awaitable[None]]) -> None:
    """Serve on a free loopback port until the CLI says or shows that it is over, then exit.

    :param handler: what to serve.
    :param close: ends what still runs and frees what is held; it has about 4 s.
    """
    server = grpc.aio.server(options=CHANNEL_OPTIONS)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    _watch_stdin(over)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await over.wait()
    await close()
    sys.stdout.flush()
    sys.stderr.flush()
    # The CLI waits for this process; taking down server and interpreter would only take time.
    os._exit(0)


def _watch_stdin(over: asyncio.Event) -> None:
    """Set the event when the CLI's end of our stdin is closed.

    Only a pipe is watched: started by hand, stdin is a terminal or `/dev/null`.
    """
    descriptor = sys.stdin.fileno() if sys.stdin else -1
    if descriptor < 0 or not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            over.set()

    loop.add_reader(descriptor, read)
