"""The way of an append from the event loop to the writer's thread and back: order, room, and failure.

Works go to the writer in the order in which they were put, and only while there is room; the others wait here. When one
fails, all that were put before its failure was known fail with it, so that nothing overtakes.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from refold.log.errors import LogUnavailable
from refold.log.sqlite_writer import Append, Outcome, SqliteWriter, Work


class WriteQueue:
    """Works on their way to the disk, in order; those that find it full wait before it. For the event loop.

    Args:
        writer: Where the works go.
        max_records: Works wait outside while so many records are on their way.
        max_bytes: The same in bytes. A single work may be larger: it goes alone.
    """

    def __init__(self, writer: SqliteWriter, max_records: int, max_bytes: int) -> None:
        self.writer = writer
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._loop = asyncio.get_running_loop()
        self._backlog: deque[Work] = deque()
        self._works = self._records = self._bytes = 0
        self._generation = 0
        self._drained: asyncio.Event = asyncio.Event()

    def slot(self) -> tuple[asyncio.Future[Sequence[int]], int]:
        """A future for a new work, and the generation that it belongs to."""
        return self._loop.create_future(), self._generation

    def put(self, work: Work) -> None:
        """Queue a work; it goes to the writer when there is room and all before it have gone."""
        self._backlog.append(work)
        self._admit()

    def settle(self, outcome: Outcome) -> None:
        """Tell those who wait, and let in what fits now."""
        for index, work in enumerate(outcome.works):
            self._count(work, -1)
            if work.future.done():
                continue  # cancelled: what was on its way is written all the same
            if outcome.error is None:
                work.future.set_result(outcome.offsets[index])
            else:
                work.future.set_exception(_copy(outcome.error))
        # Stragglers of a failure that was heard of before are refused one by one: those here came after it.
        if outcome.error is not None and outcome.works[-1].generation == self._generation:
            self._fail_backlog(outcome.error)
        self._admit()
        if not self._works and not self._backlog:
            self._drained.set()

    async def drained(self) -> None:
        """Wait until all that was put is settled."""
        while self._works or self._backlog:
            self._drained.clear()
            await self._drained.wait()

    def _admit(self) -> None:
        while self._backlog:
            work = self._backlog[0]
            if work.future.done():  # cancelled while it waited for room
                self._backlog.popleft()
                continue
            full = self._records >= self._max_records or self._bytes >= self._max_bytes
            if full:
                return
            self._backlog.popleft()
            self._count(work, 1)
            self.writer.submit(work)

    def _count(self, work: Work, sign: int) -> None:
        self._works += sign
        self._bytes += sign * work.size
        self._records += sign * (len(work.cells) // 3 if isinstance(work, Append) else 1)

    def _fail_backlog(self, error: Exception) -> None:
        """What was put before the failure was known must not overtake it: it fails too (promise 2)."""
        self._generation += 1
        for work in self._backlog:
            if not work.future.done():
                problem = LogUnavailable(
                    f"an earlier append failed, and this one waited behind it: {error}"
                )
                work.future.set_exception(problem)
        self._backlog.clear()


def _copy(error: Exception) -> Exception:
    """One exception object for each waiter: raised twice, an object would carry both tracebacks."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
