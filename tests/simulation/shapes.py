"""The corpus: workflows of every shape that a user may write, and how each ends whatever happens on the way.

Their steps are real functions. What a step does depends on its arguments, its attempt, and on `Outside` alone, so a
run that is carried out in pieces, by many workers, ends as one that was never disturbed.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic_core import from_json

from refold.engine.definitions import Workflow, run_step, step, workflow
from refold.engine.retry import Retry
from refold.engine.scope import now, sleep_sync, step_context, uuid4
from refold.log.events import Event, StepCompleted, TimerFired, WorkflowCompleted, WorkflowFailed

Expectation = Callable[[Sequence[Event]], str | None]
"""Given a run's stream, what is wrong with its end; None where it ended as it must."""

RETRY = Retry(attempts=3, initial_s=1, jitter=0.5, on=(ConnectionError,))


class Declined(Exception):
    """An error of the user's own."""


@dataclass
class Outside:
    """The world that steps reach out to. `mended`: what `fragile` needs has been repaired."""

    mended: bool = False


outside: ContextVar[Outside] = ContextVar("outside")


@dataclass(frozen=True)
class Shape:
    """A workflow with its input, and how it ends.

    Args:
        workflow: What is started.
        args: Its arguments.
        expected: Judges its end.
        small: Few enough appends to crash at every pair of them.
    """

    workflow: Workflow[..., Any]
    args: tuple[object, ...]
    expected: Expectation
    small: bool = False

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self.workflow.name


# Steps ----------------------------------------------------------------------------------------------------


@step
async def add(a: int, b: int) -> int:
    return a + b


@step
async def echo(text: str) -> str:
    return text


@step
async def slow(text: str) -> str:
    """Takes longer than anybody waits (see `attempts.STEP_US`)."""
    return text


@step
async def lengthy(text: str) -> str:
    """Takes so long that its workflow may be parked and resumed meanwhile."""
    return text


@step(retry=RETRY)
async def flaky(good_at: int) -> int:
    attempt = step_context().attempt
    if attempt < good_at:
        raise ConnectionError(f"attempt {attempt}")
    return attempt


@step(retry=RETRY)
def flaky_write(good_at: int) -> int:
    attempt = step_context().attempt
    if attempt < good_at:
        raise ConnectionError(f"attempt {attempt}")
    return attempt


@step
async def fail(text: str) -> str:
    raise Declined(text)


@step
def fail_plainly(text: str) -> str:
    raise Declined(text)


@step
def write(text: str) -> int:
    return len(text)


@step(retry=Retry(attempts=2, initial_s=1, on=(ConnectionError,)), on_exhausted="park")
async def fragile() -> str:
    if not outside.get().mended:
        raise ConnectionError("out of order")
    return "mended"


# Workflows ------------------------------------------------------------------------------------------------


@workflow
async def nothing() -> str:
    return "nothing"


@workflow
async def sequential(start: int) -> int:
    total = start
    for i in (10, 20, 30):
        total = await add(total, i)
    return total


@workflow
async def gathering(count: int) -> list[int]:
    first = await asyncio.gather(*(add(i, i) for i in range(count)))
    second = await asyncio.gather(*(add(i, 1) for i in first))
    return list(second)


@workflow
async def first_completed() -> str:
    racers = [asyncio.create_task(echo(text), name=text) for text in "abc"]
    done, rest = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    winner = min(task.result() for task in done)
    return await echo(f"won by {winner}")


@workflow
async def as_completed() -> list[str]:
    waits = [echo(text) for text in "abcd"]
    return [await earliest for earliest in asyncio.as_completed(waits)]


@workflow
async def timeout_lost() -> str:
    try:
        async with asyncio.timeout(5):
            return await slow("never")
    except TimeoutError:
        return await echo("timed out")


@workflow
async def timeout_won() -> str:
    async with asyncio.timeout(3_600_000):
        text = await echo("in time")
    await asyncio.sleep(7_200_000)
    return await echo(text)


