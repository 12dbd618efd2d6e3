"""A queue's slots: who gets one, in which order, and when it is free again; for whoever folds."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from refold.engine.checkpoint import Restoration, Snapshot
from refold.engine.digest import digest
from refold.engine.fold import evolve
from refold.engine.queueing import check_concurrency
from refold.engine.state import PartitionState, Status, Ticket
from refold.log.commands import Command, GrantSlot, ReleaseSlot, RequestSlot
from refold.log.errors import UsageError
from refold.log.events import (
    Event,
    QueueSet,
    SlotGranted,
    SlotReleased,
    SlotRequested,
    SlotReturned,
    WorkflowCompleted,
    WorkflowStarted,
    WorkflowTerminated,
)


class Partition:
    """A partition's fold, event by event."""

    def __init__(self) -> None:
        self.state = PartitionState()
        self._positions: dict[str, int] = {}

    def own(self, kind: Callable[..., Event], key: str, **fields: Any) -> None:
        """An event of the partition's own."""
        self._take(kind(**self._header(key, None), partition=0, queue="q", **fields))

    def of_run(self, kind: Callable[..., Event], workflow_id: str, **fields: Any) -> None:
        """The next event of a run."""
        position = self._positions.get(workflow_id, 0)
        self._positions[workflow_id] = position + 1
        self._take(kind(**self._header(workflow_id, position), **fields))

    def limit(self, count: int) -> None:
        self.own(QueueSet, "q", count=count, payload="{}")

    def ask(self, *runs: str) -> None:
        for run in runs:
            self.own(SlotRequested, "q", target_id=run, index=0)

    def leave(self, *runs: str) -> None:
        for run in runs:
            self.own(SlotReleased, "q", target_id=run, index=0)

    def status(self, workflow_id: str) -> Status:
        return self.state.open[workflow_id].status

    def posted(self) -> Sequence[Command]:
        """What is to be posted since this was last asked."""
        posted = list(self.state.outbox)
        self.state.posted += len(posted)
        self.state.outbox.clear()
        return posted

    def turns(self) -> list[str]:
        """Whose turn it is since this was last asked."""
        return [c.workflow_id for c in self.posted() if isinstance(c, GrantSlot)]

    def _header(self, key: str, position: int | None) -> dict[str, Any]:
        return {
            "workflow_id": key,
            "position": position,
            "recorded_at": 7,
            "claim": self.state.claim,
            "command": -1,
            "posted": self.state.posted,
            "worker": "w",
        }

    def _take(self, event: Event) -> None:
        evolve(self.state, event, 0)


@pytest.fixture
def queue() -> Partition:
    return Partition()


def test_runs_have_their_turn_in_the_order_in_which_they_asked(queue: Partition) -> None:
    """Given a limit of two, the first two go, and then one for each that leaves."""
    queue.limit(2)
    queue.ask("a", "b", "c", "d")
    assert queue.turns() == ["a", "b"]
    queue.leave("b")
    assert queue.turns() == ["c"]
    queue.leave("a", "c")
    assert queue.turns() == ["d"]


def test_a_higher_limit_lets_waiting_runs_go_and_a_lower_one_stops_none(queue: Partition) -> None:
    """Given runs that wait, raising the limit gives as many a turn; lowering it gives none until there is room."""
    queue.limit(1)
    queue.ask("a", "b", "c", "d", "e")
    queue.limit(3)
    assert queue.turns() == ["a", "b", "c"]
    queue.limit(1)
    queue.leave("a", "b")
    assert queue.turns() == []
    assert queue.state.queues["q"].running == {Ticket("c", 0): None}
    queue.leave("c")
    assert queue.turns() == ["d"]


def test_runs_of_a_queue_that_nobody_has_set_wait(queue: Partition) -> None:
    """Given no limit, nobody has a turn until there is one."""
    queue.ask("a")
    assert queue.turns() == []
    queue.limit(5)
    assert queue.turns() == ["a"]


