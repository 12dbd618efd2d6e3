"""Events as a table in PostgreSQL, with the positions beside it, in one transaction.

    events             the rows, by COPY; key (log_partition, log_offset), index on workflow_id
    refold_sink        one row: what log they are of, and which columns
    refold_positions   how far each partition has come

They stand in a schema of their own, so that several sinks fit into one database. PostgreSQL's text has no NUL
character; in its place stands U+2400, the sign for it.

Needs psycopg: the extra `postgres`.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import sql

from refold.log.event_columns import ELEMENTS, Kind
from refold.projections.feed import Logged, Position
from refold.projections.sink_note import Found, Note
from refold.projections.sink_rows import Columns, moment
from refold.projections.store import Identity
from refold.projections.target import PositionMoved, Step, TargetMismatch, TargetUnavailable

SCHEMA: Final = "refold"

_TYPES: Final[dict[Kind, sql.Composable]] = {
    Kind.TEXT: sql.SQL("text"),
    Kind.INTEGER: sql.SQL("bigint"),
    Kind.BOOLEAN: sql.SQL("boolean"),
    Kind.TIME: sql.SQL("timestamptz"),
    Kind.BYTES: sql.SQL("bytea"),
    Kind.DIGEST: sql.SQL("bytea"),
    Kind.MAP: sql.SQL("jsonb"),
    Kind.REAL: sql.SQL("double precision"),
    Kind.DECIMAL: sql.SQL("numeric"),
}
_TYPES.update({many: sql.SQL("{}[]").format(_TYPES[one]) for many, one in ELEMENTS.items()})
_CONNECT_TIMEOUT_S: Final = 15

_Connection = psycopg.Connection[tuple[Any, ...]]


class PostgresTarget:
    """A PostgreSQL table. See `Target`.

    Args:
        address: Of the database, as libpq takes it: postgresql://user@host/database. What it leaves out comes from
            libpq's own variables and files (PGPASSFILE, PGSERVICE, ...).
        source: The log.
        columns: The table's columns.
        schema: The schema that the tables are in; made where it is missing.
    """

    def __init__(
        self, address: str, source: Identity, columns: Columns, schema: str = SCHEMA
    ) -> None:
        self._address = address
        self._columns = columns
        self._note = Note(source, columns.kinds)
        self._schema = schema
        self._db: _Connection | None = None
        self._found: Found | None = None

    @property
    def name(self) -> str:
        """See `Target`."""
        return f"postgres schema {self._schema}"

    @property
    def group(self) -> str:
        """The group of those that share the partitions for these tables; known once it is open."""
        assert self._found is not None, "the target is open"
        return self._found.group

    def open(self) -> None:
        """See `Target`."""
        try:
            self._make_or_check()
        except BaseException:
            self.close()
            raise

    def _make_or_check(self) -> None:
        with self._transaction() as db:
            # One after the other: two that begin at the same moment would both make the tables.
            db.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"refold {self._schema}"])
            tables = self._tables(db)
            if "refold_sink" in tables:
                self._found = self._checked(db)
            elif "events" in tables:
                raise TargetMismatch(
                    f"the schema {self._schema!r} has a table `events` that no refold made: name another schema"
                )
            else:
                self._found = Found(Note.new_id(), {})
                self._make(db, self._note.to_json(self._found.id))

    def positions(self) -> Mapping[int, Position]:
        """See `Target`."""
        with self._transaction() as db:
            rows = db.execute(
                self._sql("SELECT partition, next_offset, claim FROM {}.refold_positions")
            ).fetchall()
        return {partition: Position(offset, claim) for partition, offset, claim in rows}

    def write(self, logged: Sequence[Logged], steps: Mapping[int, Step]) -> None:
        """See `Target`."""
        rows = self._rows(logged)
        with self._transaction() as db:
            for partition, step in sorted(steps.items()):
                self._move(db, partition, step)
            copy = self._sql("COPY {}.events FROM STDIN")
            with db.cursor() as cursor, cursor.copy(copy) as copying:
                for row in rows:
                    copying.write_row(row)

    def close(self) -> None:
        """See `Target`."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _move(self, db: _Connection, partition: int, step: Step) -> None:
        """Take a position further, which locks it until the transaction ends; only from where it must be."""
        if step.before is None:
            moved = db.execute(
                self._sql(
                    "INSERT INTO {}.refold_positions VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
                ),
                [partition, *step.after],
            )
        else:
            moved = db.execute(
                self._sql(
                    "UPDATE {}.refold_positions SET next_offset = %s, claim = %s "
                    "WHERE partition = %s AND next_offset = %s AND claim = %s"
                ),
                [*step.after, partition, *step.before],
            )
        if moved.rowcount != 1:
            raise PositionMoved(f"{self.name} is not at {step.before} of partition {partition}")

    def _rows(self, logged: Sequence[Logged]) -> Sequence[tuple[Any, ...]]:
        values = self._columns.of(logged)
        kinds = self._columns.kinds
        fitted = [_fitted(_FITS.get(kind), values[name]) for name, kind in kinds.items()]
        return list(zip(*fitted, strict=True))

    def _tables(self, db: _Connection) -> set[str]:
        found = db.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s",
            [self._schema],
        )
        return {name for (name,) in found}

    def _checked(self, db: _Connection) -> Found:
        (text,) = db.execute(self._sql("SELECT note FROM {}.refold_sink")).fetchone() or ("",)
        found = self._note.found_in(text, f"the schema {self._schema!r}")
        for name, kind in found.missing.items():
            added = sql.SQL("ALTER TABLE {}.events ADD COLUMN {} {}")
            db.execute(
                added.format(sql.Identifier(self._schema), sql.Identifier(name), _TYPES[kind])
            )
        if found.missing:
            db.execute(
                self._sql("UPDATE {}.refold_sink SET note = %s"), [self._note.to_json(found.id)]
            )
        return found

    def _make(self, db: _Connection, note: str) -> None:
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), _TYPES[kind])
            for name, kind in self._columns.kinds.items()
        )
        db.execute(self._sql("CREATE SCHEMA IF NOT EXISTS {}"))
        db.execute(
            sql.SQL("CREATE TABLE {}.events ({}, PRIMARY KEY (log_partition, log_offset))").format(
                sql.Identifier(self._schema), columns
            )
        )
        db.execute(self._sql("CREATE INDEX ON {}.events (workflow_id)"))
        db.execute(self._sql("CREATE TABLE {}.refold_sink (note text NOT NULL)"))
        db.execute(self._sql("INSERT INTO {}.refold_sink VALUES (%s)"), [note])
        db.execute(
            self._sql(
                "CREATE TABLE {}.refold_positions "
                "(partition integer PRIMARY KEY, next_offset bigint NOT NULL, claim bigint NOT NULL)"
            )
        )

    def _sql(self, text: str) -> sql.Composed:
        """A statement of ours with the schema's name in it."""
        return sql.SQL(text).format(sql.Identifier(self._schema))  # pyright: ignore[reportArgumentType]

    @contextmanager
    def _transaction(self) -> Generator[_Connection, None, None]:
        """A transaction; after an error of the database, the next one has a new connection."""
        try:
            if self._db is None:
                self._db = psycopg.connect(
                    self._address,
                    connect_timeout=_CONNECT_TIMEOUT_S,
                    application_name="refold sink",
                )
            with self._db.transaction():
                yield self._db
        except psycopg.Error as error:
            self.close()
            raise TargetUnavailable(
                f"{self.name}: {_told(error)}. What was saved before is whole"
            ) from error


def _told(error: psycopg.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _fitted(fit: Callable[[Any], Any] | None, values: list[Any]) -> list[Any]:
    return values if fit is None else [None if value is None else fit(value) for value in values]


def _text(value: str) -> str:
    return value.replace("\0", "\u2400") if "\0" in value else value


def _map(value: Mapping[str, str]) -> str:
    return json.dumps({_text(name): _text(of) for name, of in value.items()}, ensure_ascii=False)


_FITS: Final[dict[Kind, Callable[[Any], Any]]] = {
    Kind.TEXT: _text,
    Kind.TIME: moment,
    Kind.MAP: _map,
    Kind.TEXTS: lambda values: _fitted(_text, values),
    Kind.TIMES: lambda values: _fitted(moment, values),
}
