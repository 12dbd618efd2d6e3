"""A step that fails and is tried again: an HTTP service that is busy twice before it answers.

    python examples/retries.py

Each failed attempt is an event: the count survives a crash, and the history shows why it took so long. The service
can tell a repeat from a new order by the idempotency key, which is the same for every attempt.
"""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from refold import Engine, Retry, step, step_context, workflow
from refold.log.events import StepAttemptFailed


@step(
    retry=Retry(attempts=5, initial_s=0.05, backoff=2.0, max_s=1.0, on=(urllib.error.HTTPError,)),
    timeout_s=5,
)
def reserve(service: str, seats: int) -> str:
    """Reserve seats; returns the reservation's number."""
    request = urllib.request.Request(
        f"{service}/reserve?seats={seats}",
        method="POST",
        headers={"Idempotency-Key": step_context().idempotency_key},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        reservation: str = json.load(answer)["reservation"]
    return reservation


@workflow
def book(service: str, seats: int) -> str:
    """Book seats."""
    return f"booked {seats} seats: {reserve(service, seats)}"


class BusyService(BaseHTTPRequestHandler):
    """Answers 503 to the first two requests of each key, then reserves once for that key."""

    seen: dict[str, int] = {}  # noqa: RUF012 - the handler is made anew for each request

    def do_POST(self) -> None:
        """Answer a request."""
        key = self.headers["Idempotency-Key"]
        self.seen[key] = self.seen.get(key, 0) + 1
        busy = self.seen[key] <= 2
        body = json.dumps({} if busy else {"reservation": f"R-{list(self.seen).index(key) + 1}"})
        self.send_response(503 if busy else 200, "busy" if busy else "reserved")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its base names it
        """Say nothing: the history tells it better."""


@contextmanager
def busy_service() -> Generator[str]:
    """A service on loopback; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BusyService) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


if __name__ == "__main__":
    with busy_service() as address, Engine("memory://") as engine:
        run = engine.start(book, address, 4, id="booking-1")
        print(run.result())
        for event in run.history():
            if isinstance(event, StepAttemptFailed):
                print(f"attempt {event.attempt} failed: {event.error_message}")
