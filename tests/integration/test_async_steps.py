"""What an `async def` step finds around it: attempts share a task while they begin, and must not meet there."""

import asyncio
from contextvars import ContextVar

import pytest

from engine_trial import engine_on
from log_backend import LogBackend
from refold import StepTimeout, step, step_context, workflow

COLOUR: ContextVar[str] = ContextVar("colour", default="none")
TASKS: dict[str, "asyncio.Task[object] | None"] = {}


@step
async def paint(colour: str, waits: bool) -> str:
    """Set a context variable; returns what it was before."""
    before = COLOUR.get()
    COLOUR.set(colour)
    if waits:
        await asyncio.sleep(0)
    assert COLOUR.get() == colour
    return before


@workflow
async def paints(waits: bool) -> list[str]:
    together = [paint(colour, waits) for colour in ("red", "green", "blue")]
    return [*await asyncio.gather(*together), await paint("white", waits)]


@pytest.mark.parametrize("waits", [False, True])
def test_each_attempt_has_a_context_of_its_own(backend: LogBackend, waits: bool) -> None:
    """Given steps that set a context variable, none finds what another has set."""
    with engine_on(backend, paints) as engine:
        assert engine.start(paints, waits, id="paints").result() == ["none"] * 4


@step
async def waits_and_says_where(name: str) -> None:
    TASKS[name] = asyncio.current_task()
    await asyncio.sleep(0)
    assert asyncio.current_task() is TASKS[name]


@workflow
async def many_that_wait() -> None:
    await asyncio.gather(*(waits_and_says_where(f"task-{number}") for number in range(20)))


def test_a_step_that_waits_is_alone_in_its_task(backend: LogBackend) -> None:
    """Given steps that wait, each has a task in which no other step ever was: a watchdog can't hit the wrong one."""
    TASKS.clear()
    with engine_on(backend, many_that_wait) as engine:
        engine.start(many_that_wait, id="many").result()
    assert len(set(TASKS.values())) == len(TASKS) == 20


@step
async def cancels_its_task() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return "done"


@step
async def innocent(number: int) -> int:
    await asyncio.sleep(0)
    return number


@workflow
async def cancelled_among_others() -> list[object]:
    return [
        *await asyncio.gather(
            innocent(0), cancels_its_task(), innocent(1), cancels_its_task(), innocent(2)
        )
    ]


def test_a_step_that_cancels_its_own_task_hits_no_other(backend: LogBackend) -> None:
    """Given steps that cancel the task they run in and return, they count, and those begun after them go on."""
    with engine_on(backend, cancelled_among_others) as engine:
        result = engine.start(cancelled_among_others, id="cancelled").result()
    assert result == [0, "done", 1, "done", 2]


@step(timeout_s=0.02)
async def never_ends() -> None:
    async with asyncio.timeout(None):
        await asyncio.Event().wait()


@step
async def knows_itself() -> tuple[str, int]:
    async with asyncio.TaskGroup() as group:
        inner = group.create_task(in_a_task())
    return inner.result()


async def in_a_task() -> tuple[str, int]:
    context = step_context()
    return context.workflow_id, context.step


@workflow
async def times_out() -> list[tuple[str, int]]:
    results = await asyncio.gather(
        knows_itself(), never_ends(), knows_itself(), return_exceptions=True
    )
    assert isinstance(results[1], StepTimeout)
    return [result for result in results if isinstance(result, tuple)]


def test_timeouts_and_task_groups_work_in_steps_begun_together(backend: LogBackend) -> None:
    """Given a step that times out between two with a task group each, it alone fails, and tasks know their step."""
    with engine_on(backend, times_out) as engine:
        result = engine.start(times_out, id="times").result()
    assert result == [("times", 0), ("times", 2)]
