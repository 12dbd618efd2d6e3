"""Events, commands and replies as bytes, and back; the chain that makes a change of history show.

**Value**: Confluent's framing (a zero byte, the schema's number as a big-endian int32), then the Avro body. The
schemas are published under `log/schemas`, the numbers in `log/schema_ids.py`. Any Avro reader that knows the
schema reads a refold topic; nothing of refold is needed.

**Key**: the workflow's id; none for the partition's own events; the client's id for replies.

**Headers** of events: `kind`, `event_id`, `claim` (decimal ASCII), in this order, for readers that route or drop
records without decoding them. They repeat what the body says. A `traceparent` (W3C Trace Context) may follow, and
readers leave alone what they do not know. CloudEvents attributes are not written a second time; they map so:
`id` is event_id, `source` the topic's name, `type` the kind, `subject` and `partitionkey` the key, `time`
recorded_at, `dataschema` the number in the value, `datacontenttype` application/avro, `traceparent` its header.

**Chain**: the first field of an event, bytes 5 to 36, is BLAKE2b-256 over the chain of the partition's event before
and all bytes after the field. Owners write in order and nobody else writes, so each event vouches for all before
it: whoever alters, drops or swaps one has to write all later ones again. The first event of a partition follows
`GENESIS`. A claim is the one event whose writer can't know the event before: it is not the owner yet, and the last
owner may still be appending. So a claim's own chain is made over `GENESIS` and itself, and a reader that accepts
the claim goes on from `link_claim(chain so far, the claim's chain)`.

**event_id** is made from what the event is, so that a consumer can drop repeats:

    {workflow_id}/{position}/{kind}                    events of a workflow
    partition/{partition}/{claim}/partition.claimed    of the claims that would replace `claim`, one is accepted
    partition/{partition}/{command}/command.refused    one command causes one event; likewise subject.erased,
                                                       queue.set, slot.requested, slot.released and slot.returned
    partition/{partition}/{claim}/partition.handed_over     an owner gives up once; likewise partition.offered
    partition/{partition}/{name}/checkpoint.begun           `name` is the checkpoint's; likewise checkpoint.completed
    partition/{partition}/{name}.{index}/checkpoint.part
    partition/{partition}/{name}/partition.migrated         a namespace is copied into once

Two of them are never equal: kinds and numbers hold no "/", and the last kinds are never a workflow's.
"""

import struct
from hashlib import blake2b
from typing import Final, Literal, TypeVar, get_args

from refold.log.commands import COMMAND_CLASSES, Command, Reply, ReplyStatus
from refold.log.errors import LogError, PayloadError
from refold.log.events import (
    EVENT_CLASSES,
    CheckpointBegun,
    CheckpointCompleted,
    CheckpointPart,
    CommandRefused,
    Event,
    OwnEvent,
    PartitionClaimed,
    PartitionHandedOver,
    PartitionMigrated,
    PartitionOffered,
    QueueSet,
    SlotReleased,
    SlotRequested,
    SlotReturned,
    SubjectErased,
    Unreadable,
)
from refold.log.flat_avro import Malformed
from refold.log.flat_record import MISFIT, FlatRecord
from refold.log.protocol import Entry, Record
from refold.log.schema_ids import SchemaIds, schema_of

GENESIS: Final = bytes(32)
"""What stands for the chain before a partition's first event."""

_FRAME: Final = struct.Struct(">bi")  # zero byte, schema's number
_BODY: Final = _FRAME.size
_REST: Final = _BODY + len(GENESIS)  # where an event's bytes after the chain begin
_CLAIM_BYTES: Final = 20  # the longest 64-bit integer, with its sign

_EVENTS: Final = FlatRecord[Event](
    schema_of("event"), EVENT_CLASSES, start=_BODY, apart="chain", computed="event_id"
)
_COMMANDS: Final = FlatRecord[Command](schema_of("command"), COMMAND_CLASSES, start=_BODY)
_REPLIES: Final = FlatRecord[Reply](schema_of("reply"), (Reply,), start=_BODY)

_OWN: Final = frozenset(get_args(OwnEvent))
_KIND_HEADERS: Final = {cls: ("kind", cls.kind.encode()) for cls in EVENT_CLASSES}

_T = TypeVar("_T")
_Shape = Literal["event", "command", "reply"]


