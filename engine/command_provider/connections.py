"""Connections to hosts: dialled with patience, shared by the commands that run there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

import asyncssh

from engine.command_provider.endpoint import DialError, Endpoint
from engine.serving import Refusal

# OpenSSH allows ten sessions a connection (MaxSessions).
_SESSIONS_PER_CONNECTION = 8
_FIRST_PAUSE_SECONDS = 0.1
_PAUSE_FACTOR = 1.5
_LONGEST_PAUSE_SECONDS = 5.0

_Result = TypeVar("_Result")
Show = Callable[[str], Awaitable[None]]


@dataclass(eq=False)
class Connection:
    """An open connection, and how much of it is in use."""

    ssh: asyncssh.SSHClientConnection
    tunnel: asyncssh.SSHClientConnection | None = None
    sessions: int = 0
    most_sessions: int = _SESSIONS_PER_CONNECTION
    was_used: bool = False

    @property
    def has_room(self) -> bool:
        """Whether another session can be opened."""
        return self.sessions < self.most_sessions and not self.ssh.is_closed()

    def avoid(self) -> None:
        """Open no more sessions here: it is stale or full. Sessions that run are not disturbed."""
        if self.sessions > 1:
            self.most_sessions = self.sessions - 1
        else:
            self.ssh.abort()

    def close(self) -> None:
        """Close it, and the one it goes through."""
        self.ssh.close()
        if self.tunnel:
            self.tunnel.close()


@dataclass
class _Known:
    connections: list[Connection] = field(default_factory=list)
    dialling: asyncio.Task[Connection] | None = None


class Connections:
    """All connections of the provider."""

    def __init__(self) -> None:
        self._known: dict[Endpoint, _Known] = {}
        self._is_closed = False

    @contextlib.asynccontextmanager
    async def borrow(
        self, endpoint: Endpoint, *, timeout_seconds: float, show: Show
    ) -> AsyncIterator[Connection]:
        """Provide a connection with room for one session.

        :param endpoint: where to.
        :param timeout_seconds: limit for dialling, with all attempts; 0 for none.
        :param show: shows that an attempt failed.
        :raises Refusal: it cannot be had.
        """
        try:
            async with asyncio.timeout(timeout_seconds or None):
                connection = await self._with_room(endpoint, show)
        except TimeoutError as error:
            raise Refusal("context deadline exceeded") from error
        connection.sessions += 1
        try:
            yield connection
        finally:
            connection.sessions -= 1
            connection.was_used = True

    async def _with_room(self, endpoint: Endpoint, show: Show) -> Connection:
        known = self._known.setdefault(endpoint, _Known())
        while not self._is_closed:
            known.connections = [c for c in known.connections if not c.ssh.is_closed()]
            for connection in known.connections:
                if connection.has_room:
                    return connection
            if known.dialling is None:
                known.dialling = asyncio.create_task(_dial(endpoint, show))
                known.dialling.add_done_callback(lambda task: _keep(known, task))
            # All that wait for this host share one series of attempts, also its failure.
            dialling = known.dialling
            await asyncio.wait([dialling])
            if dialling.cancelled():
                break
            dialling.result()
        raise Refusal("context canceled")

    def stop_dialling(self) -> None:
        """Give up on hosts that are not reached yet, and dial no others."""
        self._is_closed = True
        for known in self._known.values():
            if known.dialling:
                known.dialling.cancel()

    async def close(self) -> None:
        """Close all connections."""
        self.stop_dialling()
        connections = [c for known in self._known.values() for c in known.connections]
        for connection in connections:
            connection.close()
        with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
            async with asyncio.timeout(1):
                for connection in connections:
                    await connection.ssh.wait_closed()


def _keep(known: _Known, task: asyncio.Task[Connection]) -> None:
    known.dialling = None
    if not task.cancelled() and task.exception() is None:
        known.connections.append(task.result())


async def _dial(endpoint: Endpoint, show: Show) -> Connection:
    login = endpoint.login()
    if endpoint.proxy is None:
        return Connection(await _persist(login.dial, endpoint, "Dial", show))
    proxy = endpoint.proxy
    try:
        proxy_login = proxy.login()
        tunnel = await _persist(proxy_login.dial, proxy, "Dial proxy", show)
        try:
            ssh = await _persist(lambda: login.dial(tunnel), endpoint, "Dial from proxy", show)
        except BaseException:
            tunnel.close()
            raise
    except Refusal as refusal:
        raise Refusal(f"proxy: {refusal}") from refusal
    return Connection(ssh, tunnel)


async def _persist(
    attempt: Callable[[], Awaitable[_Result]], endpoint: Endpoint, name: str, show: Show
) -> _Result:
    """Try until it works, or as often as the endpoint allows.

    All failures are tried again, also a refused login: a machine that is just being made may have
    its SSH server before it has its keys.
    """
    limit = endpoint.dial_error_limit
    pause = _FIRST_PAUSE_SECONDS
    for tries in count():
        try:
            return await attempt()
        except DialError as error:
            task = asyncio.current_task()
            if task and task.cancelling():
                # An attempt that fails while it is cancelled reports only that it failed.
                raise asyncio.CancelledError from error
            if -1 < limit <= tries:
                raise Refusal(f"after {tries} failed attempts: {error}") from error
        await show(f"{name} {tries + 1}/{'inf' if limit < 0 else limit} failed: retrying")
        await asyncio.sleep(pause)
        pause = min(pause * _PAUSE_FACTOR, _LONGEST_PAUSE_SECONDS)
    raise AssertionError("unreachable")
