"""How runs end, and how clients hear of it: results, errors as their own types, timeouts, status, history, lists."""

import asyncio
import threading
from collections.abc import Coroutine

import pytest

from engine_trial import engine_on, kinds
from log_backend import LogBackend
from refold import (
    DefinitionError,
    Engine,
    EngineClosed,
    PayloadError,
    PayloadTooLarge,
    ResultTimeout,
    Status,
    StepError,
    WorkflowError,
    WorkflowNotFound,
    run_step,
    step,
    workflow,
)
from refold.log.events import StepFailed, WorkflowFailed


class OutOfStock(Exception):
    """An error with arguments of its own."""

    def __init__(self, item: str, missing: int) -> None:
        super().__init__(item, missing)
        self.item = item
        self.missing = missing


@step
async def reserve(item: str) -> int:
    raise OutOfStock(item, 3)


@workflow
async def order(item: str) -> int:
    return await reserve(item)


@workflow
async def forgiving(item: str) -> str:
    try:
        await reserve(item)
    except OutOfStock as error:
        return f"{error.item} {error.missing}"
    return "in stock"


def local_error() -> type[Exception]:
    """A class that can't be imported by its name."""

    class Unreachable(Exception):
        pass

    return Unreachable


@step
async def fail_locally() -> None:
    raise local_error()("deep inside")


@workflow
async def meets_local_error() -> str:
    try:
        await fail_locally()
    except StepError as error:
        return f"{error.type_name.rpartition('.')[2]}: {error}"
    return "no error"


@workflow
async def raises_local_error() -> None:
    raise local_error()("from the workflow")


def test_a_steps_error_comes_back_as_its_own_type(any_backend: LogBackend) -> None:
    """Given a step that raises, the workflow and its client see the class, arguments and attributes that it raised."""
    with engine_on(any_backend, order, forgiving) as engine:
        assert engine.start(forgiving, "pen").result() == "pen 3"
        with pytest.raises(OutOfStock) as caught:
            engine.start(order, "ink", id="order").result()
        assert (caught.value.item, caught.value.missing) == ("ink", 3)
        assert "in reserve" in "".join(caught.value.__notes__)
        assert kinds(engine, "order") == ["workflow.started", "step.failed", "workflow.failed"]


def test_an_error_that_can_not_be_rebuilt_keeps_type_message_and_stack(backend: LogBackend) -> None:
    """Given an error of a local class, the workflow sees a StepError and the client a WorkflowError that say which."""
    with engine_on(backend, meets_local_error, raises_local_error) as engine:
        met = engine.start(meets_local_error).result()
        assert met == "Unreachable: local_error.<locals>.Unreachable: deep inside"
        with pytest.raises(WorkflowError, match="from the workflow"):
            engine.start(raises_local_error, id="local").result()
        failed = engine.history("local")[-1]
        assert isinstance(failed, WorkflowFailed)
        assert "raises_local_error" in (failed.error_stack or "")


def test_a_result_that_is_not_there_in_time_is_a_timeout_and_no_loss(backend: LogBackend) -> None:
    """Given a run that waits, a result with a timeout raises and names the run; the run goes on and ends."""
    gate = threading.Event()

    @step
    def wait_for_gate() -> str:
        gate.wait()
        return "open"

    @workflow
    def waits() -> str:
        return wait_for_gate()

    with engine_on(backend, waits) as engine:
        handle = engine.start(waits, id="slow")
        with pytest.raises(ResultTimeout, match="'slow'"):
            handle.result(timeout_s=0.01)
        assert handle.status().status is Status.RUNNING
        gate.set()
        assert handle.result() == "open"


def test_status_history_and_list_tell_what_happened(any_backend: LogBackend) -> None:
    """Given a run that completed and one that failed, status, history and list agree about both."""
    with engine_on(any_backend, order, forgiving) as engine:
        engine.start(forgiving, "pen", id="good").result()
        bad = engine.start(order, "pen", id="bad")
        with pytest.raises(OutOfStock):
            bad.result()
        good = engine.status("good")
        assert (good.workflow, good.status, good.events) == ("forgiving", Status.COMPLETED, 3)
        assert bad.status().status is Status.FAILED
        positions = [getattr(event, "position", None) for event in engine.history("good")]
        assert positions == [0, 1, 2]
        assert {info.workflow_id: info.status for info in engine.list()} == {
            "bad": Status.FAILED,
            "good": Status.COMPLETED,
        }
        assert good in engine.list()


def test_a_run_that_is_not_there_is_told_of(backend: LogBackend) -> None:
    """Given an id that nobody started, result, status, history and resume each say that there is no such run."""
    with engine_on(backend, order) as engine:
        for ask in (
            lambda: engine.handle("nobody").result(),
            lambda: engine.status("nobody"),
            lambda: engine.history("nobody"),
            lambda: engine.resume("nobody"),
        ):
            with pytest.raises(WorkflowNotFound, match="'nobody'"):
                ask()
        engine.start(forgiving, "pen", id="nobody")  # asking has not taken the id
        assert engine.handle("nobody").result() == "pen 3"


