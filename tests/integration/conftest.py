"""The logs that whole engines are tested on: all in memory and on a file, the main ways on Kafka as well."""

from pathlib import Path

import pytest

from kafka_backend import KafkaBackend
from log_backend import LogBackend, MemoryBackend, SqliteBackend

LOCAL = ["memory_backend", "sqlite_backend"]
EVERYWHERE = [*LOCAL, pytest.param("kafka_backend", marks=pytest.mark.kafka)]


@pytest.fixture
def memory_backend() -> LogBackend:
    return MemoryBackend()


@pytest.fixture
def sqlite_backend(tmp_path: Path) -> LogBackend:
    return SqliteBackend(tmp_path)


@pytest.fixture
def kafka_backend(kafka_bootstrap: str) -> LogBackend:
    return KafkaBackend(kafka_bootstrap)


@pytest.fixture(params=LOCAL)
def backend(request: pytest.FixtureRequest) -> LogBackend:
    """A fresh namespace with two partitions, in memory and in a file in turn."""
    made: LogBackend = request.getfixturevalue(request.param)
    return made


@pytest.fixture(params=EVERYWHERE)
def any_backend(request: pytest.FixtureRequest) -> LogBackend:
    """A fresh namespace with two partitions, on each backend in turn."""
    made: LogBackend = request.getfixturevalue(request.param)
    return made


POOLS = (("gpu", 2), ("ocr", 1))


@pytest.fixture(params=["memory", "sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def pooled_backend(request: pytest.FixtureRequest, tmp_path: Path) -> LogBackend:
    """A fresh namespace with two common partitions, then two of pool `gpu` and one of pool `ocr`."""
    match request.param:
        case "memory":
            return MemoryBackend(POOLS)
        case "sqlite":
            return SqliteBackend(tmp_path, POOLS)
        case _:
            return KafkaBackend(request.getfixturevalue("kafka_bootstrap"), pools=POOLS)
