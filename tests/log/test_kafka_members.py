"""Workers in a Kafka group: sharing, dying, being lost, and bounded memory while they are slow."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import aclosing, closing, contextmanager
from dataclasses import replace

import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from kafka_backend import TEST_SETTINGS, KafkaBackend
from log_backend import PATIENCE_S, Worker, opened, records_of
from refold.log.kafka_client import Clients, topic_partition
from refold.log.kafka_feed import Feed
from refold.log.protocol import Channel, Entry, Record

# A process that joins, says "owned" when it has a partition, and does nothing more.
MEMBER = """
import asyncio, sys
from refold.log.kafka import KafkaLog

class Listener:
    def assigned(self, partition): print("owned", flush=True)
    def revoking(self, partition): pass
    def revoked(self, partition, lost): print("lost" if lost else "revoked", flush=True)
    def deliver(self, partition, records): pass

async def main():
    log = KafkaLog([sys.argv[1]], sys.argv[2])
    await log.open()
    await log.join("victim", Listener())
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds of which nobody is told; `run` has a limit."""
    while not condition():  # noqa: ASYNC110 - the group's own thread learns of it
        await asyncio.sleep(0.005)


def entries_of(*values: str) -> list[Entry]:
    return [Entry("k", value.encode()) for value in values]


def values_of(records: Sequence[Record]) -> list[str]:
    return [record.value.decode() for record in records]


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await scenario()

    asyncio.run(bounded())


@contextmanager
def member_process(backend: KafkaBackend) -> Generator["subprocess.Popen[str]", None, None]:
    """A member in a process of its own, which may be killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", MEMBER, backend.servers[0], backend.namespace],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def says(process: "subprocess.Popen[str]", word: str) -> None:
    """Wait until the process prints the word."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    pytest.fail(f"the process ended without saying {word!r}")


class TestTakeover:
    @pytest.mark.slow
    def test_a_killed_workers_partitions_are_taken_over(self, kafka_bootstrap: str) -> None:
        """Given a worker that is killed with SIGKILL, another gets its partitions after the session timeout."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario() -> None:
            with member_process(backend) as victim:
                await asyncio.to_thread(says, victim, "owned")
                async with opened(backend) as log:
                    worker = Worker("heir")
                    await worker.join(log)
                    await worker.until(lambda: len(worker.owned) == 1)
                    victim.kill()
                    await worker.until(lambda: worker.owned == {0, 1})

        run(scenario)

    @pytest.mark.slow
    def test_a_frozen_worker_learns_that_it_lost(self, kafka_bootstrap: str) -> None:
        """Given a worker stopped for longer than its session, it is told `lost` when it goes on: another owns now."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario() -> None:
            with member_process(backend) as zombie:
                await asyncio.to_thread(says, zombie, "owned")
                zombie.send_signal(signal.SIGSTOP)
                async with opened(backend) as log:
                    worker = Worker("heir")
                    await worker.join(log)
                    await worker.until(lambda: worker.owned == {0, 1})
                    zombie.send_signal(signal.SIGCONT)
                    await asyncio.to_thread(says, zombie, "lost")

        run(scenario)

    def test_members_that_come_and_go_leave_no_partition_unowned(
        self, kafka_bootstrap: str
    ) -> None:
        """Given a storm of joins and leaves, in the end each partition has exactly one member."""
        backend = KafkaBackend(kafka_bootstrap, partitions=6)

        async def scenario() -> None:
            async with opened(backend) as log:
                steady = Worker("steady")
                await steady.join(log)
                for n in range(3):
                    guests = [Worker(f"guest-{n}-{m}") for m in range(3)]
                    memberships = await asyncio.gather(*(guest.join(log) for guest in guests))
                    await guests[0].until(lambda: bool(guests[0].owned))  # noqa: B023
                    await asyncio.gather(*(membership.leave() for membership in memberships))
                last = Worker("last")
                await last.join(log)
                await last.until(lambda: len(last.owned) == 3)
                await steady.until(lambda: len(steady.owned) == 3)
                assert steady.owned | last.owned == set(range(6))

        run(scenario)


class TestRetiring:
    def test_who_retires_is_delivered_commands_until_it_releases(
        self, kafka_bootstrap: str
    ) -> None:
        """Given two members, when one retires, the other is given its partition, and both hear of its commands."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario() -> None:
            async with opened(backend) as log:
                old, heir = Worker("old"), Worker("heir")
                leaving, staying = await old.join(log), await heir.join(log)
                await old.until(lambda: len(old.owned) == 1)
                await heir.until(lambda: len(heir.owned) == 1)
                (partition,) = old.owned
                given_up = list(old.revocations)  # it may have had both for a moment

                assert await leaving.retire()
                await heir.until(lambda: heir.owned == {0, 1})
                await log.append(Channel.COMMANDS, partition, entries_of("asked"))
                for worker, membership in ((old, leaving), (heir, staying)):
                    membership.follow(partition, 0)
                    await worker.until(lambda w=worker: w.values(partition) == [b"asked"])  # type: ignore[misc]
                leaving.release(partition)
                leaving.follow(partition, 0)
                await log.append(Channel.COMMANDS, partition, entries_of("more"))
                staying.follow(partition, 1)
                await heir.until(lambda: b"more" in heir.values(partition))
                assert old.values(partition) == [b"asked"]
                assert old.revocations == given_up

        run(scenario)

    def test_the_last_to_retire_knows_that_nobody_is_left(self, kafka_bootstrap: str) -> None:
        """Given a group, its only member does not retire; who has retired learns when the others are gone."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario() -> None:
            async with opened(backend) as log:
                one, other = Worker("one"), Worker("other")
                first = await one.join(log)
                await one.until(lambda: one.owned == {0, 1})
                assert not await first.retire()
                second = await other.join(log)
                await other.until(lambda: len(other.owned) == 1)
                assert await first.retire()
                await second.leave()
                await first.deserted()

        run(scenario)


class TestOffers:
    def test_nothing_is_offered_while_a_member_is_of_an_older_release(
        self, kafka_bootstrap: str
    ) -> None:
        """Given a member of a release that says nothing of offers, none is understood until it has left."""
        backend = KafkaBackend(kafka_bootstrap, partitions=6)

        async def scenario() -> None:
            async with opened(backend) as log:
                one, other = Worker("one"), Worker("other")
                first = await one.join(log)
                await one.until(lambda: len(one.owned) == 6)
                assert not first.understands_offers
                second = await other.join(log)
                await until(lambda: first.understands_offers and second.understands_offers)
                with older_member(backend) as older:
                    await asyncio.to_thread(older.until_owner)
                    await one.until(lambda: len(one.owned) == 2)
                    assert not first.understands_offers
                    assert not second.understands_offers
                await until(lambda: first.understands_offers and second.understands_offers)

        run(scenario)

    def test_an_older_release_may_lead_the_group(self, kafka_bootstrap: str) -> None:
        """Given an older release that was there first, it shares out as it knows, and nobody understands offers."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario() -> None:
            async with opened(backend) as log:
                with older_member(backend) as older:
                    await asyncio.to_thread(older.until_owner)
                    worker = Worker("new")
                    membership = await worker.join(log)
                    await worker.until(lambda: len(worker.owned) == 1)
                    assert not membership.understands_offers

        run(scenario)


