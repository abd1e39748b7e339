"""Policy packs: started only when the engine has told the stack's configuration.

The engine sends a pack its stack, project and configuration by grpc (`ConfigureStack`), after it
has connected. The packages that packs are written with expect these in the environment, when they
start. So the language host answers the engine's first calls itself, starts the pack with what they
brought, and hands all other calls on.
"""

from __future__ import annotations  # grpc's classes are generic only for the type checker

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial

import grpc
import grpc.aio

from engine.protocol import analyzer_pb2
from engine.serving import CHANNEL_OPTIONS

_CONFIGURE_STACK = "/pulumirpc.Analyzer/ConfigureStack"
_HANDSHAKE = "/pulumirpc.Analyzer/Handshake"


class PolicyPackProxy(grpc.GenericRpcHandler):
    """Stands between the engine and one policy pack."""

    def __init__(self) -> None:
        self._server = grpc.aio.server(options=CHANNEL_OPTIONS)
        self._server.add_generic_rpc_handlers((self,))
        loop = asyncio.get_running_loop()
        self._configuration: asyncio.Future[analyzer_pb2.AnalyzerStackConfigureRequest | None]
        self._configuration = loop.create_future()
        self._pack: asyncio.Future[grpc.aio.Channel] = loop.create_future()

    async def start(self) -> int:
        """Listen for the engine and return the port."""
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return port

    async def environment(self) -> dict[str, str]:
        """Wait for the stack's configuration and return it as the pack wants it.

        Where no stack is involved (`pulumi policy publish`), the engine goes on without; then it
        is empty.
        """
        configuration = await self._configuration
        if configuration is None:
            return {}
        named = {
            "PULUMI_ORGANIZATION": configuration.organization,
            "PULUMI_PROJECT": configuration.project,
            "PULUMI_STACK": configuration.stack,
            "PULUMI_DRY_RUN": "true" if configuration.dry_run else "false",
            "PULUMI_CONFIG": json.dumps(dict(configuration.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(configuration.config_secret_keys)),
        }
        return {name: value for name, value in named.items() if value}

    async def connect(self, port: int) -> None:
        """Hand calls on to the pack that serves at this port."""
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS)
        configuration = self._configuration.result()
        if configuration is not None:
            try:
                await _forward(channel, _CONFIGURE_STACK, configuration.SerializeToString())
            except grpc.aio.AioRpcError as error:
                # Most packs only read the environment.
                if error.code() != grpc.StatusCode.UNIMPLEMENTED:
                    self.fail(error.details() or "the policy pack refuses its configuration")
                    return
        if not self._pack.done():
            self._pack.set_result(channel)

    def fail(self, reason: str) -> None:
        """Answer calls with an error from now on, unless the pack is connected."""
        if not self._pack.done():
            self._pack.set_exception(_PackFailedError(reason))
            self._pack.exception()

    async def close(self) -> None:
        """Stop listening."""
        self.fail("the policy pack was ended")
        await self._server.stop(None)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Find who answers a call; grpc asks this."""
        method = handler_call_details.method
        answer: Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]
        if method == _HANDSHAKE:
            answer = self._shake_hands
        elif method == _CONFIGURE_STACK:
            answer = self._configure
        else:
            answer = partial(self._hand_on, method)
        return grpc.unary_unary_rpc_method_handler(answer)

    async def _shake_hands(self, _: bytes, __: object) -> bytes:
        return b""

    async def _configure(self, request: bytes, _: object) -> bytes:
        if not self._configuration.done():
            parsed = analyzer_pb2.AnalyzerStackConfigureRequest.FromString(request)
            self._configuration.set_result(parsed)
        return b""

    async def _hand_on(
        self, method: str, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> bytes:
        if not self._configuration.done():
            self._configuration.set_result(None)
        try:
            return await _forward(await asyncio.shield(self._pack), method, request)
        except _PackFailedError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except grpc.aio.AioRpcError as error:
            context.set_trailing_metadata(tuple(error.trailing_metadata()))
            await context.abort(error.code(), error.details() or "")
        raise AssertionError("unreachable")


class _PackFailedError(Exception):
    """The pack cannot answer."""


async def _forward(channel: grpc.aio.Channel, method: str, request: bytes) -> bytes:
    # Without serializers, messages pass as the bytes that they are.
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return await call(request)
