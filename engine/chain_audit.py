"""Walking a partition's chain from its beginning to its end, over log and archive alike: where it breaks first."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from refold.log.chain_walk import ChainWalk, beginning
from refold.log.errors import LogCorrupt
from refold.log.protocol import Channel, Log


@dataclass(frozen=True, slots=True)
class Break:
    """Where a chain breaks first, and how, in words."""

    offset: int
    told: str


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a walk over a partition has found.

    Args:
        partition: Its number.
        start: The first offset that was looked at; over 0 where what is before was trimmed and is in no archive.
        end: The offset after the last one.
        accepted: Records that count.
        stale: Records that do not: a former owner's.
        head: Head of the chain at `end`, or before the break; None where no event has said it.
        broken: Where it breaks; None where it holds.
    """

    partition: int
    start: int
    end: int
    accepted: int
    stale: int
    head: bytes | None
    broken: Break | None = None


async def walk_chain(
    log: Log, partition: int, told: Callable[[int], None] = lambda _: None
) -> ChainReport:
    """Walk the chain of a partition up to the end as of now, or to where it breaks first.

    Args:
        log: An open log, or an `ArchivedLog` to walk over its archive as well.
        partition: Which partition.
        told: Told how many more records were looked at.

    Raises:
        LogError: The log or its archive can't be read, or an archive's file is not what was archived.
    """
    start = await beginning(log, partition)
    walk = ChainWalk(partition, start.claim, start.chain)
    accepted = stale = 0
    end = start.offset
    async with aclosing(log.read(Channel.EVENTS, partition, start.offset)) as batches:
        async for batch in batches:
            for record in batch:
                try:
                    counts = walk.take(record)
                except LogCorrupt as error:
                    broken = Break(record.offset, str(error))
                    return ChainReport(
                        partition, start.offset, end, accepted, stale, walk.chain, broken
                    )
                accepted, stale = accepted + counts, stale + (not counts)
                end = record.offset + 1
            told(len(batch))
    return ChainReport(partition, start.offset, end, accepted, stale, walk.chain)
