"""The backends that the contract suite runs on. A new one is a fixture here and a name in BACKENDS."""

from pathlib import Path

import pytest

from log_backend import LogBackend, MemoryBackend, SqliteBackend

BACKENDS = [
    pytest.param("memory_backend", id="memory"),
    pytest.param("sqlite_backend", id="sqlite"),
]


@pytest.fixture
def memory_backend() -> LogBackend:
    return MemoryBackend()


@pytest.fixture
def sqlite_backend(tmp_path: Path) -> LogBackend:
    return SqliteBackend(tmp_path)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> LogBackend:
    """A fresh namespace with two partitions, on each backend in turn."""
    made: LogBackend = request.getfixturevalue(request.param)
    return made
