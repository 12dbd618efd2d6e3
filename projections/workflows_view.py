"""Reading the workflows read model: which runs, in which order, a page at a time; how many; grouped.

    with open_view("sqlite:///orders.db.views") as view:
        page = view.runs(RunFilter(status={"failed"}, error="timed out"), limit=20)
        while page.next is not None:
            page = view.runs(RunFilter(status={"failed"}, error="timed out"), limit=20, after=page.next)
        view.group("workflow", RunFilter(status={"failed"}))

Pages are found by key and not counted off: the hundredth costs what the first does, and runs that are added meanwhile
shift nothing. Counts of what `tallies` knows (status, workflow, version, time of start) add up days, and look at runs
only in the days that the times cut in two.
"""

import json
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from refold.log.attributes import Tag, decode_attributes, encode_attributes
from refold.log.errors import UsageError
from refold.projections.feed import Position
from refold.projections.places import sqlite_directory
from refold.projections.projection import Dialect, Value
from refold.projections.sqlite_store import ViewFiles, open_for_reading
from refold.projections.store import written
from refold.projections.target import TargetMismatch, TargetUnavailable
from refold.projections.workflows import Run, Workflows
from refold.projections.workflows_filter import (
    ALL,
    EPOCH,
    MIN_SEARCH_CHARS,
    RunFilter,
    and_,
    search_words,
    source,
    tag_conditions,
)
from refold.projections.workflows_rows import DAY_US
from refold.projections.workflows_tables import RUN_COLUMNS
from refold.projections.workflows_tallies import Query, Tallies

RunOrder = Literal["started", "updated", "id"]
RunGroup = Literal["status", "workflow", "version", "day", "error_type"]

FEW: Final = 5_000
"""So many runs are sorted in less time than it takes to walk past a million others in their order."""
_ORDERS: Final[Mapping[RunOrder, str]] = {
    "started": "started_at",
    "updated": "updated_at",
    "id": "workflow_id",
}
_GROUPS: Final[Mapping[RunGroup, str]] = {
    "status": "status",
    "workflow": "workflow",
    "version": "version",
    "day": f"started_at / {DAY_US}",
    "error_type": "error_type",
}


@dataclass(frozen=True, slots=True)
class RunRow:
    """How a run stands: a row of `runs`, with times as times.

    Args:
        workflow_id: Its id.
        workflow: Name of its workflow; "?" where its first event can't be read.
        version: Version of its code.
        status: `running`, `parked`, `paused`, `copying`, `completed`, `failed`, `cancelled` or `terminated`.
        started_at: When it was started.
        updated_at: When its last event was recorded.
        ended_at: When it ended; None where it has not.
        events: Number of events in its stream.
        code_version: Hash of its code; None where it has ended, or is not known.
        parent_id: The workflow that started it as a child.
        source_id: The workflow that it is a fork of.
        deadline: When it is cancelled; None for never, or where it has ended.
        error_type: Type of the error with which it ended, or code of the reason why it is parked.
        error: That error, or that reason.
        broken: Whether its history can't be followed; `error` says why.
        attributes: Its tags.
        patches: Changes of code whose new path it takes; empty where it has ended.
    """

    workflow_id: str
    workflow: str
    version: int
    status: str
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    events: int
    code_version: str | None
    parent_id: str | None
    source_id: str | None
    deadline: datetime | None
    error_type: str | None
    error: str | None
    broken: bool
    attributes: Mapping[str, Tag]
    patches: frozenset[str]


class RunPage(NamedTuple):
    """Some runs, and what to give as `after` for those that follow; None where none do."""

    runs: Sequence[RunRow]
    next: str | None


