"""Events as a table of a DuckDB file: `events`, with the positions beside it, in one transaction.

DuckDB lets one process have a file open for writing, and nobody else then. So the file is opened for each write and
closed after it: queries come in between, and the writes of others that share the partitions. A write waits while
somebody else has the file.

DuckDB writes blocks of its own bookkeeping in their old place when it closes a file. A process that is killed within
such a write leaves a file whose checksums say that it is damaged (seen about once in 500 kills that were aimed at it).
The log has all that was in it: the file is set aside, and written anew from the log's beginning.

Needs duckdb and pyarrow: the extra `sql`.
"""

import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from refold.log.event_columns import DECIMAL_DIGITS, ELEMENTS, Kind
from refold.log.file_lock import FileLock, wait_for
from refold.projections.feed import Logged, Position
from refold.projections.sink_arrow import table_of
from refold.projections.sink_note import Found, Note
from refold.projections.sink_rows import Columns
from refold.projections.store import Identity
from refold.projections.target import PositionMoved, Step, TargetMismatch, TargetUnavailable

DUCKDB_TYPES: Final[dict[Kind, str]] = {
    Kind.TEXT: "VARCHAR",
    Kind.INTEGER: "BIGINT",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.TIME: "TIMESTAMP WITH TIME ZONE",
    Kind.BYTES: "BLOB",
    Kind.DIGEST: "BLOB",
    Kind.MAP: "MAP(VARCHAR, VARCHAR)",
    Kind.REAL: "DOUBLE",
    Kind.DECIMAL: f"DECIMAL({sum(DECIMAL_DIGITS)}, {DECIMAL_DIGITS[1]})",
}
DUCKDB_TYPES.update({many: f"{DUCKDB_TYPES[one]}[]" for many, one in ELEMENTS.items()})

PATIENCE_S: Final = 30.0
"""How long a write waits for somebody's query: a report that takes longer should read a copy."""
_PAUSE_S: Final = 0.05
_LOCKED: Final = "lock"  # in the message of duckdb.IOException when another process has the file
_NO_DATABASE: Final = "not a valid DuckDB database file"
_DAMAGED: Final = "Corrupt database file"  # in duckdb's message when a block's checksum is wrong

logger = logging.getLogger("refold.projections")


