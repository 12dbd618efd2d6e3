"""Children as workflow code starts them and waits for them, and cancelling other workflows."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from refold.engine.children import (
    Child,
    cancel_workflow,
    cancel_workflow_sync,
    run_child,
    run_child_sync,
    start_child,
    start_child_sync,
)
from refold.engine.definitions import Workflow, step, workflow
from refold.engine.failures import Failure
from refold.engine.operations import (
    CancelRequest,
    ChildRequest,
    Diverged,
    RunFacts,
)
from refold.engine.scope import StepContext, enter
from refold.log.errors import (
    UsageError,
    WorkflowCancelled,
    WorkflowConflict,
    WorkflowTerminated,
)
from refold.log.events import ChildCompleted, ChildFailed
from run_driver import SECOND_US, START_US, Driver, completed

KINDS = ["async def", "def"]


def both(*pair: Workflow[..., Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("definition", pair, ids=KINDS)


class Box(BaseModel):
    weight: int


@step
async def work(name: str) -> str:
    raise AssertionError("a run never carries out a step by itself")


@workflow
async def pack(weight: int, note: str = "") -> Box:
    raise AssertionError("a parent never runs its child itself")


@workflow
async def parent() -> int:
    child = await start_child(pack, 3)
    assert child.id == "wf-1/0"
    return (await child).weight


@workflow
def parent_sync() -> int:
    child = start_child_sync(pack, 3)
    assert child.id == "wf-1/0"
    return child.result_sync().weight


@workflow
async def short_parent() -> str:
    try:
        return str((await run_child(pack, 3)).weight)
    except Exception as error:  # noqa: BLE001 - told to the test
        return f"{type(error).__name__}: {error}"


@workflow
def short_parent_sync() -> str:
    try:
        return str(run_child_sync(pack, 3).weight)
    except Exception as error:  # noqa: BLE001 - told to the test
        return f"{type(error).__name__}: {error}"


@both(parent, parent_sync)
def test_a_child_is_requested_then_waited_for(definition: Workflow[..., Any]) -> None:
    """Given a parent, its child's start is a request, its id follows from the number, and its end is told later."""
    driver = Driver.begin(definition)
    request = driver.request(0)
    assert isinstance(request, ChildRequest)
    assert request[:8] == (
        0,
        "pack",
        "wf-1/0",
        '{"weight":3,"note":""}',
        1,
        "cancel",
        None,
        None,
    )
    assert request.source.startswith(__file__)

    driver.confirm(0)
    assert (driver.open, driver.run.waits_for_input, driver.ending) == ([], True, None)
    driver.finish_child(0, '{"weight":7}')

    assert json.loads(driver.result()) == 7
    assert driver.run.next_step == 1
    driver.check_replays()


@both(short_parent, short_parent_sync)
def test_run_child_is_start_and_wait(definition: Workflow[..., Any]) -> None:
    """Given run_child, it asks for the same and gives the child's result."""
    driver = Driver.begin(definition)
    driver.confirm(0)
    driver.finish_child(0, '{"weight":7}')

    assert json.loads(driver.result()) == "7"
    driver.check_replays()


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("by zero"),
        WorkflowCancelled("child cancelled"),
        WorkflowTerminated("child terminated"),
    ],
)
@both(short_parent, short_parent_sync)
def test_a_childs_error_comes_back_as_its_type(
    definition: Workflow[..., Any], error: Exception
) -> None:
    """Given a child that failed, was cancelled or was terminated, its parent gets that error."""
    driver = Driver.begin(definition)
    driver.confirm(0)
    driver.fail_child(0, error)

    assert json.loads(driver.result()) == f"{type(error).__name__}: {error}"
    driver.check_replays()


def test_an_error_of_an_unknown_type_is_a_workflow_error() -> None:
    """Given a child's error whose class is not here, its parent gets a WorkflowError that tells it."""
    driver = Driver.begin(short_parent)
    driver.confirm(0)
    driver.fail_child(0, ValueError("x"))
    failed = driver.history[-1]
    assert isinstance(failed, ChildFailed)
    again = Driver.begin(short_parent)
    again.confirm(0)
    again.tell(replace(failed, error_type="elsewhere:Odd", error_message="broken"))

    told = json.loads(again.result())
    assert told.startswith("WorkflowError: child 0 'pack' of workflow 'wf-1' failed")
    assert "Odd: broken" in told


