"""A worker's numbers: what it has to do is counted from its folds, what it has done from what it appended."""

import asyncio

from refold import Engine, Status, receive, step, workflow
from refold.engine.stats import Tally
from refold.log.codec import encode_event
from refold.log.events import WorkflowParked, WorkflowWarned
from refold.log.memory import MemoryLog


@step
async def one() -> int:
    """A step."""
    return 1


@workflow
async def waiting(steps: int) -> None:
    """Some steps, then a message that does not come."""
    for _ in range(steps):
        await one()
    await receive("go", str)


def test_open_runs_are_counted_by_workflow_and_status() -> None:
    """Given runs of which one is paused and one has ended, the open ones are counted, and the events written."""

    async def scenario() -> None:
        async with Engine(MemoryLog(), workflows=[waiting]) as engine:
            handles = [await engine.start_async(waiting, n, id=f"run-{n}") for n in range(4)]
            await handles[1].pause_async()
            await handles[2].terminate_async()
            stats = await engine.stats_async()
            assert stats.open_runs == {
                ("waiting", Status.RUNNING): 2,
                ("waiting", Status.PAUSED): 1,
            }
            assert stats.owned_partitions == 1
            assert stats.longest_history <= 3
            assert stats.events >= 6
            assert stats.history_warnings == 0

    asyncio.run(scenario())


def test_a_client_has_no_numbers() -> None:
    """Given an engine without a worker, everything is zero."""

    async def scenario() -> None:
        async with Engine(MemoryLog(), worker=False) as engine:
            stats = await engine.stats_async()
            assert (stats.owned_partitions, stats.events, dict(stats.open_runs)) == (0, 0, {})

    asyncio.run(scenario())


def test_warnings_are_told_from_other_events() -> None:
    """Given a warning among other events, one warning is counted."""
    warned = WorkflowWarned(
        workflow_id="a", position=1, recorded_at=1, claim=0, command=0, posted=0, worker="w",
        name="history_grows", error_message="long",
    )  # fmt: skip
    parked = WorkflowParked(
        workflow_id="a", position=2, recorded_at=1, claim=0, command=0, posted=0, worker="w",
        name="history_full", error_message="longer",
    )  # fmt: skip
    tally = Tally()
    tally.appended([encode_event(event, bytes(32))[0] for event in (warned, parked)])
    assert (tally.events, tally.history_warnings) == (2, 1)
