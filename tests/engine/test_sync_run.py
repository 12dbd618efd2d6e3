"""A run of a `def` workflow: on a thread while it runs, in turns with the worker, unwound while it waits long."""

import asyncio
import gc
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from refold.engine.definitions import SyncWorkflow, step, workflow
from refold.engine.operations import Diverged, Returned, RunFacts, TimerRequest
from refold.engine.scope import Suspended, current, now, random, sleep_sync, uuid4
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import NoThreadFree, ThreadSlots
from run_driver import SECOND_US, START_US, Driver, completed, make_run

effects: list[str] = []


@step
def ask(name: str) -> str:
    effects.append(name)
    return name


@step
async def fetch(name: str) -> str:
    effects.append(name)
    return name


@pytest.fixture(autouse=True)
def no_effects() -> Iterator[None]:
    """No run ever carries out a step by itself, not even as it is unwound."""
    effects.clear()
    yield
    assert effects == []


@pytest.fixture
def slots() -> Iterator[ThreadSlots]:
    slots = ThreadSlots(2)
    yield slots
    slots.close()


@workflow
def three() -> list[str]:
    return [ask(name) for name in "abc"]


@workflow
def ask_then_sleep() -> str:
    result = ask("a")
    sleep_sync(1.5)
    return result


def test_steps_and_sleeps_are_asked_for_one_after_the_other() -> None:
    """Given a workflow of a step and a sleep, each is a request, and the result comes when both are told."""
    driver = Driver.begin(ask_then_sleep)
    assert driver.open == [0]
    driver.complete(0, "done")

    timer = driver.request(1)
    assert isinstance(timer, TimerRequest)
    assert (timer.name, timer.due_at) == ("sleep", START_US + SECOND_US + 1_500_000)
    assert timer.source.startswith(f"{__file__}:")
    driver.fire(1)
    assert json.loads(driver.result()) == "done"
    driver.check_replays()


def test_an_async_step_has_its_own_spelling() -> None:
    """Given an `async def` step in a `def` workflow, `.sync(...)` asks for it, and a plain call names that."""

    @workflow
    def spelled() -> str:
        return fetch.sync("a")

    @workflow
    def misspelled() -> None:
        fetch("a")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]

    driver = Driver.begin(spelled)
    driver.complete(0, "fetched")

    assert json.loads(driver.result()) == "fetched"
    assert ".sync(" in Driver.begin(misspelled).error().error_message


def test_a_failed_step_raises_its_own_error_type() -> None:
    """Given a step that failed, the code gets an error of that type, to catch as usual."""

    @workflow
    def careful() -> str:
        try:
            return ask("a")
        except ZeroDivisionError as error:
            return f"caught {error}"

    driver = Driver.begin(careful)
    driver.fail(0, ZeroDivisionError("by zero"))

    assert json.loads(driver.result()) == "caught by zero"


def test_a_history_told_at_once_needs_no_turns() -> None:
    """Given a whole history in one call, the run stands where one by one would have brought it."""
    run = make_run(three)
    run.start()
    run.deliver_all([completed(n, "ask", f'"{n}"', START_US + n) for n in range(2)])

    assert [request.step for request in run.take()] == [2]
    run.deliver(completed(2, "ask", '"2"', START_US + 2))
    assert run.ending == Returned('["0","1","2"]')


@pytest.mark.parametrize("error", [LookupError("gone"), SystemExit("bye"), KeyboardInterrupt()])
def test_whatever_the_code_raises_is_its_ending(error: BaseException) -> None:
    """Given a workflow that raises, the run raised that, and the worker's thread did not."""

    @workflow
    def failing() -> None:
        raise error

    assert Driver.begin(failing).error().error_type == f"builtins:{type(error).__name__}"


def test_a_result_without_json_form_fails_the_workflow() -> None:
    """Given a result that its annotation does not take, the run raised a PayloadError."""

    @workflow
    def wrong() -> int:
        return "no number"  # type: ignore[return-value]

    assert Driver.begin(wrong).error().error_type.endswith(":PayloadError")


# Histories that do not fit --------------------------------------------------------------------------------


def test_another_step_than_recorded_diverges_and_unwinds_the_thread(slots: ThreadSlots) -> None:
    """Given history with another step's name, the run diverges, and its `finally` blocks ask for nothing."""

    @workflow
    def changed() -> None:
        try:
            ask("a")
        finally:
            ask("clean up")

    run = make_run(changed, slots=slots)
    run.start()
    run.deliver(completed(0, "charge", "1", START_US + 1, position=7))

    assert isinstance(run.ending, Diverged)
    assert (run.ending.step, run.ending.position) == (0, 7)
    assert (run.ending.expected, run.ending.found) == ("step 'charge'", "step 'ask'")
    assert run.pending == {}
    assert slots.count == 1
    Driver.begin(three, slots=slots)
    assert slots.count == 1, "the thread is free again"


