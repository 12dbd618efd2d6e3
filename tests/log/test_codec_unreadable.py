"""Bad bytes raise nothing: they are Unreadable with a reason, and what still decodes fails its chain."""

import dataclasses
import io
import json

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.log.codec import (
    claim_of,
    decode_command,
    decode_event,
    decode_reply,
    encode_command,
    encode_event,
    encode_reply,
    event_id_of,
    kind_of,
    verify,
)
from refold.log.commands import Reply, StartWorkflow
from refold.log.events import (
    EVENT_CLASSES,
    CommandRefused,
    Event,
    PartitionClaimed,
    StepCompleted,
    Unreadable,
    WorkflowStarted,
)
from refold.log.flat_avro import Malformed, read_long, read_size, text_bytes
from refold.log.flat_record import FlatRecord
from refold.log.protocol import Entry, Record
from refold.log.schema_ids import DEFAULT_BASE, schema_of

PREVIOUS = bytes(range(32))

STARTED = WorkflowStarted(
    workflow_id="order-42",
    position=0,
    recorded_at=1_700_000_000_000_000,
    claim=7,
    command=3,
    posted=0,
    worker="worker-1",
    workflow="checkout",
    payload='{"order":"🧾"}',
    attributes={"customer": "Zoë"},
)
STEPPED = StepCompleted(
    workflow_id="order-42",
    position=1,
    recorded_at=1_700_000_000_500_000,
    claim=7,
    command=3,
    posted=0,
    worker="worker-1",
    step=0,
    name="shop.charge",
    payload='"paid"',
    attempt=1,
    started_at=1_700_000_000_100_000,
)
CLAIMED = PartitionClaimed(
    workflow_id=None,
    position=None,
    recorded_at=1_700_000_000_000_000,
    claim=2,
    command=-1,
    posted=0,
    worker="worker-1",
    partition=5,
)
REFUSED = CommandRefused(
    workflow_id="order-42",
    position=None,
    recorded_at=1_700_000_000_000_000,
    claim=7,
    command=4,
    posted=0,
    worker="worker-1",
    partition=5,
    name="workflow.start",
    error_type="refold.log.errors:WorkflowConflict",
    error_message="taken",
)
START = StartWorkflow(
    command_id="c-1",
    workflow_id="order-42",
    reply_to="client-1",
    requested_at=1_700_000_000_000_000,
    workflow="checkout",
    payload="[]",
)
REPLY = Reply(command_id="c-1", workflow_id="order-42", status="completed", payload="1")

TABLES = FlatRecord[Event](
    schema_of("event"), EVENT_CLASSES, start=5, apart="chain", computed="event_id"
)
EVENTS: list[Event] = [STARTED, STEPPED, CLAIMED, REFUSED]


def record_of(entry: Entry) -> Record:
    return Record(0, 0, *entry)


def recorded(event: Event) -> Record:
    return record_of(encode_event(event, PREVIOUS)[0])


def foreign_record(row: dict[str, object]) -> Record:
    """A record of order-42 with the event schema's number and any row that fits the schema."""
    text = json.dumps(schema_of("event")).replace(', "logicalType": "timestamp-micros"', "")
    stream = io.BytesIO()
    fastavro.schemaless_writer(  # pyright: ignore[reportUnknownMemberType]
        stream, json.loads(text), row
    )
    frame = b"\0" + DEFAULT_BASE.to_bytes(4, "big")
    return Record(0, 0, "order-42", frame + stream.getvalue(), (("claim", b"7"),))


