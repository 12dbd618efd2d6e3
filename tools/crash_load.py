"""A client that goes on starting runs while workers die, and what has to be true when they have all ended."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

from crash_audit import Audited, Begun, Ended, Journal, audit, early, repeated, unfounded
from crash_exchange import News, exchanged, news_in
from crash_nursery import log_of
from crash_shapes import Mark, Shape, Visit, sequential
from log_backend import PATIENCE_S
from refold import Engine, WorkflowCancelled
from refold.engine.digest import digest
from refold.engine.reader import read_partition
from refold.log.events import StepCompleted

LOOK_EVERY_S = 0.002
WINDOW = 30
"""Runs that are open at a time, more or less: load enough that every kill meets some in each state."""
CONFIRMED = 0.2
"""Share of the starts that wait until a worker has accepted; the others are acknowledged when they are durable."""
REPEATED = 0.1
"""Share of the starts that repeat an earlier one, as a client does that has not heard."""


class Load:
    """Starts runs and remembers which starts were acknowledged.

    Args:
        client: An engine without a worker.
        journal: What the steps write.
        random: What is started, and when a test kills.
        shapes: What may be started.
        window: How many runs are open at a time, more or less, besides those that they start.
    """

    def __init__(
        self,
        client: Engine,
        journal: Journal,
        random: Random,
        shapes: Sequence[Shape],
        window: int = WINDOW,
    ) -> None:
        self.acknowledged: dict[str, tuple[Shape, int]] = {}
        self.sent: dict[str, Sequence[str]] = {}
        """Ids of the messages to each run that were acknowledged."""
        self._client = client
        self._journal = journal
        self._random = random
        self._shapes = shapes
        self._count = 0
        self._looked_at = 0  # lines of the journal
        self._window = window
        self._last_steps: dict[str, int | None] = {}  # of runs not known to have come to it
        self._visits: set[asyncio.Task[None]] = set()
        self._confirming: set[asyncio.Task[str]] = set()

    async def until_begun(self, attempts: int, pid: int | None = None) -> None:
        """Go on starting runs until so many more attempts have begun.

        Args:
            attempts: How many.
            pid: Only those in this process are counted; in any where None.
        """
        async with asyncio.timeout(PATIENCE_S):
            while True:
                lines = self._look()
                attempts -= sum(pid in {None, line.pid} for line in lines)
                if attempts <= 0:
                    return
                await self.top_up()
                if not lines:
                    await asyncio.sleep(LOOK_EVERY_S)

    async def top_up(self) -> None:
        """Start runs until enough are open."""
        missing = self._window - len(self._last_steps)
        await asyncio.gather(*(self._start() for _ in range(missing)))

    async def start(self, shape: Shape, *, confirm: bool = False) -> str:
        """Start one run; returns its id when the start is acknowledged."""
        self._count += 1
        n = self._count
        run = f"{shape.workflow.name}-{n}"
        self._last_steps[run] = shape.last_step
        await self.ask(run, shape, n, confirm=confirm)
        self.acknowledged[run] = (shape, n)
        if shape.visit is not None:
            self._visits.add(asyncio.create_task(self._visit(run, shape, n, shape.visit)))
        return run

    async def ask(self, run: str, shape: Shape, n: int, *, confirm: bool) -> None:
        """Have the client start a run, for the first time or again."""
        await self._client.start_async(shape.workflow.bind(n), id=run, confirm=confirm)

    async def finish(self) -> None:
        """Wait for the starts that still wait to be accepted, and for the visits."""
        await asyncio.gather(*self._confirming)
        await asyncio.gather(*self._visits)

    async def _visit(self, run: str, shape: Shape, n: int, visit: Visit) -> None:
        handle = self._client.handle(run, shape.workflow)
        self.sent[run] = await visit(handle, n, Random(self._random.getrandbits(32)))
        if shape.last_step is None:
            del self._last_steps[run]

    def _look(self) -> list[Begun]:
        self._journal.new()
        lines = self._journal.lines[self._looked_at :]  # others read it on as well
        self._looked_at += len(lines)
        for line in lines:
            if self._last_steps.get(line.workflow_id, -1) == line.step:
                del self._last_steps[line.workflow_id]
        return lines

    async def _start(self) -> None:
        chance = self._random.random()
        if chance < REPEATED and self.acknowledged:
            run = self._random.choice(list(self.acknowledged))
            shape, n = self.acknowledged[run]
            await self.ask(run, shape, n, confirm=False)
            return
        shape = self._random.choice(self._shapes)
        if chance > 1 - CONFIRMED:
            self._confirming.add(asyncio.create_task(self.start(shape, confirm=True)))
        else:
            await self.start(shape)


async def results_of(client: Engine, load: Load) -> dict[str, list[Mark] | Exception]:
    """How every acknowledged run ended, as a client hears it."""

    async def result(run: str, shape: Shape) -> list[Mark] | Exception:
        try:
            return await client.handle(run, shape.workflow).result_async(PATIENCE_S)
        except (
            ValueError,
            WorkflowCancelled,
        ) as error:  # what a run may fail with; anything else fails the test
            return error

    runs = load.acknowledged
    results = await asyncio.gather(*(result(run, shape) for run, (shape, _) in runs.items()))
    return dict(zip(runs, results, strict=True))


def wrong(load: Load, results: dict[str, list[Mark] | Exception], audited: Audited) -> list[str]:
    """Results that are not what the workflow gives, or that were not made of the recorded outcomes."""
    problems: list[str] = []
    for run, (shape, n) in load.acknowledged.items():
        result = results[run]
        if not shape.is_right(n, result):
            problems.append(f"{run} ended with {result!r}")
        if isinstance(result, Exception):
            continue
        recorded = "".join(
            event.payload
            for event in audited.streams.get(run, [])
            if isinstance(event, StepCompleted)
        )
        problems += [
            f"{run} returned {made}, which no recorded step gave"
            for made in result
            if f'"{made.token}"' not in recorded
        ]
    return problems


async def problems_of(
    url: str, client: Engine, load: Load, journal: Journal
) -> tuple[Audited, list[str]]:
    """Wait until every acknowledged run has ended, then look whether anything was lost, repeated or made up.

    Args:
        url: The log.
        client: An engine without a worker, that may have been open all the time.
        load: What was started.
        journal: What began.

    Returns:
        What the log says, and all that is wrong, in words.
    """
    await load.finish()
    results = await results_of(client, load)
    audited, news, still_open = await at_rest(url)
    journal.new()
    return audited, [
        *audited.problems,
        *(f"{run} never ended" for run in still_open),
        *(f"{run} is lost" for run in load.acknowledged if run not in audited.streams),
        *wrong(load, results, audited),
        *repeated(audited, journal.lines),
        *unfounded(audited, journal.lines),
        *early(audited, journal.lines, sequential.name),
        *exchanged(audited, news, load.sent),
    ]


async def at_rest(url: str) -> tuple[Audited, News, Sequence[str]]:
    """Wait until every run has ended, also those that nobody waits for.

    Returns:
        What the log says, what owners have told each other, and the runs for whose end there was no patience.
    """
    log = log_of(url)
    await log.open()
    end = asyncio.get_running_loop().time() + PATIENCE_S
    try:
        while True:
            audited = await audit(log)
            still_open = [
                run for run, stream in audited.streams.items() if not isinstance(stream[-1], Ended)
            ]
            if not still_open or asyncio.get_running_loop().time() > end:
                return audited, await news_in(log), still_open
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        await log.close()


async def digests(url: str) -> list[str]:
    """Digest of each partition's fold, by a reader of its own."""
    log = log_of(url)
    await log.open()
    try:
        return [digest(await read_partition(log, p)) for p in range(log.partitions)]
    finally:
        await log.close()


def digests_elsewhere(url: str) -> list[str]:
    """The same, by a reader in a process of its own."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = subprocess.run(
        [sys.executable, "-c", "import crash_load; crash_load.print_digests()", url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return found.stdout.split()


def print_digests() -> None:
    """What `digests_elsewhere` runs."""
    print(*asyncio.run(digests(sys.argv[1])))
