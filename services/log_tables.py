"""A log's events as tables for DuckDB: `events`, and `workflows`, `steps` and `attempts`.

    events       every event that counts: the columns of `refold export` (docs/event-contract.md)
    workflows    how each run stands, folded from the whole log, as `refold list` has it
    steps        the outcome of each step; `counts` is false where a rewind has taken it back
    attempts     every attempt at a step that came to an end

Only what a query names is loaded: events into files of Parquet, of which DuckDB reads the columns and row groups that
the query needs. Kept, the files have their position with them, and the next query reads only what has come since; runs
are then kept by the workflows read model. Else they go when the query is answered.

Needs duckdb and pyarrow: the extra `sql`.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, cast

import duckdb
from pyarrow.dataset import dataset

from refold.engine.reader import WorkflowInfo, read_all
from refold.log.attributes import encode_attributes
from refold.log.errors import UsageError
from refold.log.event_columns import Kind
from refold.log.file_lock import UseLock
from refold.log.protocol import Log
from refold.projections.places import store_for
from refold.projections.runner import Runner, RunnerSettings
from refold.projections.sink_arrow import arrow_table, schema_of
from refold.projections.sink_parquet import ParquetTarget
from refold.projections.sink_rows import Columns
from refold.projections.store import Identity
from refold.projections.workflows import Workflows
from refold.projections.workflows_view import open_view
from refold.services.intake import catch_up
from refold.services.read_model import info_of
from refold.services.spans import microseconds

_BATCH_EVENTS: Final = 50_000
"""Events of a file at first: what is held in memory."""
_PAGE_RUNS: Final = 10_000

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
    "queue": Kind.TEXT,
    "deadline": Kind.TIME,
    "code_version": Kind.TEXT,
    "attributes": Kind.MAP,
}

_STEPS: Final = """
CREATE TEMP VIEW steps AS
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
CREATE TEMP VIEW attempts AS
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
        keep: The directory in which what was loaded is kept; None to keep nothing.
    """

    def __init__(self, columns: Columns, keep: Path | None = None) -> None:
        self._columns = columns
        self._keep = keep
        self._scratch = TemporaryDirectory(prefix="refold-sql-")
        self._db = _connected()
        self._held = ExitStack()

    async def load(self, log: Log, query: str) -> None:
        """Load what `query` names of an open log; with bars on a terminal.

        Raises:
            LogTrimmed: It is to be kept, and the log's beginning is gone.
            RefoldError: The log can't be read, or the files not written.
        """
        if _names(query, "workflows"):
            infos = await (read_all(log) if self._keep is None else _kept_runs(log, self._keep))
            self._db.register("workflows", arrow_table(_WORKFLOWS, _columns_of(infos)))
        if _names(query, "events", "steps", "attempts"):
            files = await self._events(log)
            schema = schema_of(self._columns.kinds)
            self._db.register("events", dataset(files, schema=schema, format="parquet"))
            self._db.execute(_STEPS)
            self._db.execute(_ATTEMPTS)

    async def _events(self, log: Log) -> Sequence[Path]:
        """The files with all events; of other columns there are others."""
        named = sha256(repr(sorted(self._columns.kinds.items())).encode()).hexdigest()[:12]
        root = (self._keep or Path(self._scratch.name)) / f"events-{named}"
        target = ParquetTarget(root, Identity.of(log), self._columns, merges=self._keep is None)
        settings = RunnerSettings(batch_events=_BATCH_EVENTS, from_trimmed=self._keep is None)
        await catch_up(Runner(log, target, settings))
        if self._keep is not None:
            # Merging removes files, and another query may be reading them: whoever is alone merges.
            lock = UseLock(root.with_name(f"{root.name}.lock"))
            self._held.callback(lock.close)
            if lock.try_alone():
                target.merge()
            lock.use()
        return target.files()

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
                raise self._refused("there is no statement in it")
            names = [column[0] for column in result.description or ()]
            return names, self._rows(result)
        except duckdb.Error as error:
            raise self._refused(error) from error

    def _rows(self, result: duckdb.DuckDBPyConnection) -> Iterator[Row]:
        try:
            while rows := result.fetchmany(1_000):
                yield from rows
        except duckdb.Error as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Let go of the tables, and of files that are not to be kept."""
        self._db.close()
        self._held.close()
        self._scratch.cleanup()

    def _refused(self, error: duckdb.Error | str) -> UsageError:
        told = str(error)
        if not isinstance(error, duckdb.CatalogException | duckdb.BinderException):
            return UsageError(
                f"the query failed: {told}\nThe tables are events, workflows, steps and attempts; `refold sql "
                '"DESCRIBE events"` shows their columns'
            )
        told, _, _ = re.sub(r"\n\n(LINE \d)", r"\n\1", told).partition("\nDid you mean")
        return UsageError(
            f"the query failed: {told}\nThe tables, and their columns:\n{self._told()}"
        )

    def _told(self) -> str:
        """The tables and their columns."""
        with _connected() as db:
            db.register("workflows", schema_of(_WORKFLOWS).empty_table())
            db.register("events", schema_of(self._columns.kinds).empty_table())
            db.execute(_STEPS)
            db.execute(_ATTEMPTS)
            tables = {
                name: [row[0] for row in db.execute(f"DESCRIBE {name}").fetchall()]
                for name in ("workflows", "steps", "attempts", "events")
            }
        return "\n".join(f"  {name}: {', '.join(columns)}" for name, columns in tables.items())


def _connected() -> duckdb.DuckDBPyConnection:
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    db.execute("SET python_enable_replacements = false")
    return db


async def _kept_runs(log: Log, directory: Path) -> Sequence[WorkflowInfo]:
    """How every run stands, by a read model that is kept."""
    store = store_for(Workflows(), log, str(directory))
    await catch_up(Runner(log, store, caught_up=store.switch), "runs")
    infos: list[WorkflowInfo] = []
    after: str | None = None
    with open_view(directory) as view:
        while True:
            page = view.runs(limit=_PAGE_RUNS, after=after)
            infos += map(info_of, page.runs)
            if (after := page.next) is None:
                return infos


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
