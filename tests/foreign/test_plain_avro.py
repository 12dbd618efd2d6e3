"""Bytes that refold wrote, read by Avro's libraries with the published schema. Nothing of refold is imported here.

What a stranger needs is in the repository: `log/schemas/event.avsc`, and five bytes to skip.
"""

import datetime as dt
import hashlib
import io
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import avro.io
import avro.schema
import fastavro
import pytest

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "log" / "schemas"
GOLDEN = ROOT / "tests" / "golden" / "v0_1"
SCHEMA_OF_CHANNEL = {
    "log": ("event", 1_000_000_001),
    "kinds": ("event", 1_000_000_001),
    "commands": ("command", 1_000_000_002),
    "replies": ("reply", 1_000_000_003),
}
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def read_with_fastavro(schema: str, body: bytes) -> Mapping[str, Any]:
    stream = io.BytesIO(body)
    row = fastavro.schemaless_reader(  # pyright: ignore[reportUnknownMemberType]
        stream, json.loads(schema), None
    )
    assert stream.read() == b""
    return cast(Mapping[str, Any], row)


def read_with_avro(schema: str, body: bytes) -> Mapping[str, Any]:
    stream = io.BytesIO(body)
    reader = avro.io.DatumReader(avro.schema.parse(schema))
    row = reader.read(avro.io.BinaryDecoder(stream))
    assert stream.read() == b""
    return cast(Mapping[str, Any], row)


READERS = [read_with_fastavro, read_with_avro]


def values(channel: str) -> list[bytes]:
    """The values of a golden log: each stands after its length."""
    data = (GOLDEN / f"{channel}.bin").read_bytes()
    found: list[bytes] = []
    while data:
        (size,) = struct.unpack_from(">i", data)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def same(found: object, meant: object) -> bool:
    """Whether an Avro value is the one in JSON, where bytes are hex and times microseconds."""
    match found:
        case bytes():
            return found.hex() == meant
        case dt.datetime():
            return (found - EPOCH) // dt.timedelta(microseconds=1) == meant
        case _:
            return found == meant


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("channel", SCHEMA_OF_CHANNEL)
def test_avros_own_libraries_read_every_record(
    channel: str, read: Callable[[str, bytes], Mapping[str, Any]]
) -> None:
    """Given every kind of record that refold writes, an Avro reader with the schema file sees all of it."""
    name, id_ = SCHEMA_OF_CHANNEL[channel]
    schema = (SCHEMAS / f"{name}.avsc").read_text(encoding="utf-8")
    expected = json.loads((GOLDEN / f"{channel}.json").read_text(encoding="ascii"))
    for value, meant in zip(values(channel), expected, strict=True):
        assert struct.unpack_from(">bi", value) == (0, id_)
        row = read(schema, value[5:])
        fields = meant["fields"]
        for column, found in row.items():
            if column in fields:
                assert same(found, fields[column]), column
            elif column in {"kind", "event_id"}:
                assert [column, found] in meant["headers"] or name == "command"
            else:
                assert found is None, column
        assert fields.keys() <= row.keys()


def test_a_times_type_is_understood() -> None:
    """Given an event, its times are moments in UTC for a reader that knows Avro's logical types."""
    schema = (SCHEMAS / "event.avsc").read_text(encoding="utf-8")
    row = read_with_fastavro(schema, values("log")[0][5:])
    assert row["recorded_at"] == dt.datetime(2025, 11, 22, 17, 20, tzinfo=dt.UTC)


def test_a_stranger_can_audit_the_chain() -> None:
    """Given the bytes and a hash function, the chain is checked from the first event to the last."""
    schema = (SCHEMAS / "event.avsc").read_text(encoding="utf-8")
    running = bytes(32)
    for value in values("log"):
        chain, rest = value[5:37], value[37:]
        claim = read_with_fastavro(schema, value[5:])["kind"] == "partition.claimed"
        assert chain == blake(bytes(32) if claim else running, rest)
        running = blake(running, chain) if claim else chain


def blake(previous: bytes, rest: bytes) -> bytes:
    return hashlib.blake2b(previous + rest, digest_size=32).digest()
