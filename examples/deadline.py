"""Time: sleeping until an hour, and a deadline for a whole run, children included.

    python examples/deadline.py

A sleeping workflow holds neither a thread nor memory for its code, be it for seconds or for months. When a deadline
passes, the run is cancelled as if somebody had asked: its code hears of it where it waits, and may clean up.
"""

from datetime import timedelta

from refold import (
    Engine,
    WorkflowCancelled,
    now,
    run_child,
    sleep,
    sleep_until,
    step,
    workflow,
)


@step
def note(line: str) -> None:
    """Something worth doing once."""
    print(line)


@workflow
async def remind(text: str) -> None:
    """Wait for the right moment, then speak."""
    await sleep_until(now() + timedelta(milliseconds=50))
    await note.aio(f"reminder: {text}")


@workflow
async def errand() -> None:
    """Would take a month."""
    try:
        await sleep(timedelta(days=30))
    finally:
        await note.aio("the errand tidies up")


@workflow
async def household() -> None:
    """Wait for a child, whose id is its parent's and the operation's number; the parent's deadline is its own too."""
    await run_child(errand)


if __name__ == "__main__":
    with Engine("memory://") as engine:
        engine.start(remind, "tea is ready").result()
        family = engine.start(household, id="home", deadline=timedelta(seconds=2))
        for run in (engine.handle("home/0"), family):
            try:
                run.result()
            except WorkflowCancelled as error:
                print(error)
