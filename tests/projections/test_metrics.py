"""Metrics: numbers folded from events, each event once, in memory and in tables alike."""

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from refold import (
    DefinitionError,
    Engine,
    LogCorrupt,
    Metric,
    MetricContext,
    MetricFailed,
    Retry,
    UsageError,
    metric,
    read_metrics,
    set_attributes,
    step,
    tail_sync,
    workflow,
)
from refold.log.codec import event_id_of
from refold.log.events import (
    Event,
    StepCompleted,
    Unreadable,
    WorkflowCompleted,
    WorkflowParked,
    WorkflowResumed,
    WorkflowStarted,
)
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Entry, Record
from refold.log.urls import open_log
from refold.projections import metric_fold
from refold.projections.feed import Logged, Position
from refold.projections.histogram import Cell
from refold.projections.metric_fold import MONDAY, Cells, Facts, Key, MetricFold
from refold.projections.metric_tables import MemoryMetrics, MetricTables, cells_of
from refold.projections.metrics_ready import READY
from refold.projections.runner import Runner, RunnerSettings
from refold.projections.sqlite_store import SqliteStore, ViewFiles
from refold.projections.store import Identity
from refold.projections.target import PositionMoved, Step

PATIENCE_S = 60.0
DAY = 86_400_000_000


def header(id_: str, position: int, at: int) -> dict[str, Any]:
    return {
        "workflow_id": id_,
        "position": position,
        "recorded_at": at,
        "claim": 0,
        "command": -1,
        "posted": 0,
        "worker": "w",
    }


def started(id_: str, at: int, **attributes: str) -> Event:
    return WorkflowStarted(
        **header(id_, 0, at), workflow="bake", payload="[]", attributes=attributes, version=2
    )


def done(id_: str, position: int, at: int, payload: str = "1", took: int = 1_000_000) -> Event:
    return StepCompleted(
        **header(id_, position, at),
        step=position,
        name="mix",
        payload=payload,
        attempt=1,
        started_at=at - took,
    )


def logged(events: Sequence[Event | Unreadable]) -> list[Logged]:
    return [Logged(0, n, 1, event, Record(n, 1, None, b"")) for n, event in enumerate(events)]


def folded(events: Sequence[Event | Unreadable], *metrics: Metric, every: int = DAY) -> Cells:
    cells: Cells = {}
    MetricFold(metrics, every).apply(logged(events), {}, cells)
    return cells


@metric(
    unit="g", by=("workflow", "version", "attribute:oven"), kinds="step.completed", aggregate="sum"
)
def flour(event: StepCompleted, context: MetricContext) -> float | None:
    """Flour that went into the dough."""
    grams: float = context.value["flour"]
    return grams if event.name == "mix" else None


def test_a_metric_sums_by_labels_and_days() -> None:
    """Given steps on two days in two ovens, each day and oven has its sum, and labels are those of the run."""
    events = [
        started("a", MONDAY, oven="1"),
        started("b", MONDAY, oven="2"),
        done("a", 1, MONDAY + 5, '{"flour": 100.5}'),
        done("a", 2, MONDAY + DAY - 1, '{"flour": 200}'),
        done("b", 1, MONDAY + DAY, '{"flour": 7}'),
    ]
    cells = folded(events, flour)
    assert {key: (cell.count, cell.sum) for key, cell in cells.items()} == {
        Key("flour", MONDAY, ("bake", "2", "1")): (2, 300.5),
        Key("flour", MONDAY + DAY, ("bake", "2", "2")): (1, 7.0),
    }


def test_time_parked_is_counted_when_a_run_goes_on_or_ends() -> None:
    """Given a run that is parked twice, both times are counted, and nothing of what is known of it stays."""
    parked: dict[str, Any] = {"name": "mismatch", "error_message": "no"}
    events = [
        started("a", 0),
        WorkflowParked(**header("a", 1, 10_000_000), **parked),
        WorkflowResumed(**header("a", 2, 15_000_000)),
        WorkflowParked(**header("a", 3, 20_000_000), **parked),
        WorkflowParked(**header("a", 4, 21_000_000), **parked),
        WorkflowCompleted(**header("a", 5, 27_000_000), payload="1"),
    ]
    runs: dict[str, Facts] = {}
    cells: Cells = {}
    MetricFold(READY, DAY).apply(logged(events), runs, cells)
    found = {key.metric: cell for key, cell in cells.items()}
    assert (found["time_parked"].count, found["time_parked"].sum) == (2, 12.0)
    assert (found["run_duration"].count, found["run_duration"].sum) == (1, 27.0)
    assert runs == {}


def _giving(value: Any) -> Callable[[Event, MetricContext], Any]:
    return lambda event, context: value


