"""Cancelling, pausing and terminating a run: who asked, and why, stands in its history.

    python examples/cancelling.py

A cancelled workflow hears of it where it waits, as `asyncio.CancelledError` (in a plain `def`, `WorkflowCancelled`),
and may run steps that undo what was done. Terminating does not ask.
"""

import asyncio

from refold import (
    Engine,
    WorkflowCancelled,
    WorkflowTerminated,
    publish,
    receive,
    step,
    workflow,
)


@step
def reserve(seat: str) -> str:
    """Takes a seat."""
    return f"seat {seat} reserved"


@step
def release(seat: str) -> str:
    """Gives it back."""
    return f"seat {seat} released"


@workflow
async def booking(seat: str) -> str:
    """Hold a seat until it is paid for."""
    publish("state", await reserve.aio(seat))
    try:
        await receive("payment", int)
    except asyncio.CancelledError:
        publish("state", await release.aio(seat))
        raise
    return "paid"


if __name__ == "__main__":
    with Engine("memory://") as engine:
        first = engine.start(booking, "12A")
        print(first.value("state", str))
        first.pause(reason="the till is broken")
        print(first.status().status)
        first.resume()
        first.cancel(reason="the guest has changed his mind")
        try:
            first.result()
        except WorkflowCancelled as error:
            print("cancelled:", str(error).rsplit(": ", 1)[-1])
        print(first.value("state", str))

        second = engine.start(booking, "12B")
        second.terminate(reason="closing time")
        try:
            second.result()
        except WorkflowTerminated as error:
            print("terminated:", str(error).rsplit(": ", 1)[-1])
