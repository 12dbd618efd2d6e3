"""Projections in PostgreSQL: a schema for each projection of a namespace.

    orders_revenue           what readers see: the tables that are current
    orders_revenue__next     being filled, by a new version or a rebuild; it takes the other's name when it is whole

Transactions are repeatable reads: where two processes get in each other's way, PostgreSQL ends one of them, which is
done again here. What a projection executes is sent in one go before its next query, or at the end: a round trip for
each statement would cost more than the statement.
"""

import re
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final, LiteralString

from refold.log.errors import UsageError
from refold.projections.feed import Logged, Position
from refold.projections.projection import Dialect, Projection, Transaction, Value
from refold.projections.store import Identity, Store, written
from refold.projections.target import Step, TargetMismatch, TargetUnavailable

try:
    import psycopg
    from psycopg import errors, sql
    from psycopg.types.numeric import Int8Dumper
    from psycopg.types.string import StrDumper
except ImportError as error:
    raise UsageError(
        "PostgreSQL needs psycopg, which is not installed: pip install 'refold[postgres]'"
    ) from error

_IDENTIFIER_BYTES: Final = 63
"""PostgreSQL cuts longer names off, silently."""
_NEXT: Final = "__next"
_TRIES: Final = 30
_PAUSE_S: Final = 0.01
_QUOTED: Final = re.compile(r"('[^']*')")
_IN_THE_WAY: Final = (errors.SerializationFailure, errors.DeadlockDetected)
_GONE: Final = (errors.UndefinedTable, errors.InvalidSchemaName)


class PostgresStore(Store):
    """A projection's tables in a PostgreSQL schema.

    Args:
        projection: What is kept.
        identity: Of which log.
        url: The database, as libpq takes it: postgresql://user@host/database.
        schema: Name of the schema; the namespace's and the projection's where not given.
        rebuild: Fill new tables beside those that are there, though they are of the same version.

    Raises:
        UsageError: The schema's name would be too long.
    """

    def __init__(
        self,
        projection: Projection,
        identity: Identity,
        url: str,
        *,
        schema: str | None = None,
        rebuild: bool = False,
    ) -> None:
        super().__init__(projection, identity)
        self._url = url
        self._schema = schema or schema_of(identity.namespace, projection.name)
        self._next = self._schema + _NEXT
        if len(self._next.encode()) > _IDENTIFIER_BYTES:
            raise UsageError(f"the schema's name {self._schema!r} is too long: give a shorter one")
        self._rebuild = rebuild
        self._connection: psycopg.Connection | None = None
        self._place = self._schema

    def open(self) -> None:
        """See `Target`."""
        self.close()
        with self._translated():
            self._connection = connection = connected(self._url)
            try:
                with self._alone(connection) as transaction:
                    self._place = self._chosen(transaction)
                self._look_at(connection)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """See `Target`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def switch(self) -> None:
        """See `Store`."""
        if self._place == self._schema:
            return
        connection = self._opened()
        with self._translated(), self._alone(connection) as transaction:
            if self._version(transaction, self._next) is not None:  # nobody else has done it
                transaction.execute(_ddl("DROP SCHEMA IF EXISTS {} CASCADE", self._schema))
                transaction.execute(_ddl("ALTER SCHEMA {} RENAME TO {}", self._next, self._schema))
        self._place = self._schema
        self._look_at(connection)

    def write(self, logged: Sequence[Logged], steps: Mapping[int, Step]) -> None:
        """See `Store`. What another process got in the way of is done again."""
        for attempt in range(_TRIES):
            try:
                super().write(logged, steps)
            except _IN_THE_WAY:
                if attempt == _TRIES - 1:
                    raise
                time.sleep(_PAUSE_S * attempt)
            else:
                return

    def _blame(self, logged: Sequence[Logged], steps: Mapping[int, Step], error: Exception) -> None:
        if not isinstance(error, _IN_THE_WAY):
            super()._blame(logged, steps, error)

    def _chosen(self, transaction: "_PostgresTransaction") -> str:
        """The schema to go on with: that of this version, else a new one."""
        version = self.projection.version
        current, coming = (self._version(transaction, name) for name in (self._schema, self._next))
        if current == version and not self._rebuild:
            return self._schema
        newest = max((found for found in (current, coming) if found is not None), default=0)
        if newest > version:
            raise self._newer(f"the database, in the schema {self._schema!r},", newest)
        if coming == version:
            return self._next  # what a former process has begun
        place = self._schema if current is None else self._next
        transaction.execute(_ddl("DROP SCHEMA IF EXISTS {} CASCADE", self._next))
        transaction.execute(_ddl("CREATE SCHEMA {}", place))
        transaction.execute(_ddl("SET LOCAL search_path TO {}, public", place))
        transaction.flush()
        try:
            self._fill_in(transaction)
            transaction.flush()
        except psycopg.ProgrammingError as error:
            if isinstance(error, (errors.InsufficientPrivilege, *_GONE)):
                raise
            raise self._not_made(error) from error
        return place

    def _version(self, transaction: "_PostgresTransaction", schema: str) -> int | None:
        if not transaction.query("SELECT 1 FROM pg_namespace WHERE nspname = ?", (schema,)):
            return None
        table = f"{schema}.refold_projection"
        there = transaction.query(
            "SELECT 1 FROM pg_tables WHERE schemaname = ? AND tablename = 'refold_projection'",
            (schema,),
        )
        if not there:
            raise TargetMismatch(
                f"the schema {schema!r} is there and holds no projection (there is no table {table}): give another "
                "with --schema"
            )
        read = _ddl("SELECT version, log FROM {}.refold_projection", schema)
        ((version, log),) = transaction.query(read)
        self._check_is_of(f"the schema {schema!r}", log)
        return int(version)

    def _look_at(self, connection: psycopg.Connection) -> None:
        place = sql.SQL("SET search_path TO {}, public").format(sql.Identifier(self._place))
        connection.execute(place)
        connection.commit()

    @contextmanager
    def _alone(
        self, connection: psycopg.Connection
    ) -> Generator["_PostgresTransaction", None, None]:
        """A transaction in which nobody else makes or renames this projection's schemas."""
        connection.rollback()
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        try:
            with connection.transaction():
                transaction = _PostgresTransaction(connection)
                transaction.query("SELECT pg_advisory_xact_lock(hashtext(?))", (self._schema,))
                yield transaction
                transaction.flush()
        finally:
            if not connection.closed:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    def _transaction(self) -> Generator[Transaction, None, None]:
        connection = self._opened()
        with self._translated(), connection.transaction():
            transaction = _PostgresTransaction(connection)
            yield transaction
            transaction.flush()

    def _locked(
        self, transaction: Transaction, partitions: Sequence[int]
    ) -> Mapping[int, Position]:
        marks = ", ".join("?" * len(partitions))
        rows = transaction.query(
            f"SELECT partition, next_offset, claim FROM refold_positions WHERE partition IN ({marks}) "  # noqa: S608 - question marks
            "ORDER BY partition FOR UPDATE",
            partitions,
        )
        return written(rows)

    def _opened(self) -> psycopg.Connection:
        assert self._connection is not None, "open() first"
        return self._connection

    @contextmanager
    def _translated(self) -> Generator[None, None, None]:
        try:
            yield
        except _IN_THE_WAY:
            raise
        except (psycopg.OperationalError, psycopg.InterfaceError, *_GONE) as error:
            raise TargetUnavailable(
                f"the projection {self.name!r} can't be kept in PostgreSQL, schema {self._place!r}: "
                f"{str(error).strip()}. Check that the database can be reached and that this user may write there"
            ) from error