class WorkflowsView:
    """The read model, open for reading. Made by `open_view`; belongs to the thread that opened it.

    Args:
        query: Carries out a query, with `?` for parameters.
        dialect: Whose SQL it takes.
    """

    def __init__(self, query: Query, dialect: Dialect) -> None:
        self._query = query
        self._dialect: Dialect = dialect
        self._tallies = Tallies(query)

    @property
    def log(self) -> str:
        """What tells the log that it is of from others (`log/archive.py`, `identity_of`), or its name."""
        ((log,),) = self._query("SELECT log FROM refold_projection", ())
        return str(log)

    @property
    def version(self) -> int:
        """Of which version its tables are."""
        ((version,),) = self._query("SELECT version FROM refold_projection", ())
        return int(version)

    def positions(self) -> Mapping[int, Position]:
        """How far each partition is in it."""
        query = "SELECT partition, next_offset, claim FROM refold_positions"
        return written(self._query(query, ()))

    def get(self, workflow_id: str) -> RunRow | None:
        """One run; None where there is none of that id."""
        query = f"SELECT {_COLUMNS} FROM runs WHERE workflow_id = ?"  # noqa: S608 - names of our own
        rows = self._query(query, (workflow_id,))
        return _row(rows[0]) if rows else None

    def runs(
        self,
        where: RunFilter = ALL,
        *,
        order: RunOrder = "started",
        descending: bool = True,
        limit: int = 50,
        after: str | None = None,
    ) -> RunPage:
        """A page of runs.

        Args:
            where: Which.
            order: By time of start, by time of the last event, or by id.
            descending: The latest, or the last of the alphabet, first.
            limit: How many at most, from 1 on.
            after: Where the page before ended: its `next`.

        Raises:
            UsageError: `after` is no page's `next`.
        """
        column = _ORDERS[order]
        found, few = self._found(where)
        # By a tag's rows: in their own order, or all of them, to be sorted. Else they are walked past in the order.
        in_order = order == "started" and not few
        by_tag = found if few or in_order else None
        asked = source(where, self._dialect, by_tag)
        table = "tag" if by_tag is not None and in_order else "runs"
        direction, beyond = ("DESC", "<") if descending else ("ASC", ">")
        if after is not None:
            value, workflow_id = place_after(after, order)
            asked.clauses.append(f"({table}.{column}, {table}.workflow_id) {beyond} (?, ?)")
            asked.parameters.extend((value, workflow_id))
        # A + keeps SQLite, which does not know how many there are, from walking past all others in their order.
        plus = "+" if few else ""
        rows = self._query(
            f"SELECT {_COLUMNS} FROM {asked.tables}{asked.where} "  # noqa: S608 - our own, with marks for what is asked
            f"ORDER BY {plus}{table}.{column} {direction}, {plus}{table}.workflow_id {direction} LIMIT ?",
            [*asked.parameters, limit + 1],
        )
        runs = [_row(row) for row in rows[:limit]]
        if len(rows) <= limit:
            return RunPage(runs, None)
        last: dict[str, Any] = dict(zip(RUN_COLUMNS, rows[limit - 1], strict=True))
        return RunPage(runs, place_of(order, last[column], last["workflow_id"]))

    def count(self, where: RunFilter = ALL) -> int:
        """How many runs."""
        if where.is_tallied:
            return sum(self._tallies.counts("1", where).values())
        if where == RunFilter(attributes=where.attributes) and len(where.attributes) == 1:
            ((name, value),) = encode_attributes(where.attributes).items()
            clauses, parameters = tag_conditions(name, value)
            query = f"SELECT count(*) FROM attributes AS tag{and_(clauses)}"  # noqa: S608 - as above
        else:
            found, _ = self._found(where)
            asked = source(where, self._dialect, found)
            query = f"SELECT count(*) FROM {asked.tables}{asked.where}"  # noqa: S608 - as above
            parameters = asked.parameters
        ((count,),) = self._query(query, parameters)
        return int(count)

    def group(
        self,
        by: RunGroup,
        where: RunFilter = ALL,
    ) -> Mapping[str, int]:
        """How many runs there are of each status, workflow, version, day (UTC) of start or type of error.

        Returns:
            The counts, the greatest first; of days, the latest first. Days as in "2026-11-22".
        """
        column = _GROUPS[by]
        if where.is_tallied and by != "error_type":
            counts = self._tallies.counts(column, where)
        else:
            found, _ = self._found(where)
            asked = source(where, self._dialect, found)
            if by == "error_type":
                asked.clauses.append("runs.error_type IS NOT NULL")
            rows = self._query(
                f"SELECT runs.{column}, count(*) FROM {asked.tables}{asked.where} GROUP BY 1",  # noqa: S608 - as above
                asked.parameters,
            )
            counts = dict(rows)
        if by == "day":
            days = sorted(counts, reverse=True)
            return {str((EPOCH + timedelta(days=day)).date()): counts[day] for day in days}
        ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
        return {str(key): count for key, count in ordered}

    def _found(self, where: RunFilter) -> tuple[str | None, bool]:
        """The rarest of the tags, to find the runs by, and whether they are few for all that is known.

        PostgreSQL knows its rows' numbers itself, and is asked nothing.
        """
        if self._dialect == "postgresql":
            return None, False
        if where.parent_id is not None:
            return None, True
        if where.attributes:
            counts = {
                name: self._up_to_few("attributes AS tag", *tag_conditions(name, value))
                for name, value in encode_attributes(where.attributes).items()
            }
            rarest = min(counts, key=counts.__getitem__)
            return rarest, counts[rarest] <= FEW
        if where.error is not None and len(where.error) >= MIN_SEARCH_CHARS:
            matches = ["run_errors MATCH ?"], [search_words(where.error)]
            return None, self._up_to_few("run_errors", *matches) <= FEW
        tallied = (
            where.status is not None or where.workflow is not None or where.version is not None
        )
        return None, tallied and sum(
            self._tallies.counts("1", where, days_only=True).values()
        ) <= FEW

    def _up_to_few(self, table: str, clauses: Sequence[str], parameters: Sequence[Value]) -> int:
        some = f"SELECT 1 FROM {table}{and_(clauses)} LIMIT ?"  # noqa: S608 - as above
        query = f"SELECT count(*) FROM ({some}) AS some"  # noqa: S608 - as above
        ((count,),) = self._query(query, [*parameters, FEW + 1])
        return int(count)


