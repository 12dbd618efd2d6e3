"""A run that is asked to cancel: what its code sees, and how it ends."""

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.golden.make import sample

from refold.engine.children import run_child, run_child_sync
from refold.engine.definitions import Workflow, step, workflow
from refold.engine.matching import cancel_message
from refold.engine.messages import publish, receive, receive_sync
from refold.engine.operations import Cancelled, Raised, Returned
from refold.engine.outbox import cancel_child
from refold.engine.scope import sleep, sleep_sync
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import ThreadSlots
from refold.log.commands import CancelWorkflow
from refold.log.errors import WorkflowCancelled
from refold.log.events import (
    ChildRequested,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowRewound,
)
from run_driver import Driver

TOLD = "workflow 'wf-1' was cancelled: ann asked for it: too late"


@step
async def work(name: str) -> str:
    raise AssertionError("a run never carries out a step by itself")


@step
def work_plainly(name: str) -> str:
    raise AssertionError("a run never carries out a step by itself")


@workflow
async def other() -> int:
    raise AssertionError("a parent never runs its child itself")


@pytest.fixture
def slots() -> Iterator[ThreadSlots]:
    slots = ThreadSlots(2)
    yield slots
    slots.close()


def both(*pair: Workflow[..., Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("definition", pair, ids=["async def", "def"])


@workflow
async def waits(at: str) -> None:
    match at:
        case "step":
            await work("a")
        case "sleep":
            await sleep(9)
        case "message":
            await receive("a")
        case "message in time":
            await receive("a", timeout=9)
        case _:
            await run_child(other)


@workflow
def waits_sync(at: str) -> None:
    match at:
        case "step":
            work_plainly("a")
        case "sleep":
            sleep_sync(9)
        case "message":
            receive_sync("a")
        case "message in time":
            receive_sync("a", timeout=9)
        case _:
            run_child_sync(other)


@pytest.mark.parametrize("at", ["step", "sleep", "message", "message in time", "child"])
@both(waits, waits_sync)
def test_a_wait_is_cancelled(definition: Workflow[..., Any], at: str) -> None:
    """Given a run that waits, its code is told there, the request is given up, and the run ends as cancelled."""
    driver = Driver.begin(definition, at)
    waiting = driver.open
    driver.cancel("too late")

    assert driver.ending == Cancelled(TOLD)
    assert driver.cancelled == waiting
    assert not driver.run.waits_for_input
    driver.check_replays()


@both(waits, waits_sync)
def test_a_wait_for_a_started_child_is_cancelled(definition: Workflow[..., Any]) -> None:
    """Given a run that waits for its child's end, it is cancelled there."""
    driver = Driver.begin(definition, "child")
    driver.confirm(0)
    driver.cancel("too late")

    assert driver.ending == Cancelled(TOLD)
    driver.check_replays()


@workflow
async def cleans_up() -> str:
    try:
        await work("a")
    except asyncio.CancelledError as error:
        publish("state", str(error))
        await work("undo")
        raise
    finally:
        await work("tidy")
    return "never"


@workflow
def cleans_up_sync() -> str:
    try:
        work_plainly("a")
    except WorkflowCancelled as error:
        publish("state", str(error))
        work_plainly("undo")
        raise
    finally:
        work_plainly("tidy")
    return "never"


@both(cleans_up, cleans_up_sync)
def test_a_cancelled_run_may_clean_up(definition: Workflow[..., Any]) -> None:
    """Given code that catches the cancellation and works in `finally`, its steps run, and then it ends as cancelled."""
    driver = Driver.begin(definition)
    driver.cancel("too late")
    assert driver.open == [2]
    driver.complete(2, "undone")
    driver.complete(3, "tidied")

    assert driver.ending == Cancelled(TOLD)
    assert driver.asked[1][3] == json.dumps(TOLD)
    driver.check_replays()


@both(cleans_up, cleans_up_sync)
def test_a_second_request_cancels_the_clean_up(definition: Workflow[..., Any]) -> None:
    """Given a run that is cleaning up, it is told again where it waits then."""
    driver = Driver.begin(definition)
    driver.cancel("too late")
    driver.cancel("now really")
    driver.complete(3, "tidied")

    assert driver.cancelled == [0, 2]
    ending = driver.ending
    assert isinstance(ending, Cancelled)
    assert "now really" in ending.message
    driver.check_replays()


@workflow
async def shrugs() -> str:
    try:
        await work("a")
    except asyncio.CancelledError:
        return "anyway"
    return "never"


@workflow
def shrugs_sync() -> str:
    try:
        work_plainly("a")
    except WorkflowCancelled:
        return "anyway"
    return "never"


@both(shrugs, shrugs_sync)
def test_a_run_that_returns_all_the_same_has_returned(definition: Workflow[..., Any]) -> None:
    """Given code that catches the cancellation and returns, that is its result."""
    driver = Driver.begin(definition)
    driver.cancel()

    assert driver.ending == Returned('"anyway"')
    driver.check_replays()


@both(shrugs, shrugs_sync)
def test_an_outcome_of_what_was_given_up_is_ignored(definition: Workflow[..., Any]) -> None:
    """Given a step that was under way when the run was cancelled, what it comes to later changes nothing."""
    driver = Driver.begin(definition)
    driver.cancel()
    driver.complete(0, "late")

    assert driver.ending == Returned('"anyway"')
    driver.check_replays()


@workflow
async def fails_after() -> None:
    try:
        await work("a")
    except asyncio.CancelledError:
        raise ValueError("while cleaning up") from None


@workflow
def fails_after_sync() -> None:
    try:
        work_plainly("a")
    except WorkflowCancelled:
        raise ValueError("while cleaning up") from None


@both(fails_after, fails_after_sync)
def test_an_error_while_cleaning_up_is_a_failure(definition: Workflow[..., Any]) -> None:
    """Given code that fails as it cleans up, the run has failed with that error."""
    driver = Driver.begin(definition)
    driver.cancel()

    assert driver.error().error_type == "builtins:ValueError"
    driver.check_replays()


def test_a_cancellation_that_nobody_asked_for_is_a_failure() -> None:
    """Given code that raises CancelledError by itself, the run has failed: nobody asked for its end."""

    @workflow
    async def odd() -> None:
        raise asyncio.CancelledError

    assert isinstance(Driver.begin(odd).ending, Raised)


def test_tasks_that_are_awaited_are_cancelled_too() -> None:
    """Given a gather over steps, all of them are given up."""

    @workflow
    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            for name in "abc":
                tasks.create_task(work(name))

    driver = Driver.begin(group)
    driver.cancel("too late")

    assert driver.ending == Cancelled(TOLD)
    assert driver.cancelled == [0, 1, 2]
    driver.check_replays()


def test_a_timeout_is_no_request_to_cancel() -> None:
    """Given a timeout within, and a request to cancel after it, each is what it is."""

    @workflow
    async def bounded() -> None:
        try:
            async with asyncio.timeout(1):
                await work("a")
        except TimeoutError:
            await work("b")

    driver = Driver.begin(bounded)
    driver.fire(driver.timer_due(1))
    driver.cancel("too late")

    assert driver.ending == Cancelled(TOLD)
    driver.check_replays()


def test_a_suspended_run_is_cancelled(slots: ThreadSlots) -> None:
    """Given a `def` workflow that was put away, the cancellation brings it back to where it waited."""
    driver = Driver.begin(cleans_up_sync, slots=slots)
    assert isinstance(driver.run, SyncRun)
    driver.run.suspend()
    driver.cancel("too late")
    driver.run.suspend()
    driver.complete(2, "undone")
    driver.run.suspend()
    driver.complete(3, "tidied")

    assert driver.ending == Cancelled(TOLD)
    assert driver.cancelled == [0]
    driver.check_replays()


PARENT = {
    WorkflowCompleted: "has ended",
    WorkflowRewound: "was rewound to before its start",
    WorkflowCancelRequested: "was asked to cancel",
}
"""What a child hears of its parent; its own id and the parent's are before it."""


@pytest.mark.parametrize(("kind", "words"), PARENT.items())
def test_a_child_says_what_became_of_its_parent(
    kind: type[WorkflowCompleted | WorkflowRewound | WorkflowCancelRequested], words: str
) -> None:
    """Given a parent that ended, forgot the child or is to cancel, the child says so when it is cancelled by that."""
    event = sample(kind, 0, full=True)
    assert told_by_parent(event) == f"was cancelled: its parent {event.workflow_id!r} {words}"


def test_a_child_says_that_its_parents_time_was_up() -> None:
    """Given a parent whose deadline has passed, a child that hears of that before its own deadline does says so."""
    event = dataclasses.replace(sample(WorkflowCancelRequested, 0, full=True), name="deadline")
    assert told_by_parent(event).endswith("has reached its deadline")


def told_by_parent(event: WorkflowCompleted | WorkflowRewound | WorkflowCancelRequested) -> str:
    """A child's own words, without its name, once it is cancelled for what happened to its parent."""
    command = cancel_child(event, sample(ChildRequested, 1, full=True))
    assert isinstance(command, CancelWorkflow)
    asked = dataclasses.replace(
        sample(WorkflowCancelRequested, 2, full=True),
        name=command.name,
        payload=json.dumps({"requested_by": command.requested_by, "reason": command.reason}),
    )
    return cancel_message(asked).removeprefix(f"workflow {asked.workflow_id!r} ")
