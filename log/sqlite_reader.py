"""The reading side of a SqliteLog: ranges of offsets, the stream of one key, ends and bookmarks.

A connection of its own, used on the event loop. Each batch is a statement that has ended when the batch is returned:
an open one would pin SQLite's journal, which then grows until it is closed.
"""

import sqlite3
import struct
from pathlib import Path

from refold.log.errors import LogCorrupt
from refold.log.local import Fetched
from refold.log.protocol import Bounds, Channel, Record
from refold.log.sqlite_file import OFFSET_BITS, OFFSET_MASK, SEGMENT_BITS, start_name, translated
from refold.log.trimmed import trimmed

BATCH_RECORDS = 500
BATCH_BYTES = 1_000_000
"""A batch ends at either: about a millisecond of the event loop's time."""

FETCH_ROWS = 50
"""Rows taken from SQLite between two looks at the bytes: with the largest records, 50 MB."""

_HEADER = struct.Struct(">HI")


class SqliteReader:
    """Reads a log's file. Every method raises LogCorrupt or LogUnavailable where SQLite fails."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def fetch(
        self, channel: Channel, partition: int, start: int, stop: int | None, key: str | None
    ) -> Fetched:
        """One batch from offset `start` on; see `LocalLog._fetch`."""
        if key is None:
            return self._fetch_range(channel, partition, start, stop)
        if stop is None:
            stop = self.bounds(channel, partition).end
        return self._fetch_stream(channel, partition, start, stop, key)

    def bounds(self, channel: Channel, partition: int) -> Bounds:
        """First offset and end of a partition."""
        low = partition << OFFSET_BITS
        high = low + (1 << OFFSET_BITS)
        ids = f"SELECT id FROM {channel} WHERE id >= ? AND id < ? ORDER BY id"  # noqa: S608
        with translated(self._path, "read"):
            first, last = self._connection.execute(
                f"SELECT ({ids} LIMIT 1), ({ids} DESC LIMIT 1)", (low, high, low, high)
            ).fetchone()
        return Bounds(0, 0) if first is None else Bounds(first - low, last - low + 1)

    def bookmark(self, partition: int) -> int | None:
        """The offset that was noted last."""
        with translated(self._path, "read"):
            row = self._connection.execute(
                "SELECT offset FROM bookmarks WHERE partition = ?", (partition,)
            ).fetchone()
        return None if row is None else row[0]

    def _trimmed_to(self, channel: Channel, partition: int) -> int:
        """Where the partition began when it was last trimmed."""
        with translated(self._path, "read"):
            row = self._connection.execute(
                "SELECT value FROM meta WHERE name = ?", (start_name(channel, partition),)
            ).fetchone()
        return int(row[0]) if row is not None and str(row[0]).isdecimal() else 0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _fetch_range(
        self, channel: Channel, partition: int, start: int, stop: int | None
    ) -> Fetched:
        low = partition << OFFSET_BITS
        high = low + (1 << OFFSET_BITS if stop is None else stop)
        records, complete = self._select(
            channel,
            partition,
            f"SELECT * FROM {channel} WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",  # noqa: S608
            (low + start, high, BATCH_RECORDS),
        )
        after = records[-1].offset + 1 if records else start
        if complete and stop is not None and len(records) < BATCH_RECORDS:
            after = stop
        if channel is not Channel.REPLIES and after - start != len(records):
            raise self._missing(channel, partition, start, records)
        return Fetched(records, after)

    def _fetch_stream(
        self, channel: Channel, partition: int, start: int, stop: int, key: str
    ) -> Fetched:
        """Out of the next segment that has any: the records of `key`, and those without a key."""
        low = partition << OFFSET_BITS
        with translated(self._path, "read"):
            segment = self._next_segment(channel, low + start, low + stop, key)
        if segment is None:
            return Fetched([], stop)
        first = max(low + start, segment << SEGMENT_BITS)
        end = min(low + stop, (segment + 1) << SEGMENT_BITS)
        records, complete = self._select(
            channel,
            partition,
            f"SELECT * FROM {channel} WHERE id >= ? AND id < ? "  # noqa: S608
            "AND (key = ? OR key IS NULL) ORDER BY id",
            (first, end, key),
        )
        return Fetched(records, end - low if complete else records[-1].offset + 1)

    def _next_segment(self, channel: Channel, first: int, stop: int, key: str) -> int | None:
        """The first segment between two ids that may hold records of `key` or without one."""
        if channel is not Channel.EVENTS:
            return first >> SEGMENT_BITS if first < stop else None
        noted = self._connection.execute(
            "SELECT segment FROM event_keys WHERE key = ? AND segment >= ? AND segment <= ? "
            "ORDER BY segment LIMIT 1",
            (key, first >> SEGMENT_BITS, (stop - 1) >> SEGMENT_BITS),
        ).fetchone()
        keyless = self._connection.execute(
            "SELECT id FROM events WHERE key IS NULL AND id >= ? AND id < ? ORDER BY id LIMIT 1",
            (first, stop),
        ).fetchone()
        found: list[int] = [noted[0]] if noted else []
        if keyless:
            found.append(keyless[0] >> SEGMENT_BITS)
        return min(found, default=None)

    def _select(
        self, channel: Channel, partition: int, statement: str, values: tuple[int | str, ...]
    ) -> tuple[list[Record], bool]:
        """Rows as records, up to about BATCH_BYTES; and whether that was all of them."""
        records: list[Record] = []
        size = 0
        try:
            with translated(self._path, "read"):
                cursor = self._connection.execute(statement, values)
                while size < BATCH_BYTES:
                    rows = cursor.fetchmany(FETCH_ROWS)
                    for row_id, timestamp, key, value, headers in rows:
                        size += len(value)
                        offset = row_id & OFFSET_MASK
                        unpacked = unpack_headers(headers) if headers else ()
                        records.append(Record(offset, timestamp, key, value, unpacked))
                    if len(rows) < FETCH_ROWS:
                        return records, True
                cursor.close()
        except (struct.error, UnicodeDecodeError, TypeError) as error:
            raise LogCorrupt(
                f"{channel} of partition {partition} in the log {self._path} can't be read after offset "
                f"{records[-1].offset if records else 'none'}: {error}. Restore the file from a backup"
            ) from error
        return records, False

    def _missing(
        self, channel: Channel, partition: int, start: int, records: list[Record]
    ) -> LogCorrupt:
        first = self.bounds(channel, partition).start
        if start < first <= self._trimmed_to(channel, partition):
            return trimmed(str(self._path), channel, partition, start, first)
        there = {record.offset for record in records}
        missing = next(o for o in range(start, start + len(records) + 1) if o not in there)
        return LogCorrupt(
            f"{channel} of partition {partition} in the log {self._path} lack offset {missing}: somebody deleted the "
            "row. Restore the file from a backup"
        )


def pack_headers(headers: tuple[tuple[str, bytes], ...]) -> bytes:
    """Each header as name length (2 bytes), value length (4 bytes), name, value."""
    parts: list[bytes] = []
    for name, value in headers:
        encoded = name.encode()
        parts += (_HEADER.pack(len(encoded), len(value)), encoded, value)
    return b"".join(parts)


def unpack_headers(data: bytes) -> tuple[tuple[str, bytes], ...]:
    """What `pack_headers` packed.

    Raises:
        struct.error: The bytes are cut off.
        UnicodeDecodeError: A name is not UTF-8.
    """
    headers: list[tuple[str, bytes]] = []
    at, end = 0, len(data)
    while at < end:
        name_bytes, value_bytes = _HEADER.unpack_from(data, at)
        value_at = at + _HEADER.size + name_bytes
        at = value_at + value_bytes
        headers.append((data[value_at - name_bytes : value_at].decode(), data[value_at:at]))
    if at != end:
        raise struct.error(f"headers end {at - end} bytes too early")
    return tuple(headers)
