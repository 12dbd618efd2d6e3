"""Events, commands and replies become the bytes that Avro's own library would write, and come back the same."""

import dataclasses
import io
import json
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.log.codec import (
    GENESIS,
    decode_command,
    decode_event,
    decode_reply,
    encode_command,
    encode_event,
    encode_reply,
    event_id_of,
)
from refold.log.commands import COMMAND_CLASSES, Command, Reply, StartWorkflow
from refold.log.errors import PayloadError
from refold.log.events import (
    EVENT_CLASSES,
    CommandRefused,
    Event,
    PartitionClaimed,
    StepCompleted,
    Unreadable,
    WorkflowStarted,
)
from refold.log.flat_avro import text_bytes
from refold.log.flat_record import FlatRecord
from refold.log.protocol import Entry, Record
from refold.log.schema_ids import DEFAULT_BASE, schema_of

T = TypeVar("T")

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=80)
EVERY_CLASS = (*EVENT_CLASSES, *COMMAND_CLASSES, Reply)
OWN_EVENTS = (PartitionClaimed, CommandRefused)
PREVIOUS = bytes(range(32))


def values_of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    if get_origin(hint) is UnionType:
        return st.one_of(*(values_of_type(part) for part in get_args(hint)))
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    plain: dict[Any, st.SearchStrategy[Any]] = {
        str: TEXT,
        int: INT64,
        NoneType: st.none(),
        dict[str, str]: st.dictionaries(TEXT, TEXT, max_size=4),
    }
    return plain[hint]


def values_of(cls: type[T]) -> st.SearchStrategy[T]:
    """Any value of an event's, command's or reply's class."""
    hints = get_type_hints(cls)
    fields = {n: values_of_type(hint) for n, hint in hints.items() if n not in {"kind", "chain"}}
    if cls in EVENT_CLASSES and cls not in OWN_EVENTS:
        fields |= {"workflow_id": TEXT, "position": INT64}
    return st.builds(cls, **fields)


EVENTS: st.SearchStrategy[Event] = st.sampled_from(EVENT_CLASSES).flatmap(values_of)
COMMANDS: st.SearchStrategy[Command] = st.sampled_from(COMMAND_CLASSES).flatmap(values_of)
REPLIES = values_of(Reply)

TABLES = FlatRecord[Event](
    schema_of("event"), EVENT_CLASSES, start=5, apart="chain", computed="event_id"
)

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


def record_of(entry: Entry) -> Record:
    return Record(0, 0, *entry)


def recorded(event: Event, previous: bytes = PREVIOUS) -> Record:
    return record_of(encode_event(event, previous)[0])


def plain_avro(schema: Mapping[str, object], row: Mapping[str, object]) -> bytes:
    """The row as fastavro writes it, with the times as they are in the schema's base type."""
    stream = io.BytesIO()
    text = json.dumps(schema).replace(', "logicalType": "timestamp-micros"', "")
    fastavro.schemaless_writer(  # pyright: ignore[reportUnknownMemberType]
        stream, json.loads(text), row
    )
    return stream.getvalue()


def row_of(value: Any) -> dict[str, object]:
    """The columns of a value that are its dataclass's fields."""
    row = dataclasses.asdict(value)
    return row | ({"kind": value.kind} if hasattr(value, "kind") else {})


def event_row(event: Event, chain: bytes = PREVIOUS) -> dict[str, object]:
    return row_of(event) | {"event_id": event_id_of(event), "chain": chain}


# Bytes.


@settings(deadline=None)
@pytest.mark.parametrize("cls", EVENT_CLASSES)
@given(data=st.data())
def test_an_events_bytes_are_those_that_fastavro_writes(
    cls: type[Event], data: st.DataObject
) -> None:
    """Given any event, our compiled writer and fastavro's give the same bytes."""
    event: Event = data.draw(values_of(cls))
    entry, chain = encode_event(event, PREVIOUS)
    assert entry.value[5:] == plain_avro(schema_of("event"), event_row(event, chain))


