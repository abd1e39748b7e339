"""`command:remote:Command`: commands on other machines."""

import asyncio
import signal
from collections.abc import Mapping
from typing import Any

import asyncssh
from asyncssh.channel import SSHClientChannel
from asyncssh.constants import EXTENDED_DATA_STDERR
from asyncssh.packet import SSHPacket, String

from engine.command_provider.capture import STDERR, STDOUT, Capture
from engine.command_provider.connections import Connection, Connections, Show
from engine.command_provider.endpoint import Endpoint
from engine.command_provider.local import Previous
from engine.command_provider.redaction import Redactor, failure_text, quoted, redactor_for
from engine.command_provider.values import Properties, reveal
from engine.serving import Refusal

# A host that was restarted may have left a connection that looks open; a session on one that was
# used before has to be opened in this time, or another connection is made.
_OPENING_SECONDS = 10.0
_WINDOW_BYTES = 2 * 1024 * 1024
_PACKET_BYTES = 32 * 1024
_ADVICE = (
    "Unable to set '{name}'. The SSH server has to accept this variable (AcceptEnv). Where the "
    "command is run by a shell like bash, it can be written in front of it: VAR=value command"
)


class _Session(asyncssh.SSHClientSession[bytes]):
    """One run of a command: feeds a capture and remembers how it ended."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._lost: Exception | None = None
        self._status: int | None = None
        self._signal: str | None = None
        self.ended = asyncio.Event()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._capture.feed(STDERR if datatype == EXTENDED_DATA_STDERR else STDOUT, data)

    def exit_status_received(self, status: int) -> None:
        self._status = status

    def exit_signal_received(self, name: str, *_: object) -> None:
        self._signal = name

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc
        self.ended.set()

    def failure(self) -> str:
        """Say why the command failed; empty when it did not."""
        if self._signal is not None:
            number = signal.Signals.__members__.get(f"SIG{self._signal}", 0)
            return f"Process exited with status {128 + number} from signal {self._signal}"
        if self._status is not None:
            return f"Process exited with status {self._status}" if self._status else ""
        return (
            f"the connection was lost while the command ran ({self._lost or 'closed by the host'})"
        )


class _Channel(SSHClientChannel[bytes]):
    """A channel that asks for environment variables and reads the answers.

    asyncssh only sends such requests, so that a refused variable would just be missing.
    """

    def __init__(
        self, ssh: asyncssh.SSHClientConnection, required: Mapping[str, str],
        optional: Mapping[str, str],
    ) -> None:  # fmt: skip
        loop = asyncio.get_running_loop()
        super().__init__(ssh, loop, "strict", None, "strict", _WINDOW_BYTES, _PACKET_BYTES)
        self._required = required
        self._optional = optional
        self.refused: list[str] = []
        self.is_opened = False

    async def _open(self, chantype: bytes, *args: bytes) -> SSHPacket:
        packet = await super()._open(chantype, *args)
        self.is_opened = True
        for name, value in {**self._optional, **self._required}.items():
            if not await self._make_request(b"env", String(name), String(value)):
                if name in self._required:
                    raise _VariableRefusedError(name)
                self.refused.append(name)
        return packet

    async def start(self, capture: Capture, command: str) -> _Session:
        """Start the command."""
        session = _Session(capture)
        options: dict[str, Any] = {
            "subsystem": None, "env": {}, "request_pty": False, "term_type": None,
            "term_size": (0, 0, 0, 0), "term_modes": {}, "x11_forwarding": False,
            "x11_display": None, "x11_auth_path": None, "x11_single_connection": False,
            "agent_forwarding": False,
        }  # fmt: skip
        await self.create(lambda: session, command, **options)
        return session


class _VariableRefusedError(Exception):
    """The server does not accept an environment variable."""


class _NotOpenedError(Exception):
    """No session was opened; the command was not started."""


class RemoteCommands:
    """Runs commands on hosts."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def run(
        self,
        command: str,
        inputs: Properties,
        *,
        previous: Previous,
        timeout_seconds: float,
        show: Show,
        warn: Show,
    ) -> Properties:
        """Run a command and return the outputs that it adds to the inputs.

        :param command: its text, for the login shell of the user.
        :param inputs: those of the resource.
        :param previous: is offered to the server as environment, unless the inputs say otherwise.
        :param timeout_seconds: limit for dialling; the command itself has none. 0 for no limit.
        :param show: shows a line of progress.
        :param warn: shows a warning.
        :raises Refusal: the host is not reached, or the command does not exit with 0.
        """
        plain = reveal(inputs)
        endpoint = Endpoint.from_input(plain["connection"])
        redact = redactor_for(inputs)
        required = plain.get("environment", {})
        optional = previous.variables() if plain.get("addPreviousOutputInEnv", True) else {}

        async def show_safely(text: str) -> None:
            await show(redact(text))

        while True:
            async with self._connections.borrow(
                endpoint, timeout_seconds=timeout_seconds, show=show_safely
            ) as connection:
                channel = _Channel(connection.ssh, required, optional)
                capture = Capture(plain.get("logging"), show_safely)
                try:
                    session = await _start(connection, channel, capture, command)
                    _send(channel, plain.get("stdin", ""))
                    await session.ended.wait()
                    break
                except _NotOpenedError:
                    continue
                except _VariableRefusedError as error:
                    await warn(_ADVICE.format(name=error))
                    raise Refusal(
                        f"could not set environment variable {quoted(str(error))}"
                    ) from error
                finally:
                    channel.close()
                    await capture.end()
        for name in channel.refused:
            await warn(_ADVICE.format(name=name))
        return _outputs(command, session, capture, redact)


async def _start(
    connection: Connection, channel: _Channel, capture: Capture, command: str
) -> _Session:
    """Open a session and start the command in it.

    :raises _NotOpenedError: not on this connection, but perhaps on another one.
    :raises Refusal: it cannot be done.
    """
    starting = asyncio.create_task(channel.start(capture, command))
    if connection.was_used:
        await asyncio.wait([starting], timeout=_OPENING_SECONDS)
        if not channel.is_opened and not starting.done():
            starting.cancel()
            connection.avoid()
            raise _NotOpenedError
    try:
        return await starting
    except asyncssh.ChannelOpenError as error:
        if not channel.is_opened and connection.sessions > 1:
            connection.avoid()
            raise _NotOpenedError from error
        raise Refusal(f"ssh: {error}") from error
    except (asyncssh.Error, OSError) as error:
        if not channel.is_opened and connection.was_used:
            connection.avoid()
            raise _NotOpenedError from error
        raise Refusal(f"ssh: {error}") from error


def _send(channel: _Channel, stdin: str) -> None:
    try:
        if stdin:
            channel.write(stdin.encode())
        channel.write_eof()
    except BrokenPipeError:
        # The command has ended already.
        return


def _outputs(command: str, session: _Session, capture: Capture, redact: Redactor) -> Properties:
    reason = session.failure()
    if reason:
        output = capture.text(STDOUT, STDERR)
        raise Refusal(redact(failure_text(reason, command, output)))
    return capture.outputs()
