"""Steps of pools, in whole engines: some run workflows, others carry the pools' steps out."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from engine_trial import kinds, until
from log_backend import PATIENCE_S, LogBackend
from refold import (
    DefinitionError,
    Engine,
    Retry,
    StepTimeout,
    Workflow,
    WorkflowCancelled,
    step,
    step_context,
    stream,
    workflow,
)
from refold.engine.pools import MIN_LEASE_S


@dataclass
class Stage:
    """What the steps of a test tell, and what they wait for."""

    gate: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    threads: list[str] = field(default_factory=list[str])
    at_once: list[int] = field(default_factory=list[int])
    inside: int = 0

    def enter(self) -> None:
        self.threads.append(threading.current_thread().name.partition("_")[0])
        self.begun.set()


STAGES: list[Stage] = []


def stage() -> Stage:
    return STAGES[-1]


@pytest.fixture(autouse=True)
def fresh_stage() -> Iterator[None]:
    STAGES.append(Stage())
    yield
    STAGES.pop().gate.set()


@dataclass
class Frame:
    number: int
    at: datetime


@step(pool="gpu")
def render(frame: Frame, scale: int = 2) -> Frame:
    stage().enter()
    return Frame(frame.number * scale, frame.at)


@step(pool="paper")
async def print_out(text: str) -> str:
    stage().enter()
    return f"printed {text}"


@step
def local(number: int) -> int:
    stage().enter()
    return number + 1


@step(pool="gpu", retry=Retry(attempts=3, initial_s=0.01))
def moody(number: int) -> int:
    if step_context().attempt < 3:
        raise OSError("not yet")
    return number


@step(pool="gpu", retry=Retry(attempts=2, initial_s=0.01, on=(OSError,)))
def broken(number: int) -> int:
    raise ValueError(f"no {number}")


@step(pool="gpu", timeout_s=0.05)
async def slow_async() -> None:
    await asyncio.sleep(PATIENCE_S)


@step(pool="gpu", timeout_s=0.05)
def slow() -> None:
    step_context().wait_cancelled(PATIENCE_S)


@step(pool="gpu")
def patient(number: int) -> int:
    stage().enter()
    if step_context().wait_cancelled(0) or not stage().gate.wait(PATIENCE_S):
        raise RuntimeError("nobody opened the gate")
    return number


@step(pool="gpu")
def until_cancelled() -> bool:
    stage().enter()
    cancelled = step_context().wait_cancelled(PATIENCE_S)
    if cancelled:
        stage().cancelled.set()
    return cancelled


@step(pool="gpu")
async def counted(number: int) -> int:
    here = stage()
    here.inside += 1
    here.at_once.append(here.inside)
    await asyncio.sleep(0.001)  # others may come in, if they are let
    here.inside -= 1
    return number


@step(pool="gpu")
def telling(count: int) -> int:
    for number in range(count):
        stream("numbers").write(number)
    return count


class Camera:
    @step(pool="gpu")
    def shoot(self, number: int) -> int:
        return number


@workflow
async def film(number: int) -> str:
    frame = await render.aio(Frame(number, datetime(2026, 1, 2, tzinfo=UTC)), scale=3)
    more = await local.aio(frame.number)
    return f"{await print_out(str(more))} {frame.at.year}"


@workflow
def film_sync(number: int) -> str:
    frame = render(Frame(number, datetime(2026, 1, 2, tzinfo=UTC)))
    return print_out.sync(str(local(frame.number)))


@workflow
async def trouble(number: int) -> list[str]:
    told = [str(await moody.aio(number))]
    for call in (broken.aio(number), slow_async(), slow.aio()):
        try:
            await call
        except (ValueError, StepTimeout) as error:
            told.append(f"{type(error).__name__}: {error}")
    return told


@workflow
async def waiting(number: int) -> int:
    return await patient.aio(number)


@workflow
async def endless() -> bool:
    return await until_cancelled.aio()


@workflow
async def many(count: int) -> int:
    return sum(await asyncio.gather(*(counted(number) for number in range(count))))


@workflow
async def talk(count: int) -> int:
    return await telling.aio(count)


@workflow
async def wrong() -> list[str]:
    told: list[str] = []
    for call in (
        lambda: render.aio("no frame"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: Camera().shoot.aio(1),
    ):
        try:
            await call()
        except Exception as error:  # noqa: BLE001 - the test looks at all of them
            told.append(f"{type(error).__name__}: {error}")
    return told


def owner_on(
    backend: LogBackend, *workflows: Workflow[..., Any], pools: Sequence[str] = ()
) -> Engine:
    """A worker that runs workflows, and carries out the steps of `pools` as well."""
    return Engine(
        backend.log(),
        workflows=workflows,
        pools=pools,
        pool_lease_s=MIN_LEASE_S,
        drain_s=PATIENCE_S,
    )


def pool_on(
    backend: LogBackend, *pools: str, threads: int = 4, drain_s: float = PATIENCE_S
) -> Engine:
    """A worker of pools, which owns no partition."""
    return Engine(backend.log(), worker=False, pools=pools, threads=threads, drain_s=drain_s)


def test_a_pools_steps_run_in_its_workers_alone(any_backend: LogBackend) -> None:
    """Given two pools with a worker each, each step runs where it is to; values come back as their types."""
    with (
        owner_on(any_backend, film, film_sync) as owner,
        pool_on(any_backend, "gpu"),
        pool_on(any_backend, "paper"),
    ):
        assert owner.start(film, 5, id="a").result(timeout_s=PATIENCE_S) == "printed 16 2026"
        assert owner.start(film_sync, 5, id="b").result(timeout_s=PATIENCE_S) == "printed 11"
        once = ["workflow.started", *["step.completed"] * 3, "workflow.completed"]
        assert kinds(owner, "a") == kinds(owner, "b") == once
    pool, own, loop = "refold-pool", "refold-step", "refold-engine"
    assert stage().threads == [pool, own, loop] * 2


def test_a_worker_can_do_both(backend: LogBackend) -> None:
    """Given an engine that runs workflows and carries out their pools' steps, it needs nobody else."""
    with owner_on(backend, film, pools=["gpu", "paper"]) as owner:
        assert owner.pool_steps[-1] == "paper/print_out"
        assert owner.start(film, 5).result(timeout_s=PATIENCE_S) == "printed 16 2026"


