"""Measured on an engine at work: throughput, latency, and how the cost of a step grows."""

import asyncio
import statistics
from time import perf_counter

from job import Job, tell
from percentiles import percentiles
from refold import Engine, Workflow
from refold.log.urls import open_log
from workloads import total, total_blocking

CHUNK = 1_000
"""Workflows under way at a time while the log grows."""

PATIENCE_S = 250.0
"""The last of very many starts at once may be accepted after the 30 s that a caller usually waits."""

ENDS = 10
"""Chunks at each end of the growth whose median is compared: one chunk may meet a checkpoint of the file."""


async def throughput(job: Job) -> None:
    """Steps per second with all workflows under way at once."""
    await _rate(job, total)


async def threads(job: Job) -> None:
    """The same with `def` workflows and `def` steps."""
    await _rate(job, total_blocking)


async def _rate(job: Job, workflow: Workflow[[int], int]) -> None:
    async with Engine(job.url, workflows=[workflow], start_timeout_s=PATIENCE_S) as engine:
        await _warm_up(engine, workflow)
        elapsed_s = await run_all(engine, workflow, range(job.workflows), job.steps)
    steps = job.workflows * job.steps
    tell({"steps_per_s": steps / elapsed_s, "us_per_step": elapsed_s / steps * 1e6})


async def latency(job: Job) -> None:
    """From the call of `start` to the result, one workflow at a time; and from opening to the first result."""
    took_ms: list[float] = []
    log = open_log(job.url)  # made here, since this is what imports a Kafka client
    opened = perf_counter()
    async with Engine(log, workflows=[total]) as engine:
        await (await engine.start_async(total, job.steps, id="first"))
        first_ms = (perf_counter() - opened) * 1e3
        await _warm_up(engine, total)
        for number in range(job.workflows):
            began = perf_counter()
            handle = await engine.start_async(total, job.steps, id=f"run-{number}")
            await handle
            took_ms.append((perf_counter() - began) * 1e3)
    tell({**percentiles(took_ms), "first_ms": first_ms})


async def growth(job: Job) -> None:
    """Cost of a step while the log grows, in chunks: what is done does not make dearer what comes."""
    chunk = max(1, min(CHUNK, job.workflows // 10))
    points: list[tuple[int, float]] = []
    async with Engine(job.url, workflows=[total]) as engine:
        await _warm_up(engine, total)
        for first in range(0, job.workflows, chunk):
            elapsed_s = await run_all(engine, total, range(first, first + chunk), job.steps)
            points.append((first + chunk, elapsed_s / (chunk * job.steps) * 1e6))
    costs = [cost for _, cost in points]
    first_us, last_us = statistics.median(costs[:ENDS]), statistics.median(costs[-ENDS:])
    tell({"first_us": first_us, "last_us": last_us, "ratio": last_us / first_us}, points)


async def _warm_up(engine: Engine, workflow: Workflow[[int], int]) -> None:
    """Wait until the worker owns its partitions and every path of the code has been taken once."""
    handles = [await engine.start_async(workflow, 2, id=f"warm-{number}") for number in range(20)]
    for handle in handles:
        await handle


async def run_all(
    engine: Engine, workflow: Workflow[[int], int], numbers: range, steps: int
) -> float:
    """Start all at once and wait for all; returns seconds, and refuses wrong results."""
    began = perf_counter()
    handles = await asyncio.gather(
        *(engine.start_async(workflow, steps, id=f"run-{number}") for number in numbers)
    )
    results = await asyncio.gather(*(handle.result_async() for handle in handles))
    elapsed_s = perf_counter() - began
    expected = steps * (steps - 1) // 2
    if set(results) != {expected}:
        raise AssertionError(f"every run should return {expected}, some returned {set(results)}")
    return elapsed_s
