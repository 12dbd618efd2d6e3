"""What every log promises to readers that share the partitions of its events, on each backend by the same cases."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from log_backend import PATIENCE_S, LogBackend, Worker, opened
from refold.log.errors import UsageError
from refold.log.protocol import Log, Share


class Reader:
    """A reader that remembers what it is told, and lets go at once of what is revoked."""

    def __init__(self) -> None:
        self.owned: set[int] = set()
        self.share: Share | None = None
        self._changed = asyncio.Event()

    async def enter(self, log: Log, group: str = "readers") -> Share:
        self.share = await log.share(group, "reader", self)
        return self.share

    def assigned(self, partition: int) -> None:
        self.owned.add(partition)
        self._changed.set()

    def revoked(self, partition: int, lost: bool) -> None:
        self.owned.discard(partition)
        if self.share is not None:
            self.share.release(partition)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await scenario()

    asyncio.run(bounded())


def test_two_readers_share_and_the_one_that_stays_gets_all(backend: LogBackend) -> None:
    """Given a reader with both partitions, a second gets one of them, and both when the first leaves."""

    async def scenario() -> None:
        async with opened(backend) as log, opened(backend) as other_log:
            one, two = Reader(), Reader()
            first = await one.enter(log)
            await one.until(lambda: one.owned == {0, 1})
            await two.enter(other_log)
            await two.until(lambda: len(two.owned) == 1)
            await one.until(lambda: len(one.owned) == 1)
            assert one.owned | two.owned == {0, 1}
            first.done(min(one.owned), 0)
            await first.leave()
            await two.until(lambda: two.owned == {0, 1})

    run(scenario)


def test_closing_the_log_leaves_the_group(backend: LogBackend) -> None:
    """Given a reader that closes its log without leaving, another gets its partitions."""

    async def scenario() -> None:
        async with opened(backend) as log, opened(backend) as other_log:
            one, two = Reader(), Reader()
            await one.enter(log)
            await one.until(lambda: one.owned == {0, 1})
            await two.enter(other_log)
            await log.close()
            await two.until(lambda: two.owned == {0, 1})

    run(scenario)


def test_each_group_and_the_workers_have_all_partitions(backend: LogBackend) -> None:
    """Given two groups of readers and a worker, none takes a partition from another."""

    async def scenario() -> None:
        async with opened(backend) as log:
            one, two, worker = Reader(), Reader(), Worker("worker")
            await one.enter(log, "one")
            await two.enter(log, "two")
            await worker.join(log)
            await one.until(lambda: one.owned == {0, 1})
            await two.until(lambda: two.owned == {0, 1})
            await worker.until(lambda: worker.owned == {0, 1})

    run(scenario)


@pytest.mark.parametrize("group", ["", "workers", "a/b", "..", "x" * 101])
def test_a_group_that_can_not_be_one_is_refused(backend: LogBackend, group: str) -> None:
    """Given a name with other characters, too long, or the workers' own, nothing is joined."""

    async def scenario() -> None:
        async with opened(backend) as log:
            with pytest.raises(UsageError, match="can't name a group"):
                await Reader().enter(log, group)

    run(scenario)