def test_attempts_count_as_everywhere(any_backend: LogBackend) -> None:
    """Given steps that fail, or take too long, they are tried again and their errors come back as at home."""
    with owner_on(any_backend, trouble) as owner, pool_on(any_backend, "gpu"):
        told = owner.start(trouble, 7, id="t").result(timeout_s=PATIENCE_S)
        assert told[:2] == ["7", "ValueError: no 7"]
        assert [line.partition(":")[0] for line in told[2:]] == ["StepTimeout"] * 2
        assert kinds(owner, "t").count("step.attempt_failed") == 2


def test_a_step_waits_for_a_worker_of_its_pool(any_backend: LogBackend) -> None:
    """Given no worker of a pool, its steps wait and are counted; when one comes, they are carried out."""
    with owner_on(any_backend, film) as owner:
        runs = [owner.start(film, number) for number in range(3)]
        until(lambda: owner.stats().waiting_for_pools == {"gpu": 3})
        with pool_on(any_backend, "gpu", "paper"):
            for number, run in enumerate(runs):
                assert run.result(timeout_s=PATIENCE_S) == f"printed {number * 3 + 1} 2026"
        assert owner.stats().waiting_for_pools == {}


def test_a_cancelled_step_is_told(any_backend: LogBackend) -> None:
    """Given a run that is cancelled while its step is under way in a pool, the step's context says so."""
    with owner_on(any_backend, endless) as owner, pool_on(any_backend, "gpu"):
        run = owner.start(endless)
        assert stage().begun.wait(PATIENCE_S)
        run.cancel(reason="enough")
        assert stage().cancelled.wait(PATIENCE_S)
        with pytest.raises(WorkflowCancelled):
            run.result(timeout_s=PATIENCE_S)


def test_no_more_steps_at_once_than_slots(any_backend: LogBackend) -> None:
    """Given a worker with one slot and runs in all partitions, one step runs at a time, and all do."""
    with owner_on(any_backend, many) as owner, pool_on(any_backend, "gpu", threads=1):
        runs = [owner.start(many, 10, id=f"many-{n}") for n in range(4)]
        assert [run.result(timeout_s=PATIENCE_S) for run in runs] == [45] * 4
    assert stage().at_once == [1] * 40


def test_what_a_step_writes_to_a_stream_comes_with_its_report(backend: LogBackend) -> None:
    """Given a pool's step that writes to a stream, readers get what it wrote."""
    with owner_on(backend, talk) as owner, pool_on(backend, "gpu"):
        run = owner.start(talk, 3)
        assert run.result(timeout_s=PATIENCE_S) == 3
        assert list(run.stream("numbers", int)) == [0, 1, 2]


def test_what_cant_go_to_another_process_is_refused(backend: LogBackend) -> None:
    """Given an argument that does not fit, or a method, the call fails with the reason and nothing is recorded."""
    with owner_on(backend, wrong) as owner:
        told = owner.start(wrong, id="w").result(timeout_s=PATIENCE_S)
        assert told[0].startswith("PayloadError: Step 'render' can't take this input: argument")
        assert "'frame'" in told[0]
        assert told[1].startswith("UsageError: step 'Camera.shoot' of pool 'gpu' was called as a")
        assert kinds(owner, "w") == ["workflow.started", "workflow.completed"]


def test_a_pool_without_steps_is_a_mistake(backend: LogBackend) -> None:
    """Given the name of a pool that no step has, the engine says so at once."""
    with pytest.raises(DefinitionError, match="no step or workflow of pool 'cpu'"):
        pool_on(backend, "cpu")


def test_a_report_reaches_the_next_owner(any_backend: LogBackend) -> None:
    """Given a step under way in a pool while its run's worker is replaced, the next one records it: it runs once."""
    with pool_on(any_backend, "gpu"):
        with owner_on(any_backend, waiting) as first:
            first.start(waiting, 7, id="w")
            assert stage().begun.wait(PATIENCE_S)
        with owner_on(any_backend, waiting) as second:
            until(lambda: len(second.owned_partitions) == 2)
            stage().gate.set()
            assert second.handle("w", waiting).result(timeout_s=PATIENCE_S) == 7
    assert stage().threads == ["refold-pool"]


def test_what_a_worker_leaves_unfinished_goes_to_the_next(backend: LogBackend) -> None:
    """Given a worker that is closed in the midst of a step and does not wait for it, another carries it out."""
    with owner_on(backend, waiting) as owner:
        with pool_on(backend, "gpu", drain_s=0):
            run = owner.start(waiting, 7)
            assert stage().begun.wait(PATIENCE_S)
        stage().gate.set()
        with pool_on(backend, "gpu"):
            assert run.result(timeout_s=PATIENCE_S) == 7
    assert len(stage().threads) == 2