@workflow
async def sleeping() -> int:
    one = await add(0, 1)
    await asyncio.sleep(1800)
    return await add(one, 1)


@workflow
async def sleeping_beside_steps() -> list[str]:
    async def late() -> str:
        await asyncio.sleep(0.02)
        return await echo("late")

    return sorted(await asyncio.gather(late(), echo("soon"), late()))


@workflow
async def third_time_lucky() -> int:
    return await flaky(3) + await flaky(1)


@workflow
async def used_up() -> int:
    return await flaky(9)


@workflow
async def failing() -> str:
    text = await echo("no")
    raise ValueError(f"{text} good")


@workflow
async def compensating() -> list[str]:
    trail: list[str] = []
    try:
        try:
            trail.append(await echo("book"))
            await fail("full")
        except Declined as error:
            trail.append(await echo(f"undo: {error}"))
            raise ValueError("undone") from error
        finally:
            trail.append(await echo("close"))
    except ValueError as error:
        trail.append(str(error))
    return trail


@workflow
async def nested(depth: int) -> int:
    async def down(level: int) -> int:
        here = await add(level, 0)
        if level == 0:
            return here
        left, right = await asyncio.gather(down(level - 1), down(level - 1))
        return here + left + right

    return await down(depth)


@workflow
async def task_group() -> str:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(slow("a"))
            group.create_task(slow("b"))
            group.create_task(fail("c"))
    except* Declined as errors:
        caught = str(errors.exceptions[0])
    else:
        caught = "nothing"
    return await echo(f"caught {caught}")


@workflow
async def queueing() -> list[str]:
    queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        for text in "xyz":
            await queue.put(await echo(text))
        await queue.put(None)

    producer = asyncio.create_task(produce())
    taken: list[str] = []
    while (text := await queue.get()) is not None:
        taken.append(await echo(text.upper()))
    await producer
    return taken


@workflow
async def looping(count: int) -> int:
    total = 0
    for i in range(count):
        total = await add(total, i)
    return total


@workflow
async def with_lambda(base: int) -> int:
    doubled = await run_step(lambda: base * 2, name="double")
    return await run_step(write.fn, "x" * doubled, name="count")


@workflow
async def cancelling() -> str:
    task = asyncio.create_task(slow("cancelled"))
    first = await echo("go")
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        await asyncio.sleep(7_200_000)
        return await echo(f"{first} on")
    return "not cancelled"


@workflow
async def drawing() -> bool:
    """What a workflow draws and reads off its clock is the same on every replay, or the step would not agree."""
    number, began = uuid4(), now()
    same = await echo(str(number)) == str(number)
    await asyncio.sleep(1)
    read = now()
    same = same and await echo(read.isoformat()) == read.isoformat()
    return same and read - began >= timedelta(seconds=1)


@workflow
def plain(start: str) -> int:
    one = write(start)
    two = write(start * one)
    return one + two + add.sync(one, two)


@workflow
def plain_with_retries() -> list[str]:
    trail = [str(flaky_write(3))]
    try:
        fail_plainly("plain")
    except Declined as error:
        trail.append(str(error))
    try:
        flaky_write(9)
    except ConnectionError as error:
        trail.append(str(error))
    return trail


@workflow
def plain_sleeping() -> int:
    one = write("x")
    sleep_sync(timedelta(hours=1))
    return one + write("yy")


@workflow
def plain_failing() -> int:
    raise Declined(f"after {write('step')}")


@workflow
async def parking() -> str:
    return await echo(await fragile())


@workflow
async def parking_beside() -> list[str]:
    return list(await asyncio.gather(fragile(), lengthy("beside"), echo("soon")))


@workflow(name="changing")
async def changing() -> str:
    return await echo(await echo("first ") + str(await add(1, 1)))


