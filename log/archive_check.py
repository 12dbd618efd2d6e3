"""Whether what an archive has is what the log has: asked before anything of it is deleted from the log."""

import asyncio
from contextlib import aclosing

from refold.log.archive import Archive
from refold.log.archive_rows import RecordDigest
from refold.log.errors import LogCorrupt
from refold.log.protocol import Channel, Log


async def check_same(log: Log, archive: Archive, partition: int, start: int, stop: int) -> None:
    """Compare a range of a partition's events record by record: offsets, times, keys, headers and values.

    Args:
        log: An open log, without the archive.
        archive: The archive, just opened: so every file is read from the disk and verified.
        partition: Which partition.
        start: First offset.
        stop: The offset to stop before.

    Raises:
        LogCorrupt: They differ, or a file is not what was archived.
        LogUnavailable: A file can't be read.
        LogError: The log can't be read.
    """
    ours, theirs = RecordDigest(), RecordDigest()
    async with aclosing(log.read(Channel.EVENTS, partition, start, stop)) as batches:
        async for batch in batches:
            for record in batch:
                ours.take(record)
    archived = iter(archive.read(partition, start, stop))
    while (found := await asyncio.to_thread(next, archived, None)) is not None:
        for record in found:
            theirs.take(record)
    if (ours.count, ours.hex()) != (theirs.count, theirs.hex()):
        raise LogCorrupt(
            f"the archive {archive.directory} does not have events {start} to {stop - 1} of partition {partition} as "
            f"the log {log.namespace!r} has them ({theirs.count:,} and {ours.count:,} records): nothing was deleted. "
            "Archive into another directory"
        )
