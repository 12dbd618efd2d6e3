"""Logs as long as years, written the way an engine writes them: by an owner's books, with checkpoints and bookmark.

What stands in them: runs that are open, each with all its steps but the last recorded; then runs that come and go, one
after the other. The times of the events are spread as if there were so many a day, so that ended runs are forgotten as
they are over the years.

Each log ends just before its next checkpoint would have begun: a worker that opens it then has the most to fold.
"""

import asyncio
import time
from collections.abc import Iterator
from itertools import chain
from time import perf_counter

from assigned import AssignedLog
from histories import BATCH, BUILDER
from job import Job, leave, tell
from refold import CheckpointSettings, Engine
from refold.engine.checkpoints import Checkpoints
from refold.engine.claim import claim
from refold.engine.effects import Bookmark
from refold.engine.ledger import Ledger
from refold.log.events import Event, StepCompleted, WorkflowCompleted, WorkflowStarted
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Log
from refold.log.urls import open_log
from workloads import ADD, HELD, Gate, held_at, total

DAY_US = 24 * 3600 * 1_000_000
PAUSE_US = DAY_US // 10_000
"""From one event to the next, with 10,000 a day: three million are ten months."""
SPARE_US = 60 * DAY_US
"""How long ago the last event should be: nobody knows before how long it will be until the next checkpoint is due."""
BETWEEN_PARTS = 100
"""About so many events an owner under load makes between two parts of a checkpoint."""
NEVER = CheckpointSettings(min_bytes=1 << 60)
"""No log is as long as that."""
LOOK_EVERY_S = 0.001


class Author:
    """Makes the events of one partition through an owner's books.

    Args:
        ledger: The owner's.
        checkpoints: The owner's.
        steps: Of each run.
        began_at: Time of the first event, microseconds since 1970-01-01 UTC.
        pause_us: Time from one event to the next.
    """

    def __init__(
        self, ledger: Ledger, checkpoints: Checkpoints, steps: int, began_at: int, pause_us: int
    ) -> None:
        self.events = 0
        self.begins = False  # whether the last event was followed by one that begins a checkpoint
        self._ledger = ledger
        self._checkpoints = checkpoints
        self._steps = steps
        self._began_at = began_at
        self._pause_us = pause_us
        self._results = [str(sum(range(number + 1))) for number in range(steps)]

    def open(self, ids: list[str]) -> Iterator[None]:
        """Make runs that take turns until each waits in its last step; yields after each event."""
        payload = held_at(Gate(0)).bind(self._steps).payload
        for id_ in ids:
            self._start(id_, HELD, payload)
            yield
        for number in range(self._steps):
            for id_ in ids:
                self._step(id_, number)
                yield

    def come_and_go(self, prefix: str) -> Iterator[None]:
        """Make runs that begin and end, one after the other, for ever; yields after each event."""
        payload = total.bind(self._steps).payload
        number = 0
        while True:
            number += 1
            id_ = f"{prefix}-{number}"
            self._start(id_, total.name, payload)
            yield
            for step in range(self._steps):
                self._step(id_, step)
                yield
            header = self._ledger.header(id_, self._ledger.state.open[id_].position, self._now())
            self._record(WorkflowCompleted(**header, payload=self._results[-1]))
            yield

    def _now(self) -> int:
        return self._began_at + self.events * self._pause_us

    def _start(self, id_: str, workflow: str, payload: str) -> None:
        header = self._ledger.header(id_, self._ledger.state.floor, self._now())
        self._record(WorkflowStarted(**header, workflow=workflow, payload=payload))

    def _step(self, id_: str, number: int) -> None:
        now = self._now()
        header = self._ledger.header(id_, self._ledger.state.open[id_].position, now)
        self._record(
            StepCompleted(
                **header,
                step=number,
                name=ADD,
                payload=self._results[number],
                attempt=1,
                started_at=now,
            )
        )

    def _record(self, event: Event) -> None:
        busy = self._checkpoints.busy
        self._ledger.record(event)
        self.events += 1
        self._checkpoints.step(self._now())
        self.begins = self._checkpoints.busy and not busy


