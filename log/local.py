"""Logs within reach of a function call (memory, a local file): what they have in common.

Reading from them is so cheap that it is done on the event loop itself, in batches small enough that nobody
notices: a thread would cost two hand-offs, each of them dearer than the read. A backend brings `_fetch`, `_bounds`
and locks for the partitions; reading, tailing, listening and membership follow from these here.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple
from weakref import WeakSet

from refold.log.errors import LogUnavailable, PayloadError, RecordTooLarge, UsageError
from refold.log.keys import PayloadKeys
from refold.log.layout import Layout
from refold.log.membership import LocalMembership, LocalShare, PartitionLocks, Sharing
from refold.log.partitioner import partition_of
from refold.log.protocol import (
    Bounds,
    Channel,
    Entry,
    Listener,
    Membership,
    Record,
    Share,
    ShareListener,
    check_group,
    workers_of,
)
from refold.log.signals import Signals
from refold.log.trimmed import check_trim, trimmed

DEFAULT_MAX_RECORD_BYTES = 1_000_000
"""Just under what a Kafka broker takes by default (1,048,588), so that a log can move there."""

DEFAULT_REBALANCE_S = 0.2
"""How long a free partition stays unnoticed: short for a person, and five cheap looks a second for the machine."""


class Fetched(NamedTuple):
    """Some records, and the offset to go on from (records may be few, or none, where a key filters)."""

    records: list[Record]
    next: int


def wall_clock_us() -> int:
    """Now, in microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


def record_bytes(entry: Entry) -> int:
    """Size of an entry as the limit counts it: UTF-8 of the key, value, header names and header values."""
    size = len(entry.value)
    key = entry.key
    if key is not None:
        size += len(key) if key.isascii() else len(key.encode())
    for name, value in entry.headers:
        size += len(name.encode()) + len(value)
    return size


