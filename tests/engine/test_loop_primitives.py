"""Every asyncio primitive gives what was recorded, in the recorded order, on the first run and on each replay."""

import asyncio
import contextvars
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from refold.engine.definitions import step, workflow
from run_driver import Driver


@step
async def ask(name: str) -> str:
    raise AssertionError("a run never carries out a step by itself")


async def gather() -> list[str]:
    return await asyncio.gather(ask("a"), ask("b"), ask("c"))


async def gather_with_errors() -> list[str]:
    results = await asyncio.gather(ask("a"), ask("b"), return_exceptions=True)
    return [str(result) for result in results]


async def gather_first_error() -> list[str]:
    try:
        return await asyncio.gather(ask("a"), ask("b"))
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
            seen.append(await result)
    except TimeoutError:
        seen.append("late")
    return seen


async def task_group() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(name)) for name in "abc"]
    return [task.result() for task in tasks]


async def task_group_that_fails() -> list[str]:
    try:
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(ask(name))
    except* ValueError as errors:
        return [str(error) for error in errors.exceptions]
    return []


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
            seen.append(await items.get())

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

# What happens, in order: "0" completes operation 0 with its step's argument, "0!" fails it, "0." fires its timer.
CASES: list[tuple[Program, str, list[str]]] = [
    (gather, "2 0 1", ["a", "b", "c"]),
    (gather_with_errors, "1! 0", ["a", "b failed"]),
    (gather_first_error, "1! 0 2", ["b failed", "c"]),
    (wait_first, "1 2 0", ["b", "c", "a"]),
    (wait_with_timeout, "2 3.", ["c"]),
    (wait_with_timeout, "2 0 1", ["a", "b", "c"]),
    (as_completed, "2 0 1", ["c", "a", "b"]),
    (as_completed_of_tasks, "1 0 2", ["b", "a", "c"]),
    (task_group, "2 1 0", ["a", "b", "c"]),
    (task_group_that_fails, "0 1!", ["b failed"]),
    (timeout, "1", ["a"]),
    (timeout, "0. 2", ["late", "b"]),
    (shield, "0", ["in time"]),
    (event, "0", ["a", "x", "y"]),
    (lock, "0 1 2", ["a", "b", "c"]),
    (queue, "1 2 0", ["b", "c", "a"]),
    (semaphore, "1 2 0 3", ["b", "c", "a", "d"]),
    (condition, "1 0", ["b", "a", "x", "y"]),
    (barrier, "2 0 1", ["c", "a", "b", "b met", "c met", "a met"]),
    (sleeps, "1. 0.", ["none", "short", "long"]),
    (later, "1 0", ["b", "a"]),
    (later, "0 1", ["b", "a"]),
    (cancelled_task, "1 2", ["b", "cancelled", "c"]),
    (cancelled_task, "1 0 2", ["b", "cancelled", "c"]),
    (context_variables, "1 0", ["a", "b", "nobody"]),
    (asynchronous_generator, "0 1 2", ["a", "b", "c"]),
    (asynchronous_generator_left_open, "0 1", ["a", "d"]),
]
