"""Serving an application over HTTP until it is told to stop. Needs the extra `http`: imported where that is done."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Generator

from refold.log.errors import UsageError
from refold.services.logs import say

try:
    import uvicorn
    from fastapi import FastAPI, Query, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException
except ImportError as error:
    raise UsageError(
        "what is served over HTTP needs FastAPI and uvicorn, which are not installed: pip install 'refold[http]'"
    ) from error

__all__ = [
    "FastAPI",
    "HTTPException",
    "JSONResponse",
    "Query",
    "Request",
    "RequestValidationError",
    "Response",
    "serve",
]


class _Server(uvicorn.Server):
    """A server that leaves signals to us: uvicorn would end the process by the signal, as if it had crashed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(app: FastAPI, what: str, address: str, port: int) -> None:
    """Serve an application until SIGTERM or SIGINT.

    Args:
        app: What to serve.
        what: What it is, for the first line, which tells the URL, and for errors.
        address: The address to listen at; 127.0.0.1 is reached from this machine only.
        port: The port; 0 for any that is free.

    Raises:
        UsageError: The port can't be listened at.
    """
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listening = socket.create_server((address, port), family=family)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"{what} can't be served at {address}:{port}: {error}. Choose another --port, or another --address of "
            "this machine"
        ) from error
    with listening:
        server = _Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, server)
        shown = f"[{address}]" if ":" in address else address
        url = f"http://{shown}:{listening.getsockname()[1]}"
        say(logging.getLogger(f"refold.{what}"), what, {"url": url})
        await server.serve(sockets=[listening])


def _stop(server: uvicorn.Server) -> None:
    server.should_exit = True
