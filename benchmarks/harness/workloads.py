"""The workflows that are measured: steps that add two numbers, so that all the cost is the engine's.

The peer runs the same ones (peer.py).
"""

import asyncio

from refold import Workflow, step, workflow


@step
async def add(a: int, b: int) -> int:
    """The smallest step."""
    return a + b


@step
def add_blocking(a: int, b: int) -> int:
    """The smallest step, as a plain function: it runs in a thread."""
    return a + b


@workflow
async def total(steps: int) -> int:
    """Add up 0, 1, 2, ..., each addition a step."""
    result = 0
    for number in range(steps):
        result = await add(result, number)
    return result


@workflow
def total_blocking(steps: int) -> int:
    """`total` as a plain function: it runs in a thread."""
    result = 0
    for number in range(steps):
        result = add_blocking(result, number)
    return result


class Gate:
    """Where runs are held in a last step that never ends, and counted.

    Args:
        expected: How many runs there are.
    """

    def __init__(self, expected: int) -> None:
        self.executed = 0  # additions carried out in this process
        self.all_held = asyncio.Event()
        self._held = 0
        self._expected = expected

    async def hold(self) -> None:
        """Wait until the process is killed."""
        self._held += 1
        if self._held == self._expected:
            self.all_held.set()
        await asyncio.get_running_loop().create_future()


ADD = "add"
HELD = "held"


def held_at(gate: Gate) -> Workflow[[int], int]:
    """`total`, with a last step that ends in `gate`."""

    @step(name=ADD)
    async def counted_add(a: int, b: int) -> int:
        gate.executed += 1
        return a + b

    @step(name="hold")
    async def hold() -> None:
        await gate.hold()

    @workflow(name=HELD)
    async def held(steps: int) -> int:
        result = 0
        for number in range(steps):
            result = await counted_add(result, number)
        await hold()
        return result

    return held
