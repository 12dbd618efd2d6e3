"""Workflows that would wait for one another for ever: refused where it can be seen."""

from engine_trial import engine_on
from log_backend import LogBackend
from refold import WorkflowConflict, run_child, workflow


@workflow
async def asks_its_parent() -> str:
    """Would wait for the run that waits for it."""
    try:
        await run_child(asks_for_a_child, id="parent")
    except WorkflowConflict as error:
        return str(error)
    return "waited for its own parent"


@workflow
async def asks_for_a_child() -> str:
    """Waits for its child."""
    return await run_child(asks_its_parent)


def test_a_child_can_not_start_its_parent(any_backend: LogBackend) -> None:
    """Given a child that starts a run under its parent's id and waits for it, the start is refused, and both end."""
    with engine_on(any_backend, asks_its_parent, asks_for_a_child) as engine:
        said = engine.start(asks_for_a_child, id="parent").result()
    assert "'parent' is taken by a run that this operation did not start" in said
