"""The workflows read model: how soon it answers, with a million runs in it."""

import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import psycopg

from job import Job, tell
from projected import postgres
from refold.projections.feed import Position
from refold.projections.postgres_store import PostgresStore
from refold.projections.projection import Transaction
from refold.projections.sqlite_store import SqliteStore
from refold.projections.store import Identity, Store
from refold.projections.target import Step
from refold.projections.workflows import Run, Workflows, tag_tallies
from refold.projections.workflows_filter import RunFilter
from refold.projections.workflows_rows import DAY_US, Rows
from refold.projections.workflows_tables import RUN_COLUMNS
from refold.projections.workflows_view import WorkflowsView, open_view

NAMESPACE: Final = "bench"
IDENTITY: Final = Identity(NAMESPACE, "", 1)
TOGETHER: Final = 20_000
DAYS: Final = 30
BEGAN: Final = datetime(2026, 10, 1, tzinfo=UTC)
TURNS: Final = 5


async def read_model(job: Job) -> None:
    """Time of each kind of question to a read model of `job.workflows` runs; of each, the median of some turns."""
    directory = Path(tempfile.mkdtemp(prefix="refold-bench-views-"))
    try:
        figures = _measured(SqliteStore(_Many(), IDENTITY, directory), directory, job.workflows)
    finally:
        shutil.rmtree(directory)
    with postgres() as url:
        found = _measured(PostgresStore(_Many(), IDENTITY, url), url, job.workflows)
    tell({**figures, **{f"postgresql_{name}": figure for name, figure in found.items()}})


