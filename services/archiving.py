"""Archiving a log and trimming it behind its archive: the order of things, so that nothing is ever nowhere.

Partition by partition: archive what is old enough, and read it back; find out what is not needed any more; compare
that, read from the disk once more, with the log; and only then delete it there. Whoever dies on the way may begin anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from refold.engine.trimming import Trim, age_limit, plan, trim
from refold.log.archive import Archive
from refold.log.archive_check import check_same
from refold.log.archive_disk import Disk
from refold.log.archive_writer import ArchiveSettings, ArchiveWriter, writing
from refold.log.archived import unarchived
from refold.log.chain_walk import Beginning, beginning
from refold.log.errors import LogUnavailable
from refold.log.protocol import Bounds, Channel, Log

Told = Callable[[str, int, int, int], None]
"""Told what is done, of which partition, how much of it and how much there is."""


def nobody(what: str, partition: int, done: int, of: int) -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done.

    Args:
        place: Directory of the archive, or its file URL.
        settings: How it is written.
        before_us: Only what is older than this time, microseconds since 1970-01-01 UTC; None for all.
        trim: Delete from the log what is archived and not needed any more.
        dry_run: Change nothing, only say what would be done.
    """

    place: str
    settings: ArchiveSettings
    before_us: int | None = None
    trim: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Archived:
    """What was done with a partition, or would be.

    Args:
        partition: Its number.
        archived: Events that are now archived and were not before.
        trimmed: What was deleted; None where that was not asked for.
    """

    partition: int
    archived: Bounds
    trimmed: Trim | None


async def archive_log(
    log: Log, order: Order, told: Told = nobody, disk: Disk | None = None
) -> Sequence[Archived]:
    """Archive a log's events, and trim it.

    Args:
        log: An open log.
        order: What is to be done.
        told: Hears how it goes on.
        disk: Where the archive's files go; the file system where not given.

    Raises:
        LogCorrupt: The log's chain does not hold, or a file is not what was archived. What was archived before stays,
            and nothing was deleted of that partition.
        LogMismatch: The archive is another log's.
        LogUnavailable: The log or the archive can't be used now.
        UsageError: The archive can't be named so, or an extra is missing.
    """
    log = unarchived(log)
    if order.dry_run:
        return [await _foreseen(log, order, partition) for partition in range(log.partitions)]
    with writing(order.place, log, order.settings, disk) as writer:
        return [
            await _archived(log, order, writer, partition, told)
            for partition in range(log.partitions)
        ]


async def _archived(
    log: Log, order: Order, writer: ArchiveWriter, partition: int, told: Told
) -> Archived:
    start = (await writer.start_of(log, partition)).offset
    stop = max(start, await age_limit(log, Channel.EVENTS, partition, order.before_us))
    done = 0

    def advance(_: int, count: int) -> None:
        nonlocal done
        done += count
        told("archiving", partition, done, stop - start)

    await writer.add(log, partition, stop, advance)
    end = writer.archive.bounds(partition).end
    planned = None
    if order.trim:
        told("trimming", partition, 0, 1)
        planned = await plan(log, partition, before_us=order.before_us, archived=end)
        if planned.events_before > planned.events.start:
            # Opened anew: each file is read from the disk and verified again.
            archive = Archive(order.place)
            await check_same(log, archive, partition, planned.events.start, planned.events_before)
        await trim(log, planned)
        told("trimming", partition, 1, 1)
    return Archived(partition, Bounds(start, max(start, end)), planned)


async def _foreseen(log: Log, order: Order, partition: int) -> Archived:
    """What would be done with a partition."""
    start = (await _end_of_archive(log, order, partition)).offset
    stop = max(start, await age_limit(log, Channel.EVENTS, partition, order.before_us))
    planned = None
    if order.trim:
        planned = await plan(log, partition, before_us=order.before_us, archived=stop)
    return Archived(partition, Bounds(start, stop), planned)


async def _end_of_archive(log: Log, order: Order, partition: int) -> Beginning:
    try:
        archive = Archive(order.place)
    except LogUnavailable:  # it is yet to be made
        return await beginning(log, partition)
    archive.check_is_of(log)
    return await ArchiveWriter(archive, order.settings, Disk()).start_of(log, partition)
