"""A log that notes when its worker was first given a partition: recovery before that is the group's business."""

from collections.abc import AsyncGenerator, Callable, Sequence
from time import perf_counter

from refold.log.protocol import (
    Bounds,
    Channel,
    Entry,
    Listener,
    Log,
    Membership,
    Record,
    Share,
    ShareListener,
)


class AssignedLog:
    """Passes everything on to another log.

    Attributes:
        assigned_at: When a partition was first assigned, by `perf_counter`; None before.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self.assigned_at: float | None = None

    @property
    def namespace(self) -> str:
        """See `Log`."""
        return self._log.namespace

    @property
    def partitions(self) -> int:
        """See `Log`."""
        return self._log.partitions

    @property
    def max_record_bytes(self) -> int:
        """See `Log`."""
        return self._log.max_record_bytes

    async def open(self) -> None:
        """See `Log`."""
        await self._log.open()

    async def close(self) -> None:
        """See `Log`."""
        await self._log.close()

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """See `Log`."""
        return await self._log.append(channel, partition, entries, lazily=lazily)

    def read(
        self,
        channel: Channel,
        partition: int,
        start: int,
        stop: int | None = None,
        *,
        key: str | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """See `Log`."""
        return self._log.read(channel, partition, start, stop, key=key)

    def tail(
        self, channel: Channel, partition: int, start: int
    ) -> AsyncGenerator[Sequence[Record], None]:
        """See `Log`."""
        return self._log.tail(channel, partition, start)

    async def bounds(self, channel: Channel, partition: int) -> Bounds:
        """See `Log`."""
        return await self._log.bounds(channel, partition)

    async def offset_at(self, channel: Channel, partition: int, time: int) -> int:
        """See `Log`."""
        return await self._log.offset_at(channel, partition, time)

    async def trim(self, channel: Channel, partition: int, before: int) -> None:
        """See `Log`."""
        await self._log.trim(channel, partition, before)

    async def bookmark(self, partition: int) -> int | None:
        """See `Log`."""
        return await self._log.bookmark(partition)

    async def set_bookmark(self, partition: int, offset: int) -> None:
        """See `Log`."""
        await self._log.set_bookmark(partition, offset)

    async def join(self, worker: str, listener: Listener) -> Membership:
        """See `Log`."""
        return await self._log.join(worker, _Noting(self, listener))

    async def share(self, group: str, reader: str, listener: ShareListener) -> Share:
        """See `Log`."""
        return await self._log.share(group, reader, listener)

    async def listen(self, client_id: str, deliver: Callable[[Sequence[Record]], None]) -> None:
        """See `Log`."""
        await self._log.listen(client_id, deliver)


class _Noting:
    """A worker's listener, and a look at the clock."""

    def __init__(self, log: AssignedLog, listener: Listener) -> None:
        self._log = log
        self._listener = listener

    def assigned(self, partition: int) -> None:
        if self._log.assigned_at is None:
            self._log.assigned_at = perf_counter()
        self._listener.assigned(partition)

    def revoking(self, partition: int) -> None:
        self._listener.revoking(partition)

    def revoked(self, partition: int, lost: bool) -> None:
        self._listener.revoked(partition, lost)

    def deliver(self, partition: int, records: Sequence[Record]) -> None:
        self._listener.deliver(partition, records)
