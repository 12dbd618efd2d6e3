"""What a later life of an engine makes of what the former left: timers, changed code, code that is missing."""

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from engine_trial import engine_on, fold_digests, kinds, until
from log_backend import LogBackend
from refold import (
    CommandRefused,
    Engine,
    Status,
    Workflow,
    WorkflowParked,
    now,
    random,
    sleep,
    sleep_sync,
    step,
    uuid4,
    workflow,
)
from refold.engine.worker import wall_clock
from refold.log.events import TimerStarted
from refold.log.events import WorkflowParked as ParkedEvent

RAN: list[str] = []
HOUR_US = 3_600_000_000


@step
async def first() -> str:
    RAN.append("first")
    return "1"


@step
async def second() -> str:
    RAN.append("second")
    return "2"


def in_an_hour() -> int:
    """A clock that is an hour ahead."""
    return wall_clock() + HOUR_US


@workflow
async def waits_an_hour() -> str:
    before = await first()
    await sleep(timedelta(hours=1))
    return before + await second()


@workflow
def waits_an_hour_in_a_thread() -> str:
    before = first.sync()
    sleep_sync(timedelta(hours=1))
    return before + second.sync()


@pytest.mark.parametrize("waiting", [waits_an_hour, waits_an_hour_in_a_thread])
def test_timers_survive_a_restart(any_backend: LogBackend, waiting: Workflow[[], str]) -> None:
    """Given a run that waits an hour, a worker started an hour later goes on with it; its first step is replayed."""
    RAN.clear()
    with engine_on(any_backend, waiting) as engine:
        engine.start(waiting, id="timer")
        until(lambda: "timer.started" in kinds(engine, "timer"))
    with engine_on(any_backend, waiting) as engine:
        started = engine.history("timer")[2]
        assert isinstance(started, TimerStarted)
        assert started.due_at > wall_clock()
        until(lambda: len(engine.owned_partitions) == 2)
        assert kinds(engine, "timer")[-1] == "timer.started"  # it has not fired early
    with Engine(any_backend.log(), workflows=[waiting], clock=in_an_hour) as engine:
        assert engine.handle("timer", waiting).result() == "12"
        assert kinds(engine, "timer").count("timer.started") == 1
    assert RAN == ["first", "second"]


def test_helpers_give_the_same_values_in_every_life(backend: LogBackend) -> None:
    """Given a workflow that draws time, random numbers and ids, a replay in a new life draws the same."""
    drawn: list[tuple[object, ...]] = []

    @workflow
    async def draws() -> str:
        await first()
        drawn.append((now(), random().random(), uuid4()))
        await sleep(3600)
        return str(uuid4())

    with engine_on(backend, draws) as engine:
        engine.start(draws, id="draws")
        until(lambda: "timer.started" in kinds(engine, "draws"))
    with Engine(backend.log(), workflows=[draws], clock=in_an_hour) as engine:
        engine.handle("draws").result()
    assert len(drawn) >= 2
    assert len(set(drawn)) == 1


def order_of(*steps: Callable[[], Coroutine[Any, Any, str]]) -> Workflow[[], str]:
    """A version of the workflow `order`: it calls these steps, with an hour between first and second."""

    @workflow(name="order")
    async def order() -> str:
        results: list[str] = []
        for n, call in enumerate(steps):
            if n == 1:
                await sleep(3600)
            results.append(await call())
        return "".join(results)

    return order


def test_code_that_no_longer_matches_parks_the_run_and_mended_code_goes_on(
    any_backend: LogBackend,
) -> None:
    """Given an open run, code with other steps parks it and says what differs; with the old code it ends."""
    RAN.clear()
    good, changed = order_of(first, second), order_of(second, first)
    with engine_on(any_backend, good) as engine:
        engine.start(good, id="o")
        until(lambda: "timer.started" in kinds(engine, "o"))
    with engine_on(any_backend, changed) as engine:
        with pytest.raises(WorkflowParked, match=r"no longer matches.*'first'.*'second'"):
            engine.handle("o").result()
        parked = engine.history("o")[-1]
        assert isinstance(parked, ParkedEvent)
        detail = json.loads(parked.payload or "")
        assert (detail["step"], detail["position"]) == (0, 1)
        assert (detail["expected"], detail["found"]) == ("step 'first'", "step 'second'")
        assert "test_restart.py:" in detail["source"]
        assert engine.status("o").status is Status.PARKED
        assert "no longer matches" in (engine.status("o").reason or "")
    assert RAN == ["first"]  # a replay has no effect
    with Engine(any_backend.log(), workflows=[good], clock=in_an_hour) as engine:
        with pytest.raises(WorkflowParked):
            engine.handle("o").result()
        engine.resume("o")
        assert engine.handle("o", good).result() == "12"
    assert RAN == ["first", "second"]


