"""A server that speaks S3's protocol (moto), as a process of its own, for tests of the blob store."""

import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from log_backend import PATIENCE_S

LOOK_EVERY_S = 0.02


@contextmanager
def s3_server() -> Generator[str, None, None]:
    """The URL of a fresh server, which is there inside the block."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, "the S3 server ended at once"
            assert time.monotonic() < deadline, "the S3 server does not come up"
            time.sleep(LOOK_EVERY_S)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
