"""Numbers of schemas at the log's border: refold's own inside, the registry's outside, and strangers left alone."""

import struct

import pytest

from refold.log.codec import GENESIS, decode_event, encode_event, link
from refold.log.errors import LogUnavailable
from refold.log.events import TimerFired
from refold.log.protocol import Entry, Record
from refold.log.schema_frames import Frames
from refold.log.schema_ids import Published, current, published

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
GIVEN = {17 + place: schema for place, schema in enumerate(current())}


def value(id_: int, body: bytes = b"body") -> bytes:
    return struct.pack(">bi", 0, id_) + body


def records(*values: bytes) -> list[Record]:
    return [
        Record(offset, 5, "key", value, (("kind", b"x"),)) for offset, value in enumerate(values)
    ]


class Asked:
    """Knows what was noted, remembers what it was asked, and can be away."""

    def __init__(self, known: dict[int, Published] | None = None) -> None:
        self.known = known or {}
        self.ids: list[int] = []
        self.away = False

    def __call__(self, id_: int) -> Published | None:
        self.ids.append(id_)
        if self.away:
            raise LogUnavailable("the registry is away")
        return self.known.get(id_)


def test_what_is_written_carries_the_registrys_numbers_and_is_read_with_our_own() -> None:
    """Given numbers from a registry, an event goes out under one and comes back as it was; its chain stays."""
    asked = Asked()
    frames = Frames(GIVEN, asked)
    entry, chain = encode_event(FIRED, GENESIS)
    (out,) = frames.outgoing([entry])
    assert struct.unpack_from(">bi", out.value) == (0, 17)
    assert (out.key, out.headers) == (entry.key, entry.headers)
    assert chain == link(GENESIS, out.value[37:])
    (back,) = frames.incoming([Record(3, 4, *out)])
    assert back == Record(3, 4, *entry)
    assert decode_event(back) == decode_event(Record(3, 4, *entry))
    assert asked.ids == []


def test_without_a_registry_nothing_is_changed() -> None:
    """Given no numbers, what goes out and what comes in are the very same objects."""
    frames = Frames({}, Asked())
    entries = [Entry("key", value(one.id)) for one in published()]
    found = records(*(entry.value for entry in entries))
    assert frames.outgoing(entries) is entries
    assert frames.incoming(found) is found


def test_a_number_that_is_new_is_asked_for_once() -> None:
    """Given records under another registry's number, it is looked up once and read as the schema that it stands for."""
    event = current()[0]
    asked = Asked({900: event})
    frames = Frames({}, asked)
    (first, own) = frames.incoming(records(value(900), value(event.id)))
    (again,) = frames.incoming(records(value(900)))
    assert first.value == own.value == again.value == value(event.id)
    assert asked.ids == [900]


def test_a_strangers_record_stays_as_it_is() -> None:
    """Given somebody else's schema, or no frame, the record is not touched, and is not asked for again."""
    asked = Asked()
    frames = Frames(GIVEN, asked)
    strange = records(value(4711), b"{}", b"", b"\0\0", b"\1\2\3\4\5\6")
    assert frames.incoming(strange) == strange
    assert frames.incoming(strange) == strange
    assert asked.ids == [4711]


def test_while_nobody_can_say_a_number_is_not_taken_for_a_strangers() -> None:
    """Given a registry that is away, reading fails; once it answers, the same record is read."""
    event = current()[0]
    asked = Asked({900: event})
    asked.away = True
    frames = Frames({}, asked)
    with pytest.raises(LogUnavailable):
        frames.incoming(records(value(900)))
    asked.away = False
    assert frames.incoming(records(value(900)))[0].value == value(event.id)


def test_strangers_do_not_fill_the_memory() -> None:
    """Given more strange numbers than are remembered, each is still judged rightly."""
    asked = Asked()
    frames = Frames({}, asked)
    for id_ in range(2_500):
        frames.incoming(records(value(id_)))
    assert len(asked.ids) == 2_500
    assert frames.incoming(records(value(2_499)))[0].value == value(2_499)
    assert len(asked.ids) == 2_500
