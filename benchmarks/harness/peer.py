"""The peer: DBOS on SQLite, on the same work. A child process like child.py, started by children.py.

DBOS writes to SQLite with that library's defaults (a rollback journal, synchronous=FULL): as durable as refold's log.
"""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedFunctionDecorator=false
# mypy: disable-error-code="untyped-decorator"
# DBOS is installed for `make bench` only.

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from dbos import DBOS, DBOSConfig, SetWorkflowID

from job import Job, leave, tell
from percentiles import percentiles


class Gate:
    """As in workloads.py; DBOS runs recovered workflows in threads of its own, hence the lock."""

    def __init__(self) -> None:
        self.executed = 0
        self.expected = 0
        self.all_held = threading.Event()
        self._held = 0
        self._lock = threading.Lock()

    async def hold(self) -> None:
        """Wait until the process is killed."""
        with self._lock:
            self._held += 1
            if self._held == self.expected:
                self.all_held.set()
        await asyncio.get_running_loop().create_future()


gate = Gate()


@DBOS.step()
async def add(a: int, b: int) -> int:
    """The smallest step."""
    gate.executed += 1
    return a + b


@DBOS.step()
def add_blocking(a: int, b: int) -> int:
    """The smallest step, as a plain function."""
    return a + b


@DBOS.step()
async def hold() -> None:
    """The last step, which never ends."""
    await gate.hold()


@DBOS.workflow()
async def total(steps: int) -> int:
    """Add up 0, 1, 2, ..., each addition a step."""
    result = 0
    for number in range(steps):
        result = await add(result, number)
    return result


@DBOS.workflow()
def total_blocking(steps: int) -> int:
    """`total` as a plain function."""
    result = 0
    for number in range(steps):
        result = add_blocking(result, number)
    return result


@DBOS.workflow()
async def held(steps: int) -> int:
    """`total`, with a last step that never ends."""
    result = 0
    for number in range(steps):
        result = await add(result, number)
    await hold()
    return result


async def throughput(job: Job) -> None:
    """Steps per second with all workflows under way at once."""
    with _launched(job):
        await _run(total, "warm", 2)
        began = perf_counter()
        await asyncio.gather(
            *(_run(total, f"run-{number}", job.steps) for number in range(job.workflows))
        )
        _tell_rate(job, perf_counter() - began)


async def threads(job: Job) -> None:
    """The same with `def` workflows and `def` steps, in DBOS's own pool of threads."""
    with _launched(job):
        _start_blocking("warm", 2).get_result()
        began = perf_counter()
        handles = [_start_blocking(f"run-{number}", job.steps) for number in range(job.workflows)]
        for handle in handles:
            handle.get_result()
        _tell_rate(job, perf_counter() - began)


async def latency(job: Job) -> None:
    """As in live.py."""
    took_ms: list[float] = []
    opened = perf_counter()
    with _launched(job):
        await _run(total, "first", job.steps)
        first_ms = (perf_counter() - opened) * 1e3
        await _run(total, "warm", 2)
        for number in range(job.workflows):
            began = perf_counter()
            await _run(total, f"run-{number}", job.steps)
            took_ms.append((perf_counter() - began) * 1e3)
    tell({**percentiles(took_ms), "first_ms": first_ms})


async def fill(job: Job) -> None:
    """Run until each run waits in its last step, then wait to be killed."""
    gate.expected = job.workflows
    with _launched(job):
        for number in range(job.workflows):
            with SetWorkflowID(f"run-{number}"):
                await DBOS.start_workflow_async(held, job.steps)
        await asyncio.to_thread(gate.all_held.wait)
        tell({})
        await asyncio.get_running_loop().create_future()


async def recover(job: Job) -> None:
    """Time from opening DBOS until the last step of every run has been launched again."""
    gate.expected = job.workflows
    began = perf_counter()
    with _launched(job):
        await asyncio.to_thread(gate.all_held.wait)
        elapsed_s = perf_counter() - began
        if gate.executed:
            raise AssertionError(f"{gate.executed} recorded steps ran a second time")
        tell({"recover_s": elapsed_s})
        leave()


@contextmanager
def _launched(job: Job) -> Generator[None, None, None]:
    DBOS(
        config=DBOSConfig(
            name="bench",
            system_database_url=job.url,
            application_version="1",  # the same in both lives of a killed process
            log_level="WARNING",
            console_log_level="WARNING",
        )
    )
    DBOS.launch()
    try:
        yield
    finally:
        DBOS.destroy()


async def _run(workflow: Callable[[int], Coroutine[Any, Any, int]], id_: str, steps: int) -> None:
    with SetWorkflowID(id_):
        handle = await DBOS.start_workflow_async(workflow, steps)
    await handle.get_result()


def _start_blocking(id_: str, steps: int) -> Any:  # DBOS's handle
    with SetWorkflowID(id_):
        return DBOS.start_workflow(total_blocking, steps)


def _tell_rate(job: Job, elapsed_s: float) -> None:
    steps = job.workflows * job.steps
    tell({"steps_per_s": steps / elapsed_s, "us_per_step": elapsed_s / steps * 1e6})


CASES: dict[str, Callable[[Job], Awaitable[None]]] = {
    "throughput": throughput,
    "threads": threads,
    "latency": latency,
    "fill": fill,
    "recover": recover,
}


async def main() -> None:
    """Measure the cases of the job on the command line, one after the other."""
    job = Job.from_json(sys.argv[1])
    for case in job.cases:
        await CASES[case](job)


asyncio.run(main())
