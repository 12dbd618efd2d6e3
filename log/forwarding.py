"""A log that passes everything on to another one: the beginning of a log that does one thing differently."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from refold.log.archive import identity_of
from refold.log.blobs import BlobStore, blobs_of
from refold.log.errors import LogError
from refold.log.findings import Examination, Examined
from refold.log.health import Checked
from refold.log.keys import PayloadKeys, keys_of
from refold.log.layout import Layout
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


class ForwardingLog:
    """A `Log` over another one, with what the other one has besides.

    Args:
        log: The other one, open or not.
    """

    def __init__(self, log: Log) -> None:
        self.inner = log

    @property
    def namespace(self) -> str:
        """See `Log`."""
        return self.inner.namespace

    @property
    def partitions(self) -> int:
        """See `Log`."""
        return self.inner.partitions

    @property
    def layout(self) -> Layout:
        """See `Log`."""
        return self.inner.layout

    @property
    def max_record_bytes(self) -> int:
        """See `Log`."""
        return self.inner.max_record_bytes

    @property
    def identity(self) -> str:
        """What tells the log from others of its name."""
        return identity_of(self.inner)

    @property
    def blobs(self) -> BlobStore | None:
        """The log's store for large payloads."""
        return blobs_of(self.inner)

    @property
    def keys(self) -> PayloadKeys | None:
        """The log's keys of payloads."""
        return keys_of(self.inner)

    async def open(self) -> None:
        """See `Log`."""
        await self.inner.open()

    async def close(self) -> None:
        """See `Log`."""
        await self.inner.close()

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """See `Log`."""
        return await self.inner.append(channel, partition, entries, lazily=lazily)

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
        return self.inner.read(channel, partition, start, stop, key=key)

    def tail(
        self, channel: Channel, partition: int, start: int
    ) -> AsyncGenerator[Sequence[Record], None]:
        """See `Log`."""
        return self.inner.tail(channel, partition, start)

    async def bounds(self, channel: Channel, partition: int) -> Bounds:
        """See `Log`."""
        return await self.inner.bounds(channel, partition)

    async def offset_at(self, channel: Channel, partition: int, time: int) -> int:
        """See `Log`."""
        return await self.inner.offset_at(channel, partition, time)

    async def trim(self, channel: Channel, partition: int, before: int) -> None:
        """See `Log`."""
        await self.inner.trim(channel, partition, before)

    async def bookmark(self, partition: int) -> int | None:
        """See `Log`."""
        return await self.inner.bookmark(partition)

    async def set_bookmark(self, partition: int, offset: int) -> None:
        """See `Log`."""
        await self.inner.set_bookmark(partition, offset)

    async def join(self, worker: str, listener: Listener, pool: str | None = None) -> Membership:
        """See `Log`."""
        return await self.inner.join(worker, listener, pool)

    async def share(self, group: str, reader: str, listener: ShareListener) -> Share:
        """See `Log`."""
        return await self.inner.share(group, reader, listener)

    async def listen(self, client_id: str, deliver: Callable[[Sequence[Record]], None]) -> None:
        """See `Log`."""
        await self.inner.listen(client_id, deliver)

    async def check(self) -> Mapping[int, LogError]:
        """See `Checked`."""
        return await self.inner.check() if isinstance(self.inner, Checked) else {}

    async def examine(self) -> Examination:
        """See `Examined`."""
        return await self.inner.examine() if isinstance(self.inner, Examined) else Examination(())
