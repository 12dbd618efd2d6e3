"""Retries, timeouts and cancellation in whole engines: each attempt an event, and what a step knows of its attempt."""

import asyncio
import json
import threading
from dataclasses import dataclass

import pytest

from engine_trial import engine_on, kinds
from log_backend import LogBackend
from refold import Engine, Retry, Status, StepTimeout, WorkflowParked, step, step_context, workflow
from refold.engine.worker import wall_clock
from refold.log.events import StepAttemptFailed, StepCompleted, StepFailed
from refold.log.events import WorkflowParked as ParkedEvent

SOON = Retry(attempts=3, initial_s=0.001, backoff=2, jitter=0, on=(ConnectionError,))
SEEN: dict[str, list[tuple[int, str]]] = {}
"""Attempts and idempotency keys by workflow id."""


def note() -> int:
    """Write down which attempt this is; returns its number."""
    context = step_context()
    SEEN.setdefault(context.workflow_id, []).append((context.attempt, context.idempotency_key))
    return context.attempt


@step(retry=SOON)
async def flaky(failures: int) -> str:
    if note() <= failures:
        raise ConnectionError("no line")
    return "through"


@step(retry=SOON)
def flaky_in_thread(failures: int) -> str:
    if note() <= failures:
        raise ConnectionError("no line")
    return "through"


@workflow
async def calls(failures: int) -> str:
    return await flaky(failures)


@workflow
def calls_in_thread(failures: int) -> str:
    return flaky_in_thread(failures)


def attempts_of(engine: Engine, run: str) -> list[StepAttemptFailed]:
    return [event for event in engine.history(run) if isinstance(event, StepAttemptFailed)]


def test_failed_attempts_are_events_and_the_step_is_tried_again(any_backend: LogBackend) -> None:
    """Given a step that fails twice, its third attempt's result counts, and each failure stands in the history."""
    with engine_on(any_backend, calls) as engine:
        assert engine.start(calls, 2, id="flaky-1").result() == "through"
        failed = attempts_of(engine, "flaky-1")
        assert [event.attempt for event in failed] == [1, 2]
        assert {event.error_message for event in failed} == {"no line"}
        pauses = [(event.due_at or 0) - event.recorded_at for event in failed]
        assert pauses == [1_000, 2_000]  # microseconds, doubled
        completed = engine.history("flaky-1")[3]
        assert isinstance(completed, StepCompleted)
        assert completed.attempt == 3


def test_def_steps_are_tried_again_in_the_same_way(backend: LogBackend) -> None:
    """Given a `def` step in a `def` workflow that fails once, the second attempt's result counts."""
    with engine_on(backend, calls_in_thread) as engine:
        assert engine.start(calls_in_thread, 1, id="t-1").result() == "through"
        assert [event.attempt for event in attempts_of(engine, "t-1")] == [1]


def test_used_up_attempts_fail_the_step_with_its_last_error(backend: LogBackend) -> None:
    """Given a step that always fails, after its last attempt the workflow gets that error."""
    with engine_on(backend, calls) as engine:
        with pytest.raises(ConnectionError, match="no line"):
            engine.start(calls, 99, id="never").result()
        assert kinds(engine, "never") == [
            "workflow.started",
            *["step.attempt_failed"] * 2,
            "step.failed",
            "workflow.failed",
        ]


def test_an_error_that_is_not_named_is_not_tried_again(backend: LogBackend) -> None:
    """Given a retry for connection errors, any other error fails the step at once."""

    @step(retry=SOON)
    async def wrong() -> None:
        raise KeyError("a mistake")

    @workflow
    async def calls_wrong() -> None:
        await wrong()

    with engine_on(backend, calls_wrong) as engine:
        with pytest.raises(KeyError):
            engine.start(calls_wrong, id="wrong").result()
        assert kinds(engine, "wrong") == ["workflow.started", "step.failed", "workflow.failed"]


def test_a_step_knows_its_attempt_and_keeps_its_idempotency_key(any_backend: LogBackend) -> None:
    """Given a step of several attempts, each sees its own number and all see one key, which no other step has."""
    SEEN.clear()
    with engine_on(any_backend, calls) as engine:
        engine.start(calls, 2, id="keys-1").result()
        engine.start(calls, 0, id="keys-2").result()
    assert [attempt for attempt, _ in SEEN["keys-1"]] == [1, 2, 3]
    assert len({key for _, key in SEEN["keys-1"]}) == 1
    assert SEEN["keys-1"][0][1] != SEEN["keys-2"][0][1]


def test_the_context_says_where_the_step_stands(backend: LogBackend) -> None:
    """Given a step with a timeout, its context names workflow, step, attempt and deadline."""

    @dataclass
    class Seen:
        workflow_id: str
        step: int
        attempt: int
        has_deadline: bool
        cancelled: bool

    @step(timeout_s=60)
    async def look() -> Seen:
        c = step_context()
        return Seen(c.workflow_id, c.step, c.attempt, c.deadline is not None, c.cancelled)

    @workflow
    async def looks() -> Seen:
        await look()
        return await look()

    with engine_on(backend, looks) as engine:
        assert engine.start(looks, id="ctx").result() == Seen("ctx", 1, 1, True, False)


def test_the_key_is_the_same_after_a_recovery(backend: LogBackend) -> None:
    """Given a step cut off by the end of its worker, when it runs again its idempotency key is the same."""
    SEEN.clear()
    begun, gate = threading.Event(), threading.Event()

    @step
    async def cut_off() -> str:
        note()
        if not gate.is_set():
            begun.set()
            await asyncio.Event().wait()
        return "second life"

    @workflow
    async def survives() -> str:
        return await cut_off()

    with Engine(backend.log(), workflows=[survives], drain_s=0.01) as engine:
        engine.start(survives, id="cut")
        assert begun.wait(60)
    gate.set()
    with engine_on(backend, survives) as engine:
        assert engine.handle("cut", survives).result() == "second life"
        assert kinds(engine, "cut") == ["workflow.started", "step.completed", "workflow.completed"]
    assert len(SEEN["cut"]) == 2
    assert len(set(SEEN["cut"])) == 1