@contextmanager
def open_view(
    place: str | Path, *, namespace: str | None = None, schema: str | None = None
) -> Generator[WorkflowsView, None, None]:
    """The read model at a place, open inside the block.

    Args:
        place: The directory of SQLite files, its URL (sqlite:///orders.db.views), or a postgresql:// URL.
        namespace: In PostgreSQL: the namespace whose read model it is.
        schema: In PostgreSQL: the schema, where it is not named after the namespace.

    Raises:
        TargetUnavailable: There is none, or it can't be reached.
        TargetMismatch: It is of a version that this release can't read.
        UsageError: It is no such place, or neither namespace nor schema are named.
    """
    if isinstance(place, str) and place.startswith(("postgresql://", "postgres://")):
        # Imported when asked for: it needs a package that others can do without.
        from refold.projections.postgres_reading import reading  # noqa: PLC0415

        with reading(place, Workflows.name, namespace=namespace, schema=schema) as asked:
            yield _checked(WorkflowsView(asked, "postgresql"))
        return
    link = ViewFiles(sqlite_directory(place), Workflows.name).link
    try:
        connection = open_for_reading(link)
    except (sqlite3.Error, OSError) as error:
        raise TargetUnavailable(
            f"there is no read model in {link.parent} ({error}): `refold project` makes it"
        ) from error
    with closing(connection):

        def query(text: str, parameters: Sequence[Value]) -> Sequence[tuple[Any, ...]]:
            try:
                return connection.execute(text, parameters).fetchall()
            except sqlite3.Error as error:
                raise TargetUnavailable(f"{link} can't be read: {error}") from error

        yield _checked(WorkflowsView(query, "sqlite"))


def _checked(view: WorkflowsView) -> WorkflowsView:
    if view.version != Workflows.version:
        raise TargetMismatch(
            f"the workflows read model has version {view.version}, and this release reads version {Workflows.version}: "
            "run `refold project` of this release"
        )
    return view


_COLUMNS: Final = ", ".join(f"runs.{column}" for column in RUN_COLUMNS)


def place_after(after: str, order: RunOrder) -> tuple[int | str, str]:
    """What a page's `next` says: the last run's value in the order, and its id.

    Raises:
        UsageError: It is no page's, or one of another order.
    """
    value, comma, workflow_id = after.partition(",")
    if order == "id" and comma and not value:
        return workflow_id, workflow_id
    if order != "id" and comma and value.isascii() and value.isdecimal():
        return int(value), workflow_id
    raise UsageError(f"{after!r} is not where a page in this order ended: give its `next`")


def place_of(order: RunOrder, value: int | str, workflow_id: str) -> str:
    """A page's `next`, from the last run's value in the order, and its id."""
    return f",{workflow_id}" if order == "id" else f"{value},{workflow_id}"


def _utc(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def _utc_or_none(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _utc(microseconds)


def _row(values: Sequence[Any]) -> RunRow:
    run = Run(*values)
    return RunRow(
        workflow_id=run.workflow_id,
        workflow=run.workflow,
        version=run.version,
        status=run.status,
        started_at=_utc(run.started_at),
        updated_at=_utc(run.updated_at),
        ended_at=_utc_or_none(run.ended_at),
        events=run.events,
        code_version=run.code_version,
        parent_id=run.parent_id,
        source_id=run.source_id,
        deadline=_utc_or_none(run.due_at),
        error_type=run.error_type,
        error=run.error,
        broken=bool(run.broken),
        attributes=decode_attributes(json.loads(run.attributes)),
        patches=frozenset(json.loads(run.patches)),
    )
