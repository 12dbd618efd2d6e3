"""Consumers that ask a schema registry read refold's topics: confluent's Avro deserializer, which knows no refold."""

import os
import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from cli_process import CommandLine
from refold import Engine
from refold.log.schema_ids import SchemaIds
from registry_server import RegistryServer

CODE = """
from refold import step, workflow

@step
def double(number: int) -> int:
    return 2 * number

@workflow
def doubled(number: int) -> int:
    return double(number)
"""
DEADLINE_S = 60.0  # far above what a broker on this machine needs: a broken test ends
KINDS = ["workflow.started", "step.completed", "workflow.completed"]
GIVEN = ["given"] if "SCHEMA_REGISTRY_URL" in os.environ else []

pytestmark = pytest.mark.kafka


@pytest.fixture
def refold(kafka_bootstrap: str, tmp_path: Path) -> CommandLine:
    """The command on a new namespace, beside a module with a workflow."""
    (tmp_path / "numbers_.py").write_text(CODE)
    refold = CommandLine(tmp_path, f"kafka://{kafka_bootstrap}/aware-{uuid.uuid4().hex[:8]}")
    refold("topics", "create", "--partitions", "1")
    return refold


@pytest.fixture(params=["http", *GIVEN])
def registry(request: pytest.FixtureRequest) -> Iterator[str]:
    """A registry that can be written to."""
    if request.param == "given":
        yield os.environ["SCHEMA_REGISTRY_URL"]
        return
    with RegistryServer() as server:
        yield server.url


def work(refold: CommandLine) -> None:
    """One workflow, from its start to its end."""
    with refold.begin("worker", "numbers_") as worker:
        worker.until("claimed=")
        refold("start", "numbers_:doubled", "21", "--id", "a")
        with Engine(refold.url, worker=False) as engine:
            assert engine.handle("a").result(DEADLINE_S) == 42
        assert worker.stopped(signal.SIGTERM) == 0


def rows(refold: CommandLine, registry: str) -> tuple[list[dict[str, Any]], set[int]]:
    """The events as a stranger with that registry sees them, and the numbers that they carry."""
    brokers, _, namespace = refold.url.removeprefix("kafka://").partition("/")
    topic = f"{namespace}.events"
    client = SchemaRegistryClient({"url": registry})
    deserialize = cast("Any", AvroDeserializer)(client)
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "stranger"})
    place = TopicPartition(topic, 0, 0)
    _, end = consumer.get_watermark_offsets(place, timeout=DEADLINE_S)
    consumer.assign([place])
    try:
        messages = consumer.consume(end, timeout=DEADLINE_S)
    finally:
        consumer.close()
    assert len(messages) == end
    found: list[dict[str, Any]] = []
    numbers: set[int] = set()
    for message in messages:
        value = message.value()
        assert isinstance(value, bytes)
        numbers.add(int.from_bytes(value[1:5], "big"))
        row = deserialize(value, SerializationContext(topic, MessageField.VALUE))
        found.append(row)
    client.close()
    return found, numbers


def test_events_are_read_with_no_registry_server(refold: CommandLine) -> None:
    """Given refold's own numbers, its endpoint is all the registry that a consumer needs."""
    work(refold)
    with refold.begin("schemas", "serve", "--port", "0") as serving:
        url = re.search(r"url=(\S+)", serving.until("schemas url="))
        assert url is not None
        found, numbers = rows(refold, url[1])
    assert numbers == {SchemaIds().event}
    assert [row["kind"] for row in found if row["workflow_id"] == "a"] == KINDS
    assert {row["payload"] for row in found if row["kind"] == "workflow.completed"} == {"42"}


def test_events_are_read_with_a_registry(
    refold: CommandLine, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a registry, events carry its numbers; it, or refold's endpoint alone, tells consumers what they are."""
    monkeypatch.setenv("REFOLD_KAFKA_SCHEMA_REGISTRY", registry)
    shown = refold("schemas", "register").stdout
    work(refold)
    found, numbers = rows(refold, registry)
    assert [row["kind"] for row in found if row["workflow_id"] == "a"] == KINDS
    (number,) = numbers
    assert number < SchemaIds().event
    assert re.search(rf"^{number} +event ", shown, re.MULTILINE)
    monkeypatch.delenv("REFOLD_KAFKA_SCHEMA_REGISTRY")
    with refold.begin("schemas", "serve", "--port", "0") as serving:
        url = re.search(r"url=(\S+)", serving.until("schemas url="))
        assert url is not None
        assert rows(refold, url[1]) == (found, numbers)
    # Another process without the setting: the namespace has noted what the numbers mean.
    assert '"status": "completed"' in refold("list", "--json").stdout
