"""The user's code in the tests of the command line. Tests copy it, and change it, in a directory of their own."""

import asyncio
from pathlib import Path

from refold import Retry, step, step_context, workflow


def note(what: str) -> None:
    """Leave a trace of an execution outside refold."""
    with Path("journal.txt").open("a") as journal:
        journal.write(f"{what}\n")


@step(retry=Retry(attempts=3, initial_s=0.01))
async def charge(order: int) -> str:
    """A step that succeeds at its second attempt."""
    note("charge")
    if step_context().attempt < 2:
        raise ConnectionError("gateway is away")
    return f"payment-{order}"


@step
async def reserve(order: int) -> str:
    """A step that succeeds."""
    note("reserve")
    return f"stock-{order}"


@step
def wait_at(gate: str) -> str:
    """A step that ends when the test says so, at once where the gate is marked as open."""
    note("wait_at")
    return "open" if Path(f"{gate}.open").exists() else Path(gate).read_text()


@workflow
async def checkout(order: int, how: str = "standard") -> dict[str, str]:
    """Two steps at once, a timer, and a result."""
    payment, stock = await asyncio.gather(charge(order), reserve(order))
    await asyncio.sleep(0.01)
    return {"payment": payment, "stock": stock, "how": how}


@workflow
def gated(gate: str) -> str:
    """A step that waits."""
    wait_at(gate)
    return "through"


@workflow
async def failing(order: int) -> str:
    """Fails after a step."""
    await reserve(order)
    raise ValueError("there is no such order")


@step(retry=Retry(attempts=2, initial_s=0.01), on_exhausted="park")
def hopeless() -> None:
    """Fails for as long as the file `mended` is not there."""
    if not Path("mended").exists():
        raise ConnectionError("gateway is down")


@workflow
def parking() -> str:
    """Waits for a person when its step's attempts are used up."""
    hopeless()
    return "mended"


@step
def hold(gate: str) -> int:
    """A step that takes 300 MB until the test says so."""
    block = b"x" * 300_000_000
    Path(gate).read_text()
    return len(block)


@workflow
def heavy(gate: str) -> int:
    """A step that takes much memory."""
    return hold(gate)
