"""The head of an event, read and checked without decoding the rest of it: what walking a chain needs, and no more.

An event's record says some things twice: its key and its headers repeat what its body begins with. The chain covers the
body alone, so a reader that is to notice any change compares the two. Here that is one comparison of bytes: what the
body has to begin with is made from key and headers. Measured on StepCompleted, Python 3.11: 1.6 µs; decoding it all and
making its headers anew takes 9.5 µs.
"""

from typing import Final, NamedTuple

from refold.log.flat_avro import Malformed, long_bytes, read_long
from refold.log.protocol import Record
from refold.log.schema_ids import SchemaIds

BODY: Final = 5
"""Where an event's body begins in its value: after the schema's number."""
CHAINED: Final = BODY + 32
"""Where what the chain covers begins: after the chain itself."""

_FRAMES: Final = frozenset(
    b"\0" + number.to_bytes(4, "big")
    for number, shape in SchemaIds().readable().items()
    if shape == "event"
)
_NAMES: Final = ("kind", "event_id", "claim")
_LONGS: Final = tuple(map(long_bytes, range(1 << 10)))  # lengths of ids are looked up


class Head(NamedTuple):
    """What an event of a workflow begins with.

    Args:
        kind: Its kind, in UTF-8.
        position: Its place in its stream.
        claim: The claim that it was written under.
    """

    kind: bytes
    position: int
    claim: int


def head_of(record: Record) -> Head | None:
    """The head of an event of a workflow, if its key and headers say what its body says.

    Returns:
        None for everything else: events of the partition itself, what is no event, and what contradicts itself.
    """
    _, _, key, value, headers = record
    if key is None or value[:BODY] not in _FRAMES or len(headers) < len(_NAMES):
        return None
    (first, kind), (second, event_id), (third, claim_text) = headers[: len(_NAMES)]
    if (first, second, third) != _NAMES:
        return None
    try:
        workflow_id = key.encode()
        # chain, then kind, event_id, workflow_id: the union's branch 1, then position: branch 1
        begins = b"%b%b%b%b\x02%b%b\x02" % (
            *(_size(kind), kind, _size(event_id), event_id),
            *(_size(workflow_id), workflow_id),
        )
        if not value.startswith(begins, CHAINED):
            return None
        position, at = read_long(value, CHAINED + len(begins))
        while value[at] & 128:  # recorded_at
            at += 1
        claim, _ = read_long(value, at + 1)
    except (Malformed, IndexError, UnicodeEncodeError):
        return None
    if claim_text != b"%d" % claim or event_id != b"%b/%d/%b" % (workflow_id, position, kind):
        return None
    return Head(kind, position, claim)


def _size(data: bytes) -> bytes:
    size = len(data)
    return _LONGS[size] if size < len(_LONGS) else long_bytes(size)
