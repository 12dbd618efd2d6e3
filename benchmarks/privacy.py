"""What encryption costs: per payload, and per step of runs on SQLite with and without a subject.

    .venv/bin/python benchmarks/privacy.py

Client and worker are in one process, as in the other benchmarks. The medians of five turns are printed.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from refold import Engine, step, workflow
from refold.engine.privacy import Privacy
from refold.log.key_directory import DirectoryKeys
from refold.log.key_master import LocalMaster
from refold.log.keys import PayloadKeys
from refold.services.garbage import settle_garbage_collector

TURNS = 5
PAYLOADS = 2_000
RUNS, STEPS = 200, 10


@step
async def add(a: int, b: int) -> int:
    """The smallest step."""
    return a + b


@workflow
async def total(steps: int) -> int:
    """Add up 0, 1, 2, ..., each addition a step."""
    result = 0
    for number in range(steps):
        result = await add(result, number)
    return result


def per_call_us(work: Callable[[], object]) -> float:
    """Median time of one call, in microseconds."""
    times: list[float] = []
    for _ in range(TURNS):
        began = time.perf_counter()
        for _ in range(PAYLOADS):
            work()
        times.append((time.perf_counter() - began) / PAYLOADS * 1e6)
    return statistics.median(times)


def payloads(privacy: Privacy) -> None:
    """Encrypting and reading payloads of several sizes, whole and by fields."""
    ring = privacy.started_with("order-42", "customer-7")
    assert ring is not None
    for size in (10, 100, 1_000, 10_000, 100_000):
        text = json.dumps({"email": "b" * 10, "rest": "x" * size})
        made = privacy.protect(text, ring, "step", "order-42")
        wrote = per_call_us(partial(privacy.protect, text, ring, "step", "order-42"))
        read = per_call_us(partial(privacy.reveal, made, "result"))
        longer = len(made) - len(text)
        print(
            f"{len(text):>8,} bytes: {wrote:7.1f} µs to encrypt, {read:7.1f} µs to read, {longer:>7,} bytes longer"
        )


async def steps_per_s(place: Path, keys: DirectoryKeys | None, subject: str | None) -> float:
    """Durable steps a second of many runs at once, on a new log."""
    async with Engine(f"sqlite:///{place}", workflows=[total], keys=keys) as engine:
        await (await engine.start_async(total, 1, subject=subject)).result_async()
        began = time.perf_counter()
        handles = await asyncio.gather(
            *(engine.start_async(total, STEPS, subject=subject) for _ in range(RUNS))
        )
        await asyncio.gather(*(handle.result_async() for handle in handles))
        return RUNS * STEPS / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    settle_garbage_collector()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        place = Path(name)
        keys = DirectoryKeys(place / "keys", LocalMaster([os.urandom(32)]))
        payloads(Privacy(PayloadKeys(keys)))
        cases = {"no keys": (None, None), "keys, no subject": (keys, None), "subject": (keys, "s")}
        found: dict[str, list[float]] = {case: [] for case in cases}
        for turn in range(TURNS):
            for number, (case, (given, subject)) in enumerate(cases.items()):
                log = place / f"{turn}-{number}.db"
                found[case].append(asyncio.run(steps_per_s(log, given, subject)))
        for case, rates in found.items():
            print(
                f"{case:>18}: {statistics.median(rates):,.0f} steps/s ({min(rates):,.0f} to {max(rates):,.0f})"
            )


if __name__ == "__main__":
    main()