@both(short_parent, short_parent_sync)
def test_a_refused_start_raises(definition: Workflow[..., Any]) -> None:
    """Given a start that was refused, the parent gets that error and waits for no end."""
    driver = Driver.begin(definition)
    driver.refuse(0, WorkflowConflict("taken"))

    assert json.loads(driver.result()) == "WorkflowConflict: taken"
    driver.check_replays()


@both(parent, parent_sync)
def test_a_result_that_does_not_fit_parks_the_parent(definition: Workflow[..., Any]) -> None:
    """Given a child's result of another type than its code says now, the parent diverges, as with a step's."""
    driver = Driver.begin(definition)
    driver.confirm(0)
    driver.finish_child(0, '{"size":7}')

    ending = driver.ending
    assert isinstance(ending, Diverged)
    assert ending.expected == "child 'pack' with the recorded result"
    assert "result type was changed" in ending.cause
    driver.check_replays()


def test_the_end_of_a_child_that_nobody_started_diverges() -> None:
    """Given a history with a child's end that the code knows no child of, the run diverges."""
    driver = Driver.begin(parent)
    driver.confirm(0)
    finished = Driver.begin(parent)
    finished.confirm(0)
    finished.finish_child(0, '{"weight":7}')
    end = finished.history[-1]
    assert isinstance(end, ChildCompleted)
    driver.tell(replace(end, name="unpack"))

    ending = driver.ending
    assert isinstance(ending, Diverged)
    assert (ending.expected, ending.found) == (
        "end of child 'unpack'",
        "start of child 'pack'",
    )


def test_hundreds_of_children_are_gathered() -> None:
    """Given children whose ends come in another order than their starts, gather keeps theirs."""

    @workflow
    async def many() -> list[int]:
        boxes = await asyncio.gather(*(run_child(pack, weight) for weight in range(200)))
        return [box.weight for box in boxes]

    driver = Driver.begin(many)
    for number in reversed(range(200)):
        driver.confirm(number)
    for number in (*range(1, 200), 0):
        driver.finish_child(number, f'{{"weight":{number}}}')

    assert json.loads(driver.result()) == list(range(200))


def test_a_child_may_be_waited_for_by_many_and_again() -> None:
    """Given several tasks that await one child, one of them cancelled, all others get its result, also later."""

    @workflow
    async def shared() -> list[int]:
        child = await start_child(pack, 1)
        tasks = [asyncio.create_task(child.result()) for _ in range(3)]
        await work("a")
        tasks[0].cancel()
        boxes = [await tasks[1], await tasks[2], await child]
        return [box.weight for box in boxes]

    driver = Driver.begin(shared)
    driver.confirm(0)
    driver.complete(1, "x")
    driver.finish_child(0, '{"weight":5}')

    assert json.loads(driver.result()) == [5, 5, 5]
    driver.check_replays()


def test_a_child_may_end_before_it_is_waited_for() -> None:
    """Given an end that is told while the parent is at a step, it is there when the parent comes to wait."""

    @workflow
    async def late() -> int:
        child = await start_child(pack, 1)
        await work("a")
        return (await child).weight

    driver = Driver.begin(late)
    driver.confirm(0)
    driver.finish_child(0, '{"weight":5}')
    driver.complete(1, "x")

    assert json.loads(driver.result()) == 5
    driver.check_replays()


def test_a_cancelled_start_is_abandoned() -> None:
    """Given a start whose await is cancelled, the code goes on, and what becomes of the child is ignored."""

    @workflow
    async def impatient() -> str:
        try:
            async with asyncio.timeout(1):
                await run_child(pack, 1)
        except TimeoutError:
            return await work("instead")
        return ""

    driver = Driver.begin(impatient)
    timer = driver.timer_due(1)
    child = 1 - timer
    driver.fire(timer)
    assert driver.cancelled == [child]
    driver.confirm(child)
    driver.finish_child(child, '{"weight":5}')
    driver.complete(2, "done")

    assert json.loads(driver.result()) == "done"
    driver.check_replays()


