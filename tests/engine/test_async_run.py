"""A run of an `async def` workflow: what it asks for, what it makes of outcomes, and how it ends."""

import asyncio
import contextvars
import gc
import inspect
import json
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from refold.engine.callsite import wait_source
from refold.engine.definitions import AsyncWorkflow, step, workflow
from refold.engine.loop import TURN_LIMIT
from refold.engine.operations import Diverged, Returned, Stuck, TimerRequest
from refold.engine.scope import current
from run_driver import SECOND_US, START_US, Driver, completed, fired, make_run

effects: list[str] = []


@pytest.fixture(autouse=True)
def no_effects() -> Any:
    """No run ever carries out a step by itself, not even as it is closed."""
    effects.clear()
    yield
    gc.collect()
    assert effects == []


@step
async def ask(name: str) -> str:
    effects.append(name)
    return name


@step
async def count(name: str) -> int:
    effects.append(name)
    return 0


@step
def block(name: str) -> str:
    effects.append(name)
    return name


def here(offset: int = 0) -> str:
    """`file:line` of the caller, moved by `offset` lines."""
    frame = inspect.stack(0)[1]
    return f"{__file__}:{frame.lineno + offset}"


# Requests -------------------------------------------------------------------------------------------------


def test_requests_are_numbered_in_code_order_over_all_kinds() -> None:
    """Given steps and a timer, their numbers are 0, 1, 2 in the order in which the code comes to them."""

    @workflow
    async def mixed() -> None:
        await asyncio.gather(ask("a"), asyncio.sleep(5), block.aio("b"))

    driver = Driver.begin(mixed)

    assert [(number, request.name) for number, request in driver.run.pending.items()] == [
        (0, "ask"),
        (1, "sleep"),
        (2, "block"),
    ]


def test_a_request_is_taken_once() -> None:
    """Given a request that was taken, it does not come again, and waits in `pending` all the same."""

    @workflow
    async def two() -> None:
        await asyncio.gather(ask("a"), ask("b"))

    run = make_run(two)
    run.start()

    assert [request.step for request in run.take()] == [0, 1]
    assert run.take() == []
    assert list(run.pending) == [0, 1]


def test_requests_answered_before_the_take_are_not_given() -> None:
    """Given a replay, only what is left unanswered at its end is the owner's to carry out."""

    @workflow
    async def three() -> None:
        for name in "abc":
            await ask(name)

    run = make_run(three)
    run.start()
    run.deliver(completed(0, "ask", '"a"', START_US + 1))
    run.deliver(completed(1, "ask", '"b"', START_US + 2))

    assert [request.step for request in run.take()] == [2]


def test_outcomes_can_be_told_all_at_once() -> None:
    """Given a whole history in one call, the run stands where one by one would have brought it."""

    @workflow
    async def three() -> list[str]:
        return [await ask(name) for name in "abc"]

    history = [completed(n, "ask", f'"{n}"', START_US + n) for n in range(3)]
    run = make_run(three)
    run.start()
    run.deliver_all(history[:2])

    assert list(run.pending) == [2]
    run.deliver_all(history[2:])
    assert run.ending == Returned('["0","1","2"]')


@pytest.mark.parametrize("ends", [True, False])
def test_a_run_that_is_over_goes_without_the_collector(ends: bool) -> None:
    """Given a run that has ended, or was put away, it is gone when nobody holds it: it does not hold itself."""

    @workflow
    async def two() -> None:
        await asyncio.gather(ask("a"), ask("b"))

    run = make_run(two)
    run.start()
    if ends:
        run.deliver_all(
            [completed(0, "ask", '"a"', START_US), completed(1, "ask", '"b"', START_US)]
        )
        assert isinstance(run.ending, Returned)
    else:
        run.close()
    gone = weakref.ref(run)
    gc.collect()
    gc.disable()
    try:
        del run
        assert gone() is None
    finally:
        gc.enable()


def test_a_request_names_the_line_of_its_call() -> None:
    """Given a call of a step, or of sleep, its source is that line of user code."""
    lines: list[str] = []

    @workflow
    async def sourced() -> None:
        lines.append(here(1))
        task = asyncio.create_task(ask("in a task"))
        lines.append(here(1))
        await asyncio.sleep(3)
        await task

    driver = Driver.begin(sourced)

    timer, asked = driver.request(0), driver.request(1)
    assert (timer.name, asked.name) == ("sleep", "ask")
    assert [asked.source, timer.source] == lines


