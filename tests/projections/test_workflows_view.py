"""The read model answers what a look at every run would answer: filtered, in order, page by page, counted, grouped."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.projections.conftest import PostgresDatabase

from refold.log.attributes import encode_attributes
from refold.log.errors import UsageError
from refold.log.events import (
    Event,
    QueueSet,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowParked,
    WorkflowStarted,
)
from refold.log.protocol import Record
from refold.projections import workflows_scout
from refold.projections.feed import Logged, Position
from refold.projections.postgres_store import PostgresStore
from refold.projections.sqlite_store import SqliteStore
from refold.projections.store import Identity, Store
from refold.projections.target import Step, TargetMismatch, TargetUnavailable
from refold.projections.workflows import Workflows
from refold.projections.workflows_counts import RunGroup
from refold.projections.workflows_filter import RunFilter
from refold.projections.workflows_order import RunOrder
from refold.projections.workflows_runs import QueueRow, RunRow
from refold.projections.workflows_view import WorkflowsView, open_view

BEGAN = datetime(2026, 11, 1, 22, 30, tzinfo=UTC)
RUNS = 300
LONG = "x" * 199


def events(random: Random) -> Iterator[Event]:
    """Runs over three days, with tags, parents, errors and reasons."""
    for number in range(RUNS):
        at = int((BEGAN + timedelta(minutes=15 * (number // 2))).timestamp()) * 1_000_000
        common: dict[str, Any] = {
            "workflow_id": f"run-{number}",
            "claim": 0,
            "command": -1,
            "posted": 0,
            "worker": "w",
        }
        yield WorkflowStarted(
            **common,
            position=0,
            recorded_at=at,
            workflow=random.choice(["checkout", "refund", "50% off, today"]),
            payload="[]",
            version=random.choice([1, 2]),
            parent_id=random.choice([None, None, "run-0", "run-1"]),
            queue=random.choice([None, "mail", "gpu"]),
            attributes={
                "region": random.choice(["eu", "us"]),
                "total": random.choice(["1", '"1"']),
                "note": random.choice([f"{LONG}a", f"{LONG}ab", f"{LONG}ac"]),
            },
        )
        end: dict[str, Any] = {
            **common,
            "position": 1,
            "recorded_at": at + random.randrange(10**11),
        }
        error = random.choice(["card 12 declined", 'the "bank" said no', "100%_off", "ÜBER limit"])
        match random.randrange(4):
            case 0:
                yield WorkflowCompleted(**end, payload="1")
            case 1:
                error_type = random.choice(["builtins:ValueError", "builtins:KeyError"])
                yield WorkflowFailed(**end, error_type=error_type, error_message=error)
            case 2:
                yield WorkflowParked(**end, name="used_up", error_message=error)
            case _:
                pass
    for count, why in ((1, "one"), (4, "more")):
        yield QueueSet(
            workflow_id="mail",
            position=None,
            claim=0,
            command=count,
            posted=0,
            worker="w",
            recorded_at=count,
            partition=0,
            queue="mail",
            count=count,
            payload=f'{{"requested_by":"ops","reason":"{why}"}}',
        )


def fill(store: Store) -> None:
    record = Record(0, 0, None, b"")
    logged = [Logged(0, n, 0, event, record) for n, event in enumerate(events(Random(1)))]
    store.open()
    store.write(logged, {0: Step(None, Position(len(logged), 0))})
    store.close()


IDENTITY = Identity("view_test", "log-1", 1)


@pytest.fixture(scope="module")
def sqlite_view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkflowsView]:
    directory = tmp_path_factory.mktemp("views")
    fill(SqliteStore(Workflows(), IDENTITY, directory))
    with open_view(directory) as view:
        yield view


@pytest.fixture(scope="module")
def postgres_view(postgres: str) -> Iterator[WorkflowsView]:
    database = PostgresDatabase(postgres, "view_test")
    database.schema("workflows")
    try:
        fill(PostgresStore(Workflows(), IDENTITY, postgres))
        with open_view(postgres, namespace="view_test") as view:
            yield view
    finally:
        database.drop()


@pytest.fixture(params=["sqlite_view", "postgres_view"], ids=["sqlite", "postgresql"])
def view(request: pytest.FixtureRequest) -> WorkflowsView:
    made: WorkflowsView = request.getfixturevalue(request.param)
    return made


def matches(where: RunFilter, row: RunRow) -> bool:
    """The same filter, as a look at one run."""
    return (
        (where.status is None or row.status in where.status)
        and (where.workflow is None or row.workflow == where.workflow)
        and (where.version is None or row.version == where.version)
        and where.parent_id in {None, row.parent_id}
        and where.queue in {None, row.queue}
        and (where.error is None or where.error in (row.error or ""))
        and (where.started_after is None or row.started_at >= where.started_after)
        and (where.started_before is None or row.started_at < where.started_before)
        and all(
            type(row.attributes.get(name)) is type(tag) and row.attributes[name] == tag
            for name, tag in where.attributes.items()
        )
    )


def drawn(random: Random) -> RunFilter:
    """Any filter: each part given or not."""

    def perhaps(*values: Any) -> Any:
        return random.choice([None, None, *values])

    tags: dict[str, Any] = {"region": "eu", "total": 1, "note": f"{LONG}a"}
    named = random.sample(sorted(tags), random.choice([0, 0, 1, 2]))
    late = BEGAN + timedelta(hours=random.randrange(40), minutes=7)
    return RunFilter(
        status=perhaps({"failed"}, {"parked", "running"}, set()),
        workflow=perhaps("checkout", "50% off, today"),
        version=perhaps(1),
        parent_id=perhaps("run-0"),
        queue=perhaps("mail"),
        attributes={name: tags[name] for name in named},
        error=perhaps(
            "declined", '"bank"', "100%_", "12", "%", "e", "zz", "über", "ÜBER", "card 12"
        ),
        started_after=perhaps(BEGAN + timedelta(hours=random.randrange(40)), BEGAN),
        started_before=perhaps(late, late.replace(minute=0)),
    )


def since_epoch(at: datetime | None) -> float:
    return 0.0 if at is None else at.timestamp()


KEYS: dict[RunOrder, Callable[[RunRow], Any]] = {
    "started": lambda row: (row.started_at, row.workflow_id),
    "updated": lambda row: (row.updated_at, row.workflow_id),
    "ended": lambda row: (since_epoch(row.ended_at), row.workflow_id),
    "duration": lambda row: (
        -1.0 if row.ended_at is None else (row.ended_at - row.started_at).total_seconds(),
        row.workflow_id,
    ),
    "id": lambda row: row.workflow_id,
    "workflow": lambda row: (row.workflow, row.started_at, row.workflow_id),
    "status": lambda row: (row.status, row.started_at, row.workflow_id),
    "version": lambda row: (row.version, row.started_at, row.workflow_id),
}
GROUPS: dict[RunGroup, Callable[[RunRow], str]] = {
    "status": lambda row: row.status,
    "workflow": lambda row: row.workflow,
    "version": lambda row: str(row.version),
    "day": lambda row: str(row.started_at.date()),
    "error_type": lambda row: row.error_type or "",
    "queue": lambda row: row.queue or "",
    "parent": lambda row: row.parent_id or "",
}


def check(view: WorkflowsView, everything: list[RunRow], random: Random) -> None:
    where, order = drawn(random), random.choice(list(KEYS))
    descending, limit = random.choice([True, False]), random.choice([1, 7, 50])
    wanted = [row for row in everything if matches(where, row)]
    wanted.sort(key=KEYS[order], reverse=descending)
    page = view.runs(where, order=order, descending=descending, limit=limit)
    found = list(page.runs)
    while page.next is not None:
        assert len(page.runs) == limit
        page = view.runs(where, order=order, descending=descending, limit=limit, after=page.next)
        found.extend(page.runs)
    assert found == wanted, where
    assert view.count(where) == len(wanted), where
    for by, of in GROUPS.items():
        counts = Counter(of(row) for row in wanted)
        del counts[""]
        assert view.group(by, where) == counts, (by, where)
        check_greatest(view.group(by, where, limit=2), counts if by != "day" else Counter())
    for name in ("region", "total", "note", "none"):
        tags = [encode_attributes(row.attributes).get(name) for row in wanted]
        values = Counter(tag for tag in tags if tag is not None)
        assert view.group_by_attribute(name, where) == values, (name, where)
        check_greatest(view.group_by_attribute(name, where, limit=2), values)


def check_greatest(found: Mapping[str, int], counts: Counter[str]) -> None:
    if counts:
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        assert list(found.items()) == ordered[:2]


@pytest.mark.parametrize("few", [5_000, 40])
def test_any_question_has_the_answer_that_a_look_at_every_run_gives(
    view: WorkflowsView, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given filters, orders and pages drawn at random, runs, counts and groups are those of plain Python."""
    monkeypatch.setattr(workflows_scout, "FEW", few)
    everything = list(view.runs(limit=10_000).runs)
    assert len(everything) == RUNS
    for seed in range(120):
        check(view, everything, Random(seed))


