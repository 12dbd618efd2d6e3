"""The log in memory: for tests and simulations, gone with the process.

`MemoryStore` holds the records and has plain synchronous methods, which a simulator drives directly. `MemoryLog`
is the `Log` protocol over one; several of them, also on several event loops, can share a store.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from uuid import uuid4
from weakref import WeakValueDictionary

from refold.log.blobs import BlobStore, MemoryBlobs
from refold.log.errors import LogMismatch
from refold.log.layout import Layout, in_words
from refold.log.local import (
    DEFAULT_MAX_RECORD_BYTES,
    DEFAULT_REBALANCE_S,
    Fetched,
    LocalLog,
    wall_clock_us,
)
from refold.log.protocol import Bounds, Channel, Entry, Record
from refold.log.trimmed import trimmed

BATCH_RECORDS = 1000
"""Records a batch: a fraction of a millisecond for the loop."""

Watcher = Callable[[Channel, int], None]


class MemoryStore:
    """Records, bookmarks and partition locks of one namespace. All methods are synchronous and thread-safe.

    Args:
        partitions: Number of partitions.
        now_us: Clock for the records' timestamps, in microseconds since 1970-01-01 UTC.
        pools: Each pool with the number of its own partitions, beside those.
    """

    def __init__(
        self,
        partitions: int = 1,
        now_us: Callable[[], int] = wall_clock_us,
        pools: tuple[tuple[str, int], ...] = (),
    ) -> None:
        if partitions < 1:
            raise LogMismatch(f"a log has at least one partition, not {partitions}")
        self.layout = Layout(partitions, pools)
        self.partitions = partitions = self.layout.partitions
        self.blobs = MemoryBlobs()
        self._now_us = now_us
        self._mutex = threading.Lock()
        self._records: dict[tuple[Channel, int], list[Record]] = {
            (channel, partition): [] for channel in Channel for partition in range(partitions)
        }
        self._starts = dict.fromkeys(self._records, 0)  # offset of the first record that is left
        self._bookmarks: dict[int, int] = {}
        self.identity = str(uuid4())
        self._owners: dict[tuple[str, int], object] = {}
        self._members: dict[object, str] = {}
        self._watchers: list[Watcher] = []

    def append(self, channel: Channel, partition: int, entries: Sequence[Entry]) -> range:
        """Append in order; returns the offsets."""
        now = self._now_us()
        with self._mutex:
            records = self._records[channel, partition]
            first = self._starts[channel, partition] + len(records)
            records.extend(
                Record(offset, now, key, value, headers)
                for offset, (key, value, headers) in enumerate(entries, first)
            )
            offsets = range(first, first + len(entries))
            watchers = tuple(self._watchers)
        for watcher in watchers:
            watcher(channel, partition)
        return offsets

    def read(
        self,
        channel: Channel,
        partition: int,
        start: int,
        stop: int | None = None,
        limit: int | None = None,
    ) -> list[Record]:
        """Records from offset `start` up to (without) `stop` or the end, at most `limit` of them."""
        if limit is not None:
            stop = start + limit if stop is None else min(stop, start + limit)
        with self._mutex:
            first = self._starts[channel, partition]
            if start < first:
                raise trimmed("memory", channel, partition, start, first)
            stop = None if stop is None else max(stop - first, 0)
            return self._records[channel, partition][start - first : stop]

    def start(self, channel: Channel, partition: int) -> int:
        """Offset of the first record that is left."""
        return self._starts[channel, partition]

    def end(self, channel: Channel, partition: int) -> int:
        """The offset that the next record will get."""
        return self._starts[channel, partition] + len(self._records[channel, partition])

    def trim(self, channel: Channel, partition: int, before: int) -> None:
        """Delete the records before an offset."""
        with self._mutex:
            gone = before - self._starts[channel, partition]
            if gone > 0:
                del self._records[channel, partition][:gone]
                self._starts[channel, partition] = before

    def bookmark(self, partition: int) -> int | None:
        """Where the last checkpoint was noted to be."""
        return self._bookmarks.get(partition)

    def set_bookmark(self, partition: int, offset: int) -> None:
        """Note where the last checkpoint is."""
        self._bookmarks[partition] = offset

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` after each append, on the thread that appends."""
        with self._mutex:
            self._watchers.append(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Undo `watch`."""
        with self._mutex:
            self._watchers.remove(watcher)

    def acquire(self, group: str, partition: int, member: object) -> bool:
        """Make `member` the partition's holder in its group if it has none there."""
        with self._mutex:
            return self._owners.setdefault((group, partition), member) is member

    def release(self, group: str, partition: int, member: object) -> None:
        """Free a partition that `member` holds."""
        with self._mutex:
            if self._owners.get((group, partition)) is member:
                del self._owners[group, partition]

    def enter(self, group: str, member: object) -> None:
        """Count `member` among the living of a group."""
        with self._mutex:
            self._members[member] = group

    def depart(self, member: object) -> None:
        """Free all that `member` holds, and count it no longer."""
        with self._mutex:
            self._members.pop(member, None)
            for held in [held for held, owner in self._owners.items() if owner is member]:
                del self._owners[held]

    def members(self, group: str) -> int:
        """Number of a group's members."""
        with self._mutex:
            return list(self._members.values()).count(group)


# Logs in one process that name the same store must find the same one, without being handed it: the name is all that
# a URL has. The values are weak, so a store is gone with the last log that uses it and nothing leaks between tests.
_named_stores: WeakValueDictionary[str, MemoryStore] = WeakValueDictionary()
_named_stores_mutex = threading.Lock()


def named_store(
    name: str, partitions: int | None = None, pools: tuple[tuple[str, int], ...] | None = None
) -> MemoryStore:
    """The store of that name, made if no living log uses it.

    Args:
        name: Any name; the empty name is like any other.
        partitions: How many it must have; None for whatever it has, or 1 where it is made.
        pools: Which pools it must have, likewise; none where it is made.

    Raises:
        LogMismatch: it is there, with another number of partitions or other pools.
    """
    with _named_stores_mutex:
        store = _named_stores.get(name)
        if store is None:
            store = MemoryStore(1 if partitions is None else partitions, pools=pools or ())
            _named_stores[name] = store
    layout = store.layout
    wanted = Layout(
        layout.common if partitions is None else partitions,
        layout.pools if pools is None else pools,
    )
    if wanted != layout:
        raise LogMismatch(
            f"memory://{name} has {in_words(layout)}, not {in_words(wanted)}: leave the numbers out, "
            "or choose another name"
        )
    return store


class _MemoryLocks:
    """One member's locks in a store."""

    def __init__(self, store: MemoryStore, group: str) -> None:
        self._store = store
        self._group = group
        store.enter(group, self)

    def acquire(self, partition: int) -> bool:
        return self._store.acquire(self._group, partition, self)

    def release(self, partition: int) -> None:
        self._store.release(self._group, partition, self)

    def members(self) -> int:
        return self._store.members(self._group)

    def close(self) -> None:
        self._store.depart(self)


class MemoryLog(LocalLog):
    """A log in this process's memory. Durable means: as long as the store lives.

    Args:
        namespace: Name for messages.
        partitions: Number of partitions of a store made for this log alone; not looked at where `store` is given.
        store: The records, to share them with other logs.
        max_record_bytes: Largest key + value + headers, in bytes.
        rebalance_s: Seconds between two looks for free partitions.
        blobs: Where large payloads are kept; in the store where not given.
    """

    def __init__(
        self,
        namespace: str = "memory",
        partitions: int = 1,
        *,
        store: MemoryStore | None = None,
        max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES,
        rebalance_s: float = DEFAULT_REBALANCE_S,
        blobs: BlobStore | None = None,
    ) -> None:
        super().__init__(namespace, max_record_bytes, rebalance_s)
        self._store = MemoryStore(partitions) if store is None else store
        self._blobs = self._store.blobs if blobs is None else blobs
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def store(self) -> MemoryStore:
        """The records behind this log."""
        return self._store

    @property
    def blobs(self) -> BlobStore:
        """Where large payloads are kept."""
        return self._blobs

    @property
    def layout(self) -> Layout:
        """What the partitions are for."""
        return self._store.layout

    @property
    def identity(self) -> str:
        """A name that no other namespace has, for archives."""
        return self._store.identity

    async def open(self) -> None:
        """Bind the log to the running event loop."""
        self._check_new()
        self._loop = asyncio.get_running_loop()
        self._store.watch(self._appended)
        self._opened()

    async def close(self) -> None:
        """Leave the group and end tails; the store lives as long as others use it."""
        if await self._closing():
            self._store.unwatch(self._appended)

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """Append in order; return each entry's offset."""
        self._check(partition)
        for entry in entries:
            self._check_size(channel, partition, entry)
        offsets = self._store.append(channel, partition, entries)
        await asyncio.sleep(0)  # as on a disk, others get their turn meanwhile
        return offsets

    async def bookmark(self, partition: int) -> int | None:
        """Offset of the last checkpoint noted by `set_bookmark`."""
        self._check(partition)
        return self._store.bookmark(partition)

    async def set_bookmark(self, partition: int, offset: int) -> None:
        """Note where the last checkpoint of `partition` is."""
        self._check(partition)
        self._store.set_bookmark(partition, offset)

    def _watching(self, active: bool) -> None:
        """Nothing to do: the store tells us of every append."""

    def _appended(self, channel: Channel, partition: int) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:  # a plain thread appended
            here = False
        if here:
            self._signals.notify(channel, partition)
        else:
            loop.call_soon_threadsafe(self._signals.notify, channel, partition)

    def _fetch(
        self, channel: Channel, partition: int, start: int, stop: int | None, key: str | None
    ) -> Fetched:
        records = self._store.read(channel, partition, start, stop, BATCH_RECORDS)
        after = start + len(records)
        if stop is not None and len(records) < BATCH_RECORDS:
            after = stop
        if key is not None:
            records = [record for record in records if record.key is None or record.key == key]
        return Fetched(records, after)

    def _bounds(self, channel: Channel, partition: int) -> Bounds:
        store = self._store
        return Bounds(store.start(channel, partition), store.end(channel, partition))

    async def _trim(self, channel: Channel, partition: int, start: int, before: int) -> None:
        self._store.trim(channel, partition, before)

    def _locks(self, group: str, member: str) -> _MemoryLocks:
        return _MemoryLocks(self._store, group)