def test_a_timer_is_due_after_the_last_event() -> None:
    """Given a sleep after a step, it is due so long after the time that the step's event was recorded."""

    @workflow
    async def late() -> None:
        await ask("a")
        await asyncio.sleep(1.5)

    driver = Driver.begin(late)
    driver.complete(0, "a")

    timer = driver.request(1)
    assert isinstance(timer, TimerRequest)
    assert timer.due_at == START_US + SECOND_US + 1_500_000


def test_time_never_goes_back() -> None:
    """Given an event that was recorded before the last one, by a clock that was set back, time stands still."""

    @workflow
    async def timed() -> list[float]:
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        for name in "ab":
            await ask(name)
            times.append(loop.time())
        return times

    driver = Driver.begin(timed)
    driver.tell(completed(0, "ask", '"a"', START_US + 5 * SECOND_US))
    driver.tell(completed(1, "ask", '"b"', START_US + 2 * SECOND_US))

    start, *rest = json.loads(driver.result())
    assert start == START_US / SECOND_US
    assert [time - start for time in rest] == [5, 5]


def test_after_a_timer_it_is_no_earlier_than_it_was_due() -> None:
    """Given a timer whose event was recorded by a clock behind, workflow time is when it was due."""

    @workflow
    async def sleeping() -> float:
        start = asyncio.get_running_loop().time()
        await asyncio.sleep(30)
        return asyncio.get_running_loop().time() - start

    driver = Driver.begin(sleeping)
    driver.tell(fired(0, "sleep", START_US + SECOND_US))

    assert json.loads(driver.result()) == 30


def test_a_task_made_of_sleep_alone_names_asyncio() -> None:
    """Given a timer that no line of user code is on the stack of, its source is not the worker's line."""

    @workflow
    async def napping() -> None:
        await asyncio.create_task(asyncio.sleep(3))

    source = Driver.begin(napping).request(0).source

    assert "asyncio" in source
    assert __file__ not in source


@pytest.mark.parametrize("delay_s", [float("inf"), float("nan"), 1e12])
def test_a_timer_without_a_time_is_refused(delay_s: float) -> None:
    """Given a delay that no timer can keep, the workflow gets an error that says so."""

    @workflow
    async def endless() -> None:
        asyncio.get_running_loop().call_later(delay_s, print)

    error = Driver.begin(endless).error()

    assert error.error_type.endswith(":UsageError")
    assert repr(delay_s) in error.error_message


# Outcomes -------------------------------------------------------------------------------------------------


def test_a_failed_step_raises_its_own_error_type() -> None:
    """Given a step that failed, the code gets an error of that type, to catch as usual."""

    @workflow
    async def careful() -> str:
        try:
            return await ask("a")
        except ZeroDivisionError as error:
            return f"caught {error}"

    driver = Driver.begin(careful)
    driver.fail(0, ZeroDivisionError("by zero"))

    assert json.loads(driver.result()) == "caught by zero"
    driver.check_replays()


def test_the_outcome_of_a_cancelled_await_is_ignored() -> None:
    """Given code that stopped waiting for a step, the number is in `take_cancelled`, and its outcome is ignored."""

    @workflow
    async def impatient() -> str:
        try:
            async with asyncio.timeout(10):
                await ask("slow")
        except TimeoutError:
            return await ask("other")
        return ""

    driver = Driver.begin(impatient)
    driver.fire(0)

    assert driver.cancelled == [1]
    assert driver.open == [2]
    driver.complete(1, "too late")
    assert driver.open == [2]
    driver.complete(2, "in time")
    assert json.loads(driver.result()) == "in time"
    driver.check_replays()


def test_a_timeout_that_was_not_needed_is_cancelled() -> None:
    """Given a step in time, the timer of its timeout is in `take_cancelled`."""

    @workflow
    async def patient() -> str:
        async with asyncio.timeout(10):
            result = await ask("quick")
        await ask("next")
        return result

    driver = Driver.begin(patient)
    driver.complete(1, "quick")

    assert driver.cancelled == [0]
    assert driver.open == [2]


# Endings --------------------------------------------------------------------------------------------------


def test_a_result_without_json_form_fails_the_workflow() -> None:
    """Given a result that its annotation does not take, the run raised a PayloadError that names the workflow."""

    @workflow
    async def wrong() -> int:
        return "no number"  # type: ignore[return-value]

    error = Driver.begin(wrong).error()

    assert error.error_type.endswith(":PayloadError")
    assert "wrong" in error.error_message


