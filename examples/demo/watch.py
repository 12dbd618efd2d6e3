"""Looking on from outside: the demo's parent process follows the log and knows from its events how far the job is."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from refold.log.codec import decode_event
from refold.log.errors import LogCorrupt
from refold.log.events import Event, PartitionClaimed, StepCompleted, Unreadable, WorkflowCompleted
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Log

Ending: TypeAlias = Literal["running", "killed", "finished", "failed"]


@dataclass(slots=True)
class Life:
    """One process that ran the job, until it was killed or done.

    Args:
        number: 1, 2, 3, ...
        pid: Its process id.
        replayed: Steps of each kind whose outcomes it found in the log; None until it owns the job.
        recorded: How many steps it has added to the log.
        ending: How it ended.
    """

    number: int
    pid: int
    replayed: Counter[str] | None = None
    recorded: int = 0
    ending: Ending = "running"

    @property
    def worker(self) -> str:
        """The worker's name in events."""
        return f"life-{self.number}"


@dataclass(slots=True)
class Watch:
    """All that the log says about one workflow, as it is said.

    Args:
        log: The log, open.
        workflow_id: The workflow.
        lives: The processes so far; whoever starts one adds it.
        events: The workflow's events so far, in order.
        completed: How many steps of each kind are recorded.
        done: Whether the workflow's end is recorded.
    """

    log: Log
    workflow_id: str
    lives: list[Life] = field(default_factory=list[Life])
    events: list[Event] = field(default_factory=list[Event])
    completed: Counter[str] = field(default_factory=Counter[str])
    done: bool = False
    _claim: int = -1
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def steps(self) -> int:
        """How many steps are recorded."""
        return self.completed.total()

    async def follow(self) -> None:
        """Take in events as they are appended, for ever."""
        partition = partition_of(self.workflow_id, self.log.partitions)
        async for batch in self.log.tail(Channel.EVENTS, partition, 0):
            for record in batch:
                self._take(decode_event(record), record.offset)
            async with self._news:
                self._news.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for events that make it hold."""
        async with self._news:
            await self._news.wait_for(holds)

    def _take(self, event: Event | Unreadable, offset: int) -> None:
        """The rule of every reader: what was not written under the current claim does not count."""
        if isinstance(event, Unreadable):
            raise LogCorrupt(f"offset {offset} of the log can't be read: {event.reason}")
        if event.claim != self._claim:
            return
        if isinstance(event, PartitionClaimed):
            self._claim = offset
            for life in self.lives:
                if life.worker == event.worker:
                    life.replayed = Counter(self.completed)
        elif event.workflow_id == self.workflow_id:
            self.events.append(event)
            self._count(event)

    def _count(self, event: Event) -> None:
        if isinstance(event, StepCompleted):
            self.completed[event.name] += 1
            for life in self.lives:
                life.recorded += life.worker == event.worker
        elif isinstance(event, WorkflowCompleted):
            self.done = True
