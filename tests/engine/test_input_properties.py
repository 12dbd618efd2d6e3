"""Whatever comes to a run from outside, and whenever: a replay sees the same, and no message is lost or taken twice.

Programs are tasks of durable calls; what the run is told is drawn against a model of what was sent. (A failing example
is printed with the blob that brings it back.)
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refold.engine.children import run_child, run_child_sync
from refold.engine.definitions import step, workflow
from refold.engine.messages import publish, receive, receive_sync, requests, send, send_sync
from refold.engine.operations import (
    Cancelled,
    ChildRequest,
    Continued,
    Returned,
    StepRequest,
    TimerRequest,
)
from refold.engine.scope import sleep, sleep_sync
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import ThreadSlots
from refold.engine.versions import continue_as_new
from refold.log.errors import WorkflowCancelled
from run_driver import Driver

OPERATIONS = ["step", "receive", "receive in time", "ask", "child", "send", "publish", "sleep"]
TASKS = st.lists(st.lists(st.sampled_from(OPERATIONS), max_size=5), min_size=1, max_size=3)
CHOICES = st.lists(st.integers(0, 10_000), min_size=1, max_size=40)


@step
async def work() -> int:
    raise AssertionError("a run never carries out a step by itself")


@step
def work_plainly() -> int:
    raise AssertionError("a run never carries out a step by itself")


@workflow
async def other() -> int:
    raise AssertionError("a parent never runs its child itself")


async def execute(operation: str, topic: str) -> object:
    match operation:
        case "step":
            return await work()
        case "receive":
            return await receive(topic)
        case "receive in time":
            try:
                return await receive(topic, timeout=5)
            except TimeoutError:
                return "too late"
        case "ask":
            request = await requests(topic, int).receive()
            request.reply(request.value)
            return f"asked {request.value}"
        case "child":
            return await run_child(other)
        case "send":
            await send("wf-2", topic, 1)
        case "publish":
            publish(topic, 1)
        case _:
            await sleep(3)
    return None


def execute_sync(operation: str, topic: str) -> object:
    match operation:
        case "step":
            return work_plainly()
        case "receive":
            return receive_sync(topic)
        case "receive in time":
            try:
                return receive_sync(topic, timeout=5)
            except TimeoutError:
                return "too late"
        case "ask":
            request = requests(topic, int).receive_sync()
            request.reply(request.value)
            return f"asked {request.value}"
        case "child":
            return run_child_sync(other)
        case "send":
            send_sync("wf-2", topic, 1)
        case "publish":
            publish(topic, 1)
        case _:
            sleep_sync(3)
    return None


@workflow
async def program(tasks: list[list[str]], afresh: bool) -> list[list[object]]:
    seen: list[list[object]] = [[] for _ in tasks]

    async def task(number: int) -> None:
        for operation in tasks[number]:
            seen[number].append(await execute(operation, f"topic {number}"))

    try:
        await asyncio.gather(*(task(number) for number in range(len(tasks))))
    except asyncio.CancelledError:
        seen.append([await work()])
    if afresh:
        continue_as_new(tasks, afresh)
    return seen


@workflow
def program_sync(operations: list[str], afresh: bool) -> list[list[object]]:
    seen: list[list[object]] = [[]]
    try:
        for operation in operations:
            seen[0].append(execute_sync(operation, "topic 0"))
    except WorkflowCancelled:
        seen.append([work_plainly()])
    if afresh:
        continue_as_new(operations, afresh)
    return seen


@dataclass
class World:
    """What is outside: what it has sent, and the children that were started."""

    driver: Driver
    sent: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    asked: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    children: list[int] = field(default_factory=list[int])
    cancelled: bool = False

    def act(self, choice: int) -> None:
        """Do one thing that may happen now."""
        topic = f"topic {choice % 3}"
        value = len(self.driver.history)
        match choice % 10:
            case 0 | 1:
                self.driver.message(topic, f'"sent {value}"')
                self.sent[topic].append(f"sent {value}")
            case 2:
                self.driver.question(topic, str(value))
                self.asked[topic].append(f"asked {value}")
            case 3 if not self.cancelled and choice % 3 == 0:
                self.driver.cancel()
                self.cancelled = True
            case 4 if self.children:
                self.driver.finish_child(self.children.pop(choice % len(self.children)), "7")
            case _ if self.driver.open:
                self._answer(self.driver.open[choice % len(self.driver.open)], value, choice)
            case _ if self.children:
                self.driver.finish_child(self.children.pop(0), "8")
            case _:
                self.driver.message(topic, f'"sent {value}"')
                self.sent[topic].append(f"sent {value}")

    def _answer(self, number: int, value: int, choice: int) -> None:
        request = self.driver.request(number)
        if isinstance(request, StepRequest):
            self.driver.complete(number, value)
        elif isinstance(request, TimerRequest):
            self.driver.fire(number)
        elif isinstance(request, ChildRequest):
            self.driver.confirm(number)
            self.children.append(number)
        else:
            self.driver.confirm(number)


def live_through(world: World, choices: Sequence[int], slots: ThreadSlots | None = None) -> None:
    """Let things happen, in an order that `choices` tells, until the run ends or enough has happened."""
    for turn in range(60):
        if world.driver.ending is not None:
            return
        choice = choices[turn % len(choices)] + turn
        if slots is not None and choice % 4 == 0:
            assert isinstance(world.driver.run, SyncRun)
            world.driver.run.suspend()
        world.act(choice)


def check(world: World) -> None:
    """What was taken of a topic, and what was kept for the next run, is what was sent, in its order."""
    ending = world.driver.ending
    if isinstance(ending, Returned):
        for number, seen in enumerate(json.loads(ending.payload)):
            for kind, told in (("sent", world.sent), ("asked", world.asked)):
                taken = [v for v in seen if isinstance(v, str) and v.startswith(kind)]
                assert taken == told[f"topic {number}"][: len(taken)]
    if isinstance(ending, Continued):
        assert list(ending.kept) == sorted(set(ending.kept))
    assert ending is None or isinstance(ending, Returned | Continued | Cancelled)
    world.driver.check_replays()


QUICKLY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICKLY
@given(tasks=TASKS, choices=CHOICES, afresh=st.booleans())
def test_an_async_workflow_sees_the_same_again(
    tasks: list[list[str]], choices: list[int], afresh: bool
) -> None:
    """Given any tasks, and anything from outside in any order, every prefix replays to the same, and so goes on."""
    world = World(Driver.begin(program, tasks, afresh))
    live_through(world, choices)
    check(world)


@QUICKLY
@given(
    operations=st.lists(st.sampled_from(OPERATIONS), max_size=8),
    choices=CHOICES,
    afresh=st.booleans(),
    suspended=st.booleans(),
)
def test_a_def_workflow_sees_the_same_again(
    operations: list[str], choices: list[int], afresh: bool, suspended: bool
) -> None:
    """Given any calls, anything from outside in any order, and suspensions anywhere, it comes out the same."""
    slots = ThreadSlots(2)
    world = World(Driver.begin(program_sync, operations, afresh, slots=slots))
    live_through(world, choices, slots if suspended else None)
    check(world)
    slots.close()


@QUICKLY
@given(operations=st.lists(st.sampled_from(OPERATIONS), max_size=8), choices=CHOICES)
def test_both_kinds_of_workflow_ask_for_the_same(operations: list[str], choices: list[int]) -> None:
    """Given one list of calls and one order of what happens, `def` and `async def` end the same."""
    slots = ThreadSlots(2)
    first = World(Driver.begin(program, [operations], False))
    second = World(Driver.begin(program_sync, operations, False, slots=slots))
    live_through(first, choices)
    live_through(second, choices)

    assert first.driver.ending == second.driver.ending
    assert first.driver.open == second.driver.open
    first.driver.run.close()
    second.driver.run.close()
    slots.close()
