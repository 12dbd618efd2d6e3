"""`tail` over a built log of several partitions, merged: all events, a workflow's by kind, and a few among many."""

from time import perf_counter
from typing import Any

from job import Job, tell
from refold import tail
from workloads import HELD


async def tail_all(job: Job) -> None:
    """Events read in a second: whole, filtered so that nearly all pass, and so that only starts do."""
    whole_s = await _read(job, job.workflows * (job.steps + 1))
    filtered_s = await _read(job, job.workflows * job.steps, workflow=HELD, kind="step")
    skipped_s = await _read(job, job.workflows, kind="workflow.started")
    events = job.workflows * (job.steps + 1)
    tell(
        {
            "tail_events_per_s": events / whole_s,
            "filtered_events_per_s": events / filtered_s,
            "skipped_events_per_s": events / skipped_s,
        }
    )


async def _read(job: Job, wanted: int, **which: Any) -> float:
    """Seconds to the end; the claims count as well where nothing is filtered."""
    given = 0
    began = perf_counter()
    async with tail(job.url, follow=False, **which) as events:
        async for _ in events:
            given += 1
    elapsed_s = perf_counter() - began
    if not wanted <= given <= wanted + 1_000:
        raise AssertionError(f"{given} events came, of {wanted} that there are")
    return elapsed_s
