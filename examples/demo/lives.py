"""The job's lives: start the worker as a process of its own, kill it where the plan says, start it again."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watch import Ending, Life, Watch

WORKER = Path(__file__).with_name("worker.py")
LOG_TAIL_CHARACTERS = 2_000
END_TIMEOUT_S = 30.0


class DemoFailedError(Exception):
    """The demo did not get to its end; the message says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the job's processes are given, and when they die.

    Args:
        url: The log.
        release: The job's input, as JSON.
        kills: For each kill, how many steps are recorded when it comes; rising.
        output: Where each process's standard error is kept.
    """

    url: str
    release: str
    kills: tuple[int, ...]
    output: Path


async def live_through(plan: Plan, watch: Watch) -> None:
    """Live, die and live again, until the job is done and the watch has seen its last event.

    Raises:
        DemoFailedError: A process ended otherwise than planned, or the log never showed the end.
    """
    following = asyncio.create_task(watch.follow())
    living = asyncio.create_task(_lives(plan, watch))
    tasks = following, living
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # to follow has no end: if that is done, it failed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _lives(plan: Plan, watch: Watch) -> None:
    for number, kill_at in enumerate([*plan.kills, None], start=1):
        await _live(plan, watch, number, kill_at)
    try:
        await asyncio.wait_for(watch.until(lambda: watch.done), END_TIMEOUT_S)
    except TimeoutError as error:
        raise DemoFailedError("the job's process says that it is done, its log does not") from error


async def _live(plan: Plan, watch: Watch, number: int, kill_at: int | None) -> None:
    """One process: until its work is done, or so many steps are recorded that it must die."""
    errors = plan.output / f"worker-{number}.log"
    with errors.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(WORKER), plan.url, str(number), plan.release),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=file,
        )
    life = Life(number, process.pid)
    watch.lives.append(life)
    try:
        if kill_at is None:
            await process.wait()
        else:
            threshold = kill_at
            await _first(process.wait(), watch.until(lambda: watch.steps >= threshold))
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        life.ending = _ending(await process.wait())
    wanted: Ending = "finished" if kill_at is None else "killed"
    if life.ending != wanted:
        tail = errors.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
        raise DemoFailedError(
            f"life {number} should have {wanted}, and ended with code {process.returncode}:\n{tail}"
        )


async def _first(*works: Coroutine[Any, Any, object]) -> None:
    """Wait for the first to be done; the others are not waited for."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _ending(code: int) -> Ending:
    if code == -signal.SIGKILL:
        return "killed"
    return "finished" if code == 0 else "failed"