def test_a_step_that_nobody_awaits_is_warned_of_by_its_name() -> None:
    """Given code that forgets an `await`, when the coroutine is dropped, then Python's warning names the step."""

    @workflow
    async def forgetful() -> None:
        ask("x")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]

    with pytest.warns(RuntimeWarning, match="coroutine 'ask' was never awaited"):
        assert Driver.begin(forgetful).ending == Returned("null")


def test_an_error_is_recorded_with_its_stack() -> None:
    """Given a workflow that raises, type, message and the line of the raise are in the ending."""

    @workflow
    async def failing() -> None:
        await ask("a")
        raise LookupError("nothing there")

    driver = Driver.begin(failing)
    driver.complete(0, "a")

    error = driver.error()
    assert (error.error_type, error.error_message) == ("builtins:LookupError", "nothing there")
    assert 'raise LookupError("nothing there")' in error.error_stack


@pytest.mark.parametrize("in_task", [False, True])
def test_sys_exit_ends_the_workflow_and_not_the_worker(in_task: bool) -> None:
    """Given workflow code that exits, in a task of its own or not, the run raised SystemExit and `start` returns."""

    async def leave() -> None:
        sys.exit("bye")

    @workflow
    async def leaving() -> None:
        await (asyncio.create_task(leave()) if in_task else leave())

    assert Driver.begin(leaving).error().error_type == "builtins:SystemExit"


def test_a_keyboard_interrupt_goes_through() -> None:
    """Given Ctrl-C while workflow code runs, the worker gets it and nothing is recorded as the workflow's ending."""

    @workflow
    async def interrupted() -> None:
        raise KeyboardInterrupt

    run = make_run(interrupted)

    with pytest.raises(KeyboardInterrupt):
        run.start()
    assert run.ending is None


def test_a_cancelled_main_task_is_an_error() -> None:
    """Given code that cancels itself, the run raised CancelledError."""

    @workflow
    async def cancelling() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await ask("a")

    assert Driver.begin(cancelling).error().error_type.endswith(":CancelledError")


def test_wrong_arguments_fail_the_workflow() -> None:
    """Given arguments that the function does not take, the run raised Python's TypeError."""

    @workflow
    async def needs_one(name: str) -> str:
        return name

    assert Driver.begin(needs_one).error().error_type == "builtins:TypeError"


def test_after_its_end_a_run_asks_for_nothing() -> None:
    """Given a background task with an open step when the function returns, the request is void, its outcome ignored."""

    @workflow
    async def hasty() -> str:
        background = asyncio.create_task(ask("background"))
        result = await ask("needed")
        del background
        return result

    driver = Driver.begin(hasty)
    driver.complete(0, "done")

    assert json.loads(driver.result()) == "done"
    assert driver.open == []
    assert driver.run.take() == []
    driver.complete(1, "too late")
    assert json.loads(driver.result()) == "done"
    driver.check_replays()


def test_waiting_for_what_never_comes_is_stuck() -> None:
    """Given tasks that wait for one another, the run is stuck and says at which lines."""
    lines: list[str] = []

    @workflow
    async def deadlocked() -> None:
        never = asyncio.Event()

        async def wait() -> None:
            lines.append(here(1))
            await never.wait()

        task = asyncio.create_task(wait(), name="waiter")
        lines.append(here(1))
        await asyncio.gather(task, ask("a"))

    driver = Driver.begin(deadlocked)
    driver.complete(0, "a")

    assert isinstance(driver.ending, Stuck)
    assert "'wf-1'" in driver.ending.message
    for line in lines:
        assert line in driver.ending.message
    assert "'waiter'" in driver.ending.message


def test_polling_for_ever_is_stuck() -> None:
    """Given a loop that polls without waiting, the run gives up after a number of turns, and others can go on."""

    @workflow
    async def polling() -> None:
        while True:  # noqa: ASYNC110 - the mistake that is meant
            await asyncio.sleep(0)

    driver = Driver.begin(polling)

    assert isinstance(driver.ending, Stuck)
    assert f"{TURN_LIMIT:,} turns" in driver.ending.message