def link(previous: bytes, body: bytes) -> bytes:
    """The chain of an event.

    Args:
        previous: Chain of the partition's event before, 32 bytes; `GENESIS` for the first.
        body: The event's Avro body after its chain field: `value[37:]`.

    Returns:
        BLAKE2b-256(previous || body), 32 bytes.

    Raises:
        LogError: `previous` is not 32 bytes long.
    """
    if len(previous) != len(GENESIS):
        raise LogError(
            f"a chain is {len(GENESIS)} bytes, not {len(previous)}: begin a partition with GENESIS"
        )
    return blake2b(previous + body, digest_size=32).digest()


def link_claim(running: bytes, claim_chain: bytes) -> bytes:
    """The chain to go on from after an accepted claim.

    Args:
        running: Chain of the last accepted event before the claim, 32 bytes; `GENESIS` where there is none.
        claim_chain: The claim's own chain, 32 bytes.

    Returns:
        BLAKE2b-256(running || claim_chain), 32 bytes.

    Raises:
        LogError: `running` is not 32 bytes long.
    """
    return link(running, claim_chain)


def claim_of(record: Record) -> int | None:
    """The claim that an event was written under, from its headers; None where they do not say."""
    text = _header(record, "claim")
    if text is None or len(text) > _CLAIM_BYTES or not text.removeprefix(b"-").isdigit():
        return None
    return int(text)


def kind_of(record: Record) -> str | None:
    """The kind of an event, from its headers; None where they do not say."""
    text = _header(record, "kind")
    try:
        return None if text is None else text.decode()
    except UnicodeDecodeError:
        return None


def _header(record: Record, name: str) -> bytes | None:
    return next((value for header, value in record.headers if header == name), None)


def event_id_of(event: Event) -> str:
    """The event's name in its namespace, as this module's docstring gives it.

    Raises:
        PayloadError: An event of a workflow has no workflow_id or no position.
    """
    if event.position is not None and event.workflow_id is not None and event.__class__ not in _OWN:
        return f"{event.workflow_id}/{event.position}/{event.kind}"  # nearly all: no look at each kind in turn
    match event:
        case PartitionClaimed():
            return f"partition/{event.partition}/{event.claim}/{event.kind}"
        case (
            CommandRefused()
            | SubjectErased()
            | QueueSet()
            | SlotRequested()
            | SlotReleased()
            | SlotReturned()
        ):
            return f"partition/{event.partition}/{event.command}/{event.kind}"
        case PartitionOffered() | PartitionHandedOver():
            return f"partition/{event.partition}/{event.claim}/{event.kind}"
        case CheckpointBegun() | CheckpointCompleted() | PartitionMigrated():
            return f"partition/{event.partition}/{event.name}/{event.kind}"
        case CheckpointPart():
            return f"partition/{event.partition}/{event.name}.{event.index}/{event.kind}"
        case _:
            raise PayloadError(
                f"event {event.kind} of workflow {event.workflow_id!r} at position {event.position}: "
                "it needs both; only the partition's own events go without"
            )


def _headers(event: Event, event_id: bytes) -> tuple[tuple[str, bytes], ...]:
    return _KIND_HEADERS[type(event)], ("event_id", event_id), ("claim", b"%d" % event.claim)


def verify_event(event: Event, record: Record, previous: bytes) -> bool:
    """`verify`, for whoever has decoded the record.

    Args:
        event: What the record decodes to.
        record: A record of the events.
        previous: Chain of the partition's accepted event before, 32 bytes. Not used for a claim.
    """
    start = GENESIS if isinstance(event, PartitionClaimed) else previous
    headers = _headers(event, event_id_of(event).encode())
    said = record.headers[: len(headers)]
    return event.chain == link(start, record.value[_REST:]) and said == headers


