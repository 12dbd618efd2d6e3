"""Every asyncio primitive gives what was recorded, in the recorded order, on the first run and on each replay."""

import asyncio
import contextvars
import gc
import inspect
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from types import FunctionType
from typing import Any

import pytest

from refold.engine.definitions import step, workflow
from run_driver import Driver


@step
async def ask(name: str) -> str:
    raise AssertionError("a run never carries out a step by itself")


async def gather() -> list[str]:
    return list(await asyncio.gather(ask("a"), ask("b"), ask("c")))


async def gather_with_errors() -> list[str]:
    results = await asyncio.gather(ask("a"), ask("b"), return_exceptions=True)
    return [str(result) for result in results]


async def gather_first_error() -> list[str]:
    try:
        return list(await asyncio.gather(ask("a"), ask("b")))
    except ValueError as error:
        return [str(error), await ask("c")]


async def wait_first() -> list[str]:
    pending: set[asyncio.Task[str]] = {asyncio.create_task(ask(name)) for name in "abc"}
    seen: list[str] = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        seen += [task.result() for task in done]
    return seen


async def wait_with_timeout() -> list[str]:
    tasks = [asyncio.create_task(ask(name)) for name in "abc"]
    done, pending = await asyncio.wait(tasks, timeout=30)
    for task in pending:
        task.cancel()
    return sorted(task.result() for task in done)


async def as_completed() -> list[str]:
    return [await result for result in asyncio.as_completed([ask(name) for name in "abc"])]


async def as_completed_of_tasks() -> list[str]:
    tasks = [asyncio.create_task(ask(name)) for name in "abc"]
    return [await result for result in asyncio.as_completed(tasks)]


async def as_completed_with_timeout() -> list[str]:
    seen: list[str] = []
    try:
        for result in asyncio.as_completed([ask(name) for name in "abc"], timeout=30):
            seen.append(await result)  # noqa: PERF401 - the loop is left half-way
    except TimeoutError:
        seen.append("late")
    return seen


async def task_group() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(name)) for name in "abc"]
    return [task.result() for task in tasks]


async def task_group_that_fails() -> list[str]:
    seen: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(ask(name))
    except* ValueError as errors:
        seen += [str(error) for error in errors.exceptions]
    return seen


async def timeout() -> list[str]:
    try:
        async with asyncio.timeout(30):
            return [await ask("a")]
    except TimeoutError:
        return ["late", await ask("b")]


async def wait_for() -> list[str]:
    try:
        return [await asyncio.wait_for(ask("a"), 30)]
    except TimeoutError:
        return ["late", await ask("b")]


async def shield() -> list[str]:
    inner = asyncio.ensure_future(ask("a"))
    try:
        await asyncio.wait_for(asyncio.shield(inner), 30)
    except TimeoutError:
        return ["late", await inner]
    return ["in time"]


async def event() -> list[str]:
    seen: list[str] = []
    ready = asyncio.Event()

    async def waiter(name: str) -> None:
        await ready.wait()
        seen.append(name)

    async with asyncio.TaskGroup() as group:
        for name in "xy":
            group.create_task(waiter(name))
        seen.append(await ask("a"))
        ready.set()
    return seen


async def lock() -> list[str]:
    seen: list[str] = []
    one_at_a_time = asyncio.Lock()

    async def worker(name: str) -> None:
        async with one_at_a_time:
            seen.append(await ask(name))

    await asyncio.gather(*(worker(name) for name in "abc"))
    return seen


async def queue() -> list[str]:
    seen: list[str] = []
    items: asyncio.Queue[str] = asyncio.Queue(maxsize=1)

    async def producer(name: str) -> None:
        await items.put(await ask(name))

    async def consumer() -> None:
        for _ in "abc":
            seen.append(await items.get())  # noqa: PERF401 - while others append as well

    await asyncio.gather(consumer(), *(producer(name) for name in "abc"))
    return seen


async def semaphore() -> list[str]:
    seen: list[str] = []
    two = asyncio.Semaphore(2)

    async def worker(name: str) -> None:
        async with two:
            seen.append(await ask(name))

    await asyncio.gather(*(worker(name) for name in "abcd"))
    return seen


