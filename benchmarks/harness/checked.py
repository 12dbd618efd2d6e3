"""`refold check`: all runs of a built log are replayed by as many processes as there are cores.

This module is also the app that the processes import.
"""

import asyncio
import os
from time import perf_counter

from job import Job, tell
from refold.engine.rehearsal import Verdict
from refold.services.check_process import Duty, Which
from refold.services.checking import Progress, plan
from refold.services.checking import check as check_units
from workloads import Gate, held_at

held = held_at(Gate(0))


async def check(job: Job) -> None:
    """Time of a check of all open runs, with the processes' start and their imports."""
    processes = os.cpu_count() or 1
    began = perf_counter()
    units = (await plan(job.url, Which(), processes, closed=0, seed=0)).units
    duty = Duty(job.url, (__name__,), Which(), limit_s=60.0)
    findings = await asyncio.to_thread(check_units, duty, units, processes, _unheard)
    elapsed_s = perf_counter() - began
    if [finding.verdict for finding in findings] != [Verdict.GOES_ON] * job.workflows:
        raise AssertionError(f"{len(findings)} of {job.workflows} runs were checked, or some break")
    tell({"check_s": elapsed_s, "checked_steps_per_s": job.workflows * job.steps / elapsed_s})


def _unheard(_progress: Progress) -> None:
    """Nobody watches."""
