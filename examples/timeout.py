"""Two kinds of limit: on one attempt of a step, and on a part of a workflow.

    python examples/timeout.py

`timeout_s` ends an attempt and raises `StepTimeout` in the workflow. `asyncio.timeout`, Python's own, starts a durable
timer: what it cuts off on the first run it cuts off at the same place on every replay.
"""

import asyncio

from refold import Engine, StepTimeout, step, workflow

PATIENCE_S = 0.2


@step(timeout_s=PATIENCE_S)
async def ask_the_slow_one() -> str:
    """Asks somebody who does not answer."""
    await asyncio.Event().wait()
    return "never said"


@step
async def ask_without_a_limit() -> str:
    """The same, with no limit of its own."""
    await asyncio.Event().wait()
    return "never said"


@step
def look_it_up() -> str:
    """What one does instead."""
    return "the answer from the book"


@workflow
async def find_out() -> list[str]:
    """Ask, and give up in time."""
    told: list[str] = []
    try:
        told.append(await ask_the_slow_one())
    except StepTimeout:
        told.append("the step took too long")
    try:
        async with asyncio.timeout(PATIENCE_S):
            told.append(await ask_without_a_limit())
    except TimeoutError:
        told.append("the workflow stopped waiting")
    told.append(await look_it_up.aio())
    return told


if __name__ == "__main__":
    with Engine("memory://") as engine:
        for line in engine.start(find_out).result():
            print(line)