class Pages:
    """Appends what stands in a ledger, and notes where the checkpoints are.

    Args:
        log: An open log.
        partition: The partition.
        ledger: Its owner's.
    """

    def __init__(self, log: Log, partition: int, ledger: Ledger) -> None:
        self.checkpoints = 0
        self._log = log
        self._partition = partition
        self._ledger = ledger

    async def append(self) -> None:
        """Append all that there is."""
        ledger = self._ledger
        offsets = await self._log.append(Channel.EVENTS, self._partition, ledger.take_entries())
        if ledger.acked(offsets) is not None:
            raise AssertionError("somebody else has written into the log that is being built")
        for effect in ledger.take_effects():
            if isinstance(effect, Bookmark):
                self.checkpoints += 1
                offset = ledger.noted_offset(effect.sequence)
                await self._log.set_bookmark(self._partition, offset)

    async def append_but_the_last(self) -> None:
        """Append all but the last event. Nothing can be appended after that."""
        await self._log.append(Channel.EVENTS, self._partition, self._ledger.take_entries()[:-1])


async def build_long(job: Job) -> None:
    """Write a log of `events` events, and those until the next checkpoint is due; `workflows` runs are open in it."""
    log = open_log(job.url)
    await log.open()
    began = perf_counter()
    events = checkpoints = 0
    for partition in range(log.partitions):
        author, pages = await _write(log, partition, job)
        events += author.events
        checkpoints += pages.checkpoints
        if job.checkpoints and not pages.checkpoints:
            raise AssertionError(f"{author.events} events are too few for a checkpoint")
    elapsed_s = perf_counter() - began
    await log.close()
    tell({"events": events, "checkpoints": checkpoints, "build_events_per_s": events / elapsed_s})


async def _write(log: Log, partition: int, job: Job) -> tuple[Author, Pages]:
    ids = [f"run-{number}" for number in range(job.workflows)]
    ours = [id_ for id_ in ids if partition_of(id_, log.partitions) == partition]
    wanted = max(job.events // log.partitions, len(ours) * (job.steps + 1) + 1)
    pause_us = PAUSE_US * log.partitions
    began_at = time.time_ns() // 1000 - SPARE_US - wanted * pause_us
    state = (await claim(log, partition, BUILDER, lambda: began_at)).state
    ledger = Ledger(state, BUILDER)
    settings = CheckpointSettings() if job.checkpoints else NEVER
    checkpoints = Checkpoints(partition, state, ledger, settings, 0)
    author = Author(ledger, checkpoints, job.steps, began_at, pause_us)
    pages = Pages(log, partition, ledger)
    for _ in chain(author.open(ours), author.come_and_go(f"gone-{partition}")):
        if author.events >= wanted and not job.checkpoints:
            await pages.append()
            break
        if author.events >= wanted and author.begins:
            await pages.append_but_the_last()
            break
        if author.events % (BETWEEN_PARTS if checkpoints.busy else BATCH) == 0:
            await pages.append()
    return author, pages


async def ready(job: Job) -> None:
    """Time from opening the engine until it owns every partition and has launched the last step of every run again."""
    gate = Gate(job.workflows)
    held = held_at(gate)
    log = AssignedLog(open_log(job.url))  # made here, since this is what imports a Kafka client
    began = perf_counter()
    async with Engine(log, workflows=[held, total]) as engine:
        await gate.all_held.wait()
        while len(engine.owned_partitions) < log.partitions:  # noqa: ASYNC110 - as a user sees it
            await asyncio.sleep(LOOK_EVERY_S)
        elapsed_s = perf_counter() - began
        if gate.executed:
            raise AssertionError(f"{gate.executed} recorded steps ran a second time")
        tell({"ready_s": elapsed_s, "assigned_s": (log.assigned_at or began) - began})
        leave()