def test_the_error_of_a_task_that_nobody_awaited_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Given a failed task that nobody awaited, its error is logged when the workflow ends."""

    @workflow
    async def careless() -> None:
        async def fail() -> None:
            raise LookupError("unseen")

        task = asyncio.create_task(fail())
        await ask("a")
        del task

    driver = Driver.begin(careless)
    driver.complete(0, "a")

    [record] = caplog.records
    assert record.name == "refold.workflow"
    assert "'wf-1'" in record.getMessage()
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "unseen"


# Histories that do not fit --------------------------------------------------------------------------------


@workflow
async def ask_then_sleep() -> None:
    await ask("a")
    await asyncio.sleep(1)


def test_another_step_than_recorded_diverges() -> None:
    """Given history with another step's name, the run says what was recorded, what the code asks, and where."""
    run = make_run(ask_then_sleep)
    run.start()
    source = run.pending[0].source

    run.deliver(completed(0, "charge", "1", START_US + 1, position=7))

    ending = run.ending
    assert isinstance(ending, Diverged)
    assert (ending.step, ending.position) == (0, 7)
    assert (ending.expected, ending.found) == ("step 'charge'", "step 'ask'")
    assert ending.source == source
    assert "changed" in ending.cause
    assert run.pending == {}


def test_another_kind_than_recorded_diverges() -> None:
    """Given a timer in history where the code asks for a step, and the reverse, the run diverges."""
    first = make_run(ask_then_sleep)
    first.start()
    first.deliver(fired(0, "ask", START_US + 1))

    second = make_run(ask_then_sleep)
    second.start()
    second.deliver(completed(0, "ask", '"a"', START_US + 1))
    second.deliver(completed(1, "sleep", "null", START_US + 2))

    assert isinstance(first.ending, Diverged)
    assert (first.ending.expected, first.ending.found) == ("timer 'ask'", "step 'ask'")
    assert isinstance(second.ending, Diverged)
    assert (second.ending.expected, second.ending.found) == ("step 'sleep'", "timer 'sleep'")


def test_an_outcome_that_the_code_never_asked_for_diverges() -> None:
    """Given history of an operation beyond the code's, the run says what the code does instead."""
    run = make_run(ask_then_sleep)
    run.start()

    run.deliver(completed(1, "ask", "1", START_US + 1))

    assert isinstance(run.ending, Diverged)
    assert run.ending.expected == "step 'ask'"
    assert run.ending.found == "nothing: the workflow waits for step 'ask' (0)"


def test_history_after_the_return_diverges() -> None:
    """Given code that returns before history ends, the run diverges instead of completing."""

    @workflow
    async def shorter() -> None:
        await ask("a")

    run = make_run(shorter)
    run.start()
    run.deliver(completed(0, "ask", '"a"', START_US + 1))
    run.deliver(completed(1, "ask", '"b"', START_US + 2))

    assert isinstance(run.ending, Diverged)
    assert run.ending.found == "nothing: the workflow has returned"


def test_an_outcome_of_another_name_for_a_cancelled_request_diverges() -> None:
    """Given history that does not fit a request which the code gave up, the run diverges all the same."""

    @workflow
    async def giving_up() -> None:
        task = asyncio.create_task(ask("a"))
        await ask("b")
        task.cancel()
        await ask("c")

    driver = Driver.begin(giving_up)
    driver.complete(0, "b")
    driver.tell(completed(1, "charge", "1", START_US + 9 * SECOND_US))

    assert isinstance(driver.ending, Diverged)
    assert driver.ending.found == "step 'ask'"


def test_two_outcomes_of_one_operation_diverge() -> None:
    """Given a second outcome for a number, the run diverges: an outcome is never changed."""
    run = make_run(ask_then_sleep)
    run.start()
    run.deliver(completed(0, "ask", '"a"', START_US + 1))
    run.deliver(completed(0, "ask", '"b"', START_US + 2))

    assert isinstance(run.ending, Diverged)
    assert "second" in run.ending.found


def test_a_recorded_result_of_another_type_diverges() -> None:
    """Given a step whose result type was changed, the run diverges rather than failing in some later line."""

    @workflow
    async def counting() -> int:
        return await count("a")

    run = make_run(counting)
    run.start()
    run.deliver(completed(0, "count", '"text"', START_US + 1))

    assert isinstance(run.ending, Diverged)
    assert "result type" in run.ending.cause


# Closing --------------------------------------------------------------------------------------------------


async def clean_up_with_a_step() -> None:
    try:
        await ask("a")
    finally:
        await ask("clean up")


async def clean_up_with_a_sleep() -> None:
    try:
        await ask("a")
    finally:
        await asyncio.sleep(1)
        await ask("after sleep")


