"""A child process: measures one job on a fresh engine and answers with lines of JSON. Started by children.py."""

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable
from typing import Final

from job import Job
from refold.log.urls import open_log
from refold.services.garbage import settle_garbage_collector

CASES: Final = {
    "throughput": "live.throughput",
    "threads": "live.threads",
    "latency": "live.latency",
    "growth": "live.growth",
    "fill": "histories.fill",
    "recover": "histories.recover",
    "build": "histories.build",
    "fold": "histories.fold",
    "tail": "tailed.tail_all",
    "check": "checked.check",
    "projection": "projected.projection",
    "read_model": "asked.read_model",
    "verify": "audits.verify",
    "export": "exported.export",
    "round_trip": "exchanges.round_trip",
    "fan_out": "exchanges.fan_out",
    "streaming": "exchanges.streaming",
    "build_sleepers": "exchanges.build_sleepers",
    "sleepers": "exchanges.sleepers",
    "build_long": "long_logs.build_long",
    "ready": "long_logs.ready",
    "checkpoint_cost": "amplification.checkpoint_cost",
    "hand_over": "moves.hand_over",
    "workers": "moves.workers",
    "serve": "team.serve",
}
"""Where each stands: a child imports what it measures, and no more."""


def case(name: str) -> Callable[[Job], Awaitable[None]]:
    """What measures a case."""
    module, _, function = CASES[name].partition(".")
    found: Callable[[Job], Awaitable[None]] = getattr(importlib.import_module(module), function)
    return found


async def main() -> None:
    """Measure the cases of the job on the command line, one after the other."""
    job = Job.from_json(sys.argv[1])
    settle_garbage_collector()  # as `refold worker` does
    # A log in memory lives as long as somebody holds it: from case to case, that is us.
    held = open_log(job.url) if job.url.startswith("memory:") else None
    for name in job.cases:
        await case(name)(job)
    del held


if __name__ == "__main__":  # a process that the check begins imports this module as well
    asyncio.run(main())
