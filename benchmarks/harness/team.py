"""Worker processes, as `refold worker` would be: they come, they are told to stop (SIGTERM), they are killed."""

import asyncio
import json
import os
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from job import Job, tell
from refold import Engine, step, workflow
from workloads import total

CHILD = Path(__file__).with_name("child.py")
LOOK_EVERY_S = 0.01
PATIENCE_S = 240.0
"""No worker needs so long to come or to go."""
LONG_S = 1.0
"""Longer than a partition that is to move waits for steps under way: some always go on at their old worker."""


@step
async def linger(seconds: float) -> float:
    """A step that takes its time."""
    await asyncio.sleep(seconds)
    return seconds


@workflow
async def lingering(seconds: float) -> float:
    """One such step."""
    return await linger(seconds)


async def serve(job: Job) -> None:
    """A worker, until SIGTERM or until its parent is gone; it tells how many partitions it owns when that changes."""
    told_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told_to_stop.set)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    owned = -1
    async with Engine(job.url, workflows=[total, lingering]) as engine:
        while not told_to_stop.is_set():
            if len(engine.owned_partitions) != owned:
                owned = len(engine.owned_partitions)
                tell({"owned": owned})
            await asyncio.sleep(LOOK_EVERY_S)


def _die_with_parent() -> None:
    os.read(
        0, 1
    )  # nobody writes; not by sys.stdin, which the interpreter wants to lock when it ends
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(slots=True, eq=False)
class Member:
    """A worker process, and how many partitions it says it owns."""

    process: Process
    owned: int = 0
    listening: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Take in what it says, to its end."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.owned = round(json.loads(line)["figures"]["owned"])
        self.owned = 0


@dataclass(slots=True)
class Team:
    """Worker processes on one log. None outlives the block.

    Args:
        job: Whose log it is.
        partitions: How many it has.
    """

    job: Job
    partitions: int
    members: list[Member] = field(default_factory=list[Member])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        for member in list(self.members):
            await self.kill(member)

    async def add(self) -> Member:
        """Start one more. It owns nothing yet."""
        job = replace(self.job, cases=("serve",))
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), job.to_json(), stdin=PIPE, stdout=PIPE
        )
        member = Member(process)
        member.listening = asyncio.create_task(member.listen())
        self.members.append(member)
        return member

    async def stop(self, member: Member) -> None:
        """Tell one to stop, and wait until it has."""
        member.process.send_signal(signal.SIGTERM)
        await self._bury(member)
        if member.process.returncode != 0:
            raise AssertionError(
                f"a worker that was told to stop ended with {member.process.returncode}"
            )

    async def kill(self, member: Member) -> None:
        """Kill one."""
        if member.process.returncode is None:
            member.process.kill()
        await self._bury(member)

    async def _bury(self, member: Member) -> None:
        self.members.remove(member)
        await asyncio.wait_for(member.process.wait(), PATIENCE_S)
        if member.listening is not None:
            await member.listening

    @property
    def shares_evenly(self) -> bool:
        """Whether every partition is owned, and nobody has fewer than an even share."""
        owned = [member.owned for member in self.members]
        return sum(owned) == self.partitions and min(owned) >= self.partitions // len(owned)

    async def settled(self, condition: Callable[[], bool] = lambda: True) -> None:
        """Wait until the partitions are shared evenly and the condition holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not (self.shares_evenly and condition()):  # noqa: ASYNC110 - other processes bring it about
                await asyncio.sleep(LOOK_EVERY_S)