async def clean_up_with_tasks() -> None:
    try:
        await ask("a")
    finally:
        await asyncio.gather(ask("one"), asyncio.create_task(ask("two")))


async def clean_up_in_the_background() -> None:
    async def clean_up() -> None:
        effects.append("cleaned up")

    try:
        await ask("a")
        await ask("b")
    finally:
        await asyncio.create_task(clean_up())


async def never_give_up() -> None:
    while True:
        try:
            await ask("again")
        except BaseException:  # noqa: BLE001
            continue


async def never_give_up_sleeping() -> None:
    while True:
        try:
            await asyncio.sleep(1)
        except BaseException:  # noqa: BLE001
            continue


async def in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(clean_up_with_a_step())
        group.create_task(clean_up_with_a_sleep())


async def in_generator() -> None:
    async def results() -> AsyncIterator[str]:
        try:
            yield await ask("a")
            yield await ask("b")
        finally:
            await ask("clean up")

    async for _ in results():
        pass


async def open_generator() -> None:
    async def results() -> AsyncIterator[str]:
        try:
            yield "first"
        finally:
            await ask("clean up")

    async for _ in results():
        break
    await ask("a")
    await ask("b")


async def open_generator_in_a_cycle() -> None:
    async def results() -> AsyncIterator[str]:
        itself = holder
        try:
            yield f"first of {len(itself)}"
        finally:
            await ask("clean up")

    holder: list[AsyncIterator[str]] = []
    holder.append(results())
    await anext(holder[0])
    await ask("a")
    await ask("b")


async def in_timeout() -> None:
    async with asyncio.timeout(5), asyncio.Lock():
        await asyncio.shield(asyncio.gather(ask("a"), ask("b")))


@pytest.mark.parametrize("keep_on", [False, True], ids=["at the first wait", "at the second"])
@pytest.mark.parametrize(
    "program",
    [
        clean_up_with_a_step,
        clean_up_with_a_sleep,
        clean_up_with_tasks,
        clean_up_in_the_background,
        in_group,
        in_generator,
        open_generator,
        open_generator_in_a_cycle,
        in_timeout,
    ],
)
def test_a_closed_run_is_quiet(
    program: Callable[[], Awaitable[None]], keep_on: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a run that waits, closing it asks for nothing, does nothing, ends nothing and warns of nothing."""
    driver = Driver.begin(AsyncWorkflow(program, "closing", 1, None))
    if keep_on and 0 in driver.open and driver.request(0).name == "ask":
        driver.complete(0, "a")
    asked = dict(driver.asked)

    driver.run.close()
    gc.collect()

    assert driver.ending is None
    assert driver.run.take() == []
    assert driver.asked == asked
    assert caplog.records == []


@pytest.mark.filterwarnings("ignore:.*never_give_up:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("program", [never_give_up, never_give_up_sleeping])
def test_code_that_catches_everything_is_closed_all_the_same(
    program: Callable[[], Awaitable[None]],
) -> None:
    """Given a loop that swallows every exception and tries again, `close` comes back, with nothing done."""
    driver = Driver.begin(AsyncWorkflow(program, "stubborn", 1, None))

    driver.run.close()
    del driver
    gc.collect()  # Python says here that the coroutine ignores being closed, and rightly


def test_what_a_finished_workflow_leaves_behind_is_closed_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Given background tasks at the return, their `finally` blocks run, and the steps in there do not."""
    closed: list[str] = []

    @workflow
    async def leaving() -> str:
        async def background() -> None:
            try:
                await ask("background")
            finally:
                closed.append("begun")
                await ask("clean up")
                closed.append("never")

        async def unstarted() -> None:
            closed.append("never")

        tasks = [asyncio.create_task(background())]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(unstarted()))
        return f"left {len(tasks)}"

    driver = Driver.begin(leaving)
    gc.collect()

    assert json.loads(driver.result()) == "left 2"
    assert closed == ["begun"]
    assert driver.open == []
    assert caplog.records == []


def test_closing_twice_or_before_the_start_is_fine() -> None:
    """Given a run in any state, `close` does no harm."""
    unstarted = make_run(ask_then_sleep)
    unstarted.close()
    unstarted.close()

    waiting = Driver.begin(ask_then_sleep)
    waiting.run.close()
    waiting.complete(0, "a")
    assert waiting.ending is None

    ended = Driver.begin(ask_then_sleep)
    ended.complete(0, "a")
    ended.fire(1)
    ended.run.close()
    assert ended.result() == "null"


