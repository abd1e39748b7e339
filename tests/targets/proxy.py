"""A proxy of HTTP that tests can have fail: as networks, load balancers and servers do."""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

_NOT_PASSED_ON = ("connection", "transfer-encoding", "content-length")


class CutError(Exception):
    """Raised by a rule: close the connection without an answer."""


@dataclass
class Request:
    """A request on its way. A rule may change it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """A server's answer on its way back. A rule may change it.

    cut_after: after so many bytes of the body the connection is closed.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    cut_after: int | None = None


@dataclass
class Proxy:
    """Stands before a server on 127.0.0.1; used as a context manager.

    before: sees each request; returns an answer to give that instead of asking the server, or
        None to ask it. after: sees each answer. Both may raise CutError.
    requests: all that came, as method and path.
    """

    server_port: int
    before: Callable[[Request], Answer | None] = lambda _: None
    after: Callable[[Request, Answer], None] = lambda _, __: None
    requests: list[tuple[str, str]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """The proxy's own address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def ask(self, request: Request) -> Answer:
        """Ask the server."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server_port, timeout=60)
        try:
            connection.request(request.method, request.path, request.body, request.headers)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                """Pass a request on, and its answer back."""
                length = int(self.headers.get("Content-Length", 0))
                headers = {name: text for name, text in self.headers.items() if name != "Expect"}
                request = Request(self.command, self.path, headers, self.rfile.read(length))
                proxy.requests.append((self.command, self.path))
                try:
                    answer = proxy.before(request) or proxy.ask(request)
                    proxy.after(request, answer)
                except (CutError, OSError, http.client.HTTPException):
                    self.close_connection = True
                    return
                self.send_response_only(answer.status)
                for name, text in answer.headers.items():
                    if name.lower() not in _NOT_PASSED_ON:
                        self.send_header(name, text)
                length = len(answer.body)
                if self.command == "HEAD":
                    length = int(answer.headers.get("Content-Length", 0))
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(answer.body[: answer.cut_after])
                if answer.cut_after is not None:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Tests have their own eyes."""

        for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
            setattr(Handler, f"do_{method}", Handler.handle_any)
        return Handler
