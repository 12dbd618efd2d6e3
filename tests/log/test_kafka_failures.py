"""KafkaLog while brokers fail: nothing acknowledged is lost, nothing unknown is called known, and it goes on after."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource

from kafka_backend import TEST_SETTINGS, KafkaBackend
from kafka_broker import Broker, Cluster
from log_backend import Worker, opened, records_of
from refold.log.errors import (
    AppendUnknown,
    LogCorrupt,
    LogError,
    LogTrimmed,
    LogUnavailable,
    RecordTooLarge,
)
from refold.log.protocol import Channel, Entry, Log, Record

# Long enough for a loaded machine to acknowledge, short enough to wait for in a test.
IMPATIENT = replace(
    TEST_SETTINGS, request_timeout_ms=1_500, delivery_timeout_ms=4_000, connect_timeout_ms=1_500
)


def entries_of(*values: str) -> list[Entry]:
    return [Entry("k", value.encode()) for value in values]


def values_of(records: Sequence[Record]) -> list[str]:
    return [record.value.decode() for record in records]


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(scenario())


async def append_until_it_works(log: Log, partition: int, value: str) -> int:
    """The offset of the append that works at last: each refusal takes the log its own patience."""
    while True:
        try:
            (offset,) = await log.append(Channel.EVENTS, partition, entries_of(value))
        except (LogUnavailable, AppendUnknown):
            continue
        return offset


class TestBrokerGone:
    @pytest.mark.slow
    def test_acknowledged_records_survive_a_kill_under_load(self, kafka_broker: Broker) -> None:
        """(1, 2, 3) Given a broker killed under load, all that was acknowledged is there, the rest at most once."""
        backend = KafkaBackend(kafka_broker.bootstrap, settings=IMPATIENT)
        results: dict[int, Sequence[int] | LogError] = {}
        acknowledged = asyncio.Event

        async def append(log: Log, n: int, enough: asyncio.Event) -> None:
            try:
                results[n] = await log.append(Channel.EVENTS, n % 2, entries_of(f"{n}a", f"{n}b"))
            except (AppendUnknown, LogUnavailable) as error:
                results[n] = error
            if len(results) == 500:
                enough.set()

        async def scenario() -> None:
            async with opened(backend) as log:
                enough = acknowledged()
                tasks = [asyncio.create_task(append(log, n, enough)) for n in range(20_000)]
                await enough.wait()
                await asyncio.to_thread(kafka_broker.kill)
                await asyncio.gather(*tasks)
                await asyncio.to_thread(kafka_broker.start)
                for partition in (0, 1):
                    await append_until_it_works(log, partition, "after")
                for partition in (0, 1):
                    self.check(results, partition, await records_of(log, Channel.EVENTS, partition))

        run(scenario)
        kinds = {type(result) for result in results.values()}
        assert AppendUnknown in kinds
        assert kinds <= {AppendUnknown, LogUnavailable, list}

    @staticmethod
    def check(
        results: dict[int, Sequence[int] | LogError], partition: int, found: Sequence[Record]
    ) -> None:
        *before, after = values_of(found)
        assert after == "after"
        assert len(before) == len(set(before)), "a record was written twice"
        order = {f"{n}{half}": 2 * n + (half == "b") for n in results for half in "ab"}
        places = [order[value] for value in before]
        assert places == sorted(places), "the order of the calls is not the order of the log"
        there = set(before)
        for n in range(partition, len(results), 2):
            result = results[n]
            if isinstance(result, LogUnavailable):
                assert not {f"{n}a", f"{n}b"} & there, "nothing of it was written, it said"
            elif isinstance(result, LogError):
                assert f"{n}b" not in there or f"{n}a" in there, "not a prefix of the append"
            else:
                assert [found[offset].value.decode() for offset in result] == [f"{n}a", f"{n}b"]

    @pytest.mark.slow
    def test_without_a_broker_appends_are_refused_and_come_back(self, kafka_broker: Broker) -> None:
        """(3) Given a broker that is down, first the outcome is unknown, then nothing is written; it goes on after."""
        backend = KafkaBackend(kafka_broker.bootstrap, settings=IMPATIENT)

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 0, entries_of("before"))
                await asyncio.to_thread(kafka_broker.stop)
                with pytest.raises(AppendUnknown, match="read the log to know"):
                    await log.append(Channel.EVENTS, 0, entries_of("unknown"))
                with pytest.raises(LogUnavailable, match="check that a broker runs there"):
                    await log.append(Channel.EVENTS, 0, entries_of("refused"))
                with pytest.raises(LogUnavailable, match="check that a broker runs there"):
                    await records_of(log, Channel.EVENTS)
                await asyncio.to_thread(kafka_broker.start)
                await append_until_it_works(log, 0, "after")
                found = values_of(await records_of(log, Channel.EVENTS))
                assert [value for value in found if value != "unknown"] == ["before", "after"]

        run(scenario)

    @pytest.mark.slow
    def test_tails_and_members_live_through_a_restart(self, kafka_broker: Broker) -> None:
        """Given a tail and a worker, a broker that restarts costs them nothing: both go on where they were."""
        backend = KafkaBackend(kafka_broker.bootstrap, settings=IMPATIENT)

        async def scenario() -> None:
            async with (
                opened(backend) as log,
                aclosing(log.tail(Channel.EVENTS, 0, 0)) as tail,
            ):
                worker = Worker("one")
                membership = await worker.join(log)
                await worker.until(lambda: worker.owned == {0, 1})
                membership.follow(0, 0)
                await log.append(Channel.EVENTS, 0, entries_of("before"))
                assert values_of(await anext(tail)) == ["before"]
                await asyncio.to_thread(kafka_broker.restart)
                await append_until_it_works(log, 0, "after")
                tailed: list[Record] = []
                while "after" not in values_of(tailed):
                    tailed += await anext(tail)
                command = asyncio.create_task(self.command_until_it_works(log))
                await worker.until(lambda: bool(worker.values(0)))
                await command
                assert worker.values(0)[0] == b"do it"
                await worker.until(lambda: worker.owned == {0, 1})

        run(scenario)

    @staticmethod
    async def command_until_it_works(log: Log) -> None:
        while True:
            try:
                await log.append(Channel.COMMANDS, 0, entries_of("do it"))
            except (LogUnavailable, AppendUnknown):
                continue
            return

    @pytest.mark.slow
    def test_a_lost_leader_costs_nothing(self, kafka_cluster: Cluster) -> None:
        """(1) Given three brokers under load, killing one leader loses and repeats nothing."""
        backend = KafkaBackend(
            kafka_cluster.bootstrap, settings=replace(TEST_SETTINGS, delivery_timeout_ms=60_000)
        )

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 0, entries_of("first"))
                leader = await asyncio.to_thread(self.leader, kafka_cluster, backend)
                killing = asyncio.create_task(asyncio.to_thread(leader.kill))
                offsets: list[int] = [0]
                while not killing.done() or len(offsets) < 5_000:
                    calls = [log.append(Channel.EVENTS, 0, entries_of(str(n))) for n in range(100)]
                    offsets += [offset for (offset,) in await asyncio.gather(*calls)]
                await killing
                found = await records_of(log, Channel.EVENTS)
                assert offsets == list(range(len(found)))
                assert values_of(found)[1:] == [str(n % 100) for n in range(len(found) - 1)]

        run(scenario)

    @staticmethod
    def leader(cluster: Cluster, backend: KafkaBackend) -> Broker:
        admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap.split(","))
        try:
            (topic,) = admin.describe_topics([f"{backend.namespace}.events"])
            return cluster.broker(topic["partitions"][0]["leader_id"])
        finally:
            admin.close()


class TestProducerFatal:
    def test_a_refused_record_stops_no_other_append(self, kafka_bootstrap: str) -> None:
        """Given a topic whose limit was lowered under an open log, a large record is refused and small ones go on.

        The refusal makes kafka-python's producer fatal for all partitions; the log makes a new one.
        """
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 0, entries_of("a"))
                await asyncio.to_thread(self.lower_limit, backend, kafka_bootstrap)
                with pytest.raises(RecordTooLarge, match=r"max\.message\.bytes"):
                    await self.append_large_for_ever(log, 0)
                # It has learnt: what is too large is refused before it costs a producer.
                assert log.max_record_bytes < 20_000
                with pytest.raises(RecordTooLarge, match="nothing was appended"):
                    await log.append(Channel.EVENTS, 0, [Entry("k", b"x" * 50_000)])
                for n in range(20):
                    await log.append(Channel.EVENTS, n % 2, entries_of(str(n)))
                found = values_of(await records_of(log, Channel.EVENTS, 1))
                assert found == [str(n) for n in range(1, 20, 2)]

        run(scenario)

    def test_appends_behind_an_unknown_one_fail_as_well(self, kafka_bootstrap: str) -> None:
        """(2) Given a batch that fails, those made after it for the partition fail, and none overtakes it."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario() -> None:
            async with opened(backend, queue_entries=8) as log, opened(backend) as probe:
                await log.append(Channel.EVENTS, 0, entries_of("a"))
                await asyncio.to_thread(self.lower_limit, backend, kafka_bootstrap)
                with pytest.raises(RecordTooLarge):
                    await self.append_large_for_ever(probe, 1)
                large = Entry("k", b"x" * 50_000)
                calls = [
                    log.append(Channel.EVENTS, 0, [large, large]),
                    *(log.append(Channel.EVENTS, 0, entries_of(f"behind {n}")) for n in range(30)),
                ]
                results = await asyncio.gather(*calls, return_exceptions=True)
                assert all(isinstance(result, LogError) for result in results)
                await log.append(Channel.EVENTS, 0, entries_of("after"))
                assert values_of(await records_of(log, Channel.EVENTS)) == ["a", "after"]

        run(scenario)

    def test_a_refused_records_neighbours_learn_their_own_fate(self, kafka_bootstrap: str) -> None:
        """(3) Given small and refused records in one request, no append that says `nothing written` wrote anything."""
        backend = KafkaBackend(kafka_bootstrap)
        large = Entry("k", b"x" * 50_000)
        batches = [
            entries_of("0a", "0b"),
            entries_of("1a"),
            [*entries_of("2a"), large],
            entries_of("3a"),
            [large],
            entries_of("5a"),
        ]

        async def scenario() -> None:
            async with opened(backend) as log, opened(backend) as probe:
                await log.append(Channel.EVENTS, 0, entries_of("first"))
                await asyncio.to_thread(self.lower_limit, backend, kafka_bootstrap)
                with pytest.raises(RecordTooLarge):
                    await self.append_large_for_ever(probe, 1)
                calls = [log.append(Channel.EVENTS, 0, batch) for batch in batches]
                results = await asyncio.gather(*calls, return_exceptions=True)
                found = [record.value for record in await records_of(log, Channel.EVENTS)]
                written = [entry.value for batch in batches for entry in batch]
                assert found == [b"first", *written][: len(found)]
                assert large.value not in found
                for batch, result in zip(batches, results, strict=True):
                    there = [entry.value for entry in batch if entry.value in found]
                    if isinstance(result, RecordTooLarge | LogUnavailable):
                        assert there == []
                    elif not isinstance(result, BaseException):
                        assert there == [entry.value for entry in batch]
                assert any(isinstance(result, LogError) for result in results)

        run(scenario)

    @staticmethod
    async def append_large_for_ever(log: Log, partition: int) -> None:
        """The broker takes a moment to hold what the admin told it."""
        while True:
            await log.append(Channel.EVENTS, partition, [Entry("k", b"x" * 50_000)])

    @staticmethod
    def lower_limit(backend: KafkaBackend, bootstrap: str) -> None:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","))
        try:
            limit = {"max.message.bytes": "20000"}
            admin.alter_configs([ConfigResource("TOPIC", f"{backend.namespace}.events", limit)])
        finally:
            admin.close()

    def test_a_lower_limit_at_open_is_heeded(self, kafka_bootstrap: str) -> None:
        """(3) Given topics that take less than the settings, the log's own limit is theirs, before any send."""
        backend = KafkaBackend(kafka_bootstrap)
        self.lower_limit(backend, kafka_bootstrap)

        async def scenario() -> None:
            async with opened(backend) as log:
                assert log.max_record_bytes < 20_000
                with pytest.raises(RecordTooLarge, match="nothing was appended"):
                    await log.append(Channel.EVENTS, 0, [Entry("k", b"x" * 20_000)])
                entries = [Entry("k", b"x" * 5_000)] * 40
                assert list(await log.append(Channel.EVENTS, 0, entries)) == list(range(40))

        run(scenario)