def test_options_go_with_the_start() -> None:
    """Given id, policy, tags and version, they stand in the request."""

    @workflow
    async def particular() -> None:
        await start_child(
            pack.bind(1, note="x"),
            id="child-1",
            version=2,
            on_parent_end="abandon",
            attributes={"size": 3, "kind": "gift"},
        )

    request = Driver.begin(particular).request(0)

    assert isinstance(request, ChildRequest)
    assert request.target_id == "child-1"
    assert request.payload == '{"weight":1,"note":"x"}'
    assert (request.version, request.policy) == (2, "abandon")
    assert request.attributes == {"size": "3", "kind": "gift"}


@pytest.mark.parametrize(
    ("own_s", "deadline", "expected_s"),
    [
        (None, timedelta(seconds=5), 5),
        (None, datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC), 7),
        (3, timedelta(seconds=5), 3),
        (9, timedelta(seconds=5), 5),
        (9, None, 9),
        (None, None, None),
    ],
)
def test_a_childs_deadline_is_not_after_its_parents(
    own_s: int | None, deadline: timedelta | datetime | None, expected_s: int | None
) -> None:
    """Given deadlines of parent and child, the nearer one is the child's."""

    @workflow
    async def bounded() -> None:
        await start_child(pack, 1, deadline=deadline)

    due_at = None if own_s is None else START_US + own_s * SECOND_US
    facts = RunFacts("wf-1", "bounded", 1, START_US, deadline=due_at)
    request = Driver.begin(bounded, facts=facts).request(0)

    assert isinstance(request, ChildRequest)
    expected = None if expected_s is None else START_US + expected_s * SECOND_US
    assert request.due_at == expected


def test_a_detached_child_is_not_waited_for() -> None:
    """Given a detached child, its start is confirmed, and asking for its result is an error."""

    @workflow
    async def careless() -> None:
        child = await start_child(pack, 1, on_parent_end="detached")
        await child

    driver = Driver.begin(careless)
    driver.confirm(0)

    assert "child 'wf-1/0' is detached" in driver.error().error_message
    driver.check_replays()


# Cancelling others ----------------------------------------------------------------------------------------


@workflow
async def cancelling() -> None:
    child = await start_child(pack, 1)
    await child.cancel("too heavy")
    await cancel_workflow("wf-9")


@workflow
def cancelling_sync() -> None:
    child = start_child_sync(pack, 1)
    child.cancel_sync("too heavy")
    cancel_workflow_sync("wf-9")


@both(cancelling, cancelling_sync)
def test_cancelling_is_a_request_that_is_confirmed(definition: Workflow[..., Any]) -> None:
    """Given a child and another workflow, each is asked to cancel, and the code waits until that is recorded."""
    driver = Driver.begin(definition)
    driver.confirm(0)
    first = driver.request(1)
    driver.confirm(1)
    second = driver.request(2)
    driver.confirm(2)

    assert isinstance(first, CancelRequest)
    assert isinstance(second, CancelRequest)
    assert first[:4] == (1, "cancel", "wf-1/0", "too heavy")
    assert second[:4] == (2, "cancel", "wf-9", None)
    assert json.loads(driver.result()) is None
    driver.check_replays()


# Matching -------------------------------------------------------------------------------------------------


def test_a_confirmation_does_not_answer_a_step() -> None:
    """Given a history in which the operation was a delivery, code that runs a step there diverges."""

    @workflow
    async def changed() -> None:
        await work("a")

    old = Driver.begin(short_parent)
    old.confirm(0)
    new = Driver.begin(changed)
    new.tell(old.history[0])

    ending = new.ending
    assert isinstance(ending, Diverged)
    assert (ending.expected, ending.found) == ("delivery 'pack'", "step 'work'")


def test_a_result_does_not_answer_a_start() -> None:
    """Given a history in which the operation was a step, code that starts a child there diverges."""
    driver = Driver.begin(parent)
    driver.tell(completed(0, "pack", "1", START_US + 1))

    ending = driver.ending
    assert isinstance(ending, Diverged)
    assert (ending.expected, ending.found) == ("step 'pack'", "start of child 'pack'")


# Bad input ------------------------------------------------------------------------------------------------

UNKNOWN: Any = "forget"
NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - that is the mistake

BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: start_child(pack, 1, id=""), "id must not be empty"),
    (lambda: start_child(pack, 1, id="x" * 256), "at most 255 characters"),
    (lambda: start_child(pack, 1, id="wf-1"), "under its own id"),
    (
        lambda: start_child(pack, 1, on_parent_end=UNKNOWN),
        "none of 'cancel', 'abandon', 'detached'",
    ),
    (lambda: start_child(pack, 1, deadline=timedelta(seconds=-1)), "it has passed"),
    (lambda: start_child(pack, 1, deadline=timedelta(0)), "it has passed"),
    (lambda: start_child(pack, 1, deadline=timedelta(days=3_000_000)), "after the year 9999"),
    (lambda: start_child(pack, 1, deadline=NAIVE), "no time zone"),
    (lambda: start_child(pack, 1, attributes={"": 1}), "attribute name ''"),
    (lambda: start_child(pack), "missing a required argument"),  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    (lambda: start_child(pack, "x"), "argument ['weight']"),  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    (lambda: start_child(pack.bind(1), 2), "more arguments beside it"),  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    (lambda: start_child(len, "x"), "is no workflow"),  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    (lambda: run_child(pack, 1, on_parent_end="detached"), "run_child waits for the child"),
    (lambda: cancel_workflow(""), "id must not be empty"),
    (lambda: cancel_workflow("wf-1"), "asked itself to cancel"),
    (lambda: start_child_sync(pack, 1), "write `await start_child"),
    (lambda: run_child_sync(pack, 1), "write `await run_child"),
    (lambda: cancel_workflow_sync("a"), "write `await cancel_workflow"),
]


@pytest.mark.parametrize(("act", "told"), BAD)
def test_bad_input_is_told_and_nothing_is_asked_for(act: Callable[[], object], told: str) -> None:
    """Given a call that can't be, the code gets an error that says why, and no request is made."""

    @workflow
    async def careless() -> None:
        act()

    driver = Driver.begin(careless)

    assert told in driver.error().error_message
    assert driver.asked == {}


def test_an_id_that_grew_too_long_is_told_before_anything_is_asked_for() -> None:
    """Given a parent whose own id leaves no room for the number, the start is refused."""

    @workflow
    async def deep() -> None:
        await start_child(pack, 1)

    driver = Driver.begin(deep, workflow_id="x" * 254)

    assert "at most 255 characters" in driver.error().error_message
    assert driver.asked == {}


@pytest.mark.parametrize(
    "act",
    [lambda: start_child(pack, 1), lambda: run_child(pack, 1), lambda: cancel_workflow("a")],
    ids=["start_child", "run_child", "cancel_workflow"],
)
def test_what_is_awaited_has_its_own_spelling(act: Callable[[], object]) -> None:
    """Given a `def` workflow that calls what is to be awaited, the error names the right form."""

    @workflow
    def misspelled() -> None:
        act()

    assert "_sync(...) there" in Driver.begin(misspelled).error().error_message


@pytest.mark.parametrize(
    "act",
    [
        lambda: start_child(pack, 1),
        lambda: run_child_sync(pack, 1),
        lambda: cancel_workflow("a"),
        lambda: Child("a", 0, pack.result_type, "cancel").result(),
    ],
)
def test_only_workflow_code_has_children(act: Callable[[], object]) -> None:
    """Given a step or plain code, each call is refused with what to do instead."""
    context = StepContext(namespace="n", workflow_id="w", step=3, attempt=1)

    with pytest.raises(UsageError, match="outside a workflow; use"):
        act()
    with enter(context), pytest.raises(UsageError, match="in step 3 of workflow 'w'"):
        act()


def test_an_error_that_was_a_step_error_stays_one() -> None:
    """Given a child that failed with a StepError of its own step, its parent gets a StepError."""
    driver = Driver.begin(short_parent)
    driver.confirm(0)
    failure = Failure("refold.log.errors:StepError", "Odd: x", None, None)
    driver.fail_child(0, ValueError("x"))
    told = driver.history[-1]
    assert isinstance(told, ChildFailed)
    again = Driver.begin(short_parent)
    again.confirm(0)
    again.tell(
        replace(
            told,
            error_type=failure.error_type,
            error_message=failure.error_message,
            payload=None,
        )
    )

    assert json.loads(again.result()) == "StepError: Odd: x"
