"""What every log promises to the workers that share its partitions, on each backend by the same cases."""

import asyncio
from collections.abc import Callable, Coroutine

from log_backend import PATIENCE_S, LogBackend, Worker, opened
from refold.log.protocol import Channel, Entry


def commands_of(*values: str) -> list[Entry]:
    return [Entry("k", value.encode()) for value in values]


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await scenario()

    asyncio.run(bounded())


class TestSharing:
    def test_a_worker_alone_gets_all_partitions(self, backend: LogBackend) -> None:
        """Given one worker, both partitions are assigned to it."""

        async def scenario() -> None:
            async with opened(backend) as log:
                worker = Worker("one")
                await worker.join(log)
                await worker.until(lambda: worker.owned == {0, 1})

        run(scenario)

    def test_two_workers_share(self, backend: LogBackend) -> None:
        """Given a worker with both partitions, a second that joins gets one of them, and only one has it then."""

        async def scenario() -> None:
            async with opened(backend) as log, opened(backend) as other_log:
                one, two = Worker("one"), Worker("two")
                await one.join(log)
                await one.until(lambda: one.owned == {0, 1})
                await two.join(other_log)
                await two.until(lambda: len(two.owned) == 1)
                await one.until(lambda: len(one.owned) == 1)
                assert one.owned | two.owned == {0, 1}
                assert one.revocations == sorted(two.owned)
                assert one.warned == one.revocations  # before: no step may begin any more

        run(scenario)

    def test_a_worker_that_leaves_frees_its_partitions(self, backend: LogBackend) -> None:
        """Given two workers, the one that stays gets all when the other leaves."""

        async def scenario() -> None:
            async with opened(backend) as log, opened(backend) as other_log:
                one, two = Worker("one"), Worker("two")
                membership = await one.join(log)
                await one.until(lambda: one.owned == {0, 1})
                await two.join(other_log)
                await two.until(lambda: len(two.owned) == 1)
                await membership.leave()
                await two.until(lambda: two.owned == {0, 1})

        run(scenario)

    def test_closing_the_log_leaves_the_group(self, backend: LogBackend) -> None:
        """Given a worker that closes its log without leaving, another gets its partitions."""

        async def scenario() -> None:
            async with opened(backend) as log, opened(backend) as other_log:
                one, two = Worker("one"), Worker("two")
                await one.join(log)
                await one.until(lambda: one.owned == {0, 1})
                await two.join(other_log)
                await log.close()
                await two.until(lambda: two.owned == {0, 1})

        run(scenario)