class _PostgresTransaction:
    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._pending: list[tuple[str, list[Sequence[Value]]]] = []

    @property
    def dialect(self) -> Dialect:
        return "postgresql"

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> None:
        if self._pending and self._pending[-1][0] == sql:
            self._pending[-1][1].append(parameters)
        else:
            self._pending.append((sql, [parameters]))

    def execute_many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        rows = list(rows)
        if rows:
            self._pending.append((sql, rows))

    def query(self, sql: str, parameters: Sequence[Value] = ()) -> Sequence[tuple[Any, ...]]:
        self.flush()
        return self._cursor.execute(translated(sql), parameters).fetchall()

    def flush(self) -> None:
        """Send what was put off, and wait until it is done."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        with self._connection.pipeline():
            for text, rows in pending:
                if len(rows) == 1:
                    self._cursor.execute(translated(text), rows[0])
                else:
                    self._cursor.executemany(translated(text), rows)


class _Text(StrDumper):
    """PostgreSQL's texts can't hold a NUL: its picture stands for it."""

    def dump(self, obj: str) -> bytes | bytearray | memoryview | None:
        return super().dump(obj.replace("\0", "␀") if "\0" in obj else obj)


def connected(url: str) -> psycopg.Connection:
    """A connection whose integers are all of one type, so that a statement is prepared once."""
    connection = psycopg.connect(url)
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.adapters.register_dumper(int, Int8Dumper)
    connection.adapters.register_dumper(str, _Text)
    return connection


def schema_of(namespace: str, name: str) -> str:
    """The schema of a namespace's projection: for a SQLite log, its file's name stands for the namespace."""
    stem = namespace.rsplit("/", 1)[-1].removesuffix(".db")
    return f"{re.sub(r'[^a-z0-9]+', '_', stem.lower()).strip('_') or 'refold'}_{name}"


@lru_cache(maxsize=1_000)
def translated(text: str) -> bytes:
    """A statement with `?` for its parameters as psycopg wants it."""
    parts = _QUOTED.split(text.replace("%", "%%"))
    parts[::2] = [part.replace("?", "%s") for part in parts[::2]]
    return "".join(parts).encode()  # as a text, psycopg wants literals only


def _ddl(text: LiteralString, *names: str) -> str:
    return sql.SQL(text).format(*map(sql.Identifier, names)).as_string()
