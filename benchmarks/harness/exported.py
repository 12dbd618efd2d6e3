"""Sinks: how fast a built log goes elsewhere."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import perf_counter
from typing import Final

from job import Job, tell
from projected import postgres
from refold.log.protocol import Channel, Log
from refold.log.urls import open_log
from refold.services.sinks import SinkKind, SinkOrder, runner_of

REQUEST_EVENTS: Final = 100


async def export(job: Job) -> None:
    """Events a second from a built log into each kind of target."""
    log = open_log(job.url)
    await log.open()
    directory = Path(tempfile.mkdtemp(prefix="refold-bench-sinks-"))
    try:
        with postgres() as address, _receiver() as url:
            state = directory / "state"
            orders = [
                SinkOrder(SinkKind.JSONL, str(directory / "events.jsonl")),
                SinkOrder(SinkKind.PARQUET, str(directory / "events")),
                SinkOrder(SinkKind.DUCKDB, str(directory / "events.duckdb")),
                SinkOrder(SinkKind.POSTGRES, address),
                SinkOrder(SinkKind.HTTP, url, state=state, batch=REQUEST_EVENTS),
            ]
            figures = {f"{order.kind}_events_per_s": await _rate(log, order) for order in orders}
    finally:
        await asyncio.to_thread(shutil.rmtree, directory)
        await log.close()
    tell(figures)


async def _rate(log: Log, order: SinkOrder) -> float:
    runner = runner_of(order, log)
    began = perf_counter()
    await runner.catch_up()
    elapsed_s = perf_counter() - began
    ends = [(await log.bounds(Channel.EVENTS, p)).end for p in range(log.partitions)]
    assert runner.events == sum(ends), "not everything was written"
    return runner.events / elapsed_s


class _Taken(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


@contextmanager
def _receiver() -> Generator[str, None, None]:
    """A receiver that takes everything and looks at nothing."""
    with HTTPServer(("127.0.0.1", 0), _Taken) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