class Codec:
    """Encodes with one installation's schema numbers; decodes those and the default ones.

    The functions of this module are the methods of a codec with the default numbers.

    Args:
        ids: The numbers to write.
    """

    def __init__(self, ids: SchemaIds | None = None) -> None:
        ids = ids or SchemaIds()
        self._frames = {name: _FRAME.pack(0, getattr(ids, name)) for name in get_args(_Shape)}
        self._event_frame = self._frames["event"]
        self._shapes = {_FRAME.pack(0, id_): name for id_, name in ids.readable().items()}

    def encode_event(self, event: Event, previous: bytes) -> tuple[Entry, bytes]:
        """An event as a record to append.

        Args:
            event: The event; its own `chain` is not looked at.
            previous: Chain of the partition's event before, 32 bytes; `GENESIS` for the first. Not used for
                PartitionClaimed, whose chain begins anew.

        Returns:
            The entry, and the event's chain, which is `previous` for the next event; after an accepted claim
            that is `link_claim(previous, chain)`.

        Raises:
            PayloadError: A field does not fit its column: a text with surrogates, an integer over 64 bits, None.
            LogError: `previous` is not 32 bytes long.
        """
        cls = type(event)
        try:
            event_id = event_id_of(event).encode()
            rest = _EVENTS.writers[cls](event, event_id)
        except MISFIT as error:
            raise _EVENTS.misfit(event, error) from error
        chain = link(GENESIS if cls is PartitionClaimed else previous, rest)
        headers = _headers(event, event_id)
        return Entry(event.workflow_id, self._event_frame + chain + rest, headers), chain

    def decode_event(self, record: Record) -> Event | Unreadable:
        """The event in a record, with its chain; Unreadable, and never an exception, where there is none.

        The chain is not checked here, nor the event_id, which follows from the rest: a reader that must know
        calls `verify`.
        """
        event = self._decode(record, "event", _EVENTS)
        if isinstance(event, Unreadable):
            return event
        if event.workflow_id != record.key:
            return _unreadable(
                record, f"the record's key is not its workflow, {event.workflow_id!r}"
            )
        of_workflow = event.workflow_id is not None and event.position is not None
        if not of_workflow and not isinstance(event, OwnEvent):
            return _unreadable(record, f"{event.kind} has no workflow or no position")
        return event

    def encode_command(self, command: Command) -> Entry:
        """A command as a record to append, with its workflow's id as the key.

        Raises:
            PayloadError: A field does not fit its column.
        """
        value = self._encode(command, "command", _COMMANDS)
        return Entry(command.workflow_id, value, (("kind", command.kind.encode()),))

    def decode_command(self, record: Record) -> Command | Unreadable:
        """The command in a record; Unreadable, and never an exception, where there is none."""
        command = self._decode(record, "command", _COMMANDS)
        if not isinstance(command, Unreadable) and command.workflow_id != record.key:
            return _unreadable(
                record, f"the record's key is not its workflow, {command.workflow_id!r}"
            )
        return command

    def encode_reply(self, reply: Reply, client_id: str) -> Entry:
        """A reply as a record to append, with the client's id as the key.

        Raises:
            PayloadError: A field does not fit its column.
        """
        return Entry(client_id, self._encode(reply, "reply", _REPLIES))

    def decode_reply(self, record: Record) -> Reply | Unreadable:
        """The reply in a record; Unreadable, and never an exception, where there is none."""
        reply = self._decode(record, "reply", _REPLIES)
        if not isinstance(reply, Unreadable) and reply.status not in get_args(ReplyStatus):
            return _unreadable(
                record, f"status {reply.status!r} is not one that this release knows"
            )
        return reply

    def verify(self, record: Record, previous: bytes) -> bool:
        """Whether a record's chain follows from `previous`, and its key and headers say what its body says.

        Args:
            record: A record of the events.
            previous: Chain of the partition's accepted event before, 32 bytes. Not used for a claim.

        Returns:
            False as well for what is no event of this release.
        """
        event = self.decode_event(record)
        return not isinstance(event, Unreadable) and verify_event(event, record, previous)

    def _encode(self, value: _T, shape: _Shape, records: FlatRecord[_T]) -> bytes:
        try:
            return self._frames[shape] + records.writers[type(value)](value)
        except MISFIT as error:
            raise records.misfit(value, error) from error

    def _decode(self, record: Record, shape: _Shape, records: FlatRecord[_T]) -> _T | Unreadable:
        value = record.value
        if self._shapes.get(value[:_BODY]) != shape:
            return _unreadable(record, self._foreign(value, shape))
        try:
            return records.read(value)
        except Malformed as error:
            return _unreadable(record, str(error))

    def _foreign(self, value: bytes, shape: _Shape) -> str:
        if len(value) < _BODY or value[0] != 0:
            return f"{len(value)} bytes that are not a refold {shape}: they do not begin with a schema's number"
        _, id_ = _FRAME.unpack_from(value)
        known = self._shapes.get(value[:_BODY])
        if known is not None:
            return f"schema {id_} is that of a refold {known}, not of a refold {shape}"
        return f"schema {id_} is not known to this release of refold: a newer one, or somebody else, wrote it"


def _unreadable(record: Record, reason: str) -> Unreadable:
    return Unreadable(record.key, claim_of(record), reason)


_DEFAULT: Final = Codec()

encode_event = _DEFAULT.encode_event
decode_event = _DEFAULT.decode_event
encode_command = _DEFAULT.encode_command
decode_command = _DEFAULT.decode_command
encode_reply = _DEFAULT.encode_reply
decode_reply = _DEFAULT.decode_reply
verify = _DEFAULT.verify
