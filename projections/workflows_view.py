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

import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from refold.projections.feed import Position
from refold.projections.places import POSTGRESQL, sqlite_directory
from refold.projections.projection import Dialect, Value
from refold.projections.sqlite_store import ViewFiles, open_for_reading
from refold.projections.store import written
from refold.projections.target import TargetMismatch, TargetUnavailable
from refold.projections.workflows import Run, Workflows
from refold.projections.workflows_counts import Counts, RunGroup
from refold.projections.workflows_filter import ALL, RunFilter
from refold.projections.workflows_order import RunOrder
from refold.projections.workflows_pages import COLUMNS, Pages
from refold.projections.workflows_runs import (
    STEP_COLUMNS,
    QueueRow,
    RunPage,
    RunRow,
    StepRow,
    queues_of,
    row_of,
    step_of,
)
from refold.projections.workflows_schedules import SCHEDULE_COLUMNS, ScheduleRow, schedule_of
from refold.projections.workflows_scout import Scout
from refold.projections.workflows_tallies import Query


class WorkflowsView:
    """The read model, open for reading. Made by `open_view`; to be used by one thread at a time.

    Args:
        query: Carries out a query, with `?` for parameters.
        dialect: Whose SQL it takes.
    """

    def __init__(self, query: Query, dialect: Dialect) -> None:
        self._query = query
        scout = Scout(query, dialect)
        self._pages = Pages(query, scout)
        self._counts = Counts(query, scout)

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

    @property
    def is_replaced(self) -> bool:
        """Whether others have taken the place of its tables: it can still be read, and gets nothing new."""
        ((replaced,),) = self._query("SELECT replaced FROM refold_projection", ())
        return bool(replaced)

    def positions(self) -> Mapping[int, Position]:
        """How far each partition is in it."""
        query = "SELECT partition, next_offset, claim FROM refold_positions"
        return written(self._query(query, ()))

    def get(self, workflow_id: str) -> RunRow | None:
        """One run; None where there is none of that id."""
        query = f"SELECT {COLUMNS} FROM runs WHERE workflow_id = ?"  # noqa: S608 - names of our own
        rows = self._query(query, (workflow_id,))
        return row_of(Run(*rows[0])) if rows else None

    def steps(self, workflow_id: str) -> Sequence[StepRow]:
        """What a run's steps came to, in code order; none where there is no such run."""
        query = f"SELECT {STEP_COLUMNS} FROM steps WHERE workflow_id = ? ORDER BY step"  # noqa: S608 - as above
        return [step_of(row) for row in self._query(query, (workflow_id,))]

    def queues(self) -> Sequence[QueueRow]:
        """Every queue, by name, with how many of its runs have their turn and how many wait for it."""
        queues = self._query("SELECT name, concurrency, set_at, set_by, reason FROM queues", ())
        counts = self._query(
            "SELECT queue, count(*), sum(waits) FROM runs WHERE queue IS NOT NULL AND ended_at IS NULL GROUP BY 1",
            (),
        )
        return queues_of(queues, counts)

    def schedules(self) -> Sequence[ScheduleRow]:
        """Every schedule that is one still, by name."""
        query = f"SELECT {SCHEDULE_COLUMNS} FROM schedules ORDER BY name"  # noqa: S608 - as above
        rows = map(schedule_of, self._query(query, ()))
        return [row for row in rows if not row.is_over]

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
            order: By time of start, last event or end, by duration, or by id; or by workflow, status or version, and
                then by time of start. Runs that have not ended come last by end or duration, as the least of all.
            descending: The latest, longest, or last of the alphabet first.
            limit: How many at most, from 1 on.
            after: Where the page before ended: its `next`.

        Raises:
            UsageError: `after` is no page's `next`.
        """
        return self._pages.page(where, order, limit, after, descending=descending)

    def count(self, where: RunFilter = ALL) -> int:
        """How many runs."""
        return self._counts.count(where)

    def group(
        self, by: RunGroup, where: RunFilter = ALL, *, limit: int | None = None
    ) -> Mapping[str, int]:
        """How many runs there are of each status, workflow, version, day of start (UTC), type of error, queue, parent.

        Args:
            by: What they are counted by.
            where: Which runs. Those without an error, a queue or a parent are not counted by it.
            limit: How many groups at most; all where not given.

        Returns:
            The counts, the greatest first; of days, the latest first. Days as in "2026-11-22".
        """
        return self._counts.group(by, where, limit)

    def group_by_attribute(
        self, name: str, where: RunFilter = ALL, *, limit: int | None = None
    ) -> Mapping[str, int]:
        """How many runs there are of each value of an attribute.

        Args:
            name: The attribute's. Runs without it are not counted.
            where: Which runs.
            limit: How many groups at most; all where not given.

        Returns:
            The counts by value, the greatest first; values as they stand in the log, and as `--attribute` takes them.
        """
        return self._counts.group_by_attribute(name, where, limit)


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
    if isinstance(place, str) and place.startswith(POSTGRESQL):
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
