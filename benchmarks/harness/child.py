"""A child process: measures one job on a fresh engine and answers with lines of JSON. Started by children.py."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

import amplification
import asked
import audits
import checked
import exchanges
import exported
import histories
import live
import long_logs
import moves
import projected
import tailed
import team
from job import Job
from refold.log.urls import open_log
from refold.services.garbage import settle_garbage_collector

CASES: dict[str, Callable[[Job], Awaitable[None]]] = {
    "throughput": live.throughput,
    "threads": live.threads,
    "latency": live.latency,
    "growth": live.growth,
    "fill": histories.fill,
    "recover": histories.recover,
    "build": histories.build,
    "fold": histories.fold,
    "tail": tailed.tail_all,
    "check": checked.check,
    "projection": projected.projection,
    "read_model": asked.read_model,
    "verify": audits.verify,
    "export": exported.export,
    "round_trip": exchanges.round_trip,
    "fan_out": exchanges.fan_out,
    "streaming": exchanges.streaming,
    "build_sleepers": exchanges.build_sleepers,
    "sleepers": exchanges.sleepers,
    "build_long": long_logs.build_long,
    "ready": long_logs.ready,
    "checkpoint_cost": amplification.checkpoint_cost,
    "hand_over": moves.hand_over,
    "workers": moves.workers,
    "serve": team.serve,
}


async def main() -> None:
    """Measure the cases of the job on the command line, one after the other."""
    job = Job.from_json(sys.argv[1])
    settle_garbage_collector()  # as `refold worker` does
    # A log in memory lives as long as somebody holds it: from case to case, that is us.
    held = open_log(job.url) if job.url.startswith("memory:") else None
    for case in job.cases:
        await CASES[case](job)
    del held


if __name__ == "__main__":  # a process that the check begins imports this module as well
    asyncio.run(main())
