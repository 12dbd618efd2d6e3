"""Frames: the five bytes in front of every record, changed at the log's border.

Inside refold every record carries refold's own number of its schema. Where a registry gives other numbers, a log writes
those, and gives back its own when it reads: nothing else has to know of registries. The chain does not cover the
frame (`log/codec.py`), so history stays the same history under any numbers.

Whether a number is known must be the same for every reader, or they would fold to different states. So a number that is
met for the first time is asked for until there is an answer, and only "there is no such schema" makes it a stranger's:
a registry that is away makes whoever reads wait, or fail, and never guess.
"""

import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from refold.log.protocol import Entry, Record
from refold.log.schema_ids import Published, published

_FRAME: Final = struct.Struct(">bi")  # zero byte, schema's number
_SIZE: Final = _FRAME.size

# Numbers of other people's schemas that are remembered. Nobody writes so many but by accident, or to do harm.
_STRANGERS_MAX = 1_000


class Frames:
    """Between refold's own numbers and those that stand in one namespace's log. Any thread.

    Args:
        written: The number to write -> the schema that it stands for. Schemas that are not here are written with
            their default number.
        look_up: Finds the schema behind a number that is not known yet; None for somebody else's. May block, and may
            raise: then the same number is asked for again when it is met again.

    Attributes:
        written: As given.
    """

    def __init__(
        self, written: Mapping[int, Published], look_up: Callable[[int], Published | None]
    ) -> None:
        self.written = dict(written)
        self._own = frozenset(_FRAME.pack(0, one.id) for one in published())
        self._out = {
            _FRAME.pack(0, one.id): _FRAME.pack(0, id_)
            for id_, one in written.items()
            if id_ != one.id
        }
        self._in = {own: own for own in self._own}
        self._in |= {given: own for own, given in self._out.items()}
        self._strangers: set[bytes] = set()
        self._look_up = look_up
        self._one_at_a_time = threading.Lock()

    def outgoing(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Records as they are to stand in the log."""
        out = self._out
        if not out:
            return entries
        return [
            Entry(key, out.get(value[:_SIZE], value[:_SIZE]) + value[_SIZE:], headers)
            for key, value, headers in entries
        ]

    def incoming(self, records: list[Record]) -> list[Record]:
        """Records as refold knows them. What belongs to nobody that we know stays as it is.

        Raises:
            LogUnavailable: A number is new, and whoever knows it gives no answer.
        """
        if {record.value[:_SIZE] for record in records} <= self._own:
            return records
        own = self._in
        try:
            return [
                Record(offset, timestamp, key, own[value[:_SIZE]] + value[_SIZE:], headers)
                for offset, timestamp, key, value, headers in records
            ]
        except KeyError:  # one is new, or no record of ours
            return [self._known(record) for record in records]

    def _known(self, record: Record) -> Record:
        given = record.value[:_SIZE]
        if given in self._strangers or len(given) < _SIZE or given[0]:
            return record
        own = self._in.get(given) or self._learned(given)
        return record if own is None else record._replace(value=own + record.value[_SIZE:])

    def _learned(self, given: bytes) -> bytes | None:
        with self._one_at_a_time:
            if given in self._in:
                return self._in[given]
            found = self._look_up(_FRAME.unpack(given)[1])
            if found is not None:
                return self._in.setdefault(given, _FRAME.pack(0, found.id))
            if len(self._strangers) >= _STRANGERS_MAX:
                self._strangers.clear()
            self._strangers.add(given)
            return None
