"""A receiver of CloudEvents over HTTP that keeps what it is sent, for tests."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What came.

    Args:
        url: Where it listens.
        answers: What it answers at first; 204 once they are used up.
        taken: The events that were answered with 204, in order.
        forms: The content types that they came with.
    """

    url: str = ""
    answers: list[int] = field(default_factory=list[int])
    taken: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    forms: set[str] = field(default_factory=set[str])


@contextmanager
def receiving() -> Generator[Receiver, None, None]:
    """A receiver that listens inside the block."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = receiver.answers.pop(0) if receiver.answers else 204
            if status == 204:
                found, form = json.loads(body), self.headers["Content-Type"].partition(";")[0]
                receiver.taken.extend(found if "batch" in form else [found])
                receiver.forms.add(form)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False  # a sender that was killed leaves its connection open
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/in?from=refold"
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
