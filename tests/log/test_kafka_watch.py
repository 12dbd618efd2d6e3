"""Topics that are changed under an open log: it says so, halts what can't go on, and tells what to do."""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import aclosing, contextmanager

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource

from kafka_backend import TEST_SETTINGS, KafkaBackend
from log_backend import PATIENCE_S, Worker
from refold.log.errors import LogCorrupt, LogError, LogMismatch
from refold.log.health import Checked, watch
from refold.log.kafka import KafkaLog
from refold.log.protocol import Channel, Entry

Scenario = Callable[[KafkaLog, KafkaAdminClient], Coroutine[None, None, None]]
ENTRY = Entry("k", b"v")


@contextmanager
def admin_of(backend: KafkaBackend) -> Generator[KafkaAdminClient, None, None]:
    admin = KafkaAdminClient(bootstrap_servers=backend.servers)
    try:
        yield admin
    finally:
        admin.close()


def under_an_open_log(backend: KafkaBackend, scenario: Scenario) -> None:
    """Run a scenario on a log that is open, with ten events in each partition."""

    async def opened_first() -> None:
        log = backend.kafka_log(TEST_SETTINGS)
        async with asyncio.timeout(PATIENCE_S):
            await log.open()
            try:
                for partition in range(log.partitions):
                    await log.append(Channel.EVENTS, partition, [ENTRY] * 10)
                assert await log.check() == {}
                with admin_of(backend) as admin:
                    await scenario(log, admin)
            finally:
                await log.close()

    asyncio.run(opened_first())


async def ailments_at_last(log: Checked) -> Mapping[int, LogError]:
    """What is found when the brokers have heard of a change."""
    while not (found := await log.check()):
        pass
    return found


def alter(admin: KafkaAdminClient, topic: str, **settings: str) -> None:
    named = {name.replace("_", "."): value for name, value in settings.items()}
    admin.alter_configs([ConfigResource("TOPIC", topic, named)])


