"""Membership where partitions are shared by exclusive locks: one process's memory, or one machine's files.

A member takes free partitions up to its fair share, partitions / members rounded up, and gives the excess back when
others come. It looks again every `rebalance_s`; a lock that is free (its holder left or died) is noticed then.
Rounding up means that the share can leave a member with nothing: it stands by.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from refold.log.errors import LogError
from refold.log.protocol import Backlog, Channel, Listener, Record, ShareListener
from refold.log.signals import Signals

logger = logging.getLogger(__name__)

RETRY_S = 1.0
"""Pause after a failed read of commands: the disk may come back, and the log's messages should stay few."""


class PartitionLocks(Protocol):
    """One member's exclusive locks. No method waits."""

    def acquire(self, partition: int) -> bool:
        """Try to take a partition; True if it is this member's now."""
        ...

    def release(self, partition: int) -> None:
        """Free a partition."""
        ...

    def members(self) -> int:
        """Number of living members, this one among them."""
        ...

    def close(self) -> None:
        """Free everything; this member is one no longer."""
        ...


class LocalMembership:
    """A worker's place among those that share the partitions by locks. Belongs to one event loop."""

    def __init__(
        self,
        *,
        worker: str,
        listener: Listener,
        locks: PartitionLocks,
        partitions: Sequence[int],
        fetch: Callable[[int, int], Sequence[Record]],
        signals: Signals,
        rebalance_s: float,
    ) -> None:
        self._worker = worker
        self._listener = listener
        self._locks = locks
        self._partitions = partitions
        self._fetch = fetch
        self._signals = signals
        self._rebalance_s = rebalance_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._held: dict[int, Callable[[], None]] = {}  # partition -> end of its subscription
        self._revoked: set[int] = set()  # told to give up, not released yet
        self._resting: set[int] = set()  # just released: others get the first chance
        self._wanted: dict[int, int] = {}  # partition -> offset that was asked for

    def start(self) -> None:
        """Take what is free, now and from time to time."""
        try:
            self._rebalance()
        except OSError:
            logger.exception("worker %s can't lock partitions now; will try again", self._worker)
        finally:  # whatever goes wrong once, others' deaths must still be noticed
            self._timer = self._loop.call_later(self._rebalance_s, self.start)

    def follow(self, partition: int, offset: int) -> None:
        """Ask for the next commands of `partition` from `offset` on: one `deliver` when there are any."""
        if partition in self._held:
            self._wanted[partition] = offset
            self._loop.call_soon(self._serve, partition)

    def skip(self, partition: int, offset: int) -> None:
        """Commands of `partition` before `offset` have been consumed already."""
        wanted = self._wanted.get(partition)
        if wanted is not None and wanted < offset:
            self._wanted[partition] = offset

    def release(self, partition: int) -> None:
        """Nothing more of `partition` is done here: somebody else may have it. Stops deliveries."""
        unsubscribe = self._held.pop(partition, None)
        if unsubscribe is None:
            return
        unsubscribe()
        self._wanted.pop(partition, None)
        self._revoked.discard(partition)
        self._resting.add(partition)
        self._locks.release(partition)

    @property
    def waits_for_release(self) -> bool:
        """The lock is held until then."""
        return True

    @property
    def alone(self) -> bool:
        """Whether no other member lives."""
        return self._locks.members() == 1

    @property
    def understands_offers(self) -> bool:
        """See `Membership`: nobody asks for a partition whose lock is held."""
        return False

    def offered(self, partition: int) -> None:
        """Nobody waits for that: whoever is given a partition gets it when it is released."""

    async def retire(self) -> bool:
        """See `Membership`: only what is released is free."""
        return False

    async def worked_through(self) -> Mapping[int, Backlog]:
        """See `Membership`: the locks of a dead worker are free at once."""
        return {}

    async def deserted(self) -> None:
        """Never waited for: nobody retires."""

    async def leave(self) -> None:
        """Leave the group: all partitions are free for others at once. Leaving twice is no error."""
        if self._timer is not None:
            self._timer.cancel()
        for partition in tuple(self._held):
            self.release(partition)
        self._locks.close()

    def _rebalance(self) -> None:
        share = -(-len(self._partitions) // self._locks.members())
        for partition in self._partitions:
            if len(self._held) - len(self._revoked) >= share:
                break
            if partition not in self._held and partition not in self._resting:
                self._try(partition)
        self._resting.clear()
        kept = sorted(self._held.keys() - self._revoked)
        for partition in kept[share:]:
            self._revoked.add(partition)
            self._listener.revoking(partition)
            self._listener.revoked(partition, lost=False)

    def _try(self, partition: int) -> None:
        if not self._locks.acquire(partition):
            return
        self._held[partition] = self._signals.subscribe(
            Channel.COMMANDS, partition, lambda: self._serve(partition)
        )
        self._listener.assigned(partition)

    def _serve(self, partition: int) -> None:
        offset = self._wanted.get(partition)
        if offset is None:
            return
        try:
            records = self._fetch(partition, offset)
        except LogError:
            logger.exception("can't read commands of partition %d; will try again", partition)
            self._loop.call_later(RETRY_S, self._serve, partition)
            return
        if records:
            del self._wanted[partition]
            self._listener.deliver(partition, records)


class Sharing:
    """A reader of events as the `Listener` of a membership: it follows no commands, so it is delivered none."""

    def __init__(self, listener: ShareListener) -> None:
        self.assigned = listener.assigned
        self.revoked = listener.revoked

    def revoking(self, partition: int) -> None:
        """`revoked` follows."""

    def deliver(self, partition: int, records: Sequence[Record]) -> None:
        """Never called."""


class LocalShare:
    """A reader's place among those that share the partitions by locks."""

    def __init__(self, membership: LocalMembership) -> None:
        self.release = membership.release
        self.leave = membership.leave

    def done(self, partition: int, offset: int) -> None:
        """Nobody asks."""
