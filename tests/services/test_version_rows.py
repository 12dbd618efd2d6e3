"""Open runs by the code that they are on, and what of the code that is here is still needed."""

from datetime import UTC, datetime, timedelta

from refold import Status, WorkflowInfo, workflow
from refold.engine.definitions import Catalogue
from refold.services.version_rows import Code, rows_of, unused

START = datetime(2026, 11, 22, tzinfo=UTC)


@workflow(name="order")
def order_1() -> None:
    """Old code."""


@workflow(name="order", version=2)
def order_2() -> None:
    """Older than the newest."""


@workflow(name="order", version=3)
def order_3() -> None:
    """The newest."""


HERE = Catalogue.of([order_1, order_2, order_3])


def a_run(
    number: int,
    version: int,
    code: str | None,
    status: Status = Status.RUNNING,
    *,
    name: str = "order",
    patches: tuple[str, ...] = (),
) -> WorkflowInfo:
    """An open run."""
    at = START + timedelta(minutes=number)
    return WorkflowInfo(
        f"run-{number}",
        name,
        status,
        at,
        at,
        1,
        version=version,
        code_version=code,
        patches=frozenset(patches),
    )


def test_runs_are_counted_by_code_and_status() -> None:
    """Given runs on two versions, each has a row with its counts, patches and oldest run."""
    infos = [
        a_run(3, 2, "b", Status.PARKED),
        a_run(2, 1, "a", patches=("euros",)),
        a_run(1, 1, "a", Status.PAUSED),
    ]
    first, second = rows_of(infos, None)
    assert (first.version, first.counts, first.patches) == (
        1,
        {Status.RUNNING: 1, Status.PAUSED: 1},
        {"euros": 1},
    )
    assert (first.oldest, first.ids) == (START + timedelta(minutes=1), ["run-1", "run-2"])
    assert (second.version, second.counts) == (2, {Status.PARKED: 1})
    assert first.code is second.code is Code.UNKNOWN


def test_code_is_compared_with_what_is_here() -> None:
    """Given runs on the same, changed, missing and unknown code, each row says which."""
    infos = [
        a_run(1, 1, order_1.code_hash),
        a_run(2, 2, "another"),
        a_run(3, 9, "another"),
        a_run(4, 1, "another", name="gone"),
        a_run(5, 1, None, name="?"),
    ]
    rows = {(row.workflow, row.version): row.code for row in rows_of(infos, HERE)}
    assert rows == {
        ("order", 1): Code.SAME,
        ("order", 2): Code.CHANGED,
        ("order", 9): Code.MISSING,
        ("gone", 1): Code.MISSING,
        ("?", 1): Code.UNKNOWN,
    }


def test_versions_with_no_open_run_can_go_but_for_the_newest() -> None:
    """Given an open run on version 1, version 2 can go; version 3 is what new runs get."""
    rows = unused(rows_of([a_run(1, 1, "a")], HERE), HERE)
    assert {(row.version, row.code) for row in rows} == {(2, Code.UNUSED), (3, Code.NEWEST)}