def test_history_after_the_return_diverges() -> None:
    """Given code that returns before history ends, the run diverges, told at once or one by one."""
    history = [completed(n, "ask", f'"{n}"', START_US + n) for n in range(4)]
    at_once, one_by_one = make_run(three), make_run(three)
    at_once.start()
    at_once.deliver_all(history)
    one_by_one.start()
    for outcome in history:
        one_by_one.deliver(outcome)

    assert isinstance(at_once.ending, Diverged)
    assert at_once.ending == one_by_one.ending
    assert at_once.ending.found == "nothing: the workflow has returned"


# Suspension -----------------------------------------------------------------------------------------------


def test_a_suspended_run_goes_on_where_it_stood(slots: ThreadSlots) -> None:
    """Given a run that was suspended after each outcome, it asks for nothing twice and ends the same."""
    driver = Driver(lambda: make_run(three, slots=slots))
    driver.start()
    for number, name in enumerate("abc"):
        assert isinstance(driver.run, SyncRun)
        driver.run.suspend()
        assert driver.open == [number]
        driver.complete(number, name)

    assert json.loads(driver.result()) == ["a", "b", "c"]
    driver.check_replays()


def test_a_request_not_taken_before_the_suspension_is_taken_after(slots: ThreadSlots) -> None:
    """Given a run suspended before its requests were taken, they are not lost, nor asked for twice."""
    run = make_run(three, slots=slots)
    assert isinstance(run, SyncRun)
    run.start()
    run.suspend()
    assert [request.step for request in run.take()] == [0]
    run.deliver(completed(0, "ask", '"a"', START_US))
    run.suspend()
    run.deliver(completed(1, "ask", '"b"', START_US))

    assert [request.step for request in run.take()] == [2]
    run.suspend()
    assert run.take() == []
    run.close()


def test_runs_beyond_the_threads_take_turns(slots: ThreadSlots) -> None:
    """Given five runs and two threads, all come to their end: who has waited longest is suspended for the next."""
    drivers = [Driver.begin(three, slots=slots, workflow_id=f"wf-{n}") for n in range(5)]
    for number, name in enumerate("abc"):
        for driver in drivers:
            driver.complete(number, name)

    assert [json.loads(driver.result()) for driver in drivers] == [["a", "b", "c"]] * 5
    assert slots.count == 2


def test_a_thread_is_used_again(slots: ThreadSlots) -> None:
    """Given runs one after the other, they share one thread."""
    for _ in range(20):
        driver = Driver.begin(three, slots=slots)
        for number, name in enumerate("abc"):
            driver.complete(number, name)
        driver.result()

    assert slots.count == 1


def clean_up_with_a_step(log: list[str]) -> None:
    try:
        ask("a")
    finally:
        log.append("unwound")
        ask("clean up")


def clean_up_with_a_sleep(log: list[str]) -> None:
    try:
        ask("a")
    except BaseException:
        log.append("unwound")
        sleep_sync(5)
        raise


def return_instead(log: list[str]) -> None:
    try:
        ask("a")
    except BaseException:  # noqa: BLE001
        log.append("unwound")


def raise_instead(log: list[str]) -> None:
    try:
        ask("a")
    except BaseException as error:
        log.append("unwound")
        raise ValueError("instead") from error


