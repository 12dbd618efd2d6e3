"""The published schemas hold every field, explain every column, and have numbers that do not clash."""

import dataclasses
from types import NoneType, UnionType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import pytest

from refold.log.codec import Codec, decode_event, encode_event
from refold.log.commands import COMMAND_CLASSES, Reply, StartWorkflow
from refold.log.errors import LogError
from refold.log.events import EVENT_CLASSES, TimerFired, Unreadable
from refold.log.flat_record import FlatRecord
from refold.log.protocol import Entry, Record
from refold.log.schema_ids import MAX_ID, SchemaIds, schema_of

COLUMN_TYPE = {str: "string", int: "long", bytes: "fixed", dict[str, str]: "map"}

PREVIOUS = bytes(range(32))
FIRED = TimerFired(
    workflow_id="order-42",
    position=2,
    recorded_at=1_700_000_009_000_000,
    claim=7,
    command=3,
    posted=0,
    worker="worker-1",
    step=1,
    name="sleep",
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


def fields_of(name: str) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], schema_of(name)["fields"])


def column_type(column: dict[str, Any]) -> tuple[str, bool]:
    """The column's type without logical types, and whether it can be null."""
    type_ = column["type"]
    if isinstance(type_, list):
        null, branch = cast(list[object], type_)
        assert null == "null"
        return column_type({"type": branch})[0], True
    return (str(cast(dict[str, Any], type_)["type"]) if isinstance(type_, dict) else type_), False


SCHEMAS = (
    [pytest.param("event", cls, id=cls.kind) for cls in EVENT_CLASSES]
    + [pytest.param("command", cls, id=cls.kind) for cls in COMMAND_CLASSES]
    + [pytest.param("reply", Reply, id="reply")]
)


@pytest.mark.parametrize(("name", "cls"), SCHEMAS)
def test_every_field_has_a_column_of_its_type(name: str, cls: type) -> None:
    """Given a class, each of its fields is a column of the published schema, of a type that holds it."""
    columns = {column["name"]: column_type(column) for column in fields_of(name)}
    hints = get_type_hints(cls)
    for field, hint in ((field, hint) for field, hint in hints.items() if field != "kind"):
        parts = get_args(hint) if get_origin(hint) is UnionType else (hint,)
        (base,) = (part for part in parts if part is not NoneType)
        found, nullable = columns[field]
        assert found == COLUMN_TYPE[str if get_origin(base) is Literal else base], field
        assert nullable or NoneType not in parts, f"{field} can be None"


@pytest.mark.parametrize("name", ["event", "command", "reply"])
def test_every_column_is_documented_and_every_nullable_one_defaults_to_null(name: str) -> None:
    """Given a published schema, a stranger finds what each column means, and a later version can add to it."""
    assert schema_of(name)["doc"]
    for column in fields_of(name):
        assert column["doc"], column["name"]
        if isinstance(column["type"], list):
            assert column["type"][0] == "null"
            assert column["default"] is None


def test_the_chain_is_the_first_column() -> None:
    """Given the event schema, the chain stands first and is 32 bytes: bytes 5 to 36 of every value."""
    first = fields_of("event")[0]
    assert first["name"] == "chain"
    assert first["type"]["size"] == 32


def test_a_codec_with_other_numbers_writes_them_and_still_reads_the_default_ones() -> None:
    """Given numbers from a registry, they are written, and what was written before them is read."""
    own = Codec(SchemaIds(event=17, command=21, reply=22))
    entry, _ = own.encode_event(FIRED, PREVIOUS)
    assert entry.value[:5] == b"\0\0\0\0\x11"
    assert own.decode_event(record_of(entry)) == FIRED
    assert own.decode_event(record_of(encode_event(FIRED, PREVIOUS)[0])) == FIRED
    assert isinstance(decode_event(record_of(entry)), Unreadable)
    assert own.decode_command(record_of(own.encode_command(START))) == START
    assert own.decode_reply(record_of(own.encode_reply(REPLY, "client-1"))) == REPLY


@pytest.mark.parametrize("ids", [(1, 1, 2), (-1, 2, 3), (1, 2, MAX_ID + 1)])
def test_numbers_that_are_not_three_of_int32_are_refused(ids: tuple[int, int, int]) -> None:
    """Given numbers that clash or do not fit four bytes, the error shows them."""
    with pytest.raises(LogError, match="can't be used"):
        SchemaIds(*ids)


def test_a_class_without_a_column_that_the_schema_needs_is_an_error_at_once() -> None:
    """Given a class that lacks a required column, no writer is made for it."""

    @dataclasses.dataclass(frozen=True)
    class Lame:
        workflow_id: str

    with pytest.raises(AssertionError, match="Lame has no command_id"):
        FlatRecord[Lame](schema_of("reply"), [Lame], start=5)