def test_resuming_with_code_that_still_differs_parks_again(backend: LogBackend) -> None:
    """Given a parked run, when it is resumed before the code is mended, it is parked once more and nothing is lost."""
    good, changed = order_of(first, second), order_of(second, first)
    with engine_on(backend, good) as engine:
        engine.start(good, id="o")
        until(lambda: "timer.started" in kinds(engine, "o"))
    with engine_on(backend, changed) as engine:
        with pytest.raises(WorkflowParked):
            engine.handle("o").result()
        engine.resume("o")
        with pytest.raises(WorkflowParked, match="no longer matches"):
            engine.handle("o").result()
        assert kinds(engine, "o")[-3:] == [
            "workflow.parked",
            "workflow.resumed",
            "workflow.parked",
        ]


def test_a_running_run_can_not_be_resumed(backend: LogBackend) -> None:
    """Given a run that waits for a timer, resume is refused: it is not parked."""
    with engine_on(backend, waits_an_hour) as engine:
        engine.start(waits_an_hour, id="r")
        with pytest.raises(CommandRefused, match="'r' is running"):
            engine.resume("r")


def test_a_run_without_code_waits_for_a_worker_that_has_it(any_backend: LogBackend) -> None:
    """Given an open run, a worker that lacks its workflow leaves it alone; one that has it ends it."""
    with engine_on(any_backend, waits_an_hour) as engine:
        engine.start(waits_an_hour, id="orphan")
        until(lambda: "timer.started" in kinds(engine, "orphan"))
    other = order_of(first)
    with engine_on(any_backend, other) as engine:
        assert engine.start(other, id="o").result() == "1"
        assert engine.status("orphan").status is Status.RUNNING
    with Engine(any_backend.log(), workflows=[waits_an_hour], clock=in_an_hour) as engine:
        assert engine.handle("orphan").result() == "12"


def test_steps_done_are_replayed_and_steps_cut_off_run_again(backend: LogBackend) -> None:
    """Given a run of three steps cut off in its second, the next life runs the second and third, and not the first."""
    RAN.clear()
    begun, gate = threading.Event(), threading.Event()

    @step
    async def cut_off() -> str:
        RAN.append("cut off")
        begun.set()
        if not gate.is_set():
            await asyncio.Event().wait()
        return "x"

    @workflow
    async def three() -> str:
        return await first() + await cut_off() + await second()

    with Engine(backend.log(), workflows=[three], drain_s=0.01) as engine:
        engine.start(three, id="three")
        assert begun.wait(60)
    gate.set()
    with engine_on(backend, three) as engine:
        assert engine.handle("three", three).result() == "1x2"
    assert RAN == ["first", "cut off", "cut off", "second"]


def test_every_reader_folds_the_same_state(backend: LogBackend) -> None:
    """Given runs in every state, two folds of the log give one digest, and a replay in a new life changes no run."""
    with engine_on(backend, waits_an_hour, order_of(first)) as engine:
        engine.start(waits_an_hour, id="open")
        engine.start(order_of(first), id="closed").result()
        until(lambda: "timer.started" in kinds(engine, "open"))
        before = {run: kinds(engine, run) for run in ("open", "closed")}
    assert fold_digests(backend) == fold_digests(backend)
    with engine_on(backend, waits_an_hour) as engine:
        until(lambda: len(engine.owned_partitions) == 2)
        assert {run: kinds(engine, run) for run in ("open", "closed")} == before
