"""The log that clients and workers of a fault run share, with timeouts that fit a run of minutes."""

from dataclasses import replace
from typing import Final

from kafka_backend import TEST_SETTINGS
from refold.log.kafka import KafkaLog
from refold.log.protocol import Log
from refold.log.urls import open_log

SESSION_MS: Final = 4_000
"""A worker that falls silent is missed after so long; a busy machine alone silences none for that long."""

SETTINGS: Final = replace(TEST_SETTINGS, session_timeout_ms=SESSION_MS, heartbeat_interval_ms=400)


def log_of(url: str) -> Log:
    """The log of a URL; not open yet."""
    scheme, _, rest = url.partition("://")
    if scheme != "kafka":
        return open_log(url)
    servers, _, namespace = rest.partition("/")
    return KafkaLog(servers.split(","), namespace, SETTINGS)