def test_values_of_all_sorts_are_numbers() -> None:
    """Given True, a timedelta or a whole number, they count as 1, seconds and themselves; None does not count."""
    values: dict[str, Any] = {"a": True, "b": timedelta(minutes=1), "c": 3, "d": None}
    measures = [metric(name=name, by=(), kinds="step")(_giving(values[name])) for name in values]
    cells = folded([started("a", 0), done("a", 1, 5)], *measures)
    assert {key.metric: cell.sum for key, cell in cells.items()} == {"a": 1.0, "b": 60.0, "c": 3.0}


def test_what_is_encrypted_as_a_whole_has_no_value() -> None:
    """Given a payload that is an envelope, its value is None; of one with an encrypted field the rest is there."""
    size = metric(name="size", kinds="step")(
        lambda event, context: -1 if context.value is None else context.value["size"]
    )
    envelope = f"enc:1:k{'0' * 23}.1:{'A' * 22}:-:abc"
    fields = f' {{"name":{{"$enc":"{envelope}"}},"size":3}}'
    events = [started("a", 0), done("a", 1, 5, envelope), done("a", 2, 6, fields)]
    ((_, cell),) = folded(events, size).items()
    assert (cell.count, cell.low, cell.high) == (2, -1, 3)


def test_what_can_not_be_read_is_left_out() -> None:
    """Given a record that nobody can read, metrics go on."""
    assert folded([Unreadable("a", 0, "torn"), started("a", 0)], *READY) == {}


@pytest.mark.parametrize("answer", ["text", float("nan"), float("inf"), ValueError("no")])
def test_an_answer_that_is_no_number_stops_the_fold_and_names_the_event(answer: Any) -> None:
    """Given a function that raises, or gives no number, the error names the metric and the event."""

    @metric()
    def broken(event: Event, context: MetricContext) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(
        MetricFailed, match=r"'broken' on workflow\.started at position 0 of workflow 'a'"
    ):
        folded([started("a", 0)], broken)


