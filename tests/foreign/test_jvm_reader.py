"""The live topic, read on the JVM by what Apache publishes: Kafka's console consumer and Avro, with the schema file."""

import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from cli_process import CommandLine
from kafka_broker import KAFKA_VERSION, SLF4J_VERSION, fetched_jars

AVRO_VERSION = "1.12.0"
PROGRAM = Path(__file__).with_name("EventText.java")
DEADLINE_S = 120.0  # a JVM that compiles its program on a busy machine
CODE = """
from refold import step, workflow

@step
def double(number: int) -> int:
    return 2 * number

@workflow
def doubled(number: int) -> int:
    return double(number)
"""

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_the_jvm_reads_events_with_the_schema_alone(kafka_bootstrap: str, tmp_path: Path) -> None:
    """Given a namespace with a run, the console consumer prints its events, their keys and their headers."""
    (tmp_path / "numbers_.py").write_text(CODE)
    namespace = f"jvm-{uuid.uuid4().hex[:8]}"
    refold = CommandLine(tmp_path, f"kafka://{kafka_bootstrap}/{namespace}")
    refold("topics", "create", "--partitions", "1")
    refold("run", "numbers_:doubled", "21", "--id", "a-é")
    refold("schemas", "export", "avro")

    lines = printed(kafka_bootstrap, f"{namespace}.events", tmp_path / "avro" / "event.avsc")

    events: list[dict[str, Any]] = []
    for headers, key, value in (line.split("\t", 2) for line in lines):
        event = json.loads(value)
        events.append(event)
        assert f"kind:{event['kind']},event_id:{event['event_id']},claim:" in headers
        assert key == (event["workflow_id"] or "null")
    ours = [event for event in events if event["workflow_id"] == "a-é"]
    assert [event["kind"] for event in ours] == [
        "workflow.started",
        "step.completed",
        "workflow.completed",
    ]
    assert [event["position"] for event in ours] == [0, 1, 2]
    assert [event["payload"] for event in ours][1:] == ["42", "42"]
    # The rule for zombies, as a stranger applies it: an event counts under the claim that is current.
    claims = [offset for offset, event in enumerate(events) if event["kind"] == "partition.claimed"]
    assert {event["claim"] for event in ours} == {claims[-1]}


def printed(bootstrap: str, topic: str, schema: Path) -> list[str]:
    """What Kafka's console consumer prints of a topic, from its beginning to its end."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "stranger"})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=DEADLINE_S)
    finally:
        consumer.close()
    jars = fetched_jars(
        f"console-{KAFKA_VERSION}-avro-{AVRO_VERSION}",
        f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}",
        f"org.apache.avro:avro:{AVRO_VERSION}",
        f"org.slf4j:slf4j-simple:{SLF4J_VERSION}",
    )
    # The compiler is in every Java 17, `javac` only where the development kit is.
    classes = os.pathsep.join(map(str, jars.glob("*.jar")))
    compiler = "jdk.compiler/com.sun.tools.javac.Main"
    java("-m", compiler, "-cp", classes, "-d", str(schema.parent), str(PROGRAM))
    said = java(
        *("-cp", f"{schema.parent}{os.pathsep}{classes}", "EventText", str(schema)),
        *("--bootstrap-server", bootstrap, "--topic", topic, "--from-beginning"),
        *("--max-messages", str(end), "--timeout-ms", str(round(DEADLINE_S * 1_000))),
        *("--formatter-property", "print.key=true"),
        *("--formatter-property", "print.headers=true"),
        *("--formatter-property", "value.deserializer=EventText"),
    )
    lines = said.splitlines()
    assert len(lines) == end
    return lines


def java(*arguments: str) -> str:
    """What Java prints."""
    done = subprocess.run(
        ["java", "-Dfile.encoding=UTF-8", *arguments],
        capture_output=True,
        timeout=2 * DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()