@pytest.mark.parametrize(
    "program", [clean_up_with_a_step, clean_up_with_a_sleep, return_instead, raise_instead]
)
def test_a_closed_run_is_quiet(
    program: object, slots: ThreadSlots, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a run that waits, closing it unwinds the code, asks for nothing, does nothing and ends nothing."""
    log: list[str] = []

    @workflow
    def closing() -> None:
        assert callable(program)
        program(log)

    driver = Driver.begin(closing, slots=slots)
    driver.run.close()

    assert log == ["unwound"]
    assert driver.ending is None
    assert driver.run.take() == []
    assert driver.open == [0]
    assert caplog.records == []


def test_code_that_swallows_its_suspension_for_ever_loses_its_thread(
    slots: ThreadSlots, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a loop that swallows everything and tries again, `close` comes back, and says which workflow it is."""

    @workflow
    def stubborn() -> None:
        while True:
            try:
                ask("again")
            except BaseException:  # noqa: BLE001
                continue

    driver = Driver.begin(stubborn, slots=slots)
    driver.run.close()

    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "'wf-1'" in record.getMessage()
    assert f"{__file__}:" in record.getMessage()


def test_without_any_thread_left_a_start_says_so() -> None:
    """Given threads that are all lost, the next start raises an error that says what to do."""
    slots = ThreadSlots(1)

    @workflow
    def stubborn() -> None:
        while True:
            try:
                ask("again")
            except BaseException:  # noqa: BLE001
                continue

    Driver.begin(stubborn, slots=slots).run.close()

    with pytest.raises(NoThreadFree, match="restart the worker"):
        Driver.begin(three, slots=slots)


def test_code_that_does_not_come_back_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Given code that holds up the worker, its line is logged while it does so, and the run goes on after."""
    reported = threading.Event()

    class Signal(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reported.set()

    @workflow
    def slow() -> str:
        reported.wait()
        return "done"

    logger = logging.getLogger("refold.workflow")
    handler = Signal()
    logger.addHandler(handler)
    try:
        run = SyncRun(
            slow.fn,
            (),
            {},
            facts=RunFacts("wf-1", slow.name, slow.version, START_US),
            result_type=slow.result_type,
            encode_input=slow.input_type.encode,
            slots=ThreadSlots(1),
            stall_report_s=0.01,
        )
        run.start()
    finally:
        logger.removeHandler(handler)

    assert run.ending == Returned('"done"')
    assert "'wf-1' has not come to a step" in caplog.records[0].getMessage()
    assert f"{__file__}:" in caplog.records[0].getMessage()


def test_closing_ends_all_threads() -> None:
    """Given runs that wait, closing the slots unwinds them and ends the threads."""
    slots = ThreadSlots(3)
    before = threading.active_count()
    drivers = [Driver.begin(three, slots=slots) for _ in range(3)]
    threads = [
        thread for thread in threading.enumerate() if thread.name.startswith("refold-workflow")
    ]
    assert threading.active_count() == before + 3

    slots.close()
    for thread in threads[-3:]:
        thread.join(10)

    assert threading.active_count() == before
    assert [driver.open for driver in drivers] == [[0]] * 3


# The scope ------------------------------------------------------------------------------------------------


def test_the_thread_is_part_of_the_run_and_the_worker_is_not() -> None:
    """Given workflow code on its thread, the scope there is the run's; the worker's thread has none."""
    seen: list[object] = []

    @workflow
    def looking() -> None:
        scope = current()
        seen.append(scope is not None and scope.workflow_id)
        ask("a")
        seen.append(threading.current_thread())

    driver = Driver.begin(looking)
    assert current() is None
    driver.complete(0, "a")

    assert seen[0] == "wf-1"
    assert seen[1] is not threading.current_thread()


def test_time_and_random_numbers_are_the_same_after_a_suspension(slots: ThreadSlots) -> None:
    """Given deterministic helpers on both sides of a suspension, their answers are those of a run in one go."""

    @workflow
    def drawing() -> list[str]:
        values = [str(now()), str(random().random()), str(uuid4())]
        ask("a")
        return [*values, str(now()), str(random().random()), str(uuid4())]

    plain, suspended = (Driver.begin(drawing, slots=slots) for _ in range(2))
    assert isinstance(suspended.run, SyncRun)
    suspended.run.suspend()
    plain.complete(0, "a")
    suspended.complete(0, "a")

    assert plain.result() == suspended.result()
    assert len(set(json.loads(plain.result()))) == 6


def test_a_durable_call_from_another_thread_is_refused() -> None:
    """Given a thread that was there before and calls in the workflow's name, the error says to stay on its own."""
    errors: list[BaseException] = []
    calls: list[object] = []
    given, done = threading.Event(), threading.Event()

    def outsider() -> None:
        given.wait()
        try:
            assert callable(calls[0])
            calls[0]()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)
        done.set()

    threading.Thread(target=outsider, daemon=True).start()

    @workflow
    def delegating() -> None:
        import contextvars  # noqa: PLC0415

        context = contextvars.copy_context()
        calls.append(lambda: context.run(ask, "from outside"))
        given.set()
        done.wait()

    driver = Driver.begin(delegating)

    assert driver.result() == "null"
    assert "on another thread" in str(errors[0])


@pytest.mark.filterwarnings("ignore:.*:pytest.PytestUnraisableExceptionWarning")
def test_asyncio_in_a_def_workflow_is_refused() -> None:
    """Given asyncio.run in a `def` workflow, the guard refuses the real event loop."""

    @workflow
    def mixing() -> None:
        coroutine = asyncio.sleep(0)
        try:
            asyncio.run(coroutine)
        finally:
            coroutine.close()

    assert Driver.begin(mixing).error().error_type.endswith(":SideEffectError")
    gc.collect()  # asyncio leaves its half-made loop open, and Python warns of that here


def test_suspended_is_no_exception_that_code_catches_by_habit() -> None:
    """Given `except Exception` around a step, a suspension passes through it."""
    caught: list[Exception] = []

    def habit() -> None:
        try:
            ask("a")
        except Exception as error:  # noqa: BLE001
            caught.append(error)

    driver = Driver.begin(SyncWorkflow(habit, "habit", 1, None))
    driver.run.close()

    assert caught == []
    assert not issubclass(Suspended, Exception)
