"""Measured on several worker processes: gaps when partitions move, and what a second worker adds."""

import asyncio
import itertools
import statistics
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter

from gaps import Pause, Pulse
from job import Job, tell
from refold import Engine
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Log
from refold.log.urls import open_log
from team import LONG_S, Team, lingering
from workloads import total

PACE_S = 0.02
"""Between two starts on a partition while gaps are measured: a partition that works is never silent for much longer."""
EVERY_LONG = 25
"""One run in so many has a long step, so that each partition has some under way when it moves."""
STEPS = 2
CALM_S = 2.0
"""How long the partitions are watched while nothing happens: a pause in that time is the load's or the machine's."""
PATIENCE_S = 250.0


class Watch:
    """Follows the events of all partitions while the engine works on them.

    Args:
        log: An open log.
    """

    def __init__(self, log: Log) -> None:
        self.pulses = [Pulse() for _ in range(log.partitions)]
        self._log = log
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Watch":
        self._tasks = [
            asyncio.create_task(self._follow(partition, pulse))
            for partition, pulse in enumerate(self.pulses)
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, partition: int, pulse: Pulse) -> None:
        async for records in self._log.tail(Channel.EVENTS, partition, 0):
            pulse.take(records)

    @property
    def all_beat(self) -> bool:
        """Whether every partition has had an event under its present claim."""
        for task in self._tasks:
            if task.done():
                task.result()  # it should go on for ever: tell why it does not
        return not any(pulse.waits for pulse in self.pulses)

    def forget(self) -> None:
        """Begin to count anew."""
        for pulse in self.pulses:
            pulse.forget()

    def gaps_ms(self) -> list[float]:
        """Of the partitions that have moved since."""
        return [gap.length_ms for pulse in self.pulses for gap in pulse.gaps]

    def undisturbed_ms(self) -> float:
        """The longest pause of those that have not moved since; 0 where all have."""
        stayed: list[Pause] = [
            pulse.longest for pulse in self.pulses if not pulse.gaps and pulse.longest is not None
        ]
        return max((pause.length_ms for pause in stayed), default=0.0)


async def _load(client: Engine, partitions: int) -> None:
    """Start runs on every partition at a steady pace, for ever; nobody waits for them."""
    names = itertools.count()
    waiting: list[deque[str]] = [deque() for _ in range(partitions)]
    for turn in itertools.count():
        while not all(waiting):
            name = f"load-{next(names)}"
            waiting[partition_of(name, partitions)].append(name)
        run = lingering.bind(LONG_S) if turn % EVERY_LONG == 0 else total.bind(STEPS)
        await asyncio.gather(
            *(client.start_async(run, id=ids.popleft(), confirm=False) for ids in waiting),
            asyncio.sleep(PACE_S),
        )


@asynccontextmanager
async def _loaded(client: Engine, partitions: int) -> AsyncGenerator[asyncio.Task[None]]:
    load = asyncio.create_task(_load(client, partitions))
    try:
        yield load
    finally:
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)


async def hand_over(job: Job) -> None:
    """Two workers under steady load: one is stopped, one comes, one is killed, one comes; so many rounds."""
    samples: dict[str, list[float]] = {"stopped": [], "joined": [], "killed": []}
    stayed_ms: list[float] = []
    log = open_log(job.url)
    await log.open()
    try:
        async with (
            Engine(job.url, workflows=[], worker=False) as client,
            Team(job, log.partitions) as team,
            Watch(log) as watch,
            _loaded(client, log.partitions) as load,
        ):

            def all_beat() -> bool:
                if load.done():
                    load.result()  # it should go on for ever: tell why it does not
                return watch.all_beat

            async def moved(kind: str, act: Callable[[], Awaitable[object]]) -> None:
                watch.forget()
                await act()
                await team.settled(all_beat)
                samples[kind] += watch.gaps_ms()
                if kind == "joined":
                    stayed_ms.append(watch.undisturbed_ms())

            await team.add()
            await team.add()
            await team.settled(all_beat)
            watch.forget()
            await asyncio.sleep(CALM_S)
            calm_ms = watch.undisturbed_ms()
            for _ in range(job.workflows):
                await moved("stopped", lambda: team.stop(team.members[0]))
                await moved("joined", team.add)
                await moved("killed", lambda: team.kill(team.members[0]))
                await moved("joined", team.add)
    finally:
        await log.close()
    figures = {
        f"{kind}_{name}": value for kind, of in samples.items() for name, value in _spread(of)
    }
    tell(
        {**figures, "calm_max_ms": calm_ms, "stayed_max_ms": max(stayed_ms)},
        samples=samples,
    )


def _spread(gaps_ms: list[float]) -> list[tuple[str, float]]:
    """p50, p95 and the longest."""
    cuts = statistics.quantiles(gaps_ms, n=100, method="inclusive")
    return [("p50_ms", cuts[49]), ("p95_ms", cuts[94]), ("max_ms", max(gaps_ms))]


async def workers(job: Job) -> None:
    """Steps per second of one worker process, then of two, for a client in a process of its own."""
    log = open_log(job.url)
    async with (
        Engine(log, workflows=[], worker=False, start_timeout_s=PATIENCE_S) as client,
        Team(job, log.partitions) as team,
    ):
        rates: list[float] = []
        for number in (1, 2):
            await team.add()
            await team.settled()
            await _run(client, f"warm-{number}", min(20, job.workflows), job.steps)
            elapsed_s = await _run(client, f"run-{number}", job.workflows, job.steps)
            rates.append(job.workflows * job.steps / elapsed_s)
    one, two = rates
    tell({"one_steps_per_s": one, "two_steps_per_s": two, "ratio": two / one})


async def _run(client: Engine, prefix: str, count: int, steps: int) -> float:
    """Start all at once and wait for all; returns seconds."""
    began = perf_counter()
    handles = await asyncio.gather(
        *(client.start_async(total, steps, id=f"{prefix}-{number}") for number in range(count))
    )
    await asyncio.gather(*(handle.result_async(PATIENCE_S) for handle in handles))
    return perf_counter() - began
