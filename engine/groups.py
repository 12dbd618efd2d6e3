"""A worker's places in several groups at once: that of the common partitions, and those of the pools it serves."""

import asyncio
from collections.abc import Mapping, Sequence

from refold.log.protocol import Backlog, Listener, Log, Membership


class Groups:
    """A `Membership` made of others, each for partitions of its own.

    Args:
        members: For each group its partitions, and the place in it.
    """

    def __init__(self, members: Sequence[tuple[range, Membership]]) -> None:
        self._members = members

    def follow(self, partition: int, offset: int) -> None:
        """See `Membership`."""
        self._of(partition).follow(partition, offset)

    def skip(self, partition: int, offset: int) -> None:
        """See `Membership`."""
        self._of(partition).skip(partition, offset)

    def release(self, partition: int) -> None:
        """See `Membership`."""
        self._of(partition).release(partition)

    @property
    def waits_for_release(self) -> bool:
        """See `Membership`."""
        return all(member.waits_for_release for _, member in self._members)

    @property
    def alone(self) -> bool:
        """See `Membership`."""
        return all(member.alone for _, member in self._members)

    @property
    def understands_offers(self) -> bool:
        """See `Membership`."""
        return all(member.understands_offers for _, member in self._members)

    def offered(self, partition: int) -> None:
        """See `Membership`."""
        self._of(partition).offered(partition)

    async def retire(self) -> bool:
        """See `Membership`. True where that is so of one of the groups."""
        return any(await asyncio.gather(*(member.retire() for _, member in self._members)))

    async def worked_through(self) -> Mapping[int, Backlog]:
        """See `Membership`."""
        groups = await asyncio.gather(*(member.worked_through() for _, member in self._members))
        return dict(item for group in groups for item in group.items())

    async def deserted(self) -> None:
        """See `Membership`."""
        await asyncio.gather(*(member.deserted() for _, member in self._members))

    async def leave(self) -> None:
        """See `Membership`."""
        await asyncio.gather(*(member.leave() for _, member in self._members))

    def _of(self, partition: int) -> Membership:
        return next(member for partitions, member in self._members if partition in partitions)


async def join(
    log: Log, worker: str, listener: Listener, pools: Sequence[str | None]
) -> Membership:
    """Enter the groups of some pools of a log, or that of the common partitions (None).

    Raises:
        LogError: One can't be entered. None was.
    """
    if len(pools) == 1:
        return await log.join(worker, listener, pools[0])
    members: list[tuple[range, Membership]] = []
    try:
        for pool in pools:
            member = await log.join(worker, listener, pool)
            members.append((log.layout.of(pool), member))
    except BaseException:
        await Groups(members).leave()
        raise
    return Groups(members)
