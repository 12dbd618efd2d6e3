"""Numbers for Prometheus, over HTTP. Needs the extra `metrics`: imported where numbers are asked for."""

from collections.abc import Generator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from refold.log.errors import UsageError


@contextmanager
def exposed(
    registry: CollectorRegistry, address: str, port: int, option: str
) -> Generator[int, None, None]:
    """Serve a registry's numbers at `http://address:port/metrics` inside the block.

    Args:
        registry: Has them counted when somebody asks.
        address: The address to listen at; 127.0.0.1 is reached from this machine only.
        port: The port; 0 for any that is free.
        option: What options that name the two begin with, for the error: `--metrics-`.

    Yields:
        The port.

    Raises:
        UsageError: The port can't be listened at.
    """
    try:
        server, thread = start_http_server(port, address, registry)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"metrics can't be served at {address}:{port}: {error}. Choose another {option}port, or another "
            f"{option}address of this machine"
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
