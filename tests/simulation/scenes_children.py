"""Scenes in which runs start children, wait for them, leave them behind, and are cancelled with them."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from tests.simulation.scene import Play, Scene
from tests.simulation.shapes import Declined, Expectation, add, echo, fail, returns, write

from refold.engine.children import (
    cancel_workflow,
    cancel_workflow_sync,
    run_child,
    run_child_sync,
    start_child,
    start_child_sync,
)
from refold.engine.definitions import workflow
from refold.engine.messages import receive, receive_sync
from refold.engine.versions import continue_as_new
from refold.log.errors import (
    WorkflowCancelled,
    WorkflowConflict,
    WorkflowNotFound,
    WorkflowTerminated,
)
from refold.log.events import Event, StepCompleted
from refold.log.events import WorkflowCancelled as Cancelled
from refold.log.events import WorkflowTerminated as Terminated


def cancelled(*steps: str) -> Expectation:
    """The run was cancelled, and has carried out these steps as its last."""

    def judge(stream: Sequence[Event]) -> str | None:
        done = [e.payload for e in stream if isinstance(e, StepCompleted)]
        wanted = [f'"{text}"' for text in steps]
        if not isinstance(stream[-1], Cancelled) or done[len(done) - len(wanted) :] != wanted:
            return f"ended with {stream[-1]} after {done}, expected a cancel after {steps}"
        return None

    return judge


def either(*expectations: Expectation) -> Expectation:
    """One of these is met."""

    def judge(stream: Sequence[Event]) -> str | None:
        found = [expectation(stream) for expectation in expectations]
        return None if None in found else " and ".join(text for text in found if text)

    return judge


# Started and awaited --------------------------------------------------------------------------------------


@workflow
async def doubling(number: int) -> int:
    return await add(number, number)


@workflow
async def parent_of_one(child: str) -> int:
    return await run_child(doubling, 4, id=child) + 1


@workflow
def parent_plainly(child: str) -> int:
    running = start_child_sync(doubling, 4, id=child)
    one = write("x")
    return running.result_sync() + run_child_sync(doubling, one)


@workflow
async def family(count: int) -> int:
    return sum(await asyncio.gather(*(run_child(doubling, i) for i in range(count))))


def _parent_of_one(play: Play) -> None:
    child = play.id("child", 1)
    play.start(play.id("parent", 0), parent_of_one, child, expected=returns(9))


def _parent_plainly(play: Play) -> None:
    child = play.id("child", 0)
    play.start(play.id("plainly", 2), parent_plainly, child, expected=returns(10))


def _family(play: Play) -> None:
    play.start(play.id("family", 0), family, 20, expected=returns(380))


# That end badly -------------------------------------------------------------------------------------------


@workflow
async def failing_child() -> str:
    return await fail("badly")


@workflow
async def lonely() -> str:
    """Ends some day, if nobody cancels it."""
    try:
        return await receive("go", str, timeout=50_000)
    except TimeoutError:
        return "alone"


@workflow
def lonely_plainly() -> str:
    try:
        return receive_sync("go", str, timeout=50_000)
    except TimeoutError:
        return "alone"


@workflow
async def unlucky(taken: str, one: str, two: str) -> list[str]:
    ends: list[str] = []
    first = await start_child(lonely, id=one)
    second = await start_child(lonely_plainly, id=two, on_parent_end="abandon")
    try:
        await run_child(failing_child)
    except Declined as error:
        ends.append(type(error).__name__)
    try:
        await run_child(doubling, 1, id=taken)
    except WorkflowConflict as error:
        ends.append(type(error).__name__)
    await first.cancel("not needed")
    try:
        await cancel_workflow(f"{one}-unheard-of")
    except WorkflowNotFound:
        ends.append("WorkflowNotFound")
    for child in (first, second):
        try:
            ends.append(await child)
        except (WorkflowCancelled, WorkflowTerminated) as error:
            ends.append(type(error).__name__)
    return ends


@workflow
def unlucky_plainly(taken: str, one: str, two: str) -> list[str]:
    ends: list[str] = []
    first = start_child_sync(lonely_plainly, id=one)
    second = start_child_sync(lonely, id=two, on_parent_end="abandon")
    try:
        run_child_sync(failing_child)
    except Declined as error:
        ends.append(type(error).__name__)
    try:
        run_child_sync(doubling, 1, id=taken)
    except WorkflowConflict as error:
        ends.append(type(error).__name__)
    first.cancel_sync("not needed")
    try:
        cancel_workflow_sync(f"{one}-unheard-of")
    except WorkflowNotFound:
        ends.append("WorkflowNotFound")
    for child in (first, second):
        try:
            ends.append(child.result_sync())
        except (WorkflowCancelled, WorkflowTerminated) as error:
            ends.append(type(error).__name__)
    return ends


def _unlucky_with(play: Play, plainly: bool) -> None:
    parent = unlucky_plainly if plainly else unlucky
    taken, one, two = play.id("taken", 0), play.id("one", 1), play.id("two", 2)
    known = ["Declined", "WorkflowConflict", "WorkflowNotFound", "WorkflowCancelled"]
    play.start(taken, doubling, 7, expected=returns(14))
    play.start(
        play.id("unlucky", 0),
        parent,
        taken,
        one,
        two,
        after_s=1,
        expected=returns([*known, "WorkflowTerminated"], [*known, "alone"]),
    )
    play.at(3, play.clients.terminate(two))


# Left behind ----------------------------------------------------------------------------------------------


@workflow
async def leaving(one: str, two: str, three: str) -> str:
    await start_child(lonely, id=one)
    await start_child(lonely, id=two, on_parent_end="abandon")
    await start_child(lonely, id=three, on_parent_end="detached")
    return "left"


@workflow
def leaving_plainly(one: str, two: str, three: str) -> str:
    start_child_sync(lonely_plainly, id=one)
    start_child_sync(lonely_plainly, id=two, on_parent_end="abandon")
    start_child_sync(lonely_plainly, id=three, on_parent_end="detached")
    return "left"


def _leaves(play: Play) -> None:
    ids = [play.id(name, number) for number, name in enumerate(("kept", "abandoned", "detached"))]
    play.start(play.id("leaving", 2), leaving, *ids, expected=returns("left"))
    play.expected |= dict(zip(ids, (cancelled(), returns("alone"), returns("alone")), strict=True))


def _leaves_plainly(play: Play) -> None:
    ids = [play.id(name, number) for number, name in enumerate(("bound", "loose", "away"))]
    play.start(play.id("plainly", 1), leaving_plainly, *ids, expected=returns("left"))
    play.expected |= dict(zip(ids, (cancelled(), returns("alone"), returns("alone")), strict=True))


# Cancelled with their parent ------------------------------------------------------------------------------


@workflow
async def responsible(one: str, two: str) -> str:
    first = await start_child(lonely, id=one)
    await start_child(lonely, id=two, on_parent_end="abandon")
    try:
        return await first
    except asyncio.CancelledError:
        await echo("undo")
        raise
    finally:
        await echo("close")


@workflow
def responsible_plainly(one: str, two: str) -> str:
    first = start_child_sync(lonely, id=one)
    start_child_sync(lonely_plainly, id=two, on_parent_end="abandon")
    try:
        return first.result_sync()
    except WorkflowCancelled:
        echo.sync("undo")
        raise
    finally:
        echo.sync("close")


def _cancelled_with(play: Play, plainly: bool) -> None:
    parent = responsible_plainly if plainly else responsible
    responsible_id = play.id(parent.name, 0)
    one, two = play.id("of-one", 1), play.id("of-two", 2)
    # What may come before the children are all there, or before the `try` begins, finds nothing to undo.
    play.start(
        responsible_id, parent, one, two, expected=either(cancelled("undo", "close"), cancelled())
    )
    play.at(3, play.clients.cancel(responsible_id))


@workflow
async def hurried(child: str) -> str:
    """Has a deadline, and so has its child."""
    try:
        return await run_child(lonely, id=child, deadline=timedelta(days=1))
    finally:
        await echo("close")


def _deadline(play: Play) -> None:
    child = play.id("late", 1)

    def first_the_child(stream: Sequence[Event]) -> str | None:
        error = getattr(stream[-1], "error_type", "")
        return None if error.endswith(":WorkflowCancelled") else f"ended with {stream[-1]}"

    expected = either(cancelled("close"), cancelled(), first_the_child)
    play.start(play.id("hurried", 0), hurried, child, deadline_s=20, expected=expected)


@workflow
async def outlived(child: str, generation: int) -> str:
    """Continues as new while its child goes on; then waits, and ends before it."""
    if generation == 0:
        await start_child(lonely, id=child)
        continue_as_new(child, 1)
    await asyncio.sleep(1000)
    return "over"


def _outlived(play: Play) -> None:
    child = play.id("young", 1)
    play.start(play.id("outlived", 0), outlived, child, 0, expected=returns("over"))
    play.expected[child] = cancelled()


def _terminated(play: Play) -> None:
    parent, child = play.id("gone", 0), play.id("orphan", 1)

    def judge(stream: Sequence[Event]) -> str | None:
        return None if isinstance(stream[-1], Terminated) else f"ended with {stream[-1]}"

    play.start(parent, parent_of_lonely, child, expected=judge)
    play.at(3, play.clients.terminate(parent))


@workflow
async def parent_of_lonely(child: str) -> str:
    return await run_child(lonely, id=child)


_LONELY = (lonely, lonely_plainly, doubling, failing_child)

SCENES: tuple[Scene, ...] = (
    Scene("parent of one", (parent_of_one, doubling), _parent_of_one),
    Scene("parent plainly", (parent_plainly, doubling), _parent_plainly),
    Scene("family", (family, doubling), _family, large=True),
    Scene("unlucky", (unlucky, *_LONELY), lambda play: _unlucky_with(play, False), large=True),
    Scene(
        "unlucky plainly",
        (unlucky_plainly, *_LONELY),
        lambda play: _unlucky_with(play, True),
        large=True,
    ),
    Scene("leaving", (leaving, *_LONELY), _leaves),
    Scene("leaving plainly", (leaving_plainly, *_LONELY), _leaves_plainly),
    Scene("cancelled with", (responsible, *_LONELY), lambda play: _cancelled_with(play, False)),
    Scene(
        "cancelled with, plainly",
        (responsible_plainly, *_LONELY),
        lambda play: _cancelled_with(play, True),
    ),
    Scene("deadline", (hurried, *_LONELY), _deadline),
    Scene("outlived", (outlived, *_LONELY), _outlived),
    Scene("terminated", (parent_of_lonely, *_LONELY), _terminated),
)