def test_closing_the_engine_ends_every_wait(backend: LogBackend) -> None:
    """Given a thread that waits for a result, closing the engine lets it know instead of leaving it there."""
    begun, heard = threading.Event(), list[Exception]()

    @step
    async def never() -> None:
        begun.set()
        await asyncio.Event().wait()

    @workflow
    async def endless() -> None:
        await never()

    with Engine(backend.log(), workflows=[endless], drain_s=0.01) as engine:
        handle = engine.start(endless)

        def wait() -> None:
            try:
                handle.result()
            except EngineClosed as error:
                heard.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert begun.wait(60)
    waiting.join(60)
    assert len(heard) == 1


@step
def hands_out_a_coroutine() -> object:
    async def later() -> int:
        return 1

    made: Coroutine[None, None, int] = later()
    return made


@step
def has_no_json() -> object:
    return object()


@step
def too_large() -> str:
    return "x" * 900_001


@workflow
def returns_too_much() -> str:
    return "x" * 900_001


@workflow
def asks(which: str) -> str:
    match which:
        case "coroutine":
            hands_out_a_coroutine()
        case "object":
            has_no_json()
        case _:
            too_large()
    return "it was recorded"


@pytest.mark.parametrize(
    ("which", "error", "says"),
    [
        ("coroutine", DefinitionError, "async def"),
        ("object", PayloadError, "has_no_json"),
        ("large", PayloadTooLarge, "900,000"),
    ],
)
def test_a_step_result_that_can_not_be_recorded_fails_the_step(
    backend: LogBackend, which: str, error: type[Exception], says: str
) -> None:
    """Given a step that returns a coroutine, an object without JSON or too much, the run fails with a clear error."""
    with engine_on(backend, asks, max_payload_bytes=900_000) as engine:
        with pytest.raises(error, match=says):
            engine.start(asks, which, id="run").result()
        failed = engine.history("run")[1]
        assert isinstance(failed, StepFailed)
        assert failed.attempt == 1


def test_a_result_over_the_limit_fails_the_run(backend: LogBackend) -> None:
    """Given a workflow whose result is too large, the run fails and says the limit; the worker goes on."""
    with engine_on(backend, returns_too_much, forgiving, max_payload_bytes=900_000) as engine:
        with pytest.raises(PayloadTooLarge, match="900,000"):
            engine.start(returns_too_much).result()
        assert engine.start(forgiving, "pen").result() == "pen 3"


def test_results_that_memory_has_forgotten_are_found_in_the_log(any_backend: LogBackend) -> None:
    """Given runs that ended in a former life, their results and errors come from the log, by a look-up."""
    with engine_on(any_backend, order, forgiving) as engine:
        engine.start(forgiving, "pen", id="good").result()
        with pytest.raises(OutOfStock):
            engine.start(order, "pen", id="bad").result()
    with engine_on(any_backend, order, forgiving) as engine:
        assert engine.handle("good", forgiving).result() == "pen 3"
        with pytest.raises(OutOfStock):
            engine.handle("bad").result()


def test_async_with_runs_on_the_callers_loop(backend: LogBackend) -> None:
    """Given `async with`, async steps run on the caller's own loop, and many handles can be awaited at once."""
    loops: set[asyncio.AbstractEventLoop] = set()

    async def note(number: int) -> int:
        loops.add(asyncio.get_running_loop())
        return number

    @workflow
    async def noted(number: int) -> int:
        return await run_step(note, number)

    async def scenario() -> None:
        async with engine_on(backend, noted) as engine:
            handles = [await engine.start_async(noted, n) for n in range(20)]
            assert await asyncio.gather(*handles) == list(range(20))
            assert loops == {asyncio.get_running_loop()}

    asyncio.run(scenario())


def test_closing_lets_steps_under_way_finish(backend: LogBackend) -> None:
    """Given a step under way, closing the engine waits for it, and its outcome is recorded: it never runs again."""
    begun, gate = threading.Event(), threading.Event()
    runs: list[str] = []

    @step
    def slow() -> str:
        runs.append("slow")
        begun.set()
        gate.wait()
        return "done"

    @step
    def after() -> None:
        runs.append("after")

    @workflow
    def drained() -> str:
        result = slow()
        after()
        return result

    engine = engine_on(backend, drained).__enter__()
    handle = engine.start(drained, id="d")
    assert begun.wait(60)
    closing = threading.Thread(target=engine.__exit__)
    closing.start()
    with pytest.raises(EngineClosed):  # the closing has begun
        handle.result()
    gate.set()
    closing.join(60)
    assert runs == ["slow"]
    with engine_on(backend, drained) as engine:
        assert engine.handle("d", drained).result() == "done"
    assert runs == ["slow", "after"]