def test_one_that_leaves_while_it_waits_is_left_out(queue: Partition) -> None:
    """Given a run that is cancelled in the queue, the next has its turn in its place."""
    queue.limit(1)
    queue.ask("a", "b", "c")
    queue.leave("b", "a")
    assert queue.turns() == ["a", "c"]


def test_a_slot_is_given_once_however_often_it_is_asked_for_or_left(queue: Partition) -> None:
    """Given repeats of what was heard before, nobody has two slots, and one that is left twice is free once."""
    queue.limit(1)
    queue.ask("a", "a", "b", "c")
    queue.leave("a", "a")
    assert queue.turns() == ["a", "b"]
    assert list(queue.state.queues["q"].running) == [Ticket("b", 0)]


def test_a_run_asks_when_it_is_started_and_leaves_when_it_ends() -> None:
    """Given a run in a queue, it is queued until it is its turn, then it runs, and its end frees its slot."""
    partition = Partition()
    partition.of_run(WorkflowStarted, "r", workflow="w", payload="{}", queue="q")
    (asked,) = partition.posted()
    assert isinstance(asked, RequestSlot)
    assert (asked.workflow_id, asked.parent_id, asked.position) == ("q", "r", 0)
    assert partition.status("r") is Status.QUEUED
    partition.of_run(SlotGranted, "r", queue="q", index=0)
    assert partition.status("r") is Status.RUNNING
    partition.of_run(WorkflowCompleted, "r", payload="1")
    (left,) = partition.posted()
    assert isinstance(left, ReleaseSlot)
    assert (left.workflow_id, left.parent_id, left.position) == ("q", "r", 0)


def test_a_run_that_is_ended_in_the_queue_leaves_it() -> None:
    """Given a run that is terminated while it waits, the queue is told, as of one that has run."""
    partition = Partition()
    partition.of_run(WorkflowStarted, "r", workflow="w", payload="{}", queue="q")
    partition.posted()
    partition.of_run(WorkflowTerminated, "r", error_type="t", error_message="m", payload="{}")
    assert [type(command) for command in partition.posted()] == [ReleaseSlot]


def test_a_slot_that_comes_for_a_run_that_has_ended_goes_back() -> None:
    """Given a slot that nobody waits for, the event that says so has it given back."""
    partition = Partition()
    partition.own(SlotReturned, "r", index=3)
    (left,) = partition.posted()
    assert isinstance(left, ReleaseSlot)
    assert (left.workflow_id, left.parent_id, left.position) == ("q", "r", 3)


def test_a_run_that_gets_a_slot_which_it_does_not_wait_for_is_broken() -> None:
    """Given an owner that would grant a slot twice, which none does, the run stops and nothing else."""
    partition = Partition()
    partition.of_run(WorkflowStarted, "r", workflow="w", payload="{}", queue="q")
    partition.of_run(SlotGranted, "r", queue="q", index=0)
    partition.of_run(SlotGranted, "r", queue="q", index=0)
    assert "does not wait for" in (partition.state.open["r"].broken or "")


def test_a_queue_is_in_the_checkpoint_in_its_order() -> None:
    """Given a queue with many runs, what is read back is the same, and goes on the same."""
    partition = Partition()
    partition.limit(600)
    partition.ask(*(f"run-{n}" for n in range(2_000)))
    partition.of_run(WorkflowStarted, "r", workflow="w", payload="{}", queue="q")
    snapshot = Snapshot(partition.state)
    bare = PartitionState(posted=partition.state.posted, chain=partition.state.chain)
    restoration = Restoration(bare)
    while (part := snapshot.next_part(10_000)) is not None:
        restoration.take(part)
    restored = restoration.whole()
    assert digest(restored) == digest(partition.state)
    assert list(restored.queues["q"].waiting) == list(partition.state.queues["q"].waiting)
    assert (restored.open["r"].ticket, restored.open["r"].waits) == (0, True)


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, "3", None, True, 10**10])
def test_what_is_no_limit_is_refused(concurrency: object) -> None:
    """Given no whole number from 1 on, the error says what is one."""
    with pytest.raises(UsageError, match="give a whole number"):
        check_concurrency(concurrency)
