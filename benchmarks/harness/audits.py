"""Verifying a log: how many events a second, by its chain alone and with what a seal takes."""

import sys
from time import perf_counter

from job import Job, tell
from refold.log.protocol import Log
from refold.log.urls import open_log
from refold.projections.audit import stand_of, verify_partition
from refold.projections.audit_walk import Standing


async def verify(job: Job) -> None:
    """Verify every partition, then walk them all once more for a seal."""
    log = open_log(job.url)
    await log.open()
    began = perf_counter()
    reports = [await verify_partition(log, partition) for partition in range(log.partitions)]
    verify_s = perf_counter() - began
    if any(report.findings for report in reports):
        sys.exit("a log that was just built is not as it was written")
    began = perf_counter()
    events = await _seal(log)
    seal_s = perf_counter() - began
    await log.close()
    tell({"verified_events_per_s": events / verify_s, "sealed_events_per_s": events / seal_s})


async def _seal(log: Log) -> int:
    stood = [await stand_of(log, partition, Standing()) for partition in range(log.partitions)]
    return sum(one.standing.events for one in stood)
