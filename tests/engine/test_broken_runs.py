"""A stream that can't be followed is kept open, and one order ends it: terminate."""

from refold.engine.fold import evolve
from refold.engine.state import PartitionState, Status
from refold.log.events import StepCompleted, WorkflowTerminated


def broken() -> PartitionState:
    """The fold of a stream whose start is missing."""
    step = StepCompleted(
        workflow_id="lost",
        position=4,
        recorded_at=10,
        claim=-1,
        command=-1,
        posted=0,
        worker="w",
        step=0,
        name="s",
        payload="1",
        attempt=1,
        started_at=9,
    )
    return evolve(PartitionState(), step, 0)


def test_a_broken_run_stays_open() -> None:
    """Given a stream without its start, it is open, parked, and says why."""
    state = broken()
    assert state.open["lost"].status is Status.PARKED
    assert "begins with step.completed" in (state.open["lost"].broken or "")


def test_a_broken_run_can_be_terminated() -> None:
    """Given a broken run, when it is terminated, then it is closed for every later reader."""
    state = broken()
    terminated = WorkflowTerminated(
        workflow_id="lost",
        position=5,
        recorded_at=20,
        claim=-1,
        command=-1,
        posted=0,
        worker="w",
        error_type="e",
        error_message="m",
        payload="{}",
    )
    evolve(state, terminated, 1)
    assert "lost" not in state.open
    assert state.closed["lost"].status is Status.TERMINATED