@settings(deadline=None)
@given(COMMANDS)
def test_a_commands_bytes_are_those_that_fastavro_writes(command: Command) -> None:
    """Given any command, our compiled writer and fastavro's give the same bytes."""
    assert encode_command(command).value[5:] == plain_avro(schema_of("command"), row_of(command))


@settings(deadline=None)
@given(REPLIES)
def test_a_replys_bytes_are_those_that_fastavro_writes(reply: Reply) -> None:
    """Given any reply, our compiled writer and fastavro's give the same bytes."""
    assert encode_reply(reply, "c").value[5:] == plain_avro(schema_of("reply"), row_of(reply))


@pytest.mark.parametrize("size", [63, 64, 8191, 8192, 1_048_575, 1_048_576])
def test_texts_of_every_size_of_length_prefix_are_those_that_fastavro_writes(size: int) -> None:
    """Given a payload just below and at each length where the prefix grows, bytes and value agree."""
    event = dataclasses.replace(STEPPED, payload="é" * (size // 2) + "x" * (size % 2))
    entry, chain = encode_event(event, PREVIOUS)
    assert entry.value[5:] == plain_avro(schema_of("event"), event_row(event, chain))
    assert decode_event(record_of(entry)) == event


def test_a_value_begins_with_confluents_framing() -> None:
    """Given any record, its value begins with a zero byte and the schema's number, big-endian."""
    for value, id_ in (
        (encode_event(STEPPED, PREVIOUS)[0].value, DEFAULT_BASE),
        (encode_command(START).value, DEFAULT_BASE + 1),
        (encode_reply(REPLY, "client-1").value, DEFAULT_BASE + 2),
    ):
        assert value[0] == 0
        assert int.from_bytes(value[1:5], "big") == id_


def test_keys_and_headers_say_whose_and_what_a_record_is() -> None:
    """Given an event, command and reply, the key is the workflow's or client's id and headers repeat the body."""
    assert encode_event(STEPPED, PREVIOUS)[0][::2] == (
        "order-42",
        (
            ("kind", b"step.completed"),
            ("event_id", b"order-42/1/step.completed"),
            ("claim", b"7"),
        ),
    )
    assert encode_event(CLAIMED, PREVIOUS)[0].key is None
    assert encode_command(START).key == "order-42"
    assert encode_reply(REPLY, "client-1").key == "client-1"


# There and back.


@settings(deadline=None)
@given(EVENTS, st.binary(min_size=32, max_size=32))
def test_an_event_comes_back_as_it_was(event: Event, previous: bytes) -> None:
    """Given any event, decoding its record gives an equal one of the same class, with its chain."""
    entry, chain = encode_event(event, previous)
    back = decode_event(record_of(entry))
    assert not isinstance(back, Unreadable)
    assert back.chain == chain
    assert back == event  # of the same class, too: a dataclass is equal to none of another


@settings(deadline=None)
@given(COMMANDS, REPLIES)
def test_a_command_and_a_reply_come_back_as_they_were(command: Command, reply: Reply) -> None:
    """Given any command and reply, decoding their records gives equal ones."""
    assert decode_command(record_of(encode_command(command))) == command
    assert decode_reply(record_of(encode_reply(reply, "client-1"))) == reply


@settings(deadline=None)
@given(EVENTS)
def test_the_compiled_reader_takes_whatever_the_writer_writes_and_agrees_with_fastavro(
    event: Event,
) -> None:
    """Given any event, the fast way is the one taken, and both ways give the same."""
    value = recorded(event).value
    fast = TABLES.readers[text_bytes(event.kind)](value)
    slow = TABLES.read_slowly(value)
    assert fast == slow == event
    assert fast.chain == slow.chain


def test_a_map_in_blocks_of_another_writer_is_read_the_slow_way() -> None:
    """Given Avro that our writer would not write (a block with its size), the event is the same."""
    value = recorded(STARTED).value
    ours = b"\x02" + b"\x10customer" + b"\x08Zo\xc3\xab" + b"\x00"
    assert value.endswith(ours)
    other = value.removesuffix(ours) + b"\x01\x1c" + ours[1:]
    assert decode_event(Record(0, 0, "order-42", other)) == STARTED


# What can't be recorded.


@pytest.mark.parametrize("cls", EVERY_CLASS)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_half_a_surrogate_pair_is_refused_and_the_field_is_named(
    cls: type[Any], data: st.DataObject
) -> None:
    """Given a text with a lone surrogate in any field, nothing is encoded and the error names the field."""
    hints = get_type_hints(cls)
    texts = [name for name, hint in hints.items() if hint in {str, str | None} and name != "kind"]
    name = data.draw(st.sampled_from(texts))
    value = dataclasses.replace(data.draw(values_of(cls)), **{name: "a\ud83dz"})
    with pytest.raises(
        PayloadError, match=rf"{name} can't be recorded: its character 1 is '\\ud83d'"
    ):
        encode_any(value)


@pytest.mark.parametrize("cls", [*EVENT_CLASSES, *COMMAND_CLASSES])
@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30])
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_an_integer_over_64_bits_is_refused_and_the_field_is_named(
    cls: type[Any], number: int, data: st.DataObject
) -> None:
    """Given an integer that no long holds in any field, nothing is encoded and the error names the field."""
    hints = get_type_hints(cls)
    name = data.draw(st.sampled_from([n for n, h in hints.items() if h in {int, int | None}]))
    value = dataclasses.replace(data.draw(values_of(cls)), **{name: number})
    with pytest.raises(PayloadError, match=rf"{name} can't be recorded: {number} is not a 64-bit"):
        encode_any(value)


