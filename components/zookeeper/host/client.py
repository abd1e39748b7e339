"""A small client of ZooKeeper, for reading: the service's own takes a Java machine a call.

The protocol is that of 3.4 to 3.9 (zookeeper.jute: ConnectRequest, GetDataRequest,
GetChildrenRequest; jute's encoding is big-endian, with lengths in front of texts).
"""

import socket
import struct
from types import TracebackType
from typing import List, Optional, Tuple, Type

from host.errors import HostError

GET_DATA, GET_CHILDREN, CLOSE = 4, 8, -11
NO_NODE = -101
LARGEST_ANSWER = 64 << 20
SESSION_MILLISECONDS = 10000


class NoNode(HostError):
    """There is no node of that path."""


class ZooKeeperClient:
    """A session with one of the servers; used as a context manager.

    connect: as in Kafka's zookeeper.connect: `host:2181,other:2181/chroot`.
    Raises HostError if no server takes the session.
    """

    def __init__(self, connect: str, timeout_seconds: float = 5) -> None:
        servers, slash, root = connect.partition("/")
        self._root = (slash + root).rstrip("/")
        self._xid = 0
        failures = []
        for server in servers.split(","):
            host, _, port = server.strip().rpartition(":")
            if not port.isdigit():
                host, port = server.strip(), "2181"
            try:
                self._socket = socket.create_connection(
                    (host.strip("[]"), int(port)), timeout_seconds
                )
            except OSError as error:
                failures.append("%s: %s" % (server.strip(), error))
                continue
            try:
                self._open_session()
                return
            except (OSError, HostError) as error:
                self._socket.close()
                failures.append("%s: %s" % (server.strip(), error))
        raise HostError("no ZooKeeper server answers: " + "; ".join(failures))

    def __enter__(self) -> "ZooKeeperClient":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        try:
            self._send(struct.pack(">ii", 0, CLOSE))
        except OSError:
            pass  # the session ends by itself
        finally:
            self._socket.close()

    def data(self, path: str) -> bytes:
        """The data of a node; raises NoNode if it is not there."""
        answer = self._ask(GET_DATA, self._root + path)
        (length,) = struct.unpack_from(">i", answer)
        return answer[4 : 4 + max(length, 0)]

    def children(self, path: str) -> List[str]:
        """The names of a node's children; raises NoNode if it is not there."""
        answer = self._ask(GET_CHILDREN, self._root + path)
        (count,) = struct.unpack_from(">i", answer)
        names, position = [], 4
        for _ in range(count):
            (length,) = struct.unpack_from(">i", answer, position)
            names.append(answer[position + 4 : position + 4 + length].decode("utf-8"))
            position += 4 + length
        return names

    def _open_session(self) -> None:
        request = struct.pack(">iqiqi16sb", 0, 0, SESSION_MILLISECONDS, 0, 16, b"", 0)
        self._send(request)
        answer = self._receive()
        if struct.unpack_from(">i", answer, 4)[0] <= 0:
            raise HostError("it refuses a session")

    def _ask(self, kind: int, path: str) -> bytes:
        self._xid += 1
        encoded = path.encode("utf-8")
        watch = b"\0"
        header = struct.pack(">iii", self._xid, kind, len(encoded))
        try:
            self._send(header + encoded + watch)
            error, body = self._answer()
        except OSError as failure:
            raise HostError("ZooKeeper's connection broke: %s" % failure) from None
        if error == NO_NODE:
            raise NoNode("ZooKeeper has no %s" % path)
        if error:
            raise HostError("ZooKeeper answers with error %d for %s" % (error, path))
        return body

    def _answer(self) -> Tuple[int, bytes]:
        while True:
            answer = self._receive()
            xid, _, error = struct.unpack_from(">iqi", answer)
            if xid == self._xid:  # others are events and pings
                return error, answer[16:]

    def _send(self, data: bytes) -> None:
        self._socket.sendall(struct.pack(">i", len(data)) + data)

    def _receive(self) -> bytes:
        (length,) = struct.unpack(">i", self._exactly(4))
        if not 0 <= length <= LARGEST_ANSWER:
            raise HostError("that is no ZooKeeper")
        return self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = self._socket.recv(count - len(data))
            if not chunk:
                raise ConnectionResetError("it closed the connection")
            data += chunk
        return data
