"""A small token endpoint (RFC 6749, 4.4) that gives unsigned tokens, for tests of logins."""

import base64
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from kafka_secure import unsigned_token


@dataclass
class TokenServer:
    """What the endpoint knows, and what it was asked.

    Args:
        client_id: The client that it lets in.
        secret: That client's secret.
        subject: Whom its tokens are for.
    """

    client_id: str
    secret: str
    subject: str
    url: str = ""
    life_s: float = 3_600.0
    broken: bool = False
    asked: list[dict[str, list[str]]] = field(default_factory=list[dict[str, list[str]]])

    def answer(self, authorization: str, form: dict[str, list[str]]) -> tuple[int, object]:
        """Status and body."""
        self.asked.append(form)
        login = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        client_id, secret = (unquote_plus(part) for part in login.split(":"))
        if self.broken:
            return 503, {}
        if (client_id, secret) != (self.client_id, self.secret):
            return 401, {"error": "invalid_client", "error_description": f"not {secret}\n"}
        token = unsigned_token(self.subject, self.life_s)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.life_s}


@contextmanager
def serving(known: TokenServer) -> Generator[TokenServer, None, None]:
    """The endpoint, which is there inside the block; at `/moved` it says that it is elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Answer."""
            if self.path == "/moved":
                self.send_response(307)
                self.send_header("Location", known.url)
                self.end_headers()
                return
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            status, body = known.answer(self.headers["Authorization"], form)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is there
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known.url = f"http://127.0.0.1:{server.server_port}/token"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield known
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