@pytest.mark.parametrize("in_thread", [False, True])
def test_an_attempt_that_takes_too_long_is_a_timeout(backend: LogBackend, in_thread: bool) -> None:
    """Given a step over its time, async or in a thread, the attempt fails with StepTimeout and is cancelled."""
    released = threading.Event()

    @step(timeout_s=0.02)
    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            released.set()

    @step(timeout_s=0.02)
    def hangs_in_thread() -> None:
        if step_context().wait_cancelled(60):
            released.set()

    @workflow
    async def waits() -> None:
        await (hangs_in_thread.aio() if in_thread else hangs())

    with engine_on(backend, waits) as engine:
        with pytest.raises(StepTimeout, match=r"took longer than 0.02 s"):
            engine.start(waits).result()
        assert released.wait(60)


def test_timeouts_can_be_tried_again(backend: LogBackend) -> None:
    """Given a step that hangs the first time and may be tried again, its second attempt's result counts."""

    @step(timeout_s=0.02, retry=Retry(attempts=2, initial_s=0.001, on=(TimeoutError,)))
    async def hangs_once() -> int:
        if step_context().attempt == 1:
            await asyncio.Event().wait()
        return step_context().attempt

    @workflow
    async def waits() -> int:
        return await hangs_once()

    with engine_on(backend, waits) as engine:
        assert engine.start(waits, id="hangs").result() == 2
        assert "StepTimeout" in attempts_of(engine, "hangs")[0].error_type


def test_the_total_timeout_ends_the_attempts(backend: LogBackend) -> None:
    """Given ten attempts but a total time that the first pause would pass, the step fails after the first."""

    @step(retry=Retry(attempts=10, initial_s=60), total_timeout_s=30)
    async def fails() -> None:
        raise ConnectionError("down")

    @workflow
    async def tries() -> None:
        await fails()

    with engine_on(backend, tries) as engine:
        with pytest.raises(ConnectionError):
            engine.start(tries, id="total").result()
        failed = engine.history("total")[1]
        assert isinstance(failed, StepFailed)
        assert failed.attempt == 1


def test_used_up_attempts_park_where_asked_and_resume_gives_new_ones(
    any_backend: LogBackend,
) -> None:
    """Given on_exhausted="park", the run waits for a person with its reason; resumed, it gets its attempts anew."""
    mended = threading.Event()

    @step(retry=Retry(attempts=2, initial_s=0.001), on_exhausted="park")
    async def fragile() -> str:
        if not mended.is_set():
            raise ConnectionError("down")
        return f"attempt {step_context().attempt}"

    @workflow
    async def parks() -> str:
        return await fragile()

    with engine_on(any_backend, parks) as engine:
        handle = engine.start(parks, id="p")
        with pytest.raises(WorkflowParked, match=r"used up its attempts.*refold resume p"):
            handle.result()
        assert handle.status().status is Status.PARKED
        parked = engine.history("p")[-1]
        assert isinstance(parked, ParkedEvent)
        assert parked.name == "attempts_used_up"
        assert json.loads(parked.payload or "")["name"] == "fragile"
        mended.set()
        engine.resume("p", reason="the line is back")
        assert handle.result() == "attempt 1"
        assert "workflow.resumed" in kinds(engine, "p")


def test_only_parked_runs_can_be_resumed(backend: LogBackend) -> None:
    """Given a run that ended, resume is refused with how it stands."""
    with engine_on(backend, calls) as engine:
        engine.start(calls, 0, id="over").result()
        with pytest.raises(Exception, match=r"'over' has completed, so there is nothing to resume"):
            engine.resume("over")


def test_a_timeout_in_workflow_code_cancels_the_step(any_backend: LogBackend) -> None:
    """Given asyncio.timeout around a step that hangs, the step is cancelled and the workflow goes on."""
    cancelled = threading.Event()
    now_us = wall_clock()

    @step
    async def hangs() -> None:
        nonlocal now_us
        now_us += 500_000  # no sooner, or the step might never begin
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    @step
    async def instead() -> str:
        return "plan B"

    @workflow
    async def impatient() -> str:
        try:
            async with asyncio.timeout(0.5):
                await hangs()
        except TimeoutError:
            return await instead()
        return "plan A"

    with Engine(any_backend.log(), workflows=[impatient], clock=lambda: now_us) as engine:
        assert engine.start(impatient, id="i").result() == "plan B"
        assert cancelled.wait(60)
        assert kinds(engine, "i") == [
            "workflow.started",
            "timer.started",
            "timer.fired",
            "step.completed",
            "workflow.completed",
        ]


def test_a_queued_step_that_is_given_up_never_begins(backend: LogBackend) -> None:
    """Given one thread for `def` steps and a step that holds it, a second one, cancelled meanwhile, never runs."""
    release = threading.Event()
    ran: list[str] = []

    @step
    def holder() -> None:
        release.wait()

    @step
    def queued() -> None:
        ran.append("queued")

    @step
    async def let_go() -> None:
        release.set()

    async def give_up() -> None:
        try:
            async with asyncio.timeout(0.02):
                await queued.aio()
        except TimeoutError:
            await let_go()

    @workflow
    async def gives_up() -> None:
        await asyncio.gather(holder.aio(), give_up())

    with Engine(backend.log(), workflows=[gives_up], threads=1) as engine:
        engine.start(gives_up).result()
    assert ran == []