async def condition() -> list[str]:
    seen: list[str] = []
    changed = asyncio.Condition()

    async def waiter(name: str) -> None:
        async with changed:
            await changed.wait_for(lambda: len(seen) >= 2)
        seen.append(name)

    async def worker(name: str) -> None:
        result = await ask(name)
        async with changed:
            seen.append(result)
            changed.notify_all()

    await asyncio.gather(waiter("x"), waiter("y"), *(worker(name) for name in "ab"))
    return seen


async def barrier() -> list[str]:
    seen: list[str] = []
    meeting = asyncio.Barrier(3)

    async def worker(name: str) -> None:
        seen.append(await ask(name))
        await meeting.wait()
        seen.append(f"{name} met")

    await asyncio.gather(*(worker(name) for name in "abc"))
    return seen


async def sleeps() -> list[str]:
    seen: list[str] = []

    async def sleeper(name: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        seen.append(name)

    await asyncio.gather(sleeper("long", 60), sleeper("short", 30), sleeper("none", 0))
    return seen


async def later() -> list[str]:
    first = asyncio.create_task(ask("a"))
    second = await ask("b")
    return [second, await first]


async def cancelled_task() -> list[str]:
    task = asyncio.create_task(ask("a"))
    seen = [await ask("b")]
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        seen.append("cancelled")
    return [*seen, await ask("c")]


_customer: contextvars.ContextVar[str] = contextvars.ContextVar("customer", default="nobody")


async def context_variables() -> list[str]:
    async def visit(name: str) -> str:
        _customer.set(name)
        await ask(name)
        return _customer.get()

    visits = await asyncio.gather(*(visit(name) for name in "ab"))
    return [*visits, _customer.get()]


async def asynchronous_generator() -> list[str]:
    async def results() -> AsyncIterator[str]:
        for name in "abc":
            yield await ask(name)

    return [result async for result in results()]


async def asynchronous_generator_left_open() -> list[str]:
    async def results() -> AsyncIterator[str]:
        for name in "abc":
            yield await ask(name)

    async for result in results():
        return [result, await ask("d")]
    return []


Program = Callable[[], Coroutine[Any, Any, list[str]]]

# What happens, in order: "a" completes the step that was asked for "a", "a!" fails it, "30s" fires the timer that is
# due 30 seconds after the start.
CASES: list[tuple[Program, str, list[str]]] = [
    (gather, "c a b", ["a", "b", "c"]),
    (gather_with_errors, "b! a", ["a", "b failed"]),
    (gather_first_error, "b! c", ["b failed", "c"]),
    (gather_first_error, "b! a c", ["b failed", "c"]),
    (wait_first, "b c a", ["b", "c", "a"]),
    (wait_with_timeout, "c 30s", ["c"]),
    (wait_with_timeout, "c 30s a b", ["c"]),
    (wait_with_timeout, "c a b", ["a", "b", "c"]),
    (as_completed, "c a b", ["c", "a", "b"]),
    (as_completed_of_tasks, "b a c", ["b", "a", "c"]),
    (as_completed_with_timeout, "b 30s", ["b", "late"]),
    (as_completed_with_timeout, "c b a", ["c", "b", "a"]),
    (task_group, "c b a", ["a", "b", "c"]),
    (task_group_that_fails, "a b!", ["b failed"]),
    (timeout, "a", ["a"]),
    (timeout, "30s b", ["late", "b"]),
    (timeout, "30s a b", ["late", "b"]),
    (wait_for, "a", ["a"]),
    (wait_for, "30s b", ["late", "b"]),
    (shield, "a", ["in time"]),
    (shield, "30s a", ["late", "a"]),
    (event, "a", ["a", "x", "y"]),
    (lock, "a b c", ["a", "b", "c"]),
    (queue, "b c a", ["b", "c", "a"]),
    (semaphore, "b c a d", ["b", "c", "a", "d"]),
    (condition, "b a", ["b", "a", "x", "y"]),
    (barrier, "c a b", ["c", "a", "b", "b met", "c met", "a met"]),
    (sleeps, "30s 60s", ["none", "short", "long"]),
    (sleeps, "60s 30s", ["none", "long", "short"]),
    (later, "b a", ["b", "a"]),
    (later, "a b", ["b", "a"]),
    (cancelled_task, "b c", ["b", "cancelled", "c"]),
    (cancelled_task, "b a c", ["b", "cancelled", "c"]),
    (context_variables, "b a", ["a", "b", "nobody"]),
    (asynchronous_generator, "a b c", ["a", "b", "c"]),
    (asynchronous_generator_left_open, "a d", ["a", "d"]),
]


def drive(program: Program, story: str) -> Driver:
    driver = Driver.begin(workflow(program))
    for happening in story.split():
        happen(driver, happening)
    return driver


def happen(driver: Driver, happening: str) -> None:
    if happening.endswith("s"):
        driver.fire(driver.timer_due(float(happening[:-1])))
    elif happening.endswith("!"):
        name = happening[:-1]
        driver.fail(driver.step_with(name), ValueError(f"{name} failed"))
    else:
        driver.complete(driver.step_with(happening), happening)


@pytest.mark.parametrize(
    ("program", "story", "expected"),
    CASES,
    ids=[f"{program.__name__}: {story}" for program, story, _ in CASES],
)
def test_a_primitive_follows_the_recorded_order(
    program: Program, story: str, expected: list[str]
) -> None:
    """Given outcomes in an order, the code sees that order; told any part of it first, a replay ends the same."""
    driver = drive(program, story)

    assert json.loads(driver.result()) == expected
    driver.check_replays()


def test_every_program_has_a_case() -> None:
    """A program without a case would be no test."""
    programs = {
        value
        for name, value in globals().items()
        if isinstance(value, FunctionType) and inspect.iscoroutinefunction(value) and name[0] != "_"
    }

    assert programs == {program for program, _, _ in CASES}


ORDER_OF_SETS = """
import asyncio
from refold.engine.definitions import step, workflow
from run_driver import Driver

@step
async def ask(name: str) -> str: ...

@workflow
async def order_of_sets() -> list[str]:
    tasks = {asyncio.create_task(ask(f"task {n}"), name=str(n)) for n in range(60)}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        await ask("after " + task.get_name())
        task.cancel()
    waiting = {asyncio.get_running_loop().create_future(): n for n in range(20)}
    done, pending = await asyncio.wait(set(waiting), timeout=1)
    for future in pending:
        await ask(f"future {waiting[future]}")
    for answer in asyncio.as_completed([ask(f"answer {n}") for n in range(60)]):
        await answer
    return []

driver = Driver.begin(order_of_sets)
while driver.ending is None:
    number = driver.open[-1]
    request = driver.request(number)
    if request.name == "timer":
        driver.fire(number)
    else:
        print(number, request.call.call.args)
        driver.complete(number, "done")
print(driver.result())
"""


def test_the_order_of_sets_is_the_same_in_every_process() -> None:
    """Given other hash seeds and addresses, the tasks in asyncio's sets and those of as_completed come in one order."""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", f"padding = [object() for _ in range({salt})]\n{ORDER_OF_SETS}"],
            env={"PYTHONHASHSEED": str(salt), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in (1, 20_000, 300_001)
    }

    assert len(outputs) == 1
    assert outputs.pop().count("\n") > 100


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["map", "set"])
def test_as_completed_without_an_order_is_refused(kind: str) -> None:
    """Given coroutines in an iterator or a set, as_completed fails at once and says to pass a list."""

    @workflow
    async def unordered() -> None:
        coroutines = map(ask, "ab")
        for result in asyncio.as_completed(coroutines if kind == "map" else set(coroutines)):
            await result

    error = Driver.begin(unordered).error()
    gc.collect()  # the coroutines that were in the map are lost: Python warns of them here

    assert error.error_type.endswith(":UsageError")
    assert f"a {kind} of coroutines" in error.error_message
    assert "give it a list" in error.error_message