@workflow(name="changing")
async def changed() -> str:
    return await echo(str(await add(1, 1)) + await echo("second "))


# How they end ---------------------------------------------------------------------------------------------


def returns(*allowed: object) -> Expectation:
    """The run returned one of these (as JSON)."""

    def judge(stream: Sequence[Event]) -> str | None:
        last = stream[-1]
        if not isinstance(last, WorkflowCompleted):
            return f"ended with {last}, expected one of {allowed}"
        value = from_json(last.payload)
        return None if value in allowed else f"returned {value!r}, expected one of {allowed}"

    return judge


def raises(error_type: str, message: str) -> Expectation:
    """The run failed with this error."""

    def judge(stream: Sequence[Event]) -> str | None:
        last = stream[-1]
        if isinstance(last, WorkflowFailed) and (
            last.error_type.endswith(f":{error_type}") and last.error_message == message
        ):
            return None
        return f"ended with {last}, expected {error_type}({message!r})"

    return judge


def returns_in_recorded_order(stream: Sequence[Event]) -> str | None:
    """The run returned its steps' results in the order in which the log has them."""
    recorded = [from_json(event.payload) for event in stream if isinstance(event, StepCompleted)]
    return returns(recorded)(stream)


def _won_by_the_first(stream: Sequence[Event]) -> str | None:
    first = next(event for event in stream if isinstance(event, StepCompleted))
    return returns(f"won by {from_json(first.payload)}")(stream)


def without(kind: type[StepCompleted | TimerFired], step: int, then: Expectation) -> Expectation:
    """The run has no such outcome of operation `step`, for what it would tell was cancelled; and ended like that."""

    def judge(stream: Sequence[Event]) -> str | None:
        for event in stream:
            if isinstance(event, kind) and event.step == step:
                return f"was told of what it had cancelled: {event}"
        return then(stream)

    return judge


def _timed_out(stream: Sequence[Event]) -> str | None:
    if not any(isinstance(event, TimerFired) for event in stream):
        return "timed out and no timer has fired"
    return returns("timed out")(stream)


SHAPES: tuple[Shape, ...] = (
    Shape(nothing, (), returns("nothing"), small=True),
    Shape(sequential, (1,), returns(61), small=True),
    Shape(gathering, (3,), returns([1, 3, 5])),
    Shape(first_completed, (), _won_by_the_first, small=True),
    Shape(as_completed, (), returns_in_recorded_order),
    Shape(timeout_lost, (), _timed_out, small=True),
    Shape(timeout_won, (), without(TimerFired, 0, returns("in time")), small=True),
    Shape(sleeping, (), returns(2), small=True),
    Shape(sleeping_beside_steps, (), returns(["late", "late", "soon"])),
    Shape(third_time_lucky, (), returns(4), small=True),
    Shape(used_up, (), raises("ConnectionError", "attempt 3"), small=True),
    Shape(failing, (), raises("ValueError", "no good"), small=True),
    Shape(compensating, (), returns(["book", "undo: full", "close", "undone"])),
    Shape(nested, (2,), returns(4)),
    Shape(task_group, (), returns("caught c"), small=True),
    Shape(queueing, (), returns(["X", "Y", "Z"])),
    Shape(looping, (20,), returns(190)),
    Shape(with_lambda, (3,), returns(6), small=True),
    Shape(cancelling, (), without(StepCompleted, 1, returns("go on")), small=True),
    Shape(drawing, (), returns(True), small=True),
    Shape(plain, ("ab",), returns(12), small=True),
    Shape(plain_with_retries, (), returns(["3", "plain", "attempt 3"])),
    Shape(plain_sleeping, (), returns(3), small=True),
    Shape(plain_failing, (), raises("Declined", "after 4"), small=True),
    Shape(parking, (), returns("mended"), small=True),
    Shape(parking_beside, (), returns(["mended", "beside", "soon"])),
)

CHANGING = Shape(changing, (), returns("first 2", "2second "))
