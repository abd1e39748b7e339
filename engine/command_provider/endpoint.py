"""Where and how to log in: the input `connection`, and one attempt to use it."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import asyncssh

from engine.command_provider.values import Properties
from engine.serving import Refusal

_KEEPALIVE_SECONDS = 30
# A host may be frozen for minutes while a snapshot of it is taken.
_KEEPALIVES_WITHOUT_ANSWER = 10


@dataclass(frozen=True)
class Endpoint:
    """One SSH server and the user to be there. Equal endpoints can share a connection."""

    host: str
    port: int
    user: str
    password: str | None = field(repr=False)
    private_key: str | None = field(repr=False)
    private_key_password: str | None = field(repr=False)
    agent_socket: str | None
    host_key: str | None
    dial_error_limit: int
    per_dial_timeout_seconds: int
    proxy: "Endpoint | None" = None

    @classmethod
    def from_input(cls, connection: Properties) -> Self:
        """Read a (checked and revealed) input `connection`."""
        proxy = connection.get("proxy")
        return cls(
            host=connection["host"],
            port=int(connection["port"]),
            user=connection["user"],
            password=connection.get("password"),
            private_key=connection.get("privateKey"),
            private_key_password=connection.get("privateKeyPassword"),
            agent_socket=connection.get("agentSocketPath"),
            host_key=connection.get("hostKey"),
            dial_error_limit=int(connection["dialErrorLimit"]),
            per_dial_timeout_seconds=int(connection["perDialTimeout"]),
            proxy=cls.from_input(proxy) if proxy else None,
        )

    @property
    def address(self) -> str:
        """Host and port for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def login(self) -> "Login":
        """Read the keys.

        :raises Refusal: a key cannot be read, or there is no agent at the given socket.
        """
        return Login(
            endpoint=self,
            key=self._key(),
            host_key=self._public_key(),
            agent_socket=self._agent(),
        )

    def _key(self) -> asyncssh.SSHKey | None:
        if self.private_key is None:
            return None
        try:
            return asyncssh.import_private_key(self.private_key, self.private_key_password)
        except asyncssh.KeyEncryptionError as error:
            reason = "is wrong" if self.private_key_password else "is missing"
            raise Refusal(
                f"the private key for {self.address} is protected and its passphrase {reason}"
            ) from error
        except asyncssh.KeyImportError as error:
            raise Refusal(f"the private key for {self.address} cannot be read: {error}") from error

    def _public_key(self) -> asyncssh.SSHKey | None:
        if self.host_key is None:
            return None
        try:
            return asyncssh.import_public_key(self.host_key)
        except asyncssh.KeyImportError as error:
            raise Refusal(
                f"the host key for {self.address} cannot be read: {error}; it is written as in "
                "authorized_keys: type and key, without a host name"
            ) from error

    def _agent(self) -> str | None:
        """Return the socket of the agent that is to be asked.

        As with the official provider, the agent's keys are tried only without a private key. A
        stale SSH_AUTH_SOCK matters only when nothing else is given.
        """
        path = self.agent_socket or os.environ.get("SSH_AUTH_SOCK") or None
        if path is None or self.private_key is not None:
            return None
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(path)
        except OSError as error:
            if self.agent_socket is None and self.password is not None:
                return None
            raise Refusal(f"dial unix {path}: {error.strerror or error}") from error
        return path


@dataclass(frozen=True)
class Login:
    """An endpoint with its keys read."""

    endpoint: Endpoint
    key: asyncssh.SSHKey | None = field(repr=False)
    host_key: asyncssh.SSHKey | None
    agent_socket: str | None

    async def dial(
        self, tunnel: asyncssh.SSHClientConnection | None = None
    ) -> asyncssh.SSHClientConnection:
        """Connect and log in, once.

        :param tunnel: a connection to go through.
        :raises DialError: that failed.
        """
        endpoint = self.endpoint
        seconds = endpoint.per_dial_timeout_seconds or None
        try:
            async with asyncio.timeout(seconds), self._client_keys() as keys:
                return await asyncssh.connect(
                    endpoint.host,
                    endpoint.port,
                    tunnel=tunnel,
                    config=None,
                    username=endpoint.user,
                    password=endpoint.password,
                    client_keys=keys or None,
                    agent_path=None,
                    known_hosts=([self.host_key], [], []) if self.host_key else None,
                    x509_trusted_certs=None,
                    gss_auth=False,
                    gss_kex=False,
                    host_based_auth=False,
                    compression_algs=["none"],
                    # The limit above is for all of it, and there is no other one.
                    connect_timeout=None,
                    login_timeout=0,
                    keepalive_interval=_KEEPALIVE_SECONDS,
                    keepalive_count_max=_KEEPALIVES_WITHOUT_ANSWER,
                )
        except (OSError, asyncssh.Error, ValueError) as error:
            raise DialError(self._explained(error)) from error

    @contextlib.asynccontextmanager
    async def _client_keys(self) -> AsyncIterator[Sequence[asyncssh.SSHKey | asyncssh.SSHKeyPair]]:
        if self.agent_socket is None:
            yield [self.key] if self.key else []
        else:
            # asyncssh asks an agent only together with the keys in ~/.ssh, which are not meant.
            async with asyncssh.connect_agent(self.agent_socket) as agent:
                yield await agent.get_keys()

    def _explained(self, error: Exception) -> str:
        endpoint = self.endpoint
        match error:
            case asyncssh.HostKeyNotVerifiable():
                return (
                    f"ssh: handshake failed: ssh: host key mismatch: {endpoint.address} does not "
                    "have the host key that is expected"
                )
            case asyncssh.KeyExchangeFailed() if self.host_key and "host key" in str(error).lower():
                kind = self.host_key.get_algorithm()
                return (
                    f"ssh: handshake failed: {endpoint.address} has no host key of the type that "
                    f"is expected ({kind})"
                )
            case asyncssh.PermissionDenied():
                return (
                    f"ssh: handshake failed: ssh: unable to authenticate as {endpoint.user} at "
                    f"{endpoint.address}"
                )
            case asyncssh.Error():
                return f"ssh: handshake failed: {endpoint.address}: {error}"
            case TimeoutError():
                return f"dial tcp {endpoint.address}: i/o timeout"
            case OSError():
                return f"dial tcp {endpoint.address}: {_system_reason(error)}"
            case _:
                return f"{endpoint.address}: {error}"


class DialError(Exception):
    """One attempt to connect failed; another one may not."""


def _system_reason(error: OSError) -> str:
    match error:
        case socket.gaierror():
            return f"lookup failed: {error.strerror}"
        case ConnectionRefusedError():
            return "connect: connection refused"
        case _:
            return f"connect: {(error.strerror or str(error)).lower()}"
