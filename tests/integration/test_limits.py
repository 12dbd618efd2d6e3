"""Limits of a worker: what is beyond them waits, and everything comes to its end."""

import threading

from engine_trial import until
from log_backend import PATIENCE_S, LogBackend
from refold import Engine, receive, run_child, sleep, step, workflow

RUNS = 30
LIMIT = 3


class Gauge:
    """How many are there at a time, and the most that were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._now -= 1


STEPS = Gauge()


@step
async def work(number: int) -> int:
    with STEPS:
        return number


@step
def work_in_thread(number: int) -> int:
    with STEPS:
        return number


@workflow
async def both(number: int) -> int:
    return await work(number) + await work_in_thread.aio(number)


@workflow
async def told(number: int) -> str:
    answer = await receive("go", str)
    await sleep(0.01)
    return f"{await work(number)}{answer}"


@workflow
async def family(depth: int) -> int:
    if depth == 0:
        return await work(1)
    return await run_child(family, depth - 1) + await run_child(family, depth - 1)


def limited(backend: LogBackend, *, steps: int | None = None, runs: int | None = None) -> Engine:
    """An engine with limits."""
    return Engine(backend.log(), workflows=[both, told, family], max_steps=steps, max_runs=runs)


def test_steps_beyond_the_limit_wait(backend: LogBackend) -> None:
    """Given many runs and few steps allowed at a time, no more are ever under way, and all runs end."""
    STEPS.most = 0
    with limited(backend, steps=LIMIT) as engine:
        handles = [engine.start(both, n) for n in range(RUNS)]
        assert [handle.result(PATIENCE_S) for handle in handles] == [2 * n for n in range(RUNS)]
    assert 0 < STEPS.most <= LIMIT


def test_runs_beyond_the_limit_wait(backend: LogBackend) -> None:
    """Given many runs that wait for messages and few allowed in memory, each is told and ends."""
    with limited(backend, runs=LIMIT) as engine:
        handles = [engine.start(told, n) for n in range(RUNS)]
        for handle in handles:
            handle.send("go", "!")
        assert [handle.result(PATIENCE_S) for handle in handles] == [f"{n}!" for n in range(RUNS)]


def test_runs_that_wait_for_each_other_do_not_stand_in_each_others_way(
    backend: LogBackend,
) -> None:
    """Given parents that wait for children, over three generations, one run in memory is enough."""
    with limited(backend, runs=1) as engine:
        assert engine.start(family, 3).result(PATIENCE_S) == 8


def test_a_limit_holds_for_a_recovery_as_well(backend: LogBackend) -> None:
    """Given more open runs than may be in memory, a new worker takes them up one after the other."""
    with limited(backend) as engine:
        for n in range(RUNS):
            engine.start(told, n, id=f"t{n}")
    with limited(backend, runs=LIMIT) as engine:
        until(lambda: len(engine.owned_partitions) == 2)
        for n in range(RUNS):
            engine.handle(f"t{n}", told).send("go", "?")
        results = [engine.handle(f"t{n}", told).result(PATIENCE_S) for n in range(RUNS)]
        assert results == [f"{n}?" for n in range(RUNS)]
