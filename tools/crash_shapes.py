"""Workflows of every shape, for tests that kill workers: each step writes a line into a journal as it begins.

The journal is a file beside the log and knows nothing of it. A line is written with one `write` to a file opened for
appending, so lines of several processes never mix, and what was written is there whenever the writer is killed.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from refold import Handle, Retry, Workflow, sleep_sync, step, step_context, workflow
from refold.engine.session import GRACE_S

JOURNAL = "REFOLD_CRASH_JOURNAL"
"""Environment variable: the journal's path. Beside it, a file with FREEZE's suffix asks for a stopped process."""

FREEZE = ".freeze"

LINGER_S = 4 * GRACE_S


@dataclass(frozen=True, slots=True)
class Mark:
    """What a step returns: the value asked for, and a token that no other execution of it has."""

    value: int
    token: str


def begin(value: int) -> Mark:
    """Write that this attempt has begun."""
    context = step_context()
    pid, now_ns = os.getpid(), time.time_ns()
    line = f"{context.workflow_id} {context.step} {context.attempt} {pid} {now_ns}\n"
    descriptor = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
    return Mark(value, f"{pid}-{now_ns}")


@step
async def mark(value: int) -> Mark:
    """An `async def` step."""
    return begin(value)


@step
def mark_in_thread(value: int) -> Mark:
    """A `def` step."""
    return begin(value)


@step(retry=Retry(attempts=5, initial_s=0.001, backoff=1, on=(ConnectionError,)))
async def flaky(value: int, failures: int) -> Mark:
    """A step whose first attempts fail."""
    begun = begin(value)
    if step_context().attempt <= failures:
        raise ConnectionError(f"attempt {step_context().attempt} of {value}")
    return begun


@step
def freeze_once(value: int) -> Mark:
    """A step that stops the process which runs it first, and nobody after."""
    begun = begin(value)
    try:
        Path(os.environ[JOURNAL] + FREEZE).unlink()
    except FileNotFoundError:
        return begun
    os.kill(os.getpid(), signal.SIGSTOP)
    return begun


@workflow
async def sequential(n: int) -> list[Mark]:
    """One step after the other."""
    return [await mark(10 * n + i) for i in range(6)]


@workflow
async def fan_out(n: int) -> list[Mark]:
    """Several at once, in threads, and one after them."""
    marks = await asyncio.gather(*(mark_in_thread.aio(10 * n + i) for i in range(5)))
    return [*marks, await mark(10 * n + 5)]


@workflow
def blocking(n: int) -> list[Mark]:
    """A `def` workflow, with a timer."""
    marks = [mark_in_thread(10 * n + i) for i in range(3)]
    sleep_sync(0.01)
    return [*marks, mark.sync(10 * n + 3)]


@workflow
async def retried(n: int) -> list[Mark]:
    """Steps that need several attempts."""
    return [await flaky(10 * n, 2), await mark(10 * n + 1), await flaky(10 * n + 2, 1)]


@workflow
async def paused(n: int) -> list[Mark]:
    """A timer between two steps."""
    before = await mark(10 * n)
    await asyncio.sleep(0.02)
    return [before, await mark(10 * n + 1)]


@workflow
async def race(n: int) -> list[Mark]:
    """The first of three goes on, the others are given up."""
    tasks = [asyncio.ensure_future(mark_in_thread.aio(10 * n + i)) for i in range(3)]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    winner = next(task for task in tasks if task in done)
    return [winner.result(), await mark(10 * n + 3)]


@workflow
async def failing(n: int) -> list[Mark]:
    """It raises, after a step."""
    await mark(n)
    raise ValueError(f"run {n} was made to fail")


@step
async def linger(value: int) -> Mark:
    """A step that is under way for longer than an owner waits that is to give its partition up."""
    begun = begin(value)
    await asyncio.sleep(LINGER_S)
    return begun


@step
def linger_in_thread(value: int) -> Mark:
    """The same in a thread."""
    begun = begin(value)
    time.sleep(LINGER_S)
    return begun


@workflow
async def lingering(n: int) -> list[Mark]:
    """Long steps, two at a time."""
    two = await asyncio.gather(linger(10 * n), linger_in_thread.aio(10 * n + 1))
    return [*two, await linger(10 * n + 2), await mark(10 * n + 3)]


@workflow
async def freezing(n: int) -> list[Mark]:
    """Its second step may stop the whole process."""
    return [await mark(10 * n), await freeze_once.aio(10 * n + 1), await mark(10 * n + 2)]


Verdict = Callable[[int, list[Mark] | Exception], bool]
"""Whether a run with this input may have ended so."""

Visit = Callable[[Handle[list[Mark]], int, Random], Awaitable[Sequence[str]]]
"""What a client has to do with a run that it has started with this input. Gives the ids of the messages that it sent
and that were acknowledged."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A workflow and what is known of its runs.

    Args:
        workflow: The workflow; its first input is a number, and there need be no other.
        last_step: Operation number of its last step: when that begins, the run is nearly over. None where that is not
            known: then it is nearly over when the visit is.
        is_right: Judges how a run ended, by its input.
        visit: What a client does with a run besides starting it.
    """

    workflow: Workflow[..., list[Mark]]
    last_step: int | None
    is_right: Verdict
    visit: Visit | None = None


def gives(values: Callable[[int], Sequence[int]]) -> Verdict:
    """The run returns marks of these values, by its input."""

    def judge(n: int, result: list[Mark] | Exception) -> bool:
        return not isinstance(result, Exception) and [made.value for made in result] == values(n)

    return judge


def counts(steps: int) -> Verdict:
    """The run returns so many marks, from ten times its input on."""
    return gives(lambda n: [10 * n + i for i in range(steps)])


def _raced(n: int, result: list[Mark] | Exception) -> bool:
    if isinstance(result, Exception) or len(result) != 2:
        return False
    return result[0].value in range(10 * n, 10 * n + 3) and result[1].value == 10 * n + 3


def _failed(n: int, result: list[Mark] | Exception) -> bool:
    return repr(result) == repr(ValueError(f"run {n} was made to fail"))


SHAPES = (
    Shape(sequential, 5, counts(6)),
    Shape(fan_out, 5, counts(6)),
    Shape(blocking, 4, counts(4)),
    Shape(retried, 2, counts(3)),
    Shape(paused, 2, counts(2)),
    Shape(race, 3, _raced),
    Shape(failing, 0, _failed),
)
LINGERING = Shape(lingering, 3, counts(4))
FREEZING = Shape(freezing, 2, counts(3))
WORKFLOWS = [shape.workflow for shape in (*SHAPES, LINGERING, FREEZING)]