def encode_any(value: Any) -> None:
    if isinstance(value, Reply):
        encode_reply(value, "client-1")
    elif isinstance(value, COMMAND_CLASSES):
        encode_command(value)
    else:
        encode_event(value, PREVIOUS)


@pytest.mark.parametrize(
    ("field", "value"), [("payload", None), ("payload", b"x"), ("step", "1"), ("step", 1.5)]
)
def test_a_value_of_another_type_is_refused_and_the_field_is_named(
    field: str, value: object
) -> None:
    """Given a value that is not of its field's type, the error names workflow, kind, field and type."""
    event = dataclasses.replace(STEPPED, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(
        PayloadError, match=rf"step.completed of workflow 'order-42': {field} .*not a"
    ):
        encode_event(event, PREVIOUS)


@pytest.mark.parametrize("missing", ["workflow_id", "position"])
def test_an_event_of_no_workflow_or_position_is_refused(missing: str) -> None:
    """Given a step's event without its workflow or position, it has no event_id, and that is said."""
    with pytest.raises(PayloadError, match="it needs both"):
        encode_event(dataclasses.replace(STEPPED, **{missing: None}), PREVIOUS)  # type: ignore[arg-type]


# Names of events.


@pytest.mark.parametrize(
    ("event", "event_id"),
    [
        (STEPPED, "order-42/1/step.completed"),
        (CLAIMED, "partition/5/2/partition.claimed"),
        (REFUSED, "partition/5/4/command.refused"),
    ],
)
def test_an_event_is_named_by_what_it_is(event: Event, event_id: str) -> None:
    """Given an event, its event_id follows from its fields alone."""
    assert event_id_of(event) == event_id


@settings(deadline=None)
@given(
    st.text("/0123456789partion", max_size=6),
    st.text("/0123456789partion", max_size=6),
    st.integers(0, 99),
    st.integers(0, 99),
)
def test_two_places_in_streams_never_have_one_name(
    one: str, other: str, here: int, there: int
) -> None:
    """Given ids that are made to be confused (slashes, digits), different places have different names."""
    first = dataclasses.replace(STEPPED, workflow_id=one, position=here)
    second = dataclasses.replace(STEPPED, workflow_id=other, position=there)
    assert (event_id_of(first) == event_id_of(second)) == ((one, here) == (other, there))


def test_the_genesis_is_as_long_as_a_chain() -> None:
    """Given nothing before it, an event's chain is made over as many zero bytes as a chain has."""
    assert bytes(len(encode_event(STEPPED, GENESIS)[1])) == GENESIS
