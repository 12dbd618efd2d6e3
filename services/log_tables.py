"""A log's events as tables in DuckDB, in memory: `events`, and the views `workflows`, `steps` and `attempts`.

    events       every event that counts: the columns of `refold export` (docs/event-contract.md)
    workflows    how each run stands, folded from the whole log, as `refold list` has it
    steps        the outcome of each step; `counts` is false where a rewind has taken it back
    attempts     every attempt at a step that came to an end

Only what a query names is loaded. Needs duckdb and pyarrow: the extra `sql`.
"""

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, cast

import duckdb

from refold.engine.reader import WorkflowInfo, read_all
from refold.log.attributes import encode_attributes
from refold.log.errors import UsageError
from refold.log.event_columns import Kind
from refold.log.protocol import Log
from refold.projections.feed import Logged, read_batches, start_of
from refold.projections.sink_arrow import arrow_table, table_of
from refold.projections.sink_duckdb import DUCKDB_TYPES
from refold.projections.sink_rows import Columns
from refold.services.spans import microseconds

_LOAD_EVENTS: Final = 20_000
"""Events that are loaded at a time: what is held in memory besides DuckDB's own."""

_WORKFLOWS: Final = {
    "workflow_id": Kind.TEXT,
    "workflow": Kind.TEXT,
    "version": Kind.INTEGER,
    "status": Kind.TEXT,
    "started_at": Kind.TIME,
    "updated_at": Kind.TIME,
    "events": Kind.INTEGER,
    "reason": Kind.TEXT,
    "parent_id": Kind.TEXT,
    "deadline": Kind.TIME,
    "code_version": Kind.TEXT,
    "attributes": Kind.MAP,
}

_STEPS: Final = """
CREATE VIEW steps AS
SELECT workflow_id, step, name, CASE kind WHEN 'step.completed' THEN 'completed' ELSE 'failed' END AS status,
    attempt AS attempts, started_at, recorded_at AS ended_at, recorded_at - started_at AS took,
    CASE kind WHEN 'step.completed' THEN payload END AS result,
    error_type, error_message, worker, position,
    NOT EXISTS (
        FROM events later
        WHERE later.workflow_id = done.workflow_id AND later.kind IN ('workflow.rewound', 'workflow.reopened')
            AND later.step <= done.step AND later.position > done.position
    ) AS counts
FROM events done WHERE kind IN ('step.completed', 'step.failed')
"""

_ATTEMPTS: Final = """
CREATE VIEW attempts AS
SELECT workflow_id, step, name, attempt, CASE kind WHEN 'step.completed' THEN 'completed' ELSE 'failed' END AS status,
    started_at, recorded_at AS ended_at, recorded_at - started_at AS took, error_type, error_message, error_stack,
    due_at AS next_at, worker, position
FROM events WHERE kind IN ('step.completed', 'step.failed', 'step.attempt_failed')
"""

Row = tuple[Any, ...]


class LogTables:
    """The tables, loaded as far as a query names them.

    Args:
        columns: Columns of `events`.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._db = duckdb.connect()
        self._db.execute("SET TimeZone = 'UTC'")
        self._db.execute("SET python_enable_replacements = false")

    async def load(self, log: Log, query: str) -> None:
        """Load what `query` names of an open log.

        Raises:
            LogError: The log can't be read.
        """
        if _names(query, "workflows"):
            infos = await read_all(log)
            self._make("workflows", _WORKFLOWS)
            self._insert("workflows", arrow_table(_WORKFLOWS, _columns_of(infos)))
        if _names(query, "events", "steps", "attempts"):
            self._make("events", self._columns.kinds)
            async for logged in _all_events(log):
                self._insert("events", table_of(self._columns, logged))
            self._db.execute(_STEPS)
            self._db.execute(_ATTEMPTS)

    def query(self, query: str, *, with_files: bool) -> tuple[Sequence[str], Iterator[Row]]:
        """The names of a query's columns, and its rows.

        Args:
            query: One SQL statement.
            with_files: Whether it may read and write files, and reach out in other ways.

        Raises:
            UsageError: DuckDB does not take it.
        """
        if not with_files:
            self._db.execute("SET enable_external_access = false")
            self._db.execute("SET lock_configuration = true")
        try:
            result = self._db.execute(query)
            if cast("object", result) is None:  # of an empty query, which the types do not say
                raise _refused("there is no statement in it")
            names = [column[0] for column in result.description or ()]
            return names, _rows(result)
        except duckdb.Error as error:
            raise _refused(error) from error

    def close(self) -> None:
        """Let go of the tables."""
        self._db.close()

    def _make(self, table: str, kinds: Mapping[str, Kind]) -> None:
        columns = ", ".join(f'"{name}" {DUCKDB_TYPES[kind]}' for name, kind in kinds.items())
        self._db.execute(f"CREATE TABLE {table} ({columns})")

    def _insert(self, table: str, rows: object) -> None:
        self._db.register("loaded", rows)
        self._db.execute(f"INSERT INTO {table} SELECT * FROM loaded")  # noqa: S608 - a name of ours
        self._db.unregister("loaded")


async def _all_events(log: Log) -> AsyncIterator[Sequence[Logged]]:
    """All events that count, many at a time."""
    waiting: list[Logged] = []
    for partition in range(log.partitions):
        start = await start_of(log, partition)
        async with aclosing(read_batches(log, partition, start)) as batches:
            async for batch in batches:
                waiting += batch.logged
                if len(waiting) >= _LOAD_EVENTS:
                    yield waiting
                    waiting = []
    if waiting:
        yield waiting


def _columns_of(infos: Sequence[WorkflowInfo]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: [getattr(info, name) for info in infos] for name in _WORKFLOWS
    }
    for name, kind in _WORKFLOWS.items():
        if kind is Kind.TIME:
            columns[name] = [None if at is None else microseconds(at) for at in columns[name]]
    columns["status"] = [str(status) for status in columns["status"]]
    columns["attributes"] = [encode_attributes(tags) for tags in columns["attributes"]]
    return columns


def _names(query: str, *tables: str) -> bool:
    """Whether a query may mean one of these tables; a text or a column of that name counts as well."""
    return re.search(rf"\b({'|'.join(tables)})\b", query, re.IGNORECASE) is not None


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[Row]:
    try:
        while rows := result.fetchmany(1_000):
            yield from rows
    except duckdb.Error as error:
        raise _refused(error) from error


def _refused(error: duckdb.Error | str) -> UsageError:
    return UsageError(
        f'the query failed: {error}\nThe tables are events, workflows, steps and attempts; `refold sql "DESCRIBE '
        'events"` shows their columns'
    )
