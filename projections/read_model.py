"""The workflows read model for programs: from any thread, or awaited, for as long as the program runs.

    with ReadModel("sqlite:///orders.db") as runs:
        page = runs.list(RunFilter(status={"failed"}, error="timed out"), order="ended", limit=20)
        runs.count(RunFilter(workflow="checkout"))

    async with ReadModel("kafka://broker:9092/shop", to="postgresql://refold@db/shop") as runs:
        await runs.group_async("workflow", RunFilter(status={"failed"}))

`refold project`, `refold worker --project workflows` or `Projected(Workflows())` fill it, some hundredths of a second
after the log: who must know the last event asks the engine. Where its tables are rebuilt, the next question goes to the
new ones.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, Self, TypeVar

from refold.log.errors import UsageError
from refold.log.urls import open_log
from refold.projections.places import place_of
from refold.projections.target import TargetError
from refold.projections.workflows import Workflows
from refold.projections.workflows_counts import RunGroup
from refold.projections.workflows_filter import ALL, RunFilter
from refold.projections.workflows_order import RunOrder
from refold.projections.workflows_runs import QueueRow, RunPage, RunRow, StepRow
from refold.projections.workflows_schedules import ScheduleRow
from refold.projections.workflows_view import WorkflowsView, open_view

R = TypeVar("R")

CONNECTIONS: Final = 8
"""At once: questions take milliseconds, and a database has better things to do than to hold connections."""


class ReadModel:
    """How runs stand, from the tables that `refold project` keeps. Use it in `with` or `async with`.

    Every question has a form to be awaited, whose name ends in `_async`. Each raises `TargetUnavailable` where the
    tables can't be read, and `TargetMismatch` where another release keeps them; either is a `TargetError`.

    Args:
        url: The log.
        to: Where its read model is: sqlite:///DIRECTORY or postgresql://...; beside a SQLite log where not given.
        schema: In PostgreSQL: the schema, where it is not named after the namespace.

    Raises:
        UsageError: `url` is no log's, or `to` is no such place, or is not given and the log is not in a file.
    """

    def __init__(self, url: str, *, to: str | None = None, schema: str | None = None) -> None:
        log = open_log(url)  # for its name: it is not opened
        self._place = place_of(Workflows.name, log, to)
        self._namespace = log.namespace
        self._schema = schema
        self._idle: deque[tuple[WorkflowsView, ExitStack]] = deque()
        self._free = threading.BoundedSemaphore(CONNECTIONS)

    def get(self, id: str) -> RunRow | None:
        """One run; None where there is none of that id."""
        return self._ask(lambda view: view.get(id))

    def steps(self, id: str) -> Sequence[StepRow]:
        """What a run's steps came to, in code order; none where there is no such run."""
        return self._ask(lambda view: view.steps(id))

    def list(
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
            UsageError: `after` is no page's `next` in this order.
        """
        return self._ask(
            lambda view: view.runs(
                where, order=order, descending=descending, limit=limit, after=after
            )
        )

    def count(self, where: RunFilter = ALL) -> int:
        """How many runs."""
        return self._ask(lambda view: view.count(where))

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
        return self._ask(lambda view: view.group(by, where, limit=limit))

    def group_by_attribute(
        self, name: str, where: RunFilter = ALL, *, limit: int | None = None
    ) -> Mapping[str, int]:
        """How many runs there are of each value of an attribute, the greatest first; runs without it are not counted.

        Values are texts as `--attribute` takes them.
        """
        return self._ask(lambda view: view.group_by_attribute(name, where, limit=limit))

    def queues(self) -> Sequence[QueueRow]:
        """Every queue, by name: how many of its runs run at once, do, and wait."""
        return self._ask(lambda view: view.queues())

    def schedules(self) -> Sequence[ScheduleRow]:
        """Every schedule, by name: what it starts and when, and what it has started. Its input is in the log alone."""
        return self._ask(lambda view: view.schedules())

    async def get_async(self, id: str) -> RunRow | None:
        """See `get`."""
        return await asyncio.to_thread(self.get, id)

    async def steps_async(self, id: str) -> Sequence[StepRow]:
        """See `steps`."""
        return await asyncio.to_thread(self.steps, id)

    async def queues_async(self) -> Sequence[QueueRow]:
        """See `queues`."""
        return await asyncio.to_thread(self.queues)

    async def schedules_async(self) -> Sequence[ScheduleRow]:
        """See `schedules`."""
        return await asyncio.to_thread(self.schedules)

    async def list_async(
        self,
        where: RunFilter = ALL,
        *,
        order: RunOrder = "started",
        descending: bool = True,
        limit: int = 50,
        after: str | None = None,
    ) -> RunPage:
        """See `list`."""
        return await asyncio.to_thread(
            self.list, where, order=order, descending=descending, limit=limit, after=after
        )

    async def count_async(self, where: RunFilter = ALL) -> int:
        """See `count`."""
        return await asyncio.to_thread(self.count, where)

    async def group_async(
        self, by: RunGroup, where: RunFilter = ALL, *, limit: int | None = None
    ) -> Mapping[str, int]:
        """See `group`."""
        return await asyncio.to_thread(self.group, by, where, limit=limit)

    async def group_by_attribute_async(
        self, name: str, where: RunFilter = ALL, *, limit: int | None = None
    ) -> Mapping[str, int]:
        """See `group_by_attribute`."""
        return await asyncio.to_thread(self.group_by_attribute, name, where, limit=limit)

    def open(self) -> None:
        """Look whether it is there; the first question would as well."""
        self._ask(lambda view: view.version)

    def close(self) -> None:
        """Close its connections. Questions that are under way have their answer; later ones connect again."""
        while self._idle:
            _, connection = self._idle.pop()
            connection.close()

    def __enter__(self) -> Self:
        """Open it."""
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self) -> Self:
        """Open it."""
        await asyncio.to_thread(self.open)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close it."""
        await asyncio.to_thread(self.close)

    def _ask(self, question: Callable[[WorkflowsView], R]) -> R:
        with self._view() as view:
            return question(view)

    @contextmanager
    def _view(self) -> Generator[WorkflowsView, None, None]:
        """A connection that nobody else uses meanwhile. One that breaks, or whose tables were replaced, is not kept."""
        with self._free:
            view, connection = self._taken()
            try:
                yield view
            except UsageError:  # the question was wrong, not the connection
                self._idle.append((view, connection))
                raise
            except BaseException:
                connection.close()
                raise
            self._idle.append((view, connection))

    def _taken(self) -> tuple[WorkflowsView, ExitStack]:
        while self._idle:
            try:
                view, connection = self._idle.pop()
            except IndexError:
                break  # another thread was faster
            try:
                if not view.is_replaced:
                    return view, connection
            except TargetError:
                pass  # the database was started anew, perhaps: a new connection shows
            connection.close()
        with ExitStack() as connection:
            view = connection.enter_context(
                open_view(self._place, namespace=self._namespace, schema=self._schema)
            )
            return view, connection.pop_all()
