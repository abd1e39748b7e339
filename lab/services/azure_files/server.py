"""The double's HTTPS server."""

import contextlib
import http.server
import socket
import ssl
import subprocess
import threading
import uuid
from collections.abc import Mapping
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

from lab.services.azure_files.account import Account
from lab.services.azure_files.operations import Operations
from lab.services.azure_files.signatures import (
    RefusedError,
    check_bearer,
    check_sas,
    check_shared_key,
)


class AzureFiles:
    """The server with one account; a context manager that starts and stops it.

    folder: an empty one, for the shares and the certificate.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "shares").mkdir()
        self.account = Account(folder / "shares")
        self.certificate = folder / "certificate.pem"
        key_file = folder / "key.pem"
        _make_certificate(self.certificate, key_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key_file)
        self._server = _Server(("127.0.0.1", 0), self._handler(), context)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def _handler(self) -> type["_Handler"]:
        class Handler(_Handler):
            account = self.account

        return Handler

    @property
    def endpoint(self) -> str:
        """Where the account's File service is."""
        return f"https://localhost:{self._server.server_address[1]}"

    @property
    def connection_string(self) -> str:
        """The connection string that the portal would show."""
        return (
            f"DefaultEndpointsProtocol=https;AccountName={self.account.name};"
            f"AccountKey={self.account.key};FileEndpoint={self.endpoint}"
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server and cut its connections; harmless when called again."""
        if not self.account.stopped.is_set():
            self.account.stopped.set()
            self._server.shutdown()
            self._thread.join()
            self._server.close_all()


def _make_certificate(certificate: Path, key_file: Path) -> None:
    """A self-signed certificate for localhost, which is its own authority."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(key_file), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)


class _Server(http.server.ThreadingHTTPServer):
    """TLS is spoken in each connection's own thread: a client that is slow with it holds nobody."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: Any, context: ssl.SSLContext) -> None:
        self._context = context
        self._open: set[Any] = set()
        super().__init__(address, handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self._context.wrap_socket(request, server_side=True) as stream:
            self._open.add(stream)
            try:
                super().finish_request(stream, client_address)
            finally:
                self._open.discard(stream)

    def handle_error(self, *_: object) -> None:
        """A client that goes away is part of the tests."""

    def close_all(self) -> None:
        """Close the port and cut what is connected."""
        self.server_close()
        for stream in list(self._open):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    account: Account

    def log_message(self, *_: object) -> None:
        """Nothing: requests are kept for the tests."""

    def handle_one_request(self) -> None:
        """Read one request, do it, answer it."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        account, parts = self.account, urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        sent = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(sent.get("content-length", "0")))
        operations = Operations(account, parts.path, query, sent, body)
        name, action, permission = operations.chosen(self.command)
        fault = account.next_fault(name)
        if fault == "flip":
            operations.body = bytes([body[0] ^ 1]) + body[1:]
        if fault == "hang":
            account.stopped.wait()
        if fault in ("cut", "hang"):
            account.requests.append((name, 0))
            self.close_connection = True
            return
        try:
            if fault == "busy":
                raise RefusedError(503, "ServerBusy")
            self._authorize(operations, name, permission)
            status, headers, content = action()
        except RefusedError as error:
            status, headers, content = _refusal(error)
        account.requests.append((name, 0 if fault == "lost" else status))
        if fault == "lost" or account.stopped.is_set():
            self.close_connection = True
            return
        self._answer(status, headers, content, half=fault == "half")

    def _answer(self, status: int, headers: Mapping[str, str], content: bytes, half: bool) -> None:
        self.send_response_only(status)
        date = format_datetime(self.account.now(), usegmt=True)
        headers = {"Content-Length": str(len(content)), **headers, "Date": date}
        headers |= {"x-ms-request-id": str(uuid.uuid4())}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)
        self.close_connection = self.close_connection or half

    def _authorize(self, asked: Operations, operation: str, permission: str) -> None:
        sent, account = asked.headers, self.account
        if "x-ms-version" not in sent or "x-ms-date" not in sent:
            raise RefusedError(400, "MissingRequiredHeader", "x-ms-version or x-ms-date")
        on_share = operation in ("share", "stats")
        proof = sent.get("authorization", "")
        if proof.startswith("Bearer "):
            check_bearer(account.tokens, sent, on_share)
            return
        if not account.keys_allowed:
            raise RefusedError(403, "KeyBasedAuthenticationNotPermitted")
        if proof.startswith("SharedKey "):
            check_shared_key(account, self.command, asked.path, asked.query, sent)
        elif "sig" in asked.query:
            check_sas(account, asked.path, asked.query, permission, on_share)
        else:
            raise RefusedError(401, "NoAuthenticationInformation")


def _refusal(error: RefusedError) -> tuple[int, dict[str, str], bytes]:
    """An error as the service tells it, in the header and as XML."""
    text = (
        f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{error.code}</Code>'
        f"<Message>{error.code}</Message><AuthenticationErrorDetail>{escape(error.detail)}"
        "</AuthenticationErrorDetail></Error>"
    )
    headers = {"x-ms-error-code": error.code, "Content-Type": "application/xml"}
    return error.status, headers, text.encode()