def event_row() -> dict[str, object]:
    """The columns of STEPPED."""
    row: dict[str, object] = dataclasses.asdict(STEPPED)
    return row | {"kind": STEPPED.kind, "event_id": event_id_of(STEPPED), "chain": PREVIOUS}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_a_truncated_event_is_unreadable(event: Event) -> None:
    """Given every beginning of an event's bytes, decoding raises nothing and gives Unreadable."""
    record = recorded(event)
    for size in range(len(record.value)):
        back = decode_event(record._replace(value=record.value[:size]))
        assert isinstance(back, Unreadable), size
        assert (back.workflow_id, back.claim) == (event.workflow_id, event.claim)
        assert back.reason


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_every_flipped_bit_shows(event: Event) -> None:
    """Given an event's bytes with any one bit flipped, decoding raises nothing, and the chain tells."""
    record = recorded(event)
    assert verify(record, PREVIOUS)
    for bit in range(len(record.value) * 8):
        value = bytearray(record.value)
        value[bit // 8] ^= 1 << bit % 8
        flipped = record._replace(value=bytes(value))
        decode_event(flipped)
        assert not verify(flipped, PREVIOUS), bit


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([0, 1, 2]), st.one_of(st.none(), st.text()))
def test_any_bytes_decode_without_an_exception(body: bytes, place: int, key: str | None) -> None:
    """Given any bytes after a known schema's number, each decoder gives a value or Unreadable."""
    record = Record(0, 0, key, b"\0" + (DEFAULT_BASE + place).to_bytes(4, "big") + body)
    decode_event(record)
    decode_command(record)
    decode_reply(record)