class DuckDbTarget:
    """A DuckDB file. See `Target`.

    Args:
        path: The file; made where it is missing.
        source: The log.
        columns: The table's columns.
        patience_s: How long to wait while another process has the file, in seconds.
        pause: Waits so many seconds.
    """

    def __init__(
        self,
        path: Path,
        source: Identity,
        columns: Columns,
        patience_s: float = PATIENCE_S,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path
        self._columns = columns
        self._note = Note(source, columns.kinds)
        self._patience_s = patience_s
        self._pause = pause
        self._found: Found | None = None

    @property
    def name(self) -> str:
        """See `Target`."""
        return f"duckdb {self._path}"

    @property
    def group(self) -> str:
        """The group of those that share the partitions for this file; known once it is open."""
        assert self._found is not None, "the target is open"
        return self._found.group

    def open(self) -> None:
        """See `Target`."""
        if not self._path.parent.is_dir():
            raise TargetUnavailable(f"there is no directory {self._path.parent}: make it first")
        try:
            self._make_or_check()
        except TargetUnavailable as error:
            if _DAMAGED not in str(error.__cause__):
                raise
            self._make_anew()

    def _make_anew(self) -> None:
        """Set a damaged file aside and make another; of several processes that find it, the first one does."""
        lock = FileLock(self._path.with_name(f"{self._path.name}.lock"))
        wait_for(lock, self._patience_s)
        try:
            self._make_or_check()
        except TargetUnavailable as error:
            if _DAMAGED not in str(error.__cause__):
                raise
            self._set_aside(error)
            self._make_or_check()
        finally:
            lock.close()

    def _make_or_check(self) -> None:
        with self._transaction() as db:
            tables = {
                name for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall()
            }
            if "refold_sink" in tables:
                ((text,),) = db.execute("SELECT note FROM refold_sink").fetchall()
                # Reads every block of bookkeeping: a damaged one is found now, and not by a query.
                db.execute("SELECT count(*) FROM pragma_storage_info('events')").fetchall()
                found = self._note.found_in(text, str(self._path))
                for name, kind in found.missing.items():
                    db.execute(f'ALTER TABLE events ADD COLUMN "{name}" {DUCKDB_TYPES[kind]}')
                if found.missing:
                    db.execute("UPDATE refold_sink SET note = ?", [self._note.to_json(found.id)])
                self._found = found
            elif "events" in tables:
                raise TargetMismatch(
                    f"{self._path} has a table `events` that no refold made: name another file"
                )
            else:
                self._found = Found(Note.new_id(), {})
                self._make(db, self._note.to_json(self._found.id))

    def positions(self) -> Mapping[int, Position]:
        """See `Target`."""
        with self._transaction() as db:
            return _positions(db)

    def write(self, logged: Sequence[Logged], steps: Mapping[int, Step]) -> None:
        """See `Target`."""
        table = table_of(self._columns, logged)
        with self._transaction() as db:
            found = _positions(db)
            for partition, step in steps.items():
                if found.get(partition) != step.before:
                    raise PositionMoved(
                        f"{self._path} has come to {found.get(partition)} of partition {partition}, not to "
                        f"{step.before}"
                    )
            if logged:
                db.register("refold_rows", table)
                db.execute("INSERT INTO events BY NAME SELECT * FROM refold_rows")
                db.unregister("refold_rows")
            db.executemany(
                "INSERT OR REPLACE INTO refold_positions VALUES (?, ?, ?)",
                [[number, *step.after] for number, step in steps.items()],
            )

    def close(self) -> None:
        """See `Target`."""

    def _make(self, db: duckdb.DuckDBPyConnection, note: str) -> None:
        columns = ", ".join(
            f'"{name}" {DUCKDB_TYPES[kind]}' for name, kind in self._columns.kinds.items()
        )
        db.execute(f"CREATE TABLE events ({columns})")
        db.execute("CREATE TABLE refold_sink (note VARCHAR NOT NULL)")
        db.execute("INSERT INTO refold_sink VALUES (?)", [note])
        db.execute(
            "CREATE TABLE refold_positions (partition BIGINT PRIMARY KEY, next_offset BIGINT NOT NULL, "
            "claim BIGINT NOT NULL)"
        )

    def _set_aside(self, error: TargetUnavailable) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged")
        logger.error(
            "%s is damaged and becomes %s; everything is written anew: %s",
            self._path,
            aside.name,
            error.__cause__,
        )
        wal = self._path.with_name(f"{self._path.name}.wal")
        if wal.exists():  # first: another file must never meet it
            wal.replace(aside.with_name(f"{aside.name}.wal"))
        self._path.replace(aside)

    @contextmanager
    def _transaction(self) -> Generator[duckdb.DuckDBPyConnection, None, None]:
        """The file, open inside the block; what the block does is saved at its end, or nothing of it."""
        try:
            with self._connected() as db:
                db.begin()
                yield db
                db.commit()
        except duckdb.Error as error:
            if _NO_DATABASE in str(error):
                raise TargetMismatch(
                    f"{self._path} is no DuckDB file: name another file"
                ) from error
            raise TargetUnavailable(
                f"{self._path} can't be written: {error}. What was saved before is whole"
            ) from error

    def _connected(self) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return duckdb.connect(str(self._path))
            except duckdb.IOException as error:
                if _LOCKED not in str(error) or time.monotonic() > deadline:
                    raise
            self._pause(_PAUSE_S)


def _positions(db: duckdb.DuckDBPyConnection) -> dict[int, Position]:
    rows = db.execute("SELECT partition, next_offset, claim FROM refold_positions").fetchall()
    return {partition: Position(offset, claim) for partition, offset, claim in rows}