# Inside the worker ----------------------------------------------------------------------------------------


def test_a_run_inside_a_running_loop_leaves_it_as_it_was() -> None:
    """Given a worker's task that drives a run, each sees its own loop and task, and the worker goes on after."""
    seen: list[object] = []

    @workflow
    async def nested() -> str:
        seen.append(asyncio.get_running_loop())
        seen.append(asyncio.current_task())
        async with asyncio.timeout(5):
            return await ask("a")

    async def worker() -> str:
        loop, task, hooks = (
            asyncio.get_running_loop(),
            asyncio.current_task(),
            sys.get_asyncgen_hooks(),
        )
        driver = Driver.begin(nested)
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
            driver.complete(1, "a")
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is task
        assert sys.get_asyncgen_hooks() == hooks
        assert loop not in seen
        assert task not in seen
        assert current() is None
        await asyncio.create_task(asyncio.sleep(0))
        return driver.result()

    assert json.loads(asyncio.run(worker())) == "a"
    assert asyncio._get_running_loop() is None


def test_a_run_in_a_callback_has_no_task_to_put_aside() -> None:
    """Given a callback of the worker's loop, which is no task's, that drives a run, the run goes on all the same."""

    @workflow
    async def nested() -> str:
        task = asyncio.current_task()
        assert task is not None
        await ask(task.get_name())
        return task.get_name()

    async def worker() -> str:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[str] = loop.create_future()

        def drive() -> None:
            driver = Driver.begin(nested)
            driver.complete(0, "a")
            assert asyncio.current_task() is None
            result.set_result(driver.result())

        loop.set_exception_handler(lambda _, told: result.set_exception(told["exception"]))
        loop.call_soon(drive)
        return await result

    assert json.loads(asyncio.run(worker())) == "workflow"


def test_a_run_does_not_see_the_workers_context() -> None:
    """Given a variable that the worker has set, workflow code sees its default, not the worker's value."""
    seen: list[object] = []

    @workflow
    async def looking() -> None:
        seen.append(_tenant.get())

    _tenant.set("worker's")
    Driver.begin(looking)

    assert seen == ["nobody"]


_tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


async def to_thread() -> None:
    await asyncio.to_thread(print)


async def executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, print)


async def subprocess_exec() -> None:
    await asyncio.create_subprocess_exec("true")


async def connection() -> None:
    await asyncio.open_connection("localhost", 1)


async def from_a_thread() -> None:
    asyncio.get_running_loop().call_soon_threadsafe(print)


async def signal_handler() -> None:
    asyncio.get_running_loop().add_signal_handler(2, print)


async def run_for_ever() -> None:
    asyncio.get_running_loop().run_forever()


@pytest.mark.parametrize(
    ("program", "named"),
    [
        (to_thread, "loop.run_in_executor"),
        (executor, "loop.run_in_executor"),
        (subprocess_exec, "loop.subprocess_exec"),
        (connection, "loop.create_connection"),
        (from_a_thread, "loop.call_soon_threadsafe"),
        (signal_handler, "loop.add_signal_handler"),
        (run_for_ever, "loop.run_forever"),
    ],
)
def test_what_reaches_outside_is_refused(
    program: Callable[[], Awaitable[None]], named: str
) -> None:
    """Given workflow code that uses the loop to reach outside, it fails with an error that says to use a step."""
    error = Driver.begin(AsyncWorkflow(program, "reaching", 1, None)).error()

    assert error.error_type.endswith(":UsageError")
    assert named in error.error_message
    assert "@step" in error.error_message
    assert f"{__file__}:" in error.error_message


def test_a_blocking_call_of_a_step_is_refused() -> None:
    """Given the spelling for `def` workflows in an `async def` one, the error names the right one."""

    @workflow
    async def blocking() -> str:
        return block("a")

    assert ".aio(" in Driver.begin(blocking).error().error_message


def test_wait_source_follows_awaits_inwards() -> None:
    """Given nested coroutines, the line named is where the innermost user code waits."""
    lines: list[str] = []

    async def inner() -> None:
        lines.append(here(1))
        await asyncio.sleep(0)

    async def outer() -> None:
        await inner()

    coroutine = outer()
    coroutine.send(None)

    assert wait_source(coroutine) == f"{lines[0]} in inner"
    coroutine.close()
