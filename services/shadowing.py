"""The work of `refold shadow`: a log's events, as they come, told to the code in its shadow."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

from refold.engine.recovery import recover
from refold.engine.rehearsal import Finding, Verdict
from refold.engine.shadow import Shadow
from refold.engine.state import PartitionState, Status
from refold.log.events import Event, Unreadable
from refold.log.protocol import Channel, Log
from refold.projections.feed import Batch, Position, follow_batches, read_batches
from refold.services.check_process import Overdue

QUIET_S: Final = 2.0
"""After so long without an event, a run whose code has ended here and not in the log differs: between an outcome and
the end that follows from it, a worker needs milliseconds."""

TURN_EVENTS: Final = 200
"""Events after which others get the event loop: some milliseconds."""


class Shadowing:
    """One following of a log.

    Args:
        log: The log, open.
        shadow: The code.
        told: Hears what differs.
        overdue: Looks after code that does not come back.
    """

    def __init__(
        self, log: Log, shadow: Shadow, told: Callable[[Finding], None], overdue: Overdue
    ) -> None:
        self._log = log
        self._shadow = shadow
        self._told = told
        self._overdue = overdue
        self._heard_at = time.monotonic()
        self.begun = asyncio.Event()  # every partition has its state, and is followed

    async def to_the_end(self) -> None:
        """Follow the log from its beginning to its end as of now.

        Raises:
            LogError: The log can't be read.
        """
        for partition in range(self._log.partitions):
            position = await self._begin(partition, from_start=True)
            await self._take_all(partition, read_batches(self._log, partition, position))
        self._tell(self._shadow.early())

    async def follow(self, stop: asyncio.Event, *, from_start: bool) -> None:
        """Follow the log until it is told to stop.

        Args:
            stop: When to stop.
            from_start: Begin with the log's beginning, and not with what comes from now on.

        Raises:
            LogError: The log can't be read.
        """
        begun = [
            (partition, await self._begin(partition, from_start=from_start))
            for partition in range(self._log.partitions)
        ]
        self.begun.set()
        work: set[asyncio.Task[Any]] = {
            asyncio.create_task(
                self._take_all(partition, follow_batches(self._log, partition, position))
            )
            for partition, position in begun
        }
        work |= {asyncio.create_task(self._look()), asyncio.create_task(stop.wait())}
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        self._tell(self._shadow.early())

    async def _begin(self, partition: int, *, from_start: bool) -> Position:
        """From where a partition is followed: with it the shadow gets the state of the runs that are open there."""
        start = (await self._log.bounds(Channel.EVENTS, partition)).start
        if from_start and start == 0:
            self._shadow.begin(partition, PartitionState())
            return Position()
        recovered = await recover(self._log, partition)
        if not from_start:
            await recovered.go_on(self._log, partition)
        self._shadow.begin(partition, recovered.state)
        return Position(recovered.position, recovered.state.claim)

    async def _take_all(self, partition: int, batches: AsyncGenerator[Batch, None]) -> None:
        async with aclosing(batches):
            async for batch in batches:
                for number, logged in enumerate(batch.logged):
                    self._take(partition, logged.offset, logged.event)
                    if number % TURN_EVENTS == 0:
                        await asyncio.sleep(0)
                self._heard_at = time.monotonic()

    def _take(self, partition: int, offset: int, event: Event | Unreadable) -> None:
        self._overdue.begin(
            Finding(event.workflow_id or "?", "?", 1, Status.RUNNING, 0, Verdict.TOO_LONG)
        )
        try:
            self._tell(self._shadow.take(partition, offset, event))
        finally:
            self._overdue.end()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(QUIET_S / 2)
            if time.monotonic() - self._heard_at > QUIET_S:
                self._tell(self._shadow.early())

    def _tell(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            self._told(finding)