def _measured(store: Store, place: str | Path, runs: int) -> dict[str, float]:
    began = perf_counter()
    _fill(store, runs)
    build_s = perf_counter() - began
    if isinstance(place, str):
        with psycopg.connect(place, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")  # as the server does by itself, in its own time
    with open_view(place, namespace=NAMESPACE) as view:
        assert view.count() == runs
        took = {f"{name}_ms": _took_ms(ask, view) for name, ask in QUESTIONS.items()}
    return {**took, "slowest_ms": max(took.values()), "build_s": build_s}


def _took_ms(ask: Callable[[WorkflowsView], object], view: WorkflowsView) -> float:
    took: list[float] = []
    for _ in range(TURNS):
        began = perf_counter()
        ask(view)
        took.append(perf_counter() - began)
    return 1e3 * sorted(took)[TURNS // 2]


def _since(days: float) -> datetime:
    return BEGAN + timedelta(days=DAYS - days)


def _second_page(view: WorkflowsView) -> object:
    """A page far back: it is found by its key, as the first."""
    at = int((BEGAN + timedelta(days=3)).timestamp()) * 1_000_000
    return view.runs(after=f"started,{at},run-1")


FAILED: Final = RunFilter(status={"failed"})
QUESTIONS: Final[dict[str, Callable[[WorkflowsView], object]]] = {
    "latest": lambda view: view.runs(),
    "earliest": lambda view: view.runs(descending=False),
    "by_update": lambda view: view.runs(order="updated"),
    "by_end": lambda view: view.runs(order="ended"),
    "by_duration": lambda view: view.runs(order="duration"),
    "by_id": lambda view: view.runs(order="id"),
    "by_workflow": lambda view: view.runs(order="workflow"),
    "by_status": lambda view: view.runs(order="status"),
    "by_version": lambda view: view.runs(order="version", descending=False),
    "failed_by_duration": lambda view: view.runs(FAILED, order="duration"),
    "failed_by_workflow": lambda view: view.runs(FAILED, order="workflow", descending=False),
    "workflow_by_version": lambda view: view.runs(
        RunFilter(workflow="workflow-7"), order="version"
    ),
    "page_far_back": _second_page,
    "status": lambda view: view.runs(FAILED),
    "few_by_update": lambda view: view.runs(RunFilter(status={"parked"}), order="updated"),
    "open": lambda view: view.runs(RunFilter(status={"running", "parked", "paused"})),
    "workflow": lambda view: view.runs(RunFilter(workflow="workflow-7")),
    "workflow_status": lambda view: view.runs(
        RunFilter(workflow="workflow-7", status={"failed"}), order="updated"
    ),
    "version": lambda view: view.runs(RunFilter(version=3)),
    "parent": lambda view: view.runs(RunFilter(parent_id="run-20")),
    "queue": lambda view: view.runs(RunFilter(queue="queue-3")),
    "queue_by_update": lambda view: view.runs(RunFilter(queue="queue-3"), order="updated"),
    "count_queue": lambda view: view.count(RunFilter(queue="queue-3")),
    "group_queue": lambda view: view.group("queue"),
    "attribute_many": lambda view: view.runs(RunFilter(attributes={"region": "eu"})),
    "attribute_few": lambda view: view.runs(RunFilter(attributes={"customer": "customer-77"})),
    "time": lambda view: view.runs(
        RunFilter(started_after=_since(12.3), started_before=_since(12.2)), descending=False
    ),
    "error_text": lambda view: view.runs(RunFilter(error="timed out after 37")),
    "error_text_many": lambda view: view.runs(RunFilter(error="timed out")),
    "error_text_short": lambda view: view.runs(RunFilter(error="o9")),
    "error_text_letter": lambda view: view.runs(RunFilter(error="e"), order="updated"),
    "count_error_text_short": lambda view: view.count(RunFilter(error="37")),
    "count": lambda view: view.count(),
    "count_status": lambda view: view.count(RunFilter(status={"completed"})),
    "count_time": lambda view: view.count(
        RunFilter(started_after=_since(20.01), started_before=_since(2.99))
    ),
    "count_parent": lambda view: view.count(RunFilter(parent_id="run-20")),
    "count_attribute_few": lambda view: view.count(
        RunFilter(attributes={"customer": "customer-77"})
    ),
    "count_attribute_many": lambda view: view.count(RunFilter(attributes={"region": "eu"})),
    "count_error_text": lambda view: view.count(RunFilter(error="timed out after 37")),
    "group_status": lambda view: view.group("status"),
    "group_workflow": lambda view: view.group("workflow", FAILED),
    "group_version": lambda view: view.group("version"),
    "group_day": lambda view: view.group("day", RunFilter(started_after=_since(20.01))),
    "group_error_type": lambda view: view.group("error_type"),
    "group_parent": lambda view: view.group("parent", limit=50),
    "group_attribute_few": lambda view: view.group_by_attribute("region"),
    "group_attribute_many": lambda view: view.group_by_attribute("customer", limit=50),
    "group_attribute_failed": lambda view: view.group_by_attribute("region", FAILED),
    "group_attribute_time": lambda view: view.group_by_attribute(
        "region", RunFilter(started_after=_since(1.0))
    ),
}


class _Many(Workflows):
    """The read model, filled with rows that no events have led to."""

    def __init__(self) -> None:
        self.rows: Sequence[Run] = ()

    def apply_all(self, transaction: Transaction, batch: Sequence[Any]) -> None:
        """Add the rows that were put here."""
        rows = Rows(transaction)
        rows.save_runs([_values(run) for run in self.rows])
        transaction.execute_many("INSERT INTO attributes VALUES (?, ?, ?, ?, ?)", self._tags())
        rows.save_tallies(Counter(run.tally for run in self.rows))
        rows.save_tag_tallies(Counter(tag for run in self.rows for tag in tag_tallies(*run.tagged)))

    def _tags(self) -> Iterator[tuple[str | int, ...]]:
        for run in self.rows:
            for name, value in json.loads(run.attributes).items():
                yield (run.workflow_id, name, value, value, run.started_at)


def _values(run: Run) -> list[Any]:
    return [getattr(run, column) for column in RUN_COLUMNS]


def _fill(store: Store, runs: int) -> None:
    projection = store.projection
    assert isinstance(projection, _Many)
    chance = random.Random(1)
    store.open()
    before: Position | None = None
    for first in range(0, runs, TOGETHER):
        numbers = range(first, min(runs, first + TOGETHER))
        projection.rows = [_run(number, runs, chance) for number in numbers]
        after = Position(numbers.stop, 0)
        store.write([], {0: Step(before, after)})
        before = after
    store.close()


def _run(number: int, runs: int, chance: random.Random) -> Run:
    """One of many: nine of ten have completed, one of twenty failed, one of ten thousand is parked."""
    status, error = "completed", None
    kind = chance.random()
    if kind < 0.05:
        status, error = "failed", f"charge {number}: timed out after {chance.randrange(60)} s"
        if kind < 0.03:
            error = f"account {chance.randrange(10**6)} was not found in shard {number % 16}"
    elif kind < 0.07:
        status = "running"
    elif kind < 0.0701:
        status, error = "parked", "used up its attempts at charge"
    at = int(BEGAN.timestamp()) * 1_000_000 + number * DAYS * DAY_US // runs
    ended = None if status in {"running", "parked"} else at + chance.randrange(10**9)
    tags = {
        "customer": f"customer-{chance.randrange(50_000)}",
        "region": ("eu", "us", "asia", "africa")[number % 4],
    }
    return Run(
        workflow_id=f"run-{number}",
        partition=0,
        workflow=f"workflow-{chance.randrange(20)}",
        version=1 + number % 3,
        status=status,
        started_at=at,
        updated_at=ended or at + 10**6,
        ended_at=ended,
        events=10,
        code_version=None,
        parent_id=f"run-{number - number % 20}" if number % 20 in {1, 2} else None,
        parent_step=None,
        source_id=None,
        due_at=None,
        error_type=None if error is None else f"Error{number % 5}",
        error=error,
        broken=0,
        open_timers=0,
        attributes=json.dumps(tags),
        patches="[]",
        queue=None if number % 10 else f"queue-{number % 7}",
        waits=0,
    )
