"""Reading a ZooKeeper: what the lab has to know that brokers do not tell.

The wire format is ZooKeeper's own (its `zookeeper.jute`): big-endian numbers, and strings and
lists with their length before them.
"""

import socket
import struct
from contextlib import suppress
from types import TracebackType

from lab.errors import LabError

_TIMEOUT_SECONDS = 10
_SESSION_MILLISECONDS = 10_000
_GET_DATA, _GET_CHILDREN, _CLOSE = 4, 8, -11
_NO_NODE = -101


def four_letter_word(address: str, port: int, word: str) -> str:
    """What a ZooKeeper answers to a word like `srvr`; empty if it does not answer."""
    with suppress(OSError), socket.create_connection((address, port), 2) as connection:
        connection.settimeout(2)
        connection.sendall(word.encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
    return ""


class ZooKeeperSession:
    """A session with one ZooKeeper, for reading, as long as a `with` block lasts.

    Raises LabError if it does not answer, or is not part of an ensemble.
    """

    def __init__(self, address: str, port: int = 2181) -> None:
        self._place = f"{address}:{port}"
        try:
            self._socket = socket.create_connection((address, port), _TIMEOUT_SECONDS)
        except OSError as error:
            raise LabError(f"ZooKeeper on {self._place} does not answer: {error}") from error

    def __enter__(self) -> "ZooKeeperSession":
        # Protocol, last transaction seen, timeout, session, password: a new session.
        self._exchange(struct.pack(">iqiqi16x", 0, 0, _SESSION_MILLISECONDS, 0, 16))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(LabError):
            self._exchange(struct.pack(">ii", 0, _CLOSE))
        self._socket.close()

    def children(self, path: str) -> list[str]:
        """The names below a node; empty if there is no such node."""
        answer = self._read(_GET_CHILDREN, path)
        if answer is None:
            return []
        names, place = [], 4
        for _ in range(struct.unpack_from(">i", answer)[0]):
            (length,) = struct.unpack_from(">i", answer, place)
            names.append(answer[place + 4 : place + 4 + length].decode())
            place += 4 + length
        return sorted(names)

    def data(self, path: str) -> bytes | None:
        """What a node holds; None if there is no such node."""
        answer = self._read(_GET_DATA, path)
        if answer is None:
            return None
        (length,) = struct.unpack_from(">i", answer)
        return answer[4 : 4 + max(0, length)]

    def _read(self, kind: int, path: str) -> bytes | None:
        name = path.encode()
        request = struct.pack(f">iii{len(name)}s?", 1, kind, len(name), name, False)
        answer = self._exchange(request)
        _, _, error = struct.unpack_from(">iqi", answer)
        if error == _NO_NODE:
            return None
        if error:
            raise LabError(f"ZooKeeper on {self._place} does not show {path}: error {error}")
        return answer[16:]

    def _exchange(self, request: bytes) -> bytes:
        try:
            self._socket.sendall(struct.pack(">i", len(request)) + request)
            (length,) = struct.unpack(">i", self._receive(4))
            return self._receive(length)
        except OSError as error:
            raise LabError(f"ZooKeeper on {self._place} does not answer: {error}") from error

    def _receive(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            piece = self._socket.recv(length - len(received))
            if not piece:
                raise ConnectionError("it has closed the connection")
            received += piece
        return received
