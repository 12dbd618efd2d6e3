"""URLs of logs: each accepted form names what it says, each other one is refused with a list of what is accepted."""

from pathlib import Path

import pytest

from refold.log.errors import LogMismatch, UsageError
from refold.log.memory import MemoryLog
from refold.log.sqlite import SqliteLog
from refold.log.urls import open_log


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///orders.db", "orders.db"),
        ("sqlite:///data/orders.db?partitions=4", "data/orders.db"),
        ("sqlite:////var/lib/app/orders.db", "/var/lib/app/orders.db"),
        ("sqlite:///with%20space%23.db", "with space#.db"),
    ],
)
def test_a_file_is_named_by_its_path(url: str, path: str) -> None:
    """Given three slashes the path is relative, given four it is absolute."""
    log = open_log(url)
    assert isinstance(log, SqliteLog)
    assert log.path == Path(path)


def test_memory_without_a_name_is_not_shared() -> None:
    """Given memory:// twice, the two logs have nothing in common."""
    one, two = open_log("memory://?partitions=3"), open_log("memory://")
    assert isinstance(one, MemoryLog)
    assert isinstance(two, MemoryLog)
    assert one.store is not two.store
    assert (one.partitions, two.partitions) == (3, 1)


def test_memory_with_a_name_is_shared() -> None:
    """Given one name twice, the two logs have one store, and another number of partitions is refused."""
    one, two = open_log("memory://jobs?partitions=4"), open_log("memory://jobs")
    assert isinstance(one, MemoryLog)
    assert isinstance(two, MemoryLog)
    assert one.store is two.store
    assert two.namespace == "memory://jobs"
    with pytest.raises(LogMismatch, match="4 partition"):
        open_log("memory://jobs?partitions=2")


@pytest.mark.parametrize("url", ["kafka://host:9092/orders", "kafka://a:9092,b:9093/orders"])
def test_kafka_is_named_by_brokers_and_namespace(url: str) -> None:
    """Given brokers and a namespace, the log is made without a connection."""
    log = open_log(url)
    assert type(log).__name__ == "KafkaLog"
    assert log.namespace == "orders"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "orders.db",
        "postgres://host/db",
        "sqlite://orders.db",
        "sqlite:///",
        "sqlite:///data/",
        "sqlite:///orders.db?partitions=0",
        "sqlite:///orders.db?partitions=four",
        "sqlite:///orders.db?partitions=²",
        "sqlite:///orders.db?partition=4",
        "sqlite:///orders.db#events",
        "memory://name/path",
        "memory://?partitions=",
        "kafka://host/orders",
        "kafka://host:9092",
        "kafka://host:9092/",
        "kafka://host:9092/a/b",
        "kafka://host:nine/orders",
        "kafka://host:9092,/orders",
        "kafka://host:9092/orders?partitions=4",
        "kafka://[host:9092/orders",
    ],
)
def test_anything_else_is_refused_with_what_is_accepted(url: str) -> None:
    """Given a URL that names no log, the error quotes it and lists the accepted forms."""
    with pytest.raises(UsageError) as caught:
        open_log(url)
    message = str(caught.value)
    assert repr(url) in message
    assert "sqlite:///orders.db" in message
    assert "kafka://host:9092/orders" in message
