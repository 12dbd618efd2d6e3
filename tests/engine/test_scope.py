"""What code knows of the run or step that it is part of, and the deterministic helpers of workflow code."""

import asyncio
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from refold.engine.definitions import AsyncWorkflow, Workflow, step, workflow
from refold.engine.operations import TimerRequest
from refold.engine.scope import (
    StepContext,
    current,
    enter,
    enter_step,
    now,
    random,
    sleep,
    sleep_sync,
    sleep_until,
    sleep_until_sync,
    step_context,
    uuid4,
)
from refold.log.errors import UsageError
from run_driver import SECOND_US, START_US, Driver


@step
async def ask(name: str) -> str:
    raise AssertionError("a run never carries out a step by itself")


def a_context(
    *, namespace: str = "orders", workflow_id: str = "wf-1", number: int = 3, attempt: int = 1
) -> StepContext:
    return StepContext(namespace=namespace, workflow_id=workflow_id, step=number, attempt=attempt)


# Steps ----------------------------------------------------------------------------------------------------


def test_a_step_finds_its_context() -> None:
    """Given a block that is entered as a step's attempt, `step_context` gives it, and not after the block."""
    context = a_context()

    with enter(context):
        assert step_context() is context
    assert current() is None


def test_a_thread_can_be_a_step_from_here_on() -> None:
    """Given a context of its own that entered a step, the step is found there and not outside."""
    context = a_context()

    async def attempt() -> StepContext:
        enter_step(context)
        return step_context()

    assert asyncio.run(attempt()) is context
    assert current() is None


def test_outside_a_step_there_is_no_context() -> None:
    """Given a call outside any step, the error says where it may be made."""
    with pytest.raises(UsageError, match="outside any step"):
        step_context()


def test_workflow_code_has_no_step_context() -> None:
    """Given a call in workflow code, the error names the workflow."""

    @workflow
    async def curious() -> None:
        step_context()

    message = Driver.begin(curious).error().error_message
    assert "in the code of workflow 'wf-1'" in message
    assert "@step" in message


def test_the_idempotency_key_is_that_of_the_operation() -> None:
    """Given attempts of one step, the key is the same; of another namespace, workflow or step it is another."""
    key = a_context().idempotency_key
    others = [
        a_context(namespace="other"),
        a_context(workflow_id="wf-2"),
        a_context(number=4),
        a_context(namespace="orderswf", workflow_id="-1"),
    ]

    assert a_context(attempt=7).idempotency_key == key
    assert len({key, *(other.idempotency_key for other in others)}) == 5


def test_the_idempotency_key_never_changes_between_releases() -> None:
    """Given an operation, its key is this one: an outside API remembers what an older release had sent."""
    assert a_context().idempotency_key == "8eecbf97157becec44eeab4b9e449e2e"


def test_a_cancelled_attempt_is_told() -> None:
    """Given threads that wait for the cancellation, all come back when it comes, and later ones at once."""
    context = a_context()
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(context.wait_cancelled(30)), daemon=True)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    before = context.cancelled, *map(context.wait_cancelled, (0, -0.5, -1))

    context.cancel()
    context.cancel()
    for thread in threads:
        thread.join(30)

    assert before == (False,) * 4
    assert context.cancelled
    assert [*results, context.wait_cancelled(), context.wait_cancelled(1e300)] == [True] * 5


# Helpers --------------------------------------------------------------------------------------------------


def test_now_is_the_time_of_the_last_event() -> None:
    """Given a step that was recorded a second after the start, `now` says so, in UTC."""

    @workflow
    async def timed() -> list[datetime]:
        times = [now()]
        await ask("a")
        return [*times, now()]

    driver = Driver.begin(timed)
    driver.complete(0, "a")

    start = datetime.fromtimestamp(START_US / SECOND_US, UTC)
    assert [datetime.fromisoformat(time) for time in json.loads(driver.result())] == [
        start,
        start + timedelta(seconds=1),
    ]
    driver.check_replays()


def test_random_numbers_go_by_the_workflows_id() -> None:
    """Given two workflows, each draws its own numbers; a replay of one draws the same."""

    @workflow
    async def drawing() -> list[str]:
        values = [str(random().random()), str(uuid4())]
        await ask("a")
        return [*values, str(random().random()), str(uuid4())]

    first, second = (
        Driver.begin(drawing, workflow_id=workflow_id) for workflow_id in ("wf-1", "wf-2")
    )
    first.complete(0, "a")
    second.complete(0, "a")

    drawn = json.loads(first.result()) + json.loads(second.result())
    assert len(set(drawn)) == 8
    first.check_replays()


def test_uuid4_is_a_valid_version_4() -> None:
    """Given a drawn UUID, its version and variant are those of RFC 9562."""

    @workflow
    async def drawing() -> list[str]:
        value = uuid4()
        return [str(value.version), value.variant]

    assert json.loads(Driver.begin(drawing).result()) == ["4", "specified in RFC 4122"]


@pytest.mark.parametrize("delay", [90, 90.0, timedelta(minutes=1.5)])
def test_sleep_takes_seconds_or_a_timedelta(delay: float | timedelta) -> None:
    """Given a delay in either form, the timer is due after it."""

    @workflow
    async def sleeping() -> None:
        await sleep(delay)

    timer = Driver.begin(sleeping).request(0)
    assert isinstance(timer, TimerRequest)
    assert timer.due_at == START_US + 90 * SECOND_US