def make_again(admin: KafkaAdminClient, topic: str) -> None:
    admin.delete_topics([topic])
    while topic in admin.list_topics():
        pass
    admin.create_topics(
        {topic: {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True
    )


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"cleanup_policy": "compact"}, r"compacted.*cleanup\.policy=delete"),
            ({"retention_ms": "86400000"}, r"history will be lost.*retention\.ms=-1"),
            ({"retention_bytes": "1000000"}, r"history will be lost.*retention\.bytes=-1"),
        ],
    )
    def test_events_that_will_be_lost_halt_every_partition(
        self, kafka_bootstrap: str, settings: dict[str, str], told: str
    ) -> None:
        """Given events set to expire or to be compacted under an open log, all halts; afterwards none opens."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario(log: KafkaLog, admin: KafkaAdminClient) -> None:
            alter(admin, f"{backend.namespace}.events", **settings)
            found = await ailments_at_last(log)
            assert sorted(found) == [0, 1]
            with pytest.raises(LogMismatch, match=told):
                raise found[0]
            with pytest.raises(LogMismatch, match=told):
                await backend.kafka_log(TEST_SETTINGS).open()

        under_an_open_log(backend, scenario)


class TestAnotherTopic:
    def test_a_topic_made_again_under_an_open_log_takes_nothing_more(
        self, kafka_bootstrap: str
    ) -> None:
        """Given events deleted and made again while they are written, no second append is told that it is durable.

        The producer takes the new topic for the old one: only the offset tells.
        """
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario(log: KafkaLog, admin: KafkaAdminClient) -> None:
            await asyncio.to_thread(make_again, admin, f"{backend.namespace}.events")
            with pytest.raises(LogCorrupt, match="deleted and made again"):
                await append_for_ever(log)
            with pytest.raises(LogCorrupt, match="offset 0, where 9 had been given"):
                await log.append(Channel.EVENTS, 0, [ENTRY])
            found = await ailments_at_last(log)
            assert sorted(found) == [0, 1]
            with pytest.raises(LogMismatch, match="made again"):
                raise found[1]

        under_an_open_log(backend, scenario)

    def test_a_deleted_topic_halts_every_partition(self, kafka_bootstrap: str) -> None:
        """Given events deleted under an open log, the check says which topic."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario(log: KafkaLog, admin: KafkaAdminClient) -> None:
            await asyncio.to_thread(admin.delete_topics, [f"{backend.namespace}.events"])
            found = await ailments_at_last(log)
            with pytest.raises(LogMismatch, match="events was deleted"):
                raise found[0]

        under_an_open_log(backend, scenario)

    def test_added_partitions_halt_and_are_never_assigned(self, kafka_bootstrap: str) -> None:
        """Given partitions added to commands, the check says so, and a worker that joins is not given the new ones."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario(log: KafkaLog, admin: KafkaAdminClient) -> None:
            admin.create_partitions({f"{backend.namespace}.commands": 5})
            found = await ailments_at_last(log)
            with pytest.raises(LogMismatch, match=r"5 partitions.*made with 2"):
                raise found[0]
            worker = Worker("late")
            await worker.join(log)
            await worker.until(lambda: worker.owned == {0, 1})

        under_an_open_log(backend, scenario)


class TestWatch:
    def test_each_partition_is_halted_once(self, kafka_bootstrap: str) -> None:
        """Given a watch on a log, a change halts every partition, and is not told again at the next check."""
        backend = KafkaBackend(kafka_bootstrap)
        halted: list[tuple[int, LogError]] = []

        async def scenario(log: KafkaLog, admin: KafkaAdminClient) -> None:
            checks = 0
            done_at: int | None = None

            async def pause() -> None:
                nonlocal checks, done_at
                checks += 1
                if halted and done_at is None:
                    done_at = checks + 2
                if checks == done_at:
                    raise TimeoutError  # two checks have passed since

            alter(admin, f"{backend.namespace}.events", cleanup_policy="compact")

            def halt(partition: int, error: LogError) -> None:
                halted.append((partition, error))

            with pytest.raises(TimeoutError):
                await watch(log, halt, pause)

        under_an_open_log(backend, scenario)
        assert [partition for partition, _ in halted] == [0, 1]


class TestCut:
    def test_deleted_records_without_a_checkpoint_halt_their_partition(
        self, kafka_bootstrap: str
    ) -> None:
        """Given the first events of a partition deleted, it halts, alone; a checkpoint after makes up."""
        backend = KafkaBackend(kafka_bootstrap)
        cut = TopicPartition(f"{backend.namespace}.events", 0)

        async def scenario(log: KafkaLog, admin: KafkaAdminClient) -> None:
            await asyncio.to_thread(admin.delete_records, {cut: 4})
            found = await ailments_at_last(log)
            assert sorted(found) == [0]
            with pytest.raises(LogCorrupt, match=r"first 4 records.*last one: none"):
                raise found[0]
            await log.set_bookmark(0, 3)
            assert sorted(await log.check()) == [0]
            await log.set_bookmark(0, 4)
            assert await log.check() == {}

        under_an_open_log(backend, scenario)

    def test_a_tail_meets_a_partition_that_was_made_again(self, kafka_bootstrap: str) -> None:
        """Given a reader at the end of a partition, making it again fails the reader: it never goes on from nowhere."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario(log: KafkaLog, admin: KafkaAdminClient) -> None:
            async with aclosing(log.tail(Channel.EVENTS, 1, 0)) as tail:
                assert len(await anext(tail)) == 10
                await asyncio.to_thread(make_again, admin, f"{backend.namespace}.events")
                with pytest.raises(LogCorrupt, match="cut, expired or made again"):
                    await anext(tail)

        under_an_open_log(backend, scenario)


async def append_for_ever(log: KafkaLog) -> None:
    """The producer takes a moment to hear of a new topic."""
    while True:
        await log.append(Channel.EVENTS, 0, [ENTRY])
