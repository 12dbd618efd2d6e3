"""Processes for tests that kill workers of pools: some own the partitions, others carry the pool's steps out.

Others
yet own the partitions of a pool of workflows.

Each step writes a line into the journal as it begins (`crash_shapes.begin`). A process lives until it is killed, or
until its standard input ends: then it drains.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from crash_nursery import log_of
from crash_shapes import JOURNAL, Mark, begin
from refold import Engine, run_child, step, step_context, workflow
from refold.engine.pool_job import PoolJob
from refold.engine.pools import MIN_LEASE_S

GATE = ".gate"
"""Beside the journal: while there is no file with this suffix, the steps that wait go on waiting."""

FREEZE_AT_GRANT = "freeze-at-grant"
"""Role of a pool's worker that stops itself when it is let begin, the first time."""

LOOK_EVERY_S = 0.01


@step(pool="anvil")
def forge(value: int) -> Mark:
    """A step that takes as long as the gate is shut."""
    mark = begin(value)
    while not Path(os.environ[JOURNAL] + GATE).exists():
        if step_context().wait_cancelled(LOOK_EVERY_S):
            break
    return mark


@step(pool="anvil")
async def strike(value: int) -> Mark:
    """A quick step."""
    return begin(value)


@workflow
async def forged(value: int) -> Mark:
    """One step that waits for the gate."""
    return await forge.aio(value)


@workflow
async def chain(links: int) -> list[str]:
    """Quick steps, one after the other."""
    return [(await strike(link)).token for link in range(links)]


@step
async def cast(value: int) -> Mark:
    """A quick step of the worker that runs the workflow."""
    return begin(value)


@workflow(pool="foundry")
async def casting(links: int) -> list[str]:
    """Quick steps, one after the other, in the workers of a pool of workflows."""
    return [(await cast(link)).token for link in range(links)]


@workflow
async def ordered(links: int) -> list[str]:
    """A child in that pool."""
    return await run_child(casting, links)


class Smithy:
    """Starts processes, and ends all that are left.

    Args:
        url: The log.
        journal: Where the steps write that they have begun.
    """

    def __init__(self, url: str, journal: Path) -> None:
        self._url = url
        self._journal = journal
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def start(self, role: str) -> "subprocess.Popen[bytes]":
        """A process that is an `owner`, a worker of the `pool`, or one that freezes
        (`FREEZE_AT_GRANT`); or a worker of the pool of workflows, a `foundry`.
        """
        here = str(Path(__file__).parent)
        paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, "-c", "import crash_pools; crash_pools.serve()", role, self._url],
            stdin=subprocess.PIPE,
            env={**os.environ, JOURNAL: str(self._journal), "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._processes.append(process)
        return process

    def open_gate(self) -> None:
        """Let the steps that wait go on."""
        Path(f"{self._journal}{GATE}").touch()


def serve() -> None:
    """A process's life."""
    role, url = sys.argv[1:]
    if role == "owner":
        engine = Engine(log_of(url), workflows=[forged, chain, ordered], pool_lease_s=MIN_LEASE_S)
    elif role == "foundry":
        engine = Engine(log_of(url), workflows=[casting], worker=False, pools=["foundry"])
    else:
        if role == FREEZE_AT_GRANT:
            _freeze_at_grant()
        engine = Engine(log_of(url), worker=False, pools=["anvil"], pool_lease_s=MIN_LEASE_S)
    with engine:
        sys.stdin.read()


def _freeze_at_grant() -> None:
    """Stop this process at the first grant, as a machine that is put to sleep at the worst moment."""
    hear = PoolJob.hear_grant
    frozen: list[float] = []

    def hear_and_freeze(self: PoolJob, command_id: str, lease_s: float) -> None:
        hear(self, command_id, lease_s)
        if not frozen:
            frozen.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGSTOP)

    PoolJob.hear_grant = hear_and_freeze  # type: ignore[method-assign]