def test_one_status_may_be_named_without_a_collection() -> None:
    """Given a status as a text, runs of that status are meant, and not those of its letters."""
    assert RunFilter(status="failed") == RunFilter(status=("failed",))


def test_one_run_is_found_by_its_id(view: WorkflowsView) -> None:
    """Given an id, its run is told; given another, none."""
    row = view.get("run-7")
    assert row is not None
    assert row.workflow_id == "run-7"
    assert view.get("nobody") is None


@pytest.mark.parametrize(
    "after",
    [
        "",
        "x",
        ",run-1",
        "1,run-1",
        "started,x,run-1",
        f"started,{10**20},run-1",
        "updated,1,run-1",
        "started,1",
    ],
)
def test_where_no_page_ended_nothing_follows(view: WorkflowsView, after: str) -> None:
    """Given what is no page's `next`, the question is refused."""
    with pytest.raises(UsageError, match="not where a page"):
        view.runs(after=after)


def test_a_place_without_a_read_model_says_how_one_is_made(tmp_path: Path, postgres: str) -> None:
    """Given no read model, the error names the command that makes it."""
    for place in (tmp_path, postgres):
        with (
            pytest.raises(TargetUnavailable, match="refold project"),
            open_view(place, namespace="nobody"),
        ):
            pass


def test_queues_are_told_with_who_has_set_them_and_how_many_wait(view: WorkflowsView) -> None:
    """Given runs in two queues of which one was set, both are there, with the last word on the limit."""
    rows = view.runs(limit=RUNS).runs
    waits = Counter(row.queue for row in rows if row.queue and row.ended_at is None)
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=4)
    assert view.queues() == [
        QueueRow("gpu", None, 0, waits["gpu"], None, None, None),
        QueueRow("mail", 4, 0, waits["mail"], at, "ops", "more"),
    ]


def test_a_read_model_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given tables of a version that this release does not know, they are not read."""
    fill(SqliteStore(Workflows(), IDENTITY, tmp_path))
    monkeypatch.setattr(Workflows, "version", 3)
    with pytest.raises(TargetMismatch, match="has version 2"), open_view(tmp_path):
        pass