class TestTruncated:
    def test_reading_what_was_cut_off_is_an_error(self, kafka_bootstrap: str) -> None:
        """Given a partition whose first records somebody deleted, reading and tailing from them say so."""
        backend = KafkaBackend(kafka_bootstrap)
        cut = TopicPartition(f"{backend.namespace}.events", 0)

        def cut_off() -> None:
            admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap.split(","))
            try:
                admin.delete_records({cut: 2})
            finally:
                admin.close()

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 0, entries_of("a", "b", "c"))
                await asyncio.to_thread(cut_off)
                assert (await log.bounds(Channel.EVENTS, 0)).start == 2
                with pytest.raises(LogTrimmed, match="before offset 2 was trimmed"):
                    await records_of(log, Channel.EVENTS)
                async with aclosing(log.tail(Channel.EVENTS, 0, 0)) as tail:
                    with pytest.raises(LogTrimmed, match="before offset 2 was trimmed"):
                        await anext(tail)
                assert values_of(await records_of(log, Channel.EVENTS, start=2)) == ["c"]

        run(scenario)

    def test_one_partition_cut_off_leaves_the_others_tailed(self, kafka_bootstrap: str) -> None:
        """Given tails of two partitions, one that begins beyond its end fails, and the other goes on."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario() -> None:
            async with (
                opened(backend) as log,
                aclosing(log.tail(Channel.EVENTS, 1, 0)) as good,
                aclosing(log.tail(Channel.EVENTS, 0, 1_000)) as bad,
            ):
                await log.append(Channel.EVENTS, 1, entries_of("a"))
                assert values_of(await anext(good)) == ["a"]
                with pytest.raises(LogCorrupt, match="events/0"):
                    await anext(bad)
                await log.append(Channel.EVENTS, 1, entries_of("b"))
                assert values_of(await anext(good)) == ["b"]

        run(scenario)