class TestFollow:
    def test_commands_come_from_the_offset_asked_for(self, backend: LogBackend) -> None:
        """Given three commands, following from 1 delivers the last two, in order, with their offsets."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.COMMANDS, 0, commands_of("a", "b", "c"))
                worker = Worker("one")
                membership = await worker.join(log)
                await worker.until(lambda: 0 in worker.owned)
                membership.follow(0, 1)
                await worker.until(lambda: len(worker.values(0)) == 2)
                (batch,) = worker.delivered[0]
                assert [(r.offset, r.value) for r in batch] == [(1, b"b"), (2, b"c")]

        run(scenario)

    def test_one_follow_is_one_delivery(self, backend: LogBackend) -> None:
        """Given a delivery, more commands stay where they are until the next follow asks for them."""

        async def scenario() -> None:
            async with opened(backend) as log:
                worker = Worker("one")
                membership = await worker.join(log)
                await worker.until(lambda: worker.owned == {0, 1})
                membership.follow(0, 0)
                await log.append(Channel.COMMANDS, 0, commands_of("a"))
                await worker.until(lambda: worker.values(0) == [b"a"])
                await log.append(Channel.COMMANDS, 0, commands_of("b"))
                # Partition 1's delivery shows that commands travel; partition 0 must have stayed quiet.
                membership.follow(1, 0)
                await log.append(Channel.COMMANDS, 1, commands_of("x"))
                await worker.until(lambda: worker.values(1) == [b"x"])
                assert worker.values(0) == [b"a"]
                membership.follow(0, 1)
                await worker.until(lambda: worker.values(0) == [b"a", b"b"])

        run(scenario)

    def test_commands_of_another_log_object_arrive(self, backend: LogBackend) -> None:
        """Given a client with a log of its own, each of its commands reaches the worker that follows, in order."""

        async def scenario() -> None:
            async with opened(backend) as log, opened(backend) as client:
                worker = Worker("one")
                membership = await worker.join(log)
                await worker.until(lambda: 0 in worker.owned)
                for n in range(20):
                    membership.follow(0, n)
                    await client.append(Channel.COMMANDS, 0, commands_of(str(n)))
                    await worker.until(lambda: len(worker.values(0)) == n + 1)  # noqa: B023
                assert worker.values(0) == [str(n).encode() for n in range(20)]

        run(scenario)

    def test_a_new_follow_replaces_the_one_before(self, backend: LogBackend) -> None:
        """Given two follows in a row, one delivery comes, from the second one's offset."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.COMMANDS, 0, commands_of("a", "b", "c"))
                worker = Worker("one")
                membership = await worker.join(log)
                await worker.until(lambda: 0 in worker.owned)
                membership.follow(0, 0)
                membership.follow(0, 2)
                await worker.until(lambda: bool(worker.delivered.get(0)))
                membership.follow(0, 3)
                await log.append(Channel.COMMANDS, 0, commands_of("d"))
                await worker.until(lambda: len(worker.delivered[0]) == 2)
                assert worker.values(0) == [b"c", b"d"]

        run(scenario)

    def test_what_comes_after_the_skipped_is_delivered(self, backend: LogBackend) -> None:
        """Given a follow from 0, commands before 2 that are skipped, 2 is delivered, and nothing out of order."""

        async def scenario() -> None:
            async with opened(backend) as log:
                worker = Worker("one")
                membership = await worker.join(log)
                await worker.until(lambda: 0 in worker.owned)
                membership.follow(0, 0)
                membership.skip(0, 2)
                await log.append(Channel.COMMANDS, 0, commands_of("a", "b", "c"))

                def reached() -> int:
                    batches = worker.delivered.get(0)
                    return batches[-1][-1].offset + 1 if batches else 0

                asked = 0
                while b"c" not in worker.values(0):
                    await worker.until(lambda: reached() > asked)  # noqa: B023
                    asked = reached()
                    membership.follow(0, asked)
                assert worker.values(0) == [b"a", b"b", b"c"][-len(worker.values(0)) :]

        run(scenario)

    def test_following_again_from_before_repeats(self, backend: LogBackend) -> None:
        """Given commands that were delivered, following from an earlier offset delivers them again."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.COMMANDS, 0, commands_of("a", "b"))
                worker = Worker("one")
                membership = await worker.join(log)
                await worker.until(lambda: 0 in worker.owned)
                for repeat in (1, 2):
                    membership.follow(0, 0)
                    await worker.until(lambda: len(worker.values(0)) == 2 * repeat)  # noqa: B023
                assert worker.values(0) == [b"a", b"b", b"a", b"b"]

        run(scenario)

    def test_a_backlog_comes_whole_and_in_order(self, backend: LogBackend) -> None:
        """Given 3,000 commands that wait, repeated follows deliver each once, in order."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.COMMANDS, 1, commands_of(*map(str, range(3_000))))
                worker = Worker("one")
                membership = await worker.join(log)
                await worker.until(lambda: 1 in worker.owned)
                while len(worker.values(1)) < 3_000:
                    batches = len(worker.delivered.get(1, []))
                    membership.follow(1, len(worker.values(1)))
                    await worker.until(lambda: len(worker.delivered.get(1, [])) > batches)  # noqa: B023
                assert worker.values(1) == [str(n).encode() for n in range(3_000)]

        run(scenario)

    def test_nothing_is_delivered_after_leaving(self, backend: LogBackend) -> None:
        """Given a worker that follows and leaves, a command that comes later goes to the other worker alone."""

        async def scenario() -> None:
            async with opened(backend) as log, opened(backend) as other_log:
                one, two = Worker("one"), Worker("two")
                first = await one.join(log)
                await one.until(lambda: one.owned == {0, 1})
                first.follow(0, 0)
                await first.leave()
                second = await two.join(other_log)
                await two.until(lambda: two.owned == {0, 1})
                second.follow(0, 0)
                await log.append(Channel.COMMANDS, 0, commands_of("a"))
                await two.until(lambda: two.values(0) == [b"a"])
                assert one.values(0) == []

        run(scenario)
