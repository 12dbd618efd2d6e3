"""A refold topic on a real broker, read by another client and another Avro library than refold uses."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict
from uuid import uuid4

import avro.io
import avro.schema
import pytest
from confluent_kafka import Consumer, TopicPartition
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from refold.log.codec import GENESIS, encode_event
from refold.log.events import Event, PartitionClaimed, StepCompleted, WorkflowStarted
from refold.log.partitioner import partition_of
from refold.log.protocol import Entry

SCHEMA = Path(__file__).parents[2] / "log" / "schemas" / "event.avsc"
PARTITIONS = 3
DEADLINE_S = 60  # far above what a broker on this machine needs: a broken test ends


class Seen(NamedTuple):
    """What the foreign reader makes of a record."""

    partition: int
    key: str | None
    headers: dict[str, bytes]
    row: dict[str, Any]


def read_topic(bootstrap: str, topic: str, count: int) -> list[Seen]:
    """The topic's records, with confluent-kafka and the `avro` package. Nothing of refold is used here."""
    reader = avro.io.DatumReader(avro.schema.parse(SCHEMA.read_text(encoding="utf-8")))
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "stranger"})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    try:
        messages = consumer.consume(count, timeout=DEADLINE_S)
    finally:
        consumer.close()
    seen: list[Seen] = []
    for message in messages:
        assert message.error() is None
        value, key, headers = message.value(), message.key(), message.headers()
        assert isinstance(value, bytes)
        assert value[:5] == b"\0" + (1_000_000_001).to_bytes(4, "big")
        row = reader.read(avro.io.BinaryDecoder(io.BytesIO(value[5:])))
        text = key.decode() if isinstance(key, bytes) else None
        partition = message.partition()
        assert partition is not None
        seen.append(Seen(partition, text, dict(headers or []), row))  # type: ignore[arg-type]
    return seen


class Header(TypedDict):
    """What every event carries."""

    workflow_id: str | None
    position: int | None
    recorded_at: int
    claim: int
    command: int
    posted: int
    worker: str


def header(workflow_id: str | None, position: int | None, claim: int) -> Header:
    return {
        "workflow_id": workflow_id,
        "position": position,
        "recorded_at": 1_763_832_000_000_000,
        "claim": claim,
        "command": 0,
        "posted": 0,
        "worker": "worker-1",
    }


def history() -> list[Event]:
    """A claim, then two events of each of six workflows."""
    events: list[Event] = [PartitionClaimed(**header(None, None, -1), partition=0)]
    for number in range(6):
        id_ = f"order-🧾-{number}"
        payload = json.dumps({"n": number})
        events += [
            WorkflowStarted(
                **header(id_, 0, 0), workflow="shop", payload=payload, attributes={"é": "1"}
            ),
            StepCompleted(
                **header(id_, 1, 0),
                step=0,
                name="pay",
                payload=payload,
                attempt=1,
                started_at=number,
            ),
        ]
    return events


def write_topic(bootstrap: str, topic: str, entries: Sequence[Entry]) -> None:
    """Let Kafka's default partitioner, and not refold's, say where each key goes."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
    for key, value, headers in entries:
        sent = producer.send(
            topic,
            value,
            key=None if key is None else key.encode(),
            headers=list(headers),
            partition=0 if key is None else None,
        )
        sent.get(timeout=DEADLINE_S)
    producer.close()


@pytest.mark.kafka
def test_a_stranger_reads_the_topic(kafka_bootstrap: str) -> None:
    """Given events on a broker, another client with the published schema sees each field, header and key."""
    topic = f"foreign-{uuid4().hex}.events"
    events = history()
    write_topic(kafka_bootstrap, topic, [encode_event(event, GENESIS)[0] for event in events])

    seen = read_topic(kafka_bootstrap, topic, len(events))

    assert len(seen) == len(events)
    by_id = {record.row["event_id"]: record for record in seen}
    for event in events:
        if event.workflow_id is None:
            assert by_id["partition/0/-1/partition.claimed"].key is None
            continue
        record = by_id[f"{event.workflow_id}/{event.position}/{event.kind}"]
        assert record.key == record.row["workflow_id"] == event.workflow_id
        assert record.partition == partition_of(event.workflow_id, PARTITIONS)
        assert record.headers["kind"].decode() == record.row["kind"] == event.kind
        assert record.headers["claim"] == b"0"
        assert json.loads(record.row["payload"])["n"] == int(event.workflow_id[-1])
