"""What an archive's file has of each record: the record as it was, and its event's columns for those who query it.

    log_offset, log_timestamp, log_key, log_headers, log_value    the record, byte for byte
    log_accepted                                                  whether it counts (see `log/chain_walk.py`)
    chain, kind, event_id, workflow_id, ...                       the columns of `schemas/event.avsc`, each nullable

Reading history back takes the first five alone. Of a record that is no event of this release the others are null.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from struct import Struct
from typing import Any, BinaryIO, Final, NamedTuple, Protocol, cast

from refold.log.codec import event_id_of
from refold.log.events import EVENT_CLASSES, Event, Unreadable
from refold.log.protocol import Record
from refold.log.schema_ids import schema_of

_HEAD: Final = Struct(">qqiii")
_HEADER: Final = Struct(">ii")


class Row(NamedTuple):
    """A record, whether it counts, and its event's columns by name; empty where they can't be read."""

    record: Record
    accepted: bool
    columns: Mapping[str, object]


class RowWriter(Protocol):
    """Writes one file."""

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""

    def finish(self) -> None:
        """Write what is left; the file is then whole, and still open."""


class FileFormat(Protocol):
    """A format of files. Raises `LogCorrupt` for what can't be read, `OSError` for what the disk says."""

    @property
    def suffix(self) -> str:
        """How its files' names end."""
        ...

    def writer(self, file: BinaryIO) -> RowWriter:
        """Begin a file."""
        ...

    def read(self, file: BinaryIO) -> Iterator[Sequence[Record]]:
        """The records of a file, in order."""
        ...


def event_fields() -> list[dict[str, Any]]:
    """The columns of the event's schema, as Avro has them."""
    return cast("list[dict[str, Any]]", schema_of("event")["fields"])


def columns_of(event: Event | Unreadable) -> Mapping[str, object]:
    """The columns of an event by name, times as microseconds, those that its kind does not use left out; none of what
    can't be read.
    """
    if isinstance(event, Unreadable):
        return {}
    columns: dict[str, object] = {name: getattr(event, name) for name in _NAMES[type(event)]}
    columns["kind"], columns["event_id"] = event.kind, event_id_of(event)
    return columns


_NAMES: Final = {
    cls: tuple(column.name for column in dataclasses.fields(cls)) for cls in EVENT_CLASSES
}


@dataclass(slots=True)
class RecordDigest:
    """A digest over records with all that they have, to tell whether others are the same ones."""

    count: int = 0
    _hasher: Any = field(default_factory=lambda: blake2b(digest_size=32))

    def take(self, record: Record) -> None:
        """Take the next record."""
        offset, timestamp, key, value, headers = record
        text = b"" if key is None else key.encode()
        length = -1 if key is None else len(text)
        parts = [_HEAD.pack(offset, timestamp, length, len(value), len(headers)), text, value]
        for name, content in headers:
            encoded = name.encode()
            parts += (_HEADER.pack(len(encoded), len(content)), encoded, content)
        self._hasher.update(b"".join(parts))
        self.count += 1

    def hex(self) -> str:
        """The digest so far, in hex."""
        found: str = self._hasher.hexdigest()
        return found
