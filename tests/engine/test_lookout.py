"""A partition whose owner has fallen silent is folded before it has to be taken over."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping

import pytest

from refold.engine.claim import claim
from refold.engine.digest import digest
from refold.engine.lookout import Lookout
from refold.engine.recovery import Folded
from refold.log.errors import LogUnavailable
from refold.log.memory import MemoryLog
from refold.log.protocol import Backlog, Channel, Entry, Membership


def clock() -> int:
    return 1_000_000


class Books:
    """What the group knows of its owners' progress, as the test says."""

    def __init__(self, log: MemoryLog, *done: int) -> None:
        self.log = log
        self.done = dict(enumerate(done))
        self.trouble: Exception | None = None

    async def worked_through(self) -> Mapping[int, Backlog]:
        if self.trouble is not None:
            raise self.trouble
        ends = {p: (await self.log.bounds(Channel.COMMANDS, p)).end for p in self.done}
        return {p: Backlog(done, ends[p]) for p, done in self.done.items()}


class Watched:
    """A log with two partitions, and a worker that has none of them, unless the test says so."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.books = Books(log, 0, 0)
        self.ours: set[int] = set()
        membership: Membership = self.books  # type: ignore[assignment]  # no more of it is used
        self.lookout = Lookout(log, membership, self.ours.__contains__)

    async def command(self, partition: int) -> None:
        """A command comes; of what kind is all the same."""
        await self.log.append(Channel.COMMANDS, partition, [Entry("k", b"c")])

    async def look(self, times: int = 3) -> None:
        for _ in range(times):
            await self.lookout.look()


def run(scenario: Callable[[Watched], Coroutine[None, None, None]]) -> None:
    async def opened() -> None:
        log = MemoryLog("watched", partitions=2)
        await log.open()
        try:
            async with asyncio.timeout(30):
                for partition in range(2):
                    await claim(log, partition, "old", clock)
                await scenario(Watched(log))
        finally:
            await log.close()

    asyncio.run(opened())


def test_what_was_folded_ahead_is_what_a_claim_would_fold() -> None:
    """Given commands that nobody works through, their partition is folded, that one alone, and claimed from there."""

    async def scenario(watched: Watched) -> None:
        log, lookout = watched.log, watched.lookout
        await watched.command(0)
        await watched.look()
        ahead = await lookout.take(0)
        assert ahead is not None
        whole = Folded(type(ahead.state)(), 0)
        await whole.go_on(log, 0)
        assert (ahead.position, digest(ahead.state)) == (whole.position, digest(whole.state))
        await claim(log, 0, "zombie", clock)  # and what comes after it was folded is not missed
        folded = await claim(log, 0, "next", clock, ahead)
        assert folded.state.owner == "next"
        assert await lookout.take(0) is None, "it is given once"
        assert await lookout.take(1) is None, "nothing waits there"

    run(scenario)


def test_an_owner_that_goes_on_is_left_alone() -> None:
    """Given an owner that works through its commands, however far behind it is, nothing is folded."""

    async def scenario(watched: Watched) -> None:
        for _ in range(10):
            await watched.command(0)
        for done in range(5):
            watched.books.done[0] = done
            await watched.look(2)
        assert await watched.lookout.take(0) is None

    run(scenario)


def test_an_owner_that_is_heard_of_again_has_it_dropped() -> None:
    """Given a partition that was folded, when its owner goes on after all, nothing is kept of it."""

    async def scenario(watched: Watched) -> None:
        await watched.command(0)
        await watched.look()
        watched.books.done[0] = 1
        await watched.look(1)
        assert await watched.lookout.take(0) is None

    run(scenario)


def test_partitions_of_our_own_are_not_folded() -> None:
    """Given a partition of the worker's own that is slow, it is not folded once more."""

    async def scenario(watched: Watched) -> None:
        watched.ours.add(0)
        await watched.command(0)
        await watched.look(5)
        assert await watched.lookout.take(0) is None

    run(scenario)


@pytest.mark.parametrize("trouble", [LogUnavailable("no broker"), KeyError("unexpected")], ids=repr)
def test_a_group_that_can_not_be_asked_is_asked_again(
    trouble: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a broker that is away for a while, or an error of ours, the lookout goes on after that, and ends with
    nothing left; the error of ours is told.
    """

    async def scenario(watched: Watched) -> None:
        await watched.command(0)
        watched.books.trouble = trouble
        with pytest.raises(type(trouble)):
            await watched.lookout.look()
        looks = 0

        async def pause() -> None:
            nonlocal looks
            looks += 1
            watched.books.trouble = trouble if looks < 3 else None
            if looks == 7:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await watched.lookout.watch(pause)
        assert looks == 7
        assert await watched.lookout.take(0) is None, "what it had folded went with it"

    run(scenario)
    assert ("unexpected error" in caplog.text) == isinstance(trouble, KeyError)


def test_a_fold_that_fails_is_told_and_leaves_the_claim_to_fold_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Given an unexpected error while a partition is folded ahead, it is logged, and nothing is given."""

    async def scenario(watched: Watched) -> None:
        async def broken(partition: int) -> int | None:
            raise KeyError(partition)

        watched.log.bookmark = broken  # type: ignore[method-assign]
        await watched.command(0)
        await watched.look()
        assert await watched.lookout.take(0) is None

    run(scenario)
    assert "partition 0: unexpected error" in caplog.text
