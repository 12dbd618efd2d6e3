"""What the fold keeps of steps that go on at a worker which has handed their partition over."""

import json
from collections.abc import Sequence

from refold.engine.fold import evolve
from refold.engine.state import Handed, PartitionState
from refold.log.codec import GENESIS
from refold.log.events import Event, PartitionClaimed, PartitionHandedOver


def folded(events: Sequence[Event]) -> PartitionState:
    state = PartitionState()
    for offset, event in enumerate(events):
        evolve(state, event, offset)
    return state


def claimed(claim: int) -> PartitionClaimed:
    return PartitionClaimed(
        workflow_id=None,
        position=None,
        recorded_at=0,
        claim=claim,
        command=-1,
        posted=0,
        worker="w",
        chain=GENESIS,
        partition=0,
    )


def handed_over(claim: int, due_at: int, *steps: tuple[str, int, int]) -> PartitionHandedOver:
    return PartitionHandedOver(
        workflow_id=None,
        position=None,
        recorded_at=0,
        claim=claim,
        command=-1,
        posted=0,
        worker="w",
        chain=GENESIS,
        partition=0,
        payload=json.dumps(steps),
        due_at=due_at,
    )


def test_steps_of_two_owners_go_on() -> None:
    """Given a partition handed over twice before the first owner's step was heard of, both are waited for."""
    state = folded(
        [claimed(-1), handed_over(0, 50, ("a", 0, 1)), claimed(0), handed_over(2, 90, ("b", 0, 1))]
    )
    assert state.handed == {("a", 0): Handed(1, 50), ("b", 0): Handed(1, 90)}


def test_a_step_that_was_begun_again_is_its_last_owners() -> None:
    """Given a step that the second owner began again since it was not heard of in time, the later time counts."""
    state = folded(
        [claimed(-1), handed_over(0, 50, ("a", 0, 1)), claimed(0), handed_over(2, 90, ("a", 0, 1))]
    )
    assert state.handed == {("a", 0): Handed(1, 90)}
