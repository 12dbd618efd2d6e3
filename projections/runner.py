"""Takes a log's events into a target: up to now, or for ever; alone, or sharing the partitions with other processes.

    a reader for each partition ──► queue, bounded ──► one writer: as much as there is, in one transaction, on a thread

Nothing here remembers anything for good: the target says where its partitions stand, and a write says where it goes on
from. So a crash needs no repair, and a process that is slow to notice that a partition is another's now is told by
the target (`PositionMoved`), reads the positions again, and repeats nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from refold.log.errors import LogTrimmed
from refold.log.protocol import Channel, Log, Share
from refold.log.trimmed import ARCHIVE_ADVICE
from refold.projections.feed import (
    Batch,
    Logged,
    Position,
    follow_batches,
    read_batches,
    start_of,
)
from refold.projections.target import PositionMoved, Step, Target, TargetUnavailable

T = TypeVar("T")

BATCH_EVENTS: Final = 5_000
"""Events in one transaction, at most, and near enough: what it costs to begin and end one is lost in so many, and it is
over in a fraction of a second."""
QUEUE_BATCHES: Final = 32
_AGAIN_S: Final = 0.2
_RECONNECT_S: Final = 1.0
_LOOK_S: Final = 0.5

logger = logging.getLogger("refold.projections")


class Standing(NamedTuple):
    """How far a partition has been taken in.

    Args:
        offset: The next offset to be read.
        end: The offset that the log's next record will get.
    """

    offset: int
    end: int

    @property
    def behind(self) -> int:
        """Records that are not taken in yet."""
        return max(0, self.end - self.offset)


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """What can be set.

    Args:
        group: Share the partitions with all processes that name the same: a name, or what gives it when the target is
            open; None for all partitions. Each group must have a target of its own, and all its members that one.
        member: This process's name in the group.
        from_trimmed: Begin where a log was trimmed, if there is no archive of what came before; it is refused else.
        batch_events: Events in one transaction, at most, and near enough.
        linger_s: How long a transaction waits for more events once it has one, in seconds: for targets that would
            rather be written seldom.
    """

    group: str | Callable[[], str] | None = None
    member: str = "project"
    from_trimmed: bool = False
    batch_events: int = BATCH_EVENTS
    linger_s: float = 0.0


class _Item(NamedTuple):
    """What a reader hands to the writer: a batch, or that it has read all that was there when it began, or its end."""

    reader: int
    partition: int
    batch: Batch | None = None
    error: Exception | None = None


_STOP: Final = _Item(-1, -1)


class Runner:
    """One target's intake from one log. Made and used on the event loop that opened the log; runs once.

    Args:
        log: An open log.
        target: Where the events go; not open yet.
        settings: See there.
        caught_up: Called on the target's thread once all is in that was in the log when the runner began, in every
            partition, whoever wrote it.
    """

    def __init__(
        self,
        log: Log,
        target: Target,
        settings: RunnerSettings = RunnerSettings(),
        *,
        caught_up: Callable[[], None] | None = None,
    ) -> None:
        self._log = log
        self._target = target
        self._settings = settings
        self._caught_up = caught_up
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"refold-{target.name}")
        self._queue: asyncio.Queue[_Item] = asyncio.Queue(QUEUE_BATCHES)
        self._readers: dict[int, tuple[int, asyncio.Task[None]]] = {}
        self._number = 0
        self._positions: dict[int, Position | None] = {}
        self._first: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._reading: set[int] = set()
        self._released: list[int] = []
        self._writing = False
        self._share: Share | None = None
        self._stopping = False
        self._follows = False
        self._looked_at = 0.0
        self._events = 0

    @property
    def events(self) -> int:
        """Events that were taken in by this process."""
        return self._events

    async def catch_up(self) -> None:
        """Take in what is in the log now, and end.

        Raises:
            LogTrimmed: Its beginning is gone.
            RefoldError: The log can't be read, or the target not written. What was written before is whole.
        """
        await self._run(None)

    async def follow(self, stop: asyncio.Event) -> None:
        """Take in what is there and what comes, until `stop` is set; then what was read is still written.

        While the target can't be reached, it waits.

        Raises:
            LogTrimmed: The log's beginning is gone, or was trimmed before it was taken in.
            RefoldError: The log can't be read, or the target refuses an event.
        """
        self._follows = True
        await self._run(stop)

    async def standing(self) -> Mapping[int, Standing]:
        """How far each partition that is this process's has been taken in, as of now."""
        found: dict[int, Standing] = {}
        for partition in sorted(self._positions):
            bounds = await self._log.bounds(Channel.EVENTS, partition)
            position = self._positions.get(partition)
            offset = self._first.get(partition, 0) if position is None else position.offset
            found[partition] = Standing(offset, bounds.end)
        return found

    async def _run(self, stop: asyncio.Event | None) -> None:
        stopper = None if stop is None else asyncio.create_task(self._stopped(stop))
        try:
            await self._open()
            await self._note_ends()
            group = self._settings.group
            if group is None or stop is None:
                for partition in range(self._log.partitions):
                    self._start_reading(partition)
            else:
                named = group if isinstance(group, str) else await self._on_thread(group)
                self._share = await self._log.share(named, self._settings.member, self)
            await self._write_all()
        finally:
            if stopper is not None:
                stopper.cancel()
            await self._close()

    async def _stopped(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stopping = True
        for _, task in self._readers.values():
            task.cancel()
        await self._queue.put(_STOP)

    async def _close(self) -> None:
        tasks = [task for _, task in self._readers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._share is not None:
            await self._share.leave()
        await self._on_thread(self._target.close)
        self._thread.shutdown()

    async def _open(self) -> None:
        """Open the target; a service that follows waits for one that can't be reached."""
        told = ""
        while True:
            try:
                await self._on_thread(self._target.open)
            except TargetUnavailable as error:
                if not self._follows or self._stopping:
                    raise
                if str(error) != told:
                    told = str(error)
                    logger.warning("%s waits: %s", self._target.name, told)
            else:
                return
            await asyncio.sleep(_RECONNECT_S)

    async def _note_ends(self) -> None:
        for partition in range(self._log.partitions):
            bounds = await self._log.bounds(Channel.EVENTS, partition)
            self._ends[partition] = bounds.end

    # Told by the group, on the event loop.

    def assigned(self, partition: int) -> None:
        """See `ShareListener`."""
        logger.info("%s: takes partition %d", self._target.name, partition)
        self._start_reading(partition)

    def revoked(self, partition: int, lost: bool) -> None:
        """See `ShareListener`. It is released when no write for it is under way any more."""
        logger.info("%s: gives partition %d to another process", self._target.name, partition)
        self._stop_reading(partition)
        self._positions.pop(partition, None)
        self._released.append(partition)
        if not self._writing:
            self._release()

    def _release(self) -> None:
        released, self._released = self._released, []
        for partition in released:
            if self._share is not None and partition not in self._readers:
                self._share.release(partition)

    # Reading.

    def _start_reading(self, partition: int) -> None:
        self._stop_reading(partition)
        self._number += 1
        self._reading.add(partition)
        task = asyncio.create_task(self._read(partition, self._number))
        self._readers[partition] = (self._number, task)

    def _stop_reading(self, partition: int) -> None:
        if partition in self._readers:
            self._readers.pop(partition)[1].cancel()
        self._reading.discard(partition)

    async def _read(self, partition: int, number: int) -> None:
        """Hand over what is there, say so, and go on with what comes."""
        try:
            stored = (await self._on_thread(self._target.positions)).get(partition)
            position = await self._start(partition) if stored is None else stored
            self._first.setdefault(partition, position.offset)
            self._positions[partition] = stored
            end = max(position.offset, self._ends[partition])
            async with aclosing(read_batches(self._log, partition, position, end)) as batches:
                async for batch in batches:
                    await self._queue.put(_Item(number, partition, batch))
                    position = batch.position
            await self._queue.put(_Item(number, partition))
            if not self._follows:
                return
            async with aclosing(follow_batches(self._log, partition, position)) as batches:
                async for batch in batches:
                    await self._queue.put(_Item(number, partition, batch))
        except Exception as error:  # noqa: BLE001 - whatever it is, the writer raises it
            await self._queue.put(_Item(number, partition, error=error))

    async def _start(self, partition: int) -> Position:
        position = await start_of(self._log, partition)
        if position.offset > 0 and not self._settings.from_trimmed:
            raise LogTrimmed(
                f"{self._target.name} needs all events of {self._log.namespace!r}, and those of partition {partition} "
                f"before offset {position.offset} were trimmed. {ARCHIVE_ADVICE}"
            )
        return position

    # Writing.

    async def _write_all(self) -> None:
        whole = False
        while True:
            items, stopped = await self._gathered()
            try:
                await self._write(items)
                if not whole and not self._reading:
                    whole = await self._check_caught_up()
            except TargetUnavailable as error:
                if not self._follows or stopped:
                    raise
                await self._reconnect(error)
            if stopped or (not self._follows and not self._reading):
                return

    async def _gathered(self) -> tuple[list[_Item], bool]:
        """What is there, at least one item, as much as one transaction takes; and whether it is time to end."""
        items: list[_Item] = []
        events = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                items.append(await self._queue.get())
        reading = set(self._reading)
        lingers_until = time.monotonic() + self._settings.linger_s
        while items and items[-1] is not _STOP and events < self._settings.batch_events:
            last = items[-1]
            events += 0 if last.batch is None else len(last.batch.logged)
            if last.batch is None:
                reading.discard(last.partition)
            more = (self._follows or reading) and last.error is None
            left_s = lingers_until - time.monotonic() if more else 0.0
            try:
                async with asyncio.timeout(max(0.0, left_s) if self._queue.empty() else None):
                    items.append(await self._queue.get())
            except TimeoutError:
                break
        return items, bool(items) and items[-1] is _STOP

    async def _write(self, items: list[_Item]) -> None:
        logged: list[Logged] = []
        steps: dict[int, Step] = {}
        for item in items:
            current = self._readers.get(item.partition)
            if current is None or current[0] != item.reader:
                continue  # of a reader that has been stopped
            if item.error is not None:
                raise item.error
            if item.batch is None:
                self._reading.discard(item.partition)
                continue
            partition = item.partition
            first = steps.get(partition)
            before = self._positions[partition] if first is None else first.before
            steps[partition] = Step(before, item.batch.position)
            logged.extend(item.batch.logged)
        if steps:
            await self._save(logged, steps)

    async def _save(self, logged: list[Logged], steps: dict[int, Step]) -> None:
        self._writing = True
        try:
            await self._on_thread(lambda: self._target.write(logged, steps))
        except PositionMoved as moved:
            logger.info("%s", moved)
            await self._again(steps)
        else:
            self._events += len(logged)
            for partition, step in steps.items():
                if partition in self._readers:  # else it was revoked meanwhile
                    self._positions[partition] = step.after
                    if self._share is not None:
                        self._share.done(partition, step.after.offset)
        finally:
            self._writing = False
            self._release()

    async def _reconnect(self, error: TargetUnavailable) -> None:
        logger.warning("%s waits: %s", self._target.name, error)
        await self._on_thread(self._target.close)
        await self._open()
        logger.warning("%s goes on", self._target.name)
        await self._again(dict(self._readers))

    async def _again(self, partitions: Mapping[int, object]) -> None:
        """Read on from where the target stands; a moment later, for another process may be about to tell us why."""
        await asyncio.sleep(_AGAIN_S)
        for partition in partitions:
            if partition in self._readers:
                self._start_reading(partition)

    async def _check_caught_up(self) -> bool:
        """Whether everything is in that was there at the beginning, other processes' partitions too; then say so."""
        now = time.monotonic()
        if self._follows and now - self._looked_at < _LOOK_S:
            return False
        self._looked_at = now
        positions = await self._on_thread(self._target.positions)
        for partition, end in self._ends.items():
            if partition in self._readers:
                continue  # ours: its reader has said so
            position = positions.get(partition)
            if end > 0 and (position is None or position.offset < end):
                return False
        if self._caught_up is not None:
            await self._on_thread(self._caught_up)
        return True

    async def _on_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