class OlderMember:
    """A member of the workers' group as kafka-python makes it, and as refold did before there were offers."""

    def __init__(self, backend: KafkaBackend) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=backend.servers,
            group_id=f"{backend.namespace}.workers",
            partition_assignment_strategy=(CooperativeStickyAssignor(),),
            session_timeout_ms=TEST_SETTINGS.session_timeout_ms,
            heartbeat_interval_ms=TEST_SETTINGS.heartbeat_interval_ms,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        self._consumer.subscribe([f"{backend.namespace}.commands"])
        self._left = threading.Event()
        self._is_owner = threading.Event()
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def until_owner(self) -> None:
        """Wait until it has a partition."""
        assert self._is_owner.wait(PATIENCE_S)

    def close(self) -> None:
        """Leave."""
        self._left.set()
        self._thread.join()
        self._consumer.close()

    def _poll(self) -> None:
        while not self._left.is_set():
            self._consumer.poll(1_000)  # a round that ends between two polls is lost
            if self._consumer.assignment():
                self._is_owner.set()


@contextmanager
def older_member(backend: KafkaBackend) -> Generator[OlderMember, None, None]:
    """It is in the group for as long as the block lasts."""
    with closing(OlderMember(backend)) as member:
        yield member


class TestGroup:
    def test_lag_tools_see_how_far_commands_are_worked_through(self, kafka_bootstrap: str) -> None:
        """Given a worker that follows from 2, the group's committed offset becomes 2, and members know it as well."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.COMMANDS, 0, entries_of("a", "b", "c"))
                worker = Worker("one")
                membership = await worker.join(log)
                await worker.until(lambda: 0 in worker.owned)
                membership.follow(0, 2)
                await worker.until(lambda: bool(worker.values(0)))
                while await membership.worked_through() != {0: (2, 3)}:  # soon; `run` has a limit
                    pass
                await membership.leave()
                assert await membership.worked_through() == {}
                assert await asyncio.to_thread(self.committed, backend) == {0: 2}

        run(scenario)

    @staticmethod
    def committed(backend: KafkaBackend) -> dict[int, int]:
        admin = KafkaAdminClient(bootstrap_servers=backend.servers)
        try:
            while True:
                group = f"{backend.namespace}.workers"
                offsets = admin.list_group_offsets([group])[group]
                if offsets:
                    return {place.partition: found.offset for place, found in offsets.items()}
        finally:
            admin.close()


class TestBackPressure:
    def test_a_slow_reader_gets_everything_and_holds_little(self, kafka_bootstrap: str) -> None:
        """(14) Given a reader that takes nothing, fetching pauses; when it goes on, nothing is missing or twice."""
        settings = replace(TEST_SETTINGS, prefetch_records=100)
        backend = KafkaBackend(kafka_bootstrap, settings=settings)
        topic = f"{backend.namespace}.events"
        slow, quick = topic_partition(topic, 0), topic_partition(topic, 1)

        async def scenario() -> None:
            feed = Feed(Clients(backend.servers, settings), "slow", [topic])
            await feed.open()
            came = asyncio.Event()
            feed.follow(slow, 0, came.set)
            async with opened(backend) as log:
                values = [str(n) for n in range(9_000)]
                await log.append(Channel.EVENTS, 0, entries_of(*values))
                await came.wait()
                # Another partition of the same feed is not held up by the full one.
                passed = asyncio.Event()
                feed.follow(quick, 0, passed.set)
                await log.append(Channel.EVENTS, 1, entries_of("quick"))
                await passed.wait()
                assert values_of(feed.take(quick)) == ["quick"]
                assert (
                    feed.buffered(slow) <= 100 + 2 * 1_000
                )  # the limit, and two polls on their way
                found: list[Record] = []
                while len(found) < 9_000:
                    came.clear()
                    if records := feed.take(slow):
                        found += records
                    else:
                        await came.wait()
                assert values_of(found) == values
            await feed.close()

        run(scenario)

    def test_two_tails_of_one_partition_are_apart(self, kafka_bootstrap: str) -> None:
        """Given two tails of the same partition from different offsets, each gives its own from there on."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario() -> None:
            async with (
                opened(backend) as log,
                aclosing(log.tail(Channel.EVENTS, 0, 0)) as all_of_it,
                aclosing(log.tail(Channel.EVENTS, 0, 2)) as the_end,
            ):
                await log.append(Channel.EVENTS, 0, entries_of("a", "b", "c"))
                assert values_of(await anext(all_of_it)) == ["a", "b", "c"]
                assert values_of(await anext(the_end)) == ["c"]

        run(scenario)

    def test_a_read_that_is_left_early_does_no_harm(self, kafka_bootstrap: str) -> None:
        """Given readers that stop after their first batch or are cancelled, later reads are whole."""
        backend = KafkaBackend(kafka_bootstrap, settings=replace(TEST_SETTINGS, readers=2))

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 0, entries_of(*map(str, range(5_000))))
                await log.append(Channel.EVENTS, 1, entries_of("other"))
                for _ in range(5):
                    async with aclosing(log.read(Channel.EVENTS, 0, 100)) as reading:
                        assert (await anext(reading))[0].offset == 100
                    cancelled = asyncio.create_task(records_of(log, Channel.EVENTS))
                    await asyncio.sleep(0)
                    cancelled.cancel()
                assert values_of(await records_of(log, Channel.EVENTS, 1)) == ["other"]
                found = await records_of(log, Channel.EVENTS, 0)
                assert [record.offset for record in found] == list(range(5_000))

        run(scenario)