class LocalLog(ABC):
    """The part of the `Log` protocol that backends within reach share."""

    def __init__(self, namespace: str, max_record_bytes: int, rebalance_s: float) -> None:
        self.keys: PayloadKeys | None = None
        self._namespace = namespace
        self._max_record_bytes = max_record_bytes
        self._rebalance_s = rebalance_s
        self._state = "new"
        self._signals = Signals(self._watching)
        self._memberships: WeakSet[LocalMembership] = WeakSet()  # those that left go by themselves

    @property
    def namespace(self) -> str:
        """Name of the namespace, for messages."""
        return self._namespace

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """What the partitions are for; known after `open`."""

    @property
    def partitions(self) -> int:
        """Number of partitions; known after `open`."""
        return self.layout.partitions

    @property
    def max_record_bytes(self) -> int:
        """Largest key + value + headers that `append` takes, in bytes."""
        return self._max_record_bytes

    @abstractmethod
    def _fetch(
        self, channel: Channel, partition: int, start: int, stop: int | None, key: str | None
    ) -> Fetched:
        """One batch from `start` on; `next` is `stop` where nothing is left before it."""

    @abstractmethod
    def _bounds(self, channel: Channel, partition: int) -> Bounds:
        """First offset and end, now."""

    @abstractmethod
    async def _trim(self, channel: Channel, partition: int, start: int, before: int) -> None:
        """Delete the records from `start`, the first that is left, up to `before`, which is one that is there."""

    @abstractmethod
    def _locks(self, group: str, member: str) -> PartitionLocks:
        """A new member's hold on the partitions, among those of its group."""

    @abstractmethod
    def _watching(self, active: bool) -> None:
        """Told when the first begins, and when the last ceases, to wait for new records."""

    def _check_new(self) -> None:
        if self._state != "new":
            raise LogUnavailable(f"log {self._namespace} was opened before: make a new one")

    def _opened(self) -> None:
        self._signals.bind(asyncio.get_running_loop())
        self._state = "open"

    async def _closing(self) -> bool:
        """Refuse what comes from now on and leave the group; says whether there is anything to close."""
        if self._state != "open":
            self._state = "closed"
            return False
        self._state = "closed"
        for membership in tuple(self._memberships):
            await membership.leave()
        self._signals.notify_all()
        return True

    def _check(self, partition: int) -> None:
        if self._state == "closed":
            raise LogUnavailable(f"log {self._namespace} is closed: make and open a new one")
        if self._state == "new":
            raise LogUnavailable(f"log {self._namespace} is not open yet: `await log.open()` first")
        if not 0 <= partition < self.partitions:
            raise UsageError(
                f"log {self._namespace} has no partition {partition}: it has {self.partitions}, from 0 on"
            )

    def _check_size(self, channel: Channel, partition: int, entry: Entry) -> int:
        """Size of `entry` in bytes, if the log takes it."""
        try:
            size = record_bytes(entry)
        except UnicodeEncodeError as error:
            raise PayloadError(
                f"the key {entry.key!r}, or a header's name, has no UTF-8 form: nothing was written. Use an id without "
                "surrogates"
            ) from error
        if size > self._max_record_bytes:
            raise RecordTooLarge(
                f"a record for {channel} of log {self._namespace}, partition {partition}, key {entry.key!r}, "
                f"is {size:,} bytes; the limit is {self._max_record_bytes:,}. Nothing was written. "
                "Keep large data in a file or an object store, and its address in the payload"
            )
        return size

    async def read(
        self,
        channel: Channel,
        partition: int,
        start: int,
        stop: int | None = None,
        *,
        key: str | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Batches from offset `start` up to (without) `stop`, and never past the end as of the first batch."""
        self._check(partition)
        end = self._bounds(channel, partition).end
        stop = end if stop is None else min(stop, end)
        position = start
        while position < stop:
            self._check(partition)
            records, after = self._fetch(channel, partition, position, stop, key)
            if channel is not Channel.REPLIES:
                self._check_there(channel, partition, position)
            position = after
            if records:
                yield records
            await asyncio.sleep(0)  # others on the loop get their turn between batches

    async def tail(
        self, channel: Channel, partition: int, start: int
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Batches from `start` on, for ever: waits at the end for more. Close the iterator to stop."""
        self._check(partition)
        wake = asyncio.Event()
        unsubscribe = self._signals.subscribe(channel, partition, wake.set)
        position = start
        try:
            while True:
                wake.clear()  # before the fetch: what is appended after it sets the event again
                self._check(partition)
                records, position = self._fetch(channel, partition, position, None, None)
                if records:
                    yield records
                    await asyncio.sleep(0)
                else:
                    await wake.wait()
        finally:
            unsubscribe()

    def _check_there(self, channel: Channel, partition: int, position: int) -> None:
        """Refuse what was read from `position` on if that is gone: it may have been before all was read."""
        start = self._bounds(channel, partition).start
        if start > position:
            raise trimmed(self._namespace, channel, partition, position, start)

    async def bounds(self, channel: Channel, partition: int) -> Bounds:
        """First offset and end of a partition, now."""
        self._check(partition)
        return self._bounds(channel, partition)

    async def offset_at(self, channel: Channel, partition: int, time: int) -> int:
        """See `Log.offset_at`: halves the range, for there is no index of times."""
        self._check(partition)
        low, high = self._bounds(channel, partition)
        while low < high:
            middle = (low + high) // 2
            records, _ = self._fetch(channel, partition, middle, high, None)
            if not records or records[0].timestamp >= time:  # none: of replies, some are deleted
                high = middle
            else:
                low = records[0].offset + 1
        return low

    async def trim(self, channel: Channel, partition: int, before: int) -> None:
        """See `Log.trim`."""
        self._check(partition)
        bounds = self._bounds(channel, partition)
        check_trim(self._namespace, channel, partition, before, bounds)
        if before > bounds.start:
            await self._trim(channel, partition, bounds.start, before)

    async def join(self, worker: str, listener: Listener, pool: str | None = None) -> Membership:
        """Enter a group of workers; free partitions up to a fair share are assigned before this returns."""
        self._check(0)
        return self._join(workers_of(pool), worker, listener, self.layout.of(pool))

    async def share(self, group: str, reader: str, listener: ShareListener) -> Share:
        """Enter a group of readers; free partitions up to a fair share are assigned before this returns."""
        check_group(group)
        self._check(0)
        shared = range(self.partitions)
        return LocalShare(self._join(group, reader, Sharing(listener), shared))

    def _join(
        self, group: str, member: str, listener: Listener, partitions: range
    ) -> LocalMembership:
        membership = LocalMembership(
            worker=member,
            listener=listener,
            locks=self._locks(group, member),
            partitions=partitions,
            fetch=lambda p, start: self._fetch(Channel.COMMANDS, p, start, None, None).records,
            signals=self._signals,
            rebalance_s=self._rebalance_s,
        )
        self._memberships.add(membership)
        membership.start()
        return membership

    async def listen(self, client_id: str, deliver: Callable[[Sequence[Record]], None]) -> None:
        """From now on, call `deliver` on this loop with the replies whose key is `client_id`, until `close`."""
        partition = partition_of(client_id, self.partitions)
        self._check(partition)
        position = self._bounds(Channel.REPLIES, partition).end

        def serve() -> None:
            nonlocal position
            if self._state != "open":
                return
            records, position = self._fetch(Channel.REPLIES, partition, position, None, None)
            mine = [record for record in records if record.key == client_id]
            if records:
                self._signals.notify(Channel.REPLIES, partition, serve)  # there may be more
            if mine:
                deliver(mine)

        self._signals.subscribe(Channel.REPLIES, partition, serve)
