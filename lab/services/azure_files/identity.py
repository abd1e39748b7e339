"""A managed identity service, which hands out tokens to the machine it runs on."""

import http.server
import json
import secrets
import threading
import time
from typing import Self


class TokenService(http.server.ThreadingHTTPServer):
    """The managed identity service of a virtual machine's or app's host.

    It hands out one token over plain HTTP on loopback, as App Service does: to who knows its
    header (IDENTITY_ENDPOINT, IDENTITY_HEADER, version 2019-08-01).
    """

    daemon_threads = True

    def __init__(self, token: str) -> None:
        self.secret = secrets.token_hex(16)
        answer = {
            "access_token": token,
            "expires_on": str(int(time.time()) + 3600),
            "resource": "https://storage.azure.com",
            "token_type": "Bearer",
        }
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.headers.get("X-IDENTITY-HEADER") == service.secret
                content = json.dumps(answer if known else {"message": "no"}).encode()
                self.send_response(200 if known else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        super().__init__(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))

    @property
    def environment(self) -> dict[str, str]:
        """What a process finds in its environment on such a machine."""
        port = int(self.server_address[1])
        return {
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{port}/msi/token",
            "IDENTITY_HEADER": self.secret,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