def test_a_label_with_too_many_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more series than are kept, the error names the metric."""
    monkeypatch.setattr(metric_fold, "MAX_SERIES", 3)
    events = [started(f"run-{n}", 0, id=str(n)) for n in range(4)]
    by_id = metric(name="by_id", by=("attribute:id",))(lambda event, context: 1)
    with pytest.raises(UsageError, match="'by_id' has more than 3 series"):
        folded(events, by_id)


def test_declarations_that_can_not_be_are_refused() -> None:
    """Given a label, aggregate, kind or name that is none, or two of one name, the error says so."""
    with pytest.raises(DefinitionError, match="no label 'customer'"):
        metric(by=("customer",))
    with pytest.raises(DefinitionError, match="no label 'workflow'"):
        metric(by="workflow")
    with pytest.raises(DefinitionError, match="aggregated as 'median'"):
        metric(aggregate="median")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no kind"):
        metric(kinds="step.done")
    with pytest.raises(DefinitionError, match="can't name a metric"):
        metric(name="no name")(lambda event, context: 1)
    with pytest.raises(UsageError, match="two metrics are named 'flour'"):
        MetricFold([flour, flour], DAY)
    with pytest.raises(UsageError, match="there are no metrics"):
        MetricFold([], DAY)


class Once:
    """Fails at the first attempt of each of its keys."""

    def __init__(self) -> None:
        self.seen: set[int] = set()


ONCE = Once()


@step(retry=Retry(attempts=2, initial_s=0.001))
async def weigh(number: int) -> dict[str, int]:
    if number % 5 == 0 and number not in ONCE.seen:
        ONCE.seen.add(number)
        raise ConnectionError("the scales are away")
    return {"flour": number}


@step(name="mix")
async def mix(number: int) -> dict[str, int]:
    if number == 13:
        raise ValueError("no luck")
    return {"flour": number}


@workflow
async def bake(number: int) -> int:
    set_attributes({"oven": number % 3})
    weighed = await weigh(number)
    await mix(number)
    return weighed["flour"]


def lived(url: str) -> None:
    """Runs, of which one is rewound, one forked, one reopened."""
    ONCE.seen.clear()
    with Engine(url, workflows=[bake], drain_s=PATIENCE_S) as engine:
        handles = [engine.start(bake, number, id=f"bread-{number}") for number in range(20)]
        for handle in handles:
            if handle.id != "bread-13":
                handle.result(PATIENCE_S)
        with pytest.raises(ValueError, match="no luck"):
            engine.handle("bread-13").result(PATIENCE_S)
        engine.handle("bread-1").rewind(1)
        engine.handle("bread-1").result(PATIENCE_S)
        fork = engine.handle("bread-2").fork(step=2)
        fork.result(PATIENCE_S)


def memory_cells(url: str, metrics: Sequence[Metric]) -> Cells:
    return asyncio.run(read_metrics(url, metrics))


def by_metric(cells: Mapping[Key, Cell]) -> dict[str, Cell]:
    whole: dict[str, Cell] = {}
    for key, cell in cells.items():
        whole.setdefault(key.metric, Cell()).merge(cell)
    return whole


def test_each_event_counts_once_over_rewinds_and_forks(tmp_path: Path) -> None:
    """Given runs that were rewound and forked, metrics count what the log has, each event_id once."""
    url = f"sqlite:///{tmp_path / 'bread.db'}?partitions=2"
    lived(url)
    with tail_sync(url, follow=False) as events:
        there = [e.event for e in events if not isinstance(e.event, Unreadable)]
    ids = [event_id_of(event) for event in there]
    assert len(ids) == len(set(ids))
    kinds = Counter(event.kind for event in there)
    found = by_metric(memory_cells(url, [*READY, flour]))
    assert found["step_duration"].count == kinds["step.completed"]
    assert found["step_failures"].count == kinds["step.completed"] + kinds["step.failed"]
    assert found["step_failures"].sum == kinds["step.failed"]
    assert found["failed_attempts"].count == kinds["step.attempt_failed"] == 4
    assert found["run_failures"].sum == kinds["workflow.failed"]
    grams = [e for e in there if isinstance(e, StepCompleted) and e.name == "mix"]
    assert found["flour"].count == len(grams)
    assert {key.labels[2] for key in memory_cells(url, [flour])} == {"0", "1", "2"}


@pytest.mark.parametrize("seed", range(3))
def test_tables_hold_what_memory_does_to_the_byte(tmp_path: Path, seed: int) -> None:
    """Given a log that grows between readings, tables that go on from their position equal a whole fold in memory."""
    url = f"sqlite:///{tmp_path / 'bread.db'}?partitions=2"
    metrics = [*READY, flour]
    tables = MetricTables(MetricFold(metrics, DAY))
    chance = random.Random(seed)

    async def catch_up() -> None:
        log = open_log(url)
        await log.open()
        try:
            identity = Identity(log.namespace, "", log.partitions)
            store = SqliteStore(tables, identity, tmp_path / "kept")
            settings = RunnerSettings(batch_events=chance.choice((1, 7, 500)))
            await Runner(log, store, settings).catch_up()
        finally:
            await log.close()

    lived(url)
    asyncio.run(catch_up())
    with Engine(url, workflows=[bake], drain_s=PATIENCE_S) as engine:
        engine.handle("bread-3").rewind(1)
        engine.handle("bread-3").result(PATIENCE_S)
        engine.start(bake, 21, id="bread-21").result(PATIENCE_S)
    asyncio.run(catch_up())
    with closing(sqlite3.connect(ViewFiles(tmp_path / "kept", tables.name).link)) as connection:
        rows = connection.execute("SELECT metric, at, labels, cell FROM metric_cells").fetchall()
        left = connection.execute("SELECT count(*) FROM metric_runs").fetchone()
    kept, whole = cells_of(rows), memory_cells(url, metrics)
    assert {k: c.to_json() for k, c in kept.items()} == {k: c.to_json() for k, c in whole.items()}
    assert left == (0,)


def test_other_metrics_are_other_tables() -> None:
    """Given a metric with another unit, version, window or code, its tables have another name; else the same."""

    def named(*metrics: Metric, every: int = DAY) -> str:
        return MetricTables(MetricFold(metrics, every)).name

    def one(event: Event, context: MetricContext) -> int:
        return 1

    def two(event: Event, context: MetricContext) -> int:
        return 2

    declared: list[Callable[[], Metric]] = [
        lambda: metric(name="m")(one),
        lambda: metric(name="m", unit="s")(one),
        lambda: metric(name="m", version=2)(one),
        lambda: metric(name="m")(two),
        lambda: metric(name="m", by=())(one),
    ]
    names = [named(declare()) for declare in declared]
    assert len({*names, named(declared[0](), every=DAY // 2)}) == len(names) + 1
    assert names == [named(declare()) for declare in declared]


def test_a_log_without_its_beginning_is_refused() -> None:
    """Given a log that was trimmed, metrics of its whole history can't be folded, and the error names the archive."""

    async def scenario() -> None:
        store = MemoryStore()
        store.append(Channel.EVENTS, 0, [Entry(None, b"x")] * 5)
        store.trim(Channel.EVENTS, 0, 2)
        log = MemoryLog(store=store)
        await log.open()
        try:
            with pytest.raises(LogCorrupt, match="archive"):
                await Runner(log, MemoryMetrics(MetricFold(READY, DAY))).catch_up()
        finally:
            await log.close()

    asyncio.run(scenario())


def test_a_step_that_is_not_where_it_should_be_is_not_written() -> None:
    """Given steps that begin elsewhere than the target stands, nothing is taken in."""
    kept = MemoryMetrics(MetricFold(READY, DAY))
    with pytest.raises(PositionMoved):
        kept.write(logged([started("a", 0)]), {0: Step(Position(3, 0), Position(4, 0))})
    assert kept.positions() == {}
