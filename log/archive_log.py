"""An archive read as a log, without the log that it is of: for tables and numbers, where the log is gone or far away.

What it has is all that there is: its events up to where it was last written. Nothing can be appended.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from refold.log.archive import Archive
from refold.log.errors import LogTrimmed, UsageError
from refold.log.forwarding import ForwardingLog
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Bounds, Channel, Entry, Record


class ArchiveLog(ForwardingLog):
    """A `Log` that has an archive's events, and nothing else.

    Args:
        place: Directory of the archive, or that directory's file URL.

    Raises:
        LogUnavailable: It is not there, or can't be read.
        LogError: As `Archive`.
    """

    def __init__(self, place: str) -> None:
        self._archive = Archive(place)
        of = self._archive.manifest
        super().__init__(MemoryLog(of.namespace, store=MemoryStore(of.partitions)))

    @property
    def identity(self) -> str:
        """That of the log."""
        return self._archive.manifest.identity

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """Refused.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"{self._archive.directory} is an archive, which can only be read: name the log with --url"
        )

    async def read(
        self,
        channel: Channel,
        partition: int,
        start: int,
        stop: int | None = None,
        *,
        key: str | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """See `Log`; on a thread, file by file."""
        if channel is not Channel.EVENTS:
            return
        first = self._archive.bounds(partition).start
        if start < first:
            raise LogTrimmed(
                f"the archive {self._archive.directory} has partition {partition} from offset {first} on, not from "
                f"{start}: what was before was trimmed without it"
            )
        batches = iter(self._archive.read(partition, start, stop, key=key))
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            yield batch

    async def bounds(self, channel: Channel, partition: int) -> Bounds:
        """See `Log`."""
        return self._archive.bounds(partition) if channel is Channel.EVENTS else Bounds(0, 0)
