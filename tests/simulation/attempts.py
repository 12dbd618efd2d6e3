"""Steps carried out as `engine/steps.py` does, without threads and event loop: each to its end at once."""

import asyncio
from asyncio.events import (
    _get_running_loop,  # pyright: ignore[reportPrivateUsage] - `asyncio.to_thread` in a step asks for it
    _set_running_loop,  # pyright: ignore[reportPrivateUsage]
)
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

from tests.simulation.turns import finish

from refold.engine.effects import AttemptFailed, Launch, StepResult, Succeeded
from refold.engine.failures import capture
from refold.engine.scope import StepContext, enter

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NAMESPACE = "simulation"
SECOND_US = 1_000_000

STEP_US = {"slow": 3_600_000 * SECOND_US, "lengthy": 20 * SECOND_US}
"""How long steps take, by name; others take up to `MAX_STEP_US`."""
MAX_STEP_US = SECOND_US // 20


@dataclass(slots=True)
class Attempt:
    """A step's attempt under way in a worker."""

    launch: Launch
    began_at_us: int
    done_at_us: int


class _StepLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as `asyncio.to_thread` needs; the "thread" is the caller's own."""

    def get_debug(self) -> bool:
        """Futures ask."""
        return False

    def run_in_executor(
        self, executor: object, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Call it now."""
        future: asyncio.Future[T] = asyncio.Future(loop=self)
        future.set_result(func(*args))
        return future


def carry_out(attempt: Attempt, write: Callable[[str, str], None]) -> StepResult:
    """Call a step's function, as `engine/steps.py` does, to its end at once.

    Args:
        attempt: What is carried out.
        write: Told of each item (JSON) that it writes, with the stream's name before it.
    """
    launch, began_at_us = attempt.launch, attempt.began_at_us
    call = launch.call
    context = StepContext(
        namespace=NAMESPACE,
        workflow_id=launch.workflow_id,
        step=launch.step,
        attempt=launch.attempt,
        write=lambda _, stream, item: write(stream, item),
    )
    outer = _get_running_loop()
    _set_running_loop(_StepLoop())  # type: ignore[abstract]  # it is not, at run time
    try:
        with enter(context):
            value = call.call()
            if call.is_async:
                value = finish(value)
            return Succeeded(call.result_type.encode(value), began_at_us)
    except Exception as error:  # noqa: BLE001 - whatever a step raises is its recorded outcome
        retry = call.options.retry
        return AttemptFailed(
            capture(error), retry is not None and retry.retries(error), began_at_us
        )
    finally:
        _set_running_loop(outer)
