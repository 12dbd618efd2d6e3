"""A log whose trimmed history is read from its archive: whoever reads it meets one history without a seam.

What the log itself has is always read from the log. Everything that is no history (appends, commands, bookmarks,
membership) goes to the log; the archive stays as it is when that is trimmed.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from refold.log.archive import Archive
from refold.log.errors import LogCorrupt, LogTrimmed
from refold.log.forwarding import ForwardingLog
from refold.log.protocol import Bounds, Channel, Log, Record


class ArchivedLog(ForwardingLog):
    """A `Log` over another one and its archive.

    Args:
        log: The log, open or not.
        place: Directory of its archive, or that directory's file URL.
    """

    def __init__(self, log: Log, place: str) -> None:
        super().__init__(log)
        self._place = place
        self._archive: Archive | None = None

    @property
    def archive(self) -> Archive | None:
        """The archive; None before `open`."""
        return self._archive

    async def open(self) -> None:
        """Open the log and its archive, and check that they meet.

        Raises:
            LogMismatch: The archive is another log's.
            LogCorrupt: Events between the archive's end and the log's beginning are missing, or the log ends first.
            LogUnavailable: The archive can't be read.
            LogError: As the log's `open`.
        """
        archive = await asyncio.to_thread(Archive, self._place)
        await self.inner.open()
        try:
            archive.check_is_of(self.inner)
            for partition in range(self.partitions):
                self._check_seam(archive, partition, await self._own_bounds(partition))
        except BaseException:
            await self.inner.close()
            raise
        self._archive = archive

    async def read(
        self,
        channel: Channel,
        partition: int,
        start: int,
        stop: int | None = None,
        *,
        key: str | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """See `Log`; events that the log does not have any more are read from the archive."""
        archive = self._archive
        if archive is None or channel is not Channel.EVENTS:
            batches = self.inner.read(channel, partition, start, stop, key=key)
            async with aclosing(batches):
                async for batch in batches:
                    yield batch
            return
        end = (await self._own_bounds(partition)).end
        stop = end if stop is None else min(stop, end)
        position = start
        while position < stop:
            first = (await self._own_bounds(partition)).start
            if position < first:
                upto = min(stop, first)
                async for batch in self._archived(archive, partition, position, upto, key):
                    yield batch
                position = upto
                continue
            try:
                async with aclosing(
                    self.inner.read(channel, partition, position, stop, key=key)
                ) as batches:
                    async for batch in batches:
                        yield batch
                        position = batch[-1].offset + 1
            except LogTrimmed:
                continue  # meanwhile: the rest is in the archive by now
            return

    async def tail(
        self, channel: Channel, partition: int, start: int
    ) -> AsyncGenerator[Sequence[Record], None]:
        """See `Log`; begins in the archive where `start` is there."""
        if channel is Channel.EVENTS:
            first = (await self._own_bounds(partition)).start
            if start < first:
                async with aclosing(self.read(channel, partition, start, first)) as batches:
                    async for batch in batches:
                        yield batch
                start = first
        async with aclosing(self.inner.tail(channel, partition, start)) as batches:
            async for batch in batches:
                yield batch

    async def bounds(self, channel: Channel, partition: int) -> Bounds:
        """See `Log`; events begin where the archive does."""
        bounds = await self.inner.bounds(channel, partition)
        if channel is not Channel.EVENTS or self._archive is None:
            return bounds
        archived = self._archive.bounds(partition)
        if archived.end < bounds.start or archived.start == archived.end:
            return bounds
        return Bounds(min(archived.start, bounds.start), bounds.end)

    async def offset_at(self, channel: Channel, partition: int, time: int) -> int:
        """See `Log`; what the log does not have any more is looked for in the archive."""
        archive = self._archive
        if channel is Channel.EVENTS and archive is not None:
            start = (await self._own_bounds(partition)).start
            found = await asyncio.to_thread(archive.offset_at, partition, time)
            if found is not None and found < start:
                return found
        return await self.inner.offset_at(channel, partition, time)

    async def _own_bounds(self, partition: int) -> Bounds:
        return await self.inner.bounds(Channel.EVENTS, partition)

    async def _archived(
        self, archive: Archive, partition: int, start: int, stop: int, key: str | None
    ) -> AsyncGenerator[Sequence[Record], None]:
        """What the log has not any more, up to where it begins; on a thread, file by file."""
        if archive.bounds(partition).end < stop:
            await asyncio.to_thread(archive.reload)
        bounds = archive.bounds(partition)
        if bounds.end < stop:
            raise self._apart(archive, partition, stop)
        if start < bounds.start:
            raise LogTrimmed(
                f"events of partition {partition} of {self.namespace!r} can't be read from offset {start}: the archive "
                f"{archive.directory} begins at offset {bounds.start}, and what stood before was trimmed without it"
            )
        batches = iter(archive.read(partition, start, stop, key=key))
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            yield batch

    def _check_seam(self, archive: Archive, partition: int, bounds: Bounds) -> None:
        archived = archive.bounds(partition)
        if archived.end < bounds.start:
            raise self._apart(archive, partition, bounds.start)
        if archived.end > bounds.end:
            raise LogCorrupt(
                f"the archive {archive.directory} has events of partition {partition} up to offset {archived.end - 1}, "
                f"and the log {self.namespace!r} ends before offset {bounds.end}: the log has lost some. Compare it "
                "with a backup before anything is written to it"
            )

    def _apart(self, archive: Archive, partition: int, start: int) -> LogCorrupt:
        end = archive.bounds(partition).end
        return LogCorrupt(
            f"the archive {archive.directory} ends before offset {end} of partition {partition}, and the log "
            f"{self.namespace!r} begins at offset {start}: the events between them are missing. Name the archive that "
            "has them, or restore this one from a backup"
        )


def unarchived(log: Log) -> Log:
    """The log itself, without an archive."""
    return log.inner if isinstance(log, ArchivedLog) else log
