"""The events that count, with their place in the log: the one source of every projection, sink and tail.

Filtering happens here and nowhere else: a record of an owner that had been overtaken (a zombie's) never leaves this
module, and no record comes twice. So whoever reads a feed sees what the fold sees, in the order of each partition.

A feed is gone on with from a `Position`: the next offset, and the claim that is current before it. Without the claim,
the first zombie after a restart would pass for an owner.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

from refold.log.accepted import Accepted
from refold.log.chain_walk import NO_CLAIM, beginning
from refold.log.events import Event, Unreadable
from refold.log.protocol import Channel, Log, Record


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


async def start_of(log: Log, partition: int) -> Position:
    """Where a partition's events begin: offset 0, or where the log was trimmed.

    Raises:
        LogCorrupt: The beginning is gone, and there is no checkpoint to begin with.
        LogError: The log can't be read.
    """
    there = await beginning(log, partition)
    return Position(there.offset, there.claim)


async def read_batches(
    log: Log,
    partition: int,
    position: Position,
    stop: int | None = None,
    *,
    key: str | None = None,
) -> AsyncGenerator[Batch, None]:
    """The events from a position up to the end as of now, or up to (without) the offset `stop`.

    Args:
        log: An open log.
        partition: Which of its partitions.
        position: Where to begin: what a former batch ended with, or `start_of`.
        stop: Offset to stop before.
        key: Only this workflow's events, and the partition's own.

    Raises:
        LogTrimmed: Events from the position on were trimmed.
        LogError: The log can't be read.
    """
    counted = _Counted(partition, position)
    async with aclosing(
        log.read(Channel.EVENTS, partition, position.offset, stop, key=key)
    ) as batches:
        async for records in batches:
            yield counted.batch(records)


async def follow_batches(
    log: Log, partition: int, position: Position
) -> AsyncGenerator[Batch, None]:
    """The same for ever: waits at the end for more. Close the generator to stop."""
    counted = _Counted(partition, position)
    async with aclosing(log.tail(Channel.EVENTS, partition, position.offset)) as batches:
        async for records in batches:
            yield counted.batch(records)


class _Counted:
    def __init__(self, partition: int, position: Position) -> None:
        self._partition = partition
        self._accepted = Accepted(position.claim)
        self._next = position.offset

    def batch(self, records: Sequence[Record]) -> Batch:
        take, partition = self._accepted.take, self._partition
        logged = [
            Logged(partition, record.offset, record.timestamp, event, record)
            for record in records
            if record.offset >= self._next and (event := take(record)) is not None
        ]
        if records:
            self._next = max(self._next, records[-1].offset + 1)
        return Batch(logged, Position(self._next, self._accepted.claim))
