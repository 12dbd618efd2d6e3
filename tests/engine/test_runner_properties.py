"""Whatever an `async def` workflow does with asyncio, and in whatever order outcomes come, a replay does the same.

Programs are trees of asyncio's primitives over steps; hypothesis makes them, and the order of the outcomes. (A failing
example is printed with the blob that brings it back.)
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refold.engine.definitions import step, workflow
from refold.engine.operations import Returned, Stuck, TimerRequest
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import ThreadSlots
from run_driver import Driver


@step
async def ask(number: int) -> int:
    raise AssertionError("a run never carries out a step by itself")


@step
def ask_plainly(number: int) -> int:
    raise AssertionError("a run never carries out a step by itself")


@dataclass(frozen=True)
class Node:
    """One node of a program.

    Args:
        kind: Which primitive.
        parts: The programs within it.
        delay_s: Its timer, where it has one.
    """

    kind: str
    parts: tuple["Node", ...] = ()
    delay_s: float = 0.0


async def execute(node: Node, seen: list[str]) -> int:
    """Run a program; what it sees, in the order in which it sees it, goes to `seen`."""
    result = await KINDS[node.kind](node, seen)
    seen.append(f"{node.kind} {result}")
    return result


def _each(node: Node, seen: list[str]) -> list[Any]:
    return [execute(part, seen) for part in node.parts]


def _tasks(node: Node, seen: list[str]) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(coroutine) for coroutine in _each(node, seen)]


async def _step(node: Node, seen: list[str]) -> int:
    try:
        return await ask(len(seen))
    except ValueError:
        return -1


async def _sleep(node: Node, seen: list[str]) -> int:
    await asyncio.sleep(node.delay_s)
    return 1


async def _sequence(node: Node, seen: list[str]) -> int:
    return sum([await execute(part, seen) for part in node.parts])


async def _gather(node: Node, seen: list[str]) -> int:
    return sum(await asyncio.gather(*_each(node, seen)))


async def _group(node: Node, seen: list[str]) -> int:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in _each(node, seen)]
    return sum(task.result() for task in tasks)


async def _first(node: Node, seen: list[str]) -> int:
    done, pending = await asyncio.wait(
        _tasks(node, seen), timeout=node.delay_s, return_when=asyncio.FIRST_COMPLETED
    )
    for task in pending:
        task.cancel()
        await ask(len(seen))
    return sum(task.result() for task in done)


async def _as_completed(node: Node, seen: list[str]) -> int:
    total = 0
    for number, coroutine in enumerate(asyncio.as_completed(_each(node, seen))):
        total += number * await coroutine
    return total


async def _timeout(node: Node, seen: list[str]) -> int:
    try:
        async with asyncio.timeout(node.delay_s):
            return await _sequence(node, seen)
    except TimeoutError:
        return await ask(len(seen))


async def _wait_for(node: Node, seen: list[str]) -> int:
    try:
        return await asyncio.wait_for(_gather(node, seen), node.delay_s)
    except TimeoutError:
        return -2


async def _shield(node: Node, seen: list[str]) -> int:
    inner = asyncio.ensure_future(_gather(node, seen))
    try:
        async with asyncio.timeout(node.delay_s):
            return await asyncio.shield(inner)
    except TimeoutError:
        return 1 + await inner


async def _queue(node: Node, seen: list[str]) -> int:
    results: asyncio.Queue[int] = asyncio.Queue(maxsize=1)

    async def produce(part: Node) -> None:
        await results.put(await execute(part, seen))

    producers = [asyncio.create_task(produce(part)) for part in node.parts]
    total = 0
    for number in range(len(producers)):
        total += number * await results.get()
    return total


async def _lock(node: Node, seen: list[str]) -> int:
    lock = asyncio.Lock()

    async def locked(part: Node) -> int:
        async with lock:
            return await execute(part, seen)

    return sum(await asyncio.gather(*(locked(part) for part in node.parts)))


async def _event(node: Node, seen: list[str]) -> int:
    event = asyncio.Event()

    async def waiter() -> int:
        await event.wait()
        return await ask(len(seen))

    waiting = asyncio.create_task(waiter())
    total = await _sequence(node, seen)
    event.set()
    return total + await waiting


async def _background(node: Node, seen: list[str]) -> int:
    tasks = _tasks(node, seen)
    result = await ask(len(seen))
    del tasks  # left to themselves, perhaps until after the workflow's end
    return result


KINDS: dict[str, Callable[[Node, list[str]], Awaitable[int]]] = {
    "step": _step,
    "sleep": _sleep,
    "sequence": _sequence,
    "gather": _gather,
    "group": _group,
    "first": _first,
    "as completed": _as_completed,
    "timeout": _timeout,
    "wait for": _wait_for,
    "shield": _shield,
    "queue": _queue,
    "lock": _lock,
    "event": _event,
    "background": _background,
}

DELAYS = st.sampled_from([0.5, 1.0, 2.0, 5.0, 60.0])
LEAVES = st.one_of(st.just(Node("step")), st.builds(Node, st.just("sleep"), delay_s=DELAYS))
PROGRAMS = st.recursive(
    LEAVES,
    lambda parts: st.builds(
        Node,
        st.sampled_from(sorted(KINDS.keys() - {"step", "sleep"})),
        st.lists(parts, min_size=1, max_size=4).map(tuple),
        DELAYS,
    ),
    max_leaves=12,
)


def live_through(driver: Driver, choices: Sequence[int]) -> None:
    """Answer open requests, in an order that `choices` tells, until the run ends."""
    for turn in range(1_000):
        if driver.ending is not None:
            return
        choice = choices[turn % len(choices)] + turn
        number = driver.open[choice % len(driver.open)]
        if isinstance(driver.request(number), TimerRequest):
            driver.fire(number)
        elif choice % 7 == 6:
            driver.fail(number, ValueError("failed"))
        else:
            driver.complete(number, choice % 10)
    raise AssertionError("the program does not end")


CHOICES = st.lists(st.integers(0, 1_000), min_size=1, max_size=20)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=PROGRAMS, choices=CHOICES)
def test_a_replay_of_any_part_asks_for_the_same_and_ends_the_same(
    program: Node, choices: list[int]
) -> None:
    """Given any program and any order of outcomes, every prefix replays to the same requests, and goes on the same."""

    @workflow
    async def generated() -> list[str]:
        seen: list[str] = []
        try:
            await execute(program, seen)
        except (ValueError, ExceptionGroup) as error:
            seen.append(repr(error))
        return seen

    driver = Driver.begin(generated)
    live_through(driver, choices)

    # A failed producer leaves its consumer waiting for ever: that too has to come out the same.
    assert isinstance(driver.ending, Returned | Stuck)
    assert list(driver.asked) == sorted(driver.asked), "numbers are given in order"
    assert sorted(driver.asked) == list(range(len(driver.asked))), "and none is left out"
    driver.check_replays()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=PROGRAMS, choices=CHOICES, stop_after=st.integers(0, 20))
def test_a_run_can_be_closed_anywhere(program: Node, choices: list[int], stop_after: int) -> None:
    """Given any program, dropped after any number of outcomes, it asks for nothing more and has not ended."""

    @workflow
    async def generated() -> None:
        await execute(program, [])

    driver = Driver.begin(generated)
    for turn in range(stop_after):
        if driver.ending is not None:
            break
        number = driver.open[choices[turn % len(choices)] % len(driver.open)]
        if isinstance(driver.request(number), TimerRequest):
            driver.fire(number)
        else:
            driver.complete(number, 1)
    before = driver.ending, dict(driver.asked)
    driver.run.close()

    assert (driver.ending, driver.asked) == before
    assert driver.run.take() == []


@settings(max_examples=60, deadline=None)
@given(
    answers=st.lists(st.integers(0, 9), max_size=12),
    suspend=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_a_def_workflow_may_be_suspended_anywhere(answers: list[int], suspend: list[bool]) -> None:
    """Given a `def` workflow whose way depends on its results, suspensions at any wait change nothing."""
    slots = ThreadSlots(2)

    @workflow
    def generated() -> list[int]:
        seen: list[int] = []
        for _ in answers:
            seen.append(ask_plainly(len(seen)))
            if seen[-1] % 3 == 0:
                seen.append(ask_plainly(-1))
        return seen

    driver = Driver.begin(generated, slots=slots)
    told: list[int] = []
    while driver.ending is None:
        if suspend[len(told) % len(suspend)]:
            assert isinstance(driver.run, SyncRun)
            driver.run.suspend()
        told.append(answers[len(told) % len(answers)])
        [number] = driver.open
        driver.complete(number, told[-1])

    assert json.loads(driver.result()) == told
    driver.check_replays()
    slots.close()
