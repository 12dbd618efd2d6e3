"""The events that count, with their place in the log: the one source of every projection, sink and tail.

Filtering happens here and nowhere else: a record of an owner that had been overtaken (a zombie's) never leaves this
module, and no record comes twice. So whoever reads a feed sees what the fold sees, in the order of each partition.

A feed is gone on with from a `Position`: the next offset, and the claim that is current before it. Without the claim,
the first zombie after a restart would pass for an owner.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple

from refold.log.accepted import Accepted
from refold.log.chain_walk import NO_CLAIM, beginning
from refold.log.codec import decode_event
from refold.log.errors import UsageError
from refold.log.events import CheckpointBegun, Event, Unreadable
from refold.log.protocol import Channel, Log, Record
from refold.log.trimmed import trimmed

NOBODY = ""
"""The id of no run: with it as key, a read gives a partition's own records alone."""


class Position(NamedTuple):
    """How far a partition's events have been taken in.

    Args:
        offset: The next offset to be read.
        claim: The claim that is current before it; -1 for none.
    """

    offset: int = 0
    claim: int = NO_CLAIM


class Logged(NamedTuple):
    """An event that counts, where it stands in the log.

    Args:
        partition: Its partition.
        offset: Its offset there.
        timestamp: The log's own time of it, in microseconds since 1970-01-01 UTC.
        event: What happened; `Unreadable` where a newer release or a stranger wrote it.
        record: The record as it stands in the log.
    """

    partition: int
    offset: int
    timestamp: int
    event: Event | Unreadable
    record: Record


class Batch(NamedTuple):
    """Some events that count, perhaps none, and the position after all records that were read for them."""

    logged: Sequence[Logged]
    position: Position


Wanted = Callable[[Record], bool]


async def start_of(log: Log, partition: int) -> Position:
    """Where a partition's events begin: offset 0, or where the log was trimmed.

    Raises:
        LogCorrupt: The beginning is gone, and there is no checkpoint to begin with.
        LogError: The log can't be read.
    """
    there = await beginning(log, partition)
    return Position(there.offset, there.claim)


async def position_at(log: Log, partition: int, offset: int) -> Position:
    """The position before an offset: with the claim that is current there.

    Reads the partition's own records, from the last checkpoint on where that is before the offset.

    Args:
        log: An open log.
        partition: Which of its partitions.
        offset: An offset up to the partition's end.

    Raises:
        UsageError: It is after the end.
        LogTrimmed: It is before the beginning.
        LogError: As `start_of`.
    """
    start, end = await log.bounds(Channel.EVENTS, partition)
    if offset < start:
        raise trimmed(log.namespace, Channel.EVENTS, partition, offset, start)
    if offset > end:
        raise UsageError(
            f"partition {partition} of {log.namespace!r} has no event at offset {offset}: it ends before offset {end}"
        )
    position = await start_of(log, partition)
    bookmark = await log.bookmark(partition)
    if bookmark is not None and position.offset <= bookmark < offset:
        async for batch in log.read(Channel.EVENTS, partition, bookmark, bookmark + 1):
            begun = decode_event(batch[0])
            if isinstance(begun, CheckpointBegun):  # its writer knew that it was the owner
                position = Position(bookmark, begun.claim)
    if offset <= position.offset:  # where a log was cut by something else, it begins later
        return position
    async for own in read_batches(log, partition, position, offset, key=NOBODY):
        position = own.position
    return Position(offset, position.claim)


async def read_batches(
    log: Log,
    partition: int,
    position: Position,
    stop: int | None = None,
    *,
    key: str | None = None,
    wanted: Wanted | None = None,
) -> AsyncGenerator[Batch, None]:
    """The events from a position up to the end as of now, or up to (without) the offset `stop`.

    Args:
        log: An open log.
        partition: Which of its partitions.
        position: Where to begin: what a former batch ended with, or `start_of`.
        stop: Offset to stop before.
        key: Only this workflow's events, and the partition's own.
        wanted: Says of a workflow's record whether it is worth decoding; the others are left out. All are where not
            given.

    Raises:
        LogTrimmed: Events from the position on were trimmed.
        LogError: The log can't be read.
    """
    counted = _Counted(partition, position, wanted)
    async with aclosing(
        log.read(Channel.EVENTS, partition, position.offset, stop, key=key)
    ) as batches:
        async for records in batches:
            yield counted.batch(records)


async def follow_batches(
    log: Log, partition: int, position: Position, *, wanted: Wanted | None = None
) -> AsyncGenerator[Batch, None]:
    """The same for ever: waits at the end for more. Close the generator to stop."""
    counted = _Counted(partition, position, wanted)
    async with aclosing(log.tail(Channel.EVENTS, partition, position.offset)) as batches:
        async for records in batches:
            yield counted.batch(records)


class _Counted:
    def __init__(self, partition: int, position: Position, wanted: Wanted | None) -> None:
        self._partition = partition
        self._wanted = wanted
        self._accepted = Accepted(position.claim)
        self._next = position.offset

    def batch(self, records: Sequence[Record]) -> Batch:
        take, partition = self._accepted.take, self._partition
        if (wanted := self._wanted) is not None:  # those without a key may be claims
            picked: Sequence[Record] = [r for r in records if r.key is None or wanted(r)]
        else:
            picked = records
        logged = [
            Logged(partition, record.offset, record.timestamp, event, record)
            for record in picked
            if record.offset >= self._next and (event := take(record)) is not None
        ]
        if records:
            self._next = max(self._next, records[-1].offset + 1)
        return Batch(logged, Position(self._next, self._accepted.claim))
