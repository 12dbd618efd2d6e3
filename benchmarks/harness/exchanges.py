"""Measured on workflows that have to do with others: messages, children, streams, and very many that sleep."""

import asyncio
import time
from collections.abc import Iterator
from time import perf_counter

from histories import header_of, write_log
from job import Job, leave, tell
from percentiles import percentiles
from refold import Engine, Handle, receive, run_child, send, sleep, step, stream, workflow
from refold.log.events import Event, TimerStarted, WorkflowStarted
from refold.log.partitioner import partition_of
from refold.log.urls import open_log

NAP_S = 2.0
"""How long the sleepers sleep whose waking is measured, beside all those that sleep for a month."""
MONTH_US = 30 * 24 * 3600 * 1_000_000
AWAKE = 1_000
"""How many of them."""
PACE_S = 0.005
"""Between two items of a stream while their delay is measured."""
PACED = 200
"""How many items."""


@workflow
async def pong(rounds: int) -> int:
    """Sends back what it gets."""
    for _ in range(rounds):
        sender, number = (await receive("ping", str)).rsplit(":", 1)
        await send(sender, "pong", int(number))
    return rounds


@workflow
async def ping(other: str, own: str, rounds: int) -> int:
    """Sends a number and waits until it is back."""
    for number in range(rounds):
        await send(other, "ping", f"{own}:{number}")
        if await receive("pong", int) != number:
            raise AssertionError("the answers are out of order")
    return rounds


async def round_trip(job: Job) -> None:
    """A message to a workflow on another partition, and its answer."""
    log = open_log(job.url)
    async with Engine(log, workflows=[ping, pong]) as engine:
        own, other = "ping-0", _elsewhere("ping-0", log.partitions)
        await _play(engine, "ping-warm", "pong-warm", 20)
        elapsed_s = await _play(engine, own, other, job.steps)
    tell({"round_trip_ms": elapsed_s / job.steps * 1e3})


async def _play(engine: Engine, own: str, other: str, rounds: int) -> float:
    """Seconds for so many rounds."""
    answering = await engine.start_async(pong, rounds, id=other)
    began = perf_counter()
    await (await engine.start_async(ping, other, own, rounds, id=own))
    elapsed_s = perf_counter() - began
    await answering
    return elapsed_s


def _elsewhere(id_: str, partitions: int) -> str:
    """An id on another partition, where there is one."""
    ids = (f"pong-{number}" for number in range(1_000))
    here = partition_of(id_, partitions)
    return next(
        (i for i in ids if partitions == 1 or partition_of(i, partitions) != here), "pong-0"
    )


@workflow
async def child(number: int) -> int:
    """The smallest child."""
    return number


@workflow
async def parent(children: int) -> int:
    """Starts all of them, waits for all."""
    return sum(await asyncio.gather(*(run_child(child, number) for number in range(children))))


async def fan_out(job: Job) -> None:
    """One workflow that starts many children and waits for all of them."""
    async with Engine(job.url, workflows=[parent, child]) as engine:
        await (await engine.start_async(parent, 10, id="warm"))
        began = perf_counter()
        result = await (await engine.start_async(parent, job.steps, id="parent"))
        elapsed_s = perf_counter() - began
    if result != job.steps * (job.steps - 1) // 2:
        raise AssertionError(f"the children returned {result} in all")
    tell({"fan_out_s": elapsed_s, "children_per_s": job.steps / elapsed_s})


@step
async def write(items: int, pause_s: float) -> None:
    """Writes the time of day, many times."""
    tokens = stream("tokens")
    for number in range(items):
        tokens.write(time.time())
        if pause_s or number % 50 == 0:  # a model's client awaits its next token, too
            await asyncio.sleep(pause_s)


@workflow
async def writer(items: int, pause_s: float) -> None:
    """A stream from a step."""
    await write(items, pause_s)


async def streaming(job: Job) -> None:
    """Items from one workflow to a reader that has a connection of its own, as another process would."""
    async with (
        Engine(job.url, workflows=[writer]) as engine,
        Engine(job.url, workflows=[], worker=False) as elsewhere,
    ):
        await _read(elsewhere, await engine.start_async(writer, 10, 0.0, id="warm"))
        paced = await engine.start_async(writer, min(PACED, job.steps), PACE_S, id="paced")
        delays_ms = await _read(elsewhere, paced)
        began = perf_counter()
        handle = await engine.start_async(writer, job.steps, 0.0, id="fast")
        if len(await _read(elsewhere, handle)) != job.steps:
            raise AssertionError("the reader has not seen every item")
        elapsed_s = perf_counter() - began
    delays = percentiles(delays_ms)
    tell({**delays, "items_per_s": job.steps / elapsed_s})


async def _read(elsewhere: Engine, handle: Handle[None]) -> list[float]:
    """Delay of each item when it is read, in milliseconds."""
    items = elsewhere.handle(handle.id).stream_async("tokens", float)
    return [(time.time() - written) * 1e3 async for written in items]


@step
async def look_at_the_clock() -> float:
    """Seconds since 1970."""
    return time.time()


@workflow
async def sleeper(seconds: float) -> None:
    """Sleeps."""
    await sleep(seconds)


@workflow
async def napper(seconds: float) -> float:
    """Sleeps, then tells how late it woke, in milliseconds."""
    began = await look_at_the_clock()
    await sleep(seconds)
    return (await look_at_the_clock() - began - seconds) * 1e3


async def build_sleepers(job: Job) -> None:
    """Write a log of runs that all sleep for a month."""
    await write_log(job, _asleep)


def _asleep(ids: list[str], _steps: int, claim_offset: int) -> Iterator[Event]:
    now = time.time_ns() // 1000
    payload = sleeper.bind(MONTH_US / 1e6).payload
    for id_ in ids:
        header = header_of(id_, now, claim_offset)
        yield WorkflowStarted(**header, position=0, workflow=sleeper.name, payload=payload)
        yield TimerStarted(**header, position=1, step=0, name="sleep", due_at=now + MONTH_US)


async def sleepers(job: Job) -> None:
    """A worker takes up runs that sleep; and beside them others sleep for a moment, and wake."""
    log = open_log(job.url)
    began = perf_counter()
    async with Engine(log, workflows=[sleeper, napper], start_timeout_s=600) as engine:
        await (await engine.start_async(napper, 0.0, id="first"))  # its partition has been taken up
        elapsed_s = perf_counter() - began
        handles = [
            await engine.start_async(napper, NAP_S, id=f"nap-{number}", confirm=False)
            for number in range(min(AWAKE, job.workflows))
        ]
        late = percentiles([await handle for handle in handles])
        tell({"recover_s": elapsed_s, "late_p50_ms": late["p50_ms"], "late_p99_ms": late["p99_ms"]})
        leave()