async def sleep_backwards() -> None:
    await sleep(-1)


async def sleep_for_ever() -> None:
    await sleep(float("inf"))


async def sleep_sync_in_async() -> None:
    sleep_sync(5)


@pytest.mark.parametrize(
    ("program", "named"),
    [
        (sleep_backwards, "can't sleep for -1"),
        (sleep_for_ever, "can't sleep for inf"),
        (sleep_sync_in_async, "await sleep(5)"),
    ],
)
def test_a_sleep_that_can_not_be_is_refused(program: Callable[[], object], named: str) -> None:
    """Given a delay or a spelling that can't be, the workflow gets an error that says so."""
    error = Driver.begin(AsyncWorkflow(program, "sleeping", 1, None)).error()

    assert error.error_type.endswith(":UsageError")
    assert named in error.error_message


def test_the_awaitable_sleep_in_a_def_workflow_names_the_other() -> None:
    """Given `sleep` in a `def` workflow, where it would do nothing, the error names sleep_sync."""

    @workflow
    def sleeping() -> None:
        sleep(5)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]

    assert "call sleep_sync(5)" in Driver.begin(sleeping).error().error_message


HELPERS: list[Callable[[], object]] = [now, random, uuid4, lambda: sleep(1), lambda: sleep_sync(1)]


@pytest.mark.parametrize("helper", HELPERS)
def test_helpers_outside_a_workflow_are_refused(helper: Callable[[], object]) -> None:
    """Given a helper of workflow code called elsewhere, the error says what to use there."""
    with pytest.raises(UsageError, match=r"outside a workflow; use .* there"):
        helper()


@pytest.mark.parametrize("helper", HELPERS)
def test_helpers_in_a_step_are_refused(helper: Callable[[], object]) -> None:
    """Given a helper of workflow code called in a step, the error names the step."""
    with enter(a_context()), pytest.raises(UsageError, match="in step 3 of workflow 'wf-1'"):
        helper()


# Sleeping until a time ------------------------------------------------------------------------------------

WHEN = datetime(2026, 1, 1, 0, 0, 7, 123_457, tzinfo=UTC)
WHEN_US = START_US + 7_123_457


@workflow
async def sleep_twice() -> str:
    await sleep_until(WHEN)
    await sleep_until(WHEN)
    return now().isoformat()


@workflow
def sleep_twice_sync() -> str:
    sleep_until_sync(WHEN)
    sleep_until_sync(WHEN)
    return now().isoformat()


@pytest.mark.parametrize("definition", [sleep_twice, sleep_twice_sync], ids=["async def", "def"])
def test_a_sleep_until_a_time_is_due_to_the_microsecond(definition: Workflow[[], str]) -> None:
    """Given a time, the timer is due exactly then; a time that has come is not waited for, with no operation."""
    driver = Driver.begin(definition)
    timer = driver.request(0)
    assert isinstance(timer, TimerRequest)
    assert (timer.name, timer.due_at) == ("sleep", WHEN_US)
    assert timer.source.startswith(f"{__file__}:")
    driver.fire(0)

    assert driver.result() == f'"{WHEN.isoformat()}"'
    assert driver.run.next_step == 1
    driver.check_replays()


def test_a_sleep_until_a_time_may_be_cancelled() -> None:
    """Given a sleep whose task is cancelled, its timer is given up."""

    @workflow
    async def impatient() -> None:
        try:
            async with asyncio.timeout(1):
                await sleep_until(WHEN)
        except TimeoutError:
            await asyncio.sleep(0)

    driver = Driver.begin(impatient)
    timeout = driver.timer_due(1)
    driver.fire(timeout)

    assert driver.result() == "null"
    assert driver.cancelled == [1 - timeout]
    driver.check_replays()


@pytest.mark.parametrize(
    ("when", "told"),
    [
        (datetime(2030, 1, 1), "has no time zone"),  # noqa: DTZ001 - that is the mistake
        (datetime.max.replace(tzinfo=UTC), "very end of the year 9999"),
        (cast(Any, "2030-01-01"), "give a datetime"),
    ],
)
def test_a_time_that_can_not_be_is_refused(when: datetime, told: str) -> None:
    """Given a time without a zone, or out of range, the code gets an error and no timer is asked for."""

    @workflow
    async def careless() -> None:
        await sleep_until(when)

    @workflow
    def careless_sync() -> None:
        sleep_until_sync(when)

    for definition in (careless, careless_sync):
        driver = Driver.begin(definition)
        assert told in driver.error().error_message
        assert driver.asked == {}


def test_sleeping_until_a_time_has_a_spelling_for_each_kind() -> None:
    """Given the wrong one, the error names the right one; in a step neither is right."""

    @workflow
    async def blocking() -> None:
        sleep_until_sync(WHEN)

    @workflow
    def awaiting() -> object:
        return sleep_until(WHEN)

    assert "write `await sleep_until" in Driver.begin(blocking).error().error_message
    assert "call sleep_until_sync" in Driver.begin(awaiting).error().error_message
    with enter(a_context()), pytest.raises(UsageError, match="in step 3 of workflow 'wf-1'"):
        sleep_until_sync(WHEN)