@settings(deadline=None)
@given(st.sampled_from(EVENTS), st.data())
def test_spoilt_bytes_decode_without_an_exception(event: Event, data: st.DataObject) -> None:
    """Given an event with bytes replaced, put in or taken out anywhere, there is no exception."""
    record = recorded(event)
    start = data.draw(st.integers(5, len(record.value)))
    stop = data.draw(st.integers(start, len(record.value)))
    put_in = data.draw(st.binary(max_size=20))
    value = record.value[:start] + put_in + record.value[stop:]
    assert value == record.value or not verify(record._replace(value=value), PREVIOUS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_the_compiled_reader_takes_nothing_that_fastavro_reads_otherwise(event: Event) -> None:
    """Given an event's bytes with any one bit flipped, what the fast way takes is what fastavro sees too."""
    value = recorded(event).value
    skipped = value.index(
        event_id_of(event).encode()
    )  # follows from the other columns: not looked at
    after = skipped + len(event_id_of(event))
    taken = 0
    for bit in (*range(skipped * 8), *range(after * 8, len(value) * 8)):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        fast = compiled(event.kind, bytes(flipped))
        if fast is not None:
            assert fast == TABLES.read_slowly(bytes(flipped)), bit
            taken += 1
    assert taken > 32 * 8  # the chain's bits at least, and the letters of texts


def compiled(kind: str, value: bytes) -> Event | None:
    """What the kind's compiled reader makes of the bytes; None where it refuses them."""
    try:
        return TABLES.readers[text_bytes(kind)](value)
    except (Malformed, LookupError, UnicodeDecodeError):
        return None


def test_a_negative_length_is_malformed() -> None:
    """Given a length of -1 in one byte or in two, no reader goes backwards."""
    for data in (b"\x01", b"\x81\x00"):
        with pytest.raises(Malformed, match="negative"):
            read_size(data, 0)
    value = recorded(STEPPED).value
    at = value.index(b"order-42")  # in event_id, after its length: 25 is 0x32, -26 is 0x33
    with pytest.raises(Malformed):
        TABLES.readers[text_bytes(STEPPED.kind)](value[: at - 1] + b"\x33" + value[at:])


def test_a_long_of_more_than_ten_bytes_is_malformed() -> None:
    """Given a varint that goes on after 64 bits, even with zeros, it is given up and not computed."""
    with pytest.raises(Malformed, match="64 bits"):
        read_long(b"\x80" * 10 + b"\x00", 0)
    with pytest.raises(Malformed, match="64 bits"):
        read_long(b"\xff" * 9 + b"\x02", 0)
    assert read_long(b"\xff" * 9 + b"\x01", 0) == (-(2**63), 10)


def test_a_number_of_a_million_bytes_is_unreadable() -> None:
    """Given a varint that never ends, the reader gives up after ten bytes and does not compute it."""
    head = recorded(STEPPED).value[:52]
    back = decode_event(Record(0, 0, "order-42", head + b"\xff" * 1_000_000))
    assert isinstance(back, Unreadable)


def test_bytes_after_the_record_are_unreadable() -> None:
    """Given a record with a byte more than it needs, it is not what refold wrote."""
    record = recorded(STEPPED)
    back = decode_event(record._replace(value=record.value + b"\0"))
    assert back == Unreadable("order-42", 7, "1 bytes follow the record")


def test_a_schema_that_is_not_known_is_unreadable() -> None:
    """Given a number that this release does not know, the reason says who may have written it."""
    record = recorded(STEPPED)
    back = decode_event(record._replace(value=b"\0\0\0\0\x2a" + record.value[5:]))
    assert isinstance(back, Unreadable)
    assert "schema 42 is not known" in back.reason


def test_a_record_of_another_channel_is_unreadable() -> None:
    """Given a command where an event should be, the reason says what it is."""
    back = decode_event(record_of(encode_command(START)))
    assert isinstance(back, Unreadable)
    assert "that of a refold command, not of a refold event" in back.reason


def test_an_unknown_kind_is_unreadable() -> None:
    """Given an event of a later release's kind, its workflow, claim and kind are told."""
    back = decode_event(foreign_record(event_row() | {"kind": "step.skipped"}))
    assert back == Unreadable(
        "order-42", 7, "kind 'step.skipped' is not known to this release of refold"
    )


def test_a_known_kind_with_a_column_of_a_later_release_is_unreadable() -> None:
    """Given a column filled that this release has no field for, it is not passed over in silence."""
    back = decode_event(foreign_record(event_row() | {"queue": "slow"}))
    assert isinstance(back, Unreadable)
    assert "column queue is filled" in back.reason


def test_a_known_kind_without_a_column_that_it_needs_is_unreadable() -> None:
    """Given a null where the class has no None, the column is named."""
    row = event_row()
    del row["payload"]
    back = decode_event(foreign_record(row))
    assert isinstance(back, Unreadable)
    assert "column payload is null" in back.reason


@pytest.mark.parametrize("missing", ["workflow_id", "position"])
def test_a_workflows_event_without_workflow_or_position_is_unreadable(missing: str) -> None:
    """Given a step's event that says not whose or not where, no fold ever sees it."""
    record = foreign_record(event_row() | {missing: None})
    if missing == "workflow_id":
        record = record._replace(key=None)
    back = decode_event(record)
    assert isinstance(back, Unreadable)
    assert back.reason == "step.completed has no workflow or no position"
    assert not verify(record, PREVIOUS)


def test_a_record_whose_key_is_not_its_workflow_is_unreadable() -> None:
    """Given a key other than the body's workflow_id, neither is believed."""
    record = recorded(STEPPED)._replace(key="order-43")
    back = decode_event(record)
    assert isinstance(back, Unreadable)
    assert "'order-42'" in back.reason
    command = record_of(encode_command(START))._replace(key=None)
    assert isinstance(decode_command(command), Unreadable)


def test_a_reply_of_an_unknown_status_is_unreadable() -> None:
    """Given a reply with a status of a later release, the client is not told something else."""
    odd = dataclasses.replace(REPLY, status="paused")  # type: ignore[arg-type]
    assert isinstance(decode_reply(record_of(encode_reply(odd, "client-1"))), Unreadable)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_kind_and_claim_are_read_from_the_headers_alone(event: Event) -> None:
    """Given any event's record with its value gone, the headers still say its kind and claim."""
    record = recorded(event)._replace(value=b"")
    assert kind_of(record) == event.kind
    assert claim_of(record) == event.claim


@pytest.mark.parametrize("claim", [b"", b"-", b"x", b"\xff", b" 7", b"1_0", b"1.0", b"9" * 5000])
def test_a_claim_header_that_is_no_number_is_none(claim: bytes) -> None:
    """Given a header that is no decimal integer, it says nothing, and nothing is raised."""
    assert claim_of(Record(0, 0, None, b"", (("claim", claim),))) is None
    assert claim_of(Record(0, 0, None, b"")) is None


def test_a_kind_header_that_is_no_text_is_none() -> None:
    """Given a header that is not UTF-8, it says nothing, and nothing is raised."""
    assert kind_of(Record(0, 0, None, b"", (("kind", b"\xff"),))) is None
    assert kind_of(Record(0, 0, None, b"")) is None
