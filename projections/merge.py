"""Several partitions as one sequence: the past in the order in which the log took it in.

Each partition keeps its own order, whatever its clock did; between partitions the log's times decide, and the number of
the partition where they are equal. So the same past comes in the same order every time, from wherever it is read.
"""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import NamedTuple

from refold.log.events import Event, PartitionClaimed, Unreadable
from refold.projections.feed import Batch, Logged, Position

Takes = Callable[[Event | Unreadable], bool]


class Taken(NamedTuple):
    """An event that passed, and its partition's position after it."""

    logged: Logged
    position: Position


class Chunk(NamedTuple):
    """Some events, perhaps none, and where their partitions stand after all that was read for them."""

    taken: Sequence[Taken]
    positions: Mapping[int, Position]


def taken_of(batch: Batch, claim: int, takes: Takes) -> list[Taken]:
    """The events of a batch that pass.

    Args:
        batch: What a feed gave.
        claim: The claim that was current before it.
        takes: Says whether an event passes.
    """
    taken: list[Taken] = []
    for logged in batch.logged:
        event = logged.event
        if isinstance(event, PartitionClaimed):
            claim = logged.offset
        if takes(event):
            taken.append(Taken(logged, Position(logged.offset + 1, claim)))
    return taken


async def merged(
    feeds: Mapping[int, AsyncGenerator[Batch, None]],
    positions: Mapping[int, Position],
    takes: Takes,
) -> AsyncGenerator[Chunk, None]:
    """The events of several partitions that pass, in order.

    Args:
        feeds: For each partition, its events up to an end.
        positions: Where the feeds begin.
        takes: Says whether an event passes; asked for each one, in the order of its partition.
    """
    async with AsyncExitStack() as stack:
        sources: list[_Source] = []
        for partition, feed in sorted(feeds.items()):
            batches = await stack.enter_async_context(aclosing(feed))
            sources.append(_Source(partition, batches, positions[partition]))
        while sources:
            for source in sources:
                await source.fill(takes)
            # Whatever follows the last one of a buffer comes after it; so all up to the least of those is complete.
            limit = min((s.items[-1].place for s in sources if not s.done), default=None)
            items = [item for source in sources for item in source.take(limit)]
            if len(sources) > 1:
                items.sort()
            yield Chunk([item.taken for item in items], {s.partition: s.position for s in sources})
            sources = [source for source in sources if source.items or not source.done]


class _Item(NamedTuple):
    place: tuple[int, int, int]  # time, partition, offset: no two are equal
    taken: Taken


class _Source:
    """A partition on its way: the events that passed and wait for those of other partitions that are earlier."""

    def __init__(
        self, partition: int, batches: AsyncGenerator[Batch, None], position: Position
    ) -> None:
        self.partition = partition
        self.position = position
        self.items: list[_Item] = []
        self.done = False
        self._batches = batches
        self._read_to = position
        self._time = 0

    async def fill(self, takes: Takes) -> None:
        """Read until an event waits, or the end has come."""
        while not self.items and not self.done:
            batch = await anext(self._batches, None)
            if batch is None:
                self.done = True
                return
            for taken in taken_of(batch, self._read_to.claim, takes):
                self._time = max(self._time, taken.logged.timestamp)
                place = self._time, self.partition, taken.logged.offset
                self.items.append(_Item(place, taken))
            self._read_to = batch.position
            if not self.items:
                self.position = self._read_to

    def take(self, limit: tuple[int, int, int] | None) -> list[_Item]:
        """Take what waits up to a place, or all."""
        count = len(self.items)
        if limit is not None:
            count = bisect_right(self.items, limit, key=lambda item: item.place)
        taken, self.items = self.items[:count], self.items[count:]
        if not self.items:
            self.position = self._read_to
        elif taken:
            self.position = taken[-1].taken.position
        return taken
