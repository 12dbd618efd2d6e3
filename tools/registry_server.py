"""A schema registry that can be written to, for tests: it keeps schemas in memory, over HTTP or HTTPS, on loopback.

with RegistryServer() as registry: ...                     # registry.url
with RegistryServer(user="refold:secret") as registry: ... # basic authentication
with RegistryServer(tls=certificate) as registry: ...      # HTTPS

It does what refold asks of a registry (`refold.log.schema_registry`), in the terms of Confluent's API, and holds a
subject to its compatibility. What it is asked is remembered in `requests`.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from avro_rule import can_read
from kafka_certificates import Certified


class Registered(NamedTuple):
    """A schema under a subject."""

    id: int
    version: int
    text: str


class RegistryServer:
    """Serves on `with`, from a thread of its own.

    Args:
        first_id: The number of the first schema; each next one has the next.
        user: User and password that it asks for, "user:password".
        tls: Its certificate, for HTTPS at `localhost`.
        port: The port; a free one where not given.
    """

    def __init__(
        self,
        first_id: int = 1,
        user: str | None = None,
        tls: Certified | None = None,
        port: int = 0,
    ) -> None:
        self.user = user
        self.writable = True
        self.requests: list[str] = []
        self.configs: dict[str, str] = {}
        self._first_id = first_id
        self._texts: list[str] = []
        self._subjects: dict[str, list[Registered]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        if tls is not None:
            self.url = f"https://localhost:{self.port}"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def subjects(self) -> dict[str, list[Registered]]:
        """Subject -> what is registered under it."""
        return self._subjects

    def answer(self, method: str, path: str, body: Any) -> tuple[int, object]:
        """Status and JSON that answer a request."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            if found := re.fullmatch(r"/schemas/ids/(\d+)", path):
                return self._by_id(int(found[1]))
            if found := re.fullmatch(r"/subjects/([^/]+)", path):
                return self._found(found[1], str(body["schema"]))
            if method in {"POST", "PUT"} and not self.writable:
                return _error(40301, "this user may not write")
            if found := re.fullmatch(r"/subjects/([^/]+)/versions", path):
                return self._register(found[1], str(body["schema"]))
            if found := re.fullmatch(r"/config/([^/]+)", path):
                self.configs[found[1]] = str(body["compatibility"])
                return 200, body
            return _error(404, "no such thing here")

    def _by_id(self, id_: int) -> tuple[int, object]:
        place = id_ - self._first_id
        if not 0 <= place < len(self._texts):
            return _error(40403, "Schema not found")
        return 200, {"schema": self._texts[place]}

    def _found(self, subject: str, text: str) -> tuple[int, object]:
        for one in self._subjects.get(subject, ()):
            if json.loads(one.text) == json.loads(text):
                answer = {"subject": subject, "id": one.id, "version": one.version}
                return 200, {**answer, "schema": one.text}
        return _error(40403, "Schema not found")

    def _register(self, subject: str, text: str) -> tuple[int, object]:
        status, found = self._found(subject, text)
        if status == 200:
            return status, found
        versions = self._subjects.setdefault(subject, [])
        if subject in self.configs and not all(can_read(text, one.text) for one in versions):
            return _error(40901, "Schema being registered is incompatible with an earlier schema")
        if text not in self._texts:
            self._texts.append(text)
        id_ = self._first_id + self._texts.index(text)
        versions.append(Registered(id_, len(versions) + 1, text))
        return 200, {"id": id_}


def _error(code: int, message: str) -> tuple[int, object]:
    return (code // 100 if code > 999 else code), {"error_code": code, "message": message}


def _handler(registry: RegistryServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def do_PUT(self) -> None:
            self._answer("PUT")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its base's name
            """Say nothing."""

        def _answer(self, method: str) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"null")
            path = self.path.partition("?")[0]
            if registry.user is not None and not self._known(registry.user):
                status, answer = _error(401, "Unauthorized")
            else:
                status, answer = registry.answer(method, path, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _known(self, user: str) -> bool:
            wanted = base64.b64encode(user.encode()).decode()
            return self.headers.get("Authorization") == f"Basic {wanted}"

    return Handler
