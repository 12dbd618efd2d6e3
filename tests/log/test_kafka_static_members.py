"""Static members of the group: back in time they have their partitions again, and nobody else was disturbed."""

import asyncio
from dataclasses import replace

import pytest

from kafka_backend import TEST_SETTINGS, KafkaBackend
from log_backend import PATIENCE_S, Worker
from refold.log.kafka import KafkaLog
from refold.log.kafka_client import Clients
from refold.log.kafka_settings import Topics


class Member:
    """A worker with a name that lasts, and its log."""

    def __init__(self, backend: KafkaBackend, instance: str) -> None:
        settings = replace(TEST_SETTINGS, group_instance_id=instance)
        self.log: KafkaLog = backend.kafka_log(settings)
        self.worker = Worker(instance)

    async def join(self) -> Worker:
        await self.log.open()
        await self.worker.join(self.log)
        return self.worker


def members_of(backend: KafkaBackend) -> set[str]:
    """The instances that the group has, as its coordinator says."""
    group = Topics(backend.namespace).group()
    with Clients(backend.servers, TEST_SETTINGS).session("asking for the group") as admin:
        described = admin.describe_groups([group])[group]
    return {str(member["group_instance_id"]) for member in described["members"]}


def test_a_worker_that_comes_back_in_time_has_its_partitions_again(kafka_bootstrap: str) -> None:
    """Given two static members, one of them stops and starts again: the group has never changed."""
    backend = KafkaBackend(kafka_bootstrap, partitions=4)

    async def scenario() -> None:
        first, second = Member(backend, "one"), Member(backend, "two")
        async with asyncio.timeout(PATIENCE_S):
            one = await first.join()
            two = await second.join()
            await two.until(lambda: len(two.owned) == 2)
            await one.until(lambda: len(one.owned) == 2)
            had, others = set(one.owned), set(two.owned)
            await first.log.close()
            there = await asyncio.to_thread(members_of, backend)
            assert there == {"one", "two"}  # it did not leave
            again = Member(backend, "one")
            back = await again.join()
            await back.until(lambda: back.owned == had)
            assert two.owned == others
            assert two.revocations == []
            await again.log.close()
            await second.log.close()

    asyncio.run(scenario())


def test_of_two_with_one_name_the_older_one_gives_up(
    kafka_bootstrap: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a second worker with the same id, the first loses its partitions and says why."""
    backend = KafkaBackend(kafka_bootstrap, partitions=2)

    async def scenario() -> None:
        older, newer = Member(backend, "same"), Member(backend, "same")
        async with asyncio.timeout(PATIENCE_S):
            first = await older.join()
            await first.until(lambda: len(first.owned) == 2)
            second = await newer.join()
            await second.until(lambda: len(second.owned) == 2)
            await first.until(lambda: not first.owned)
            await newer.log.close()
            await older.log.close()

    asyncio.run(scenario())
    assert "another worker has this group_instance_id" in caplog.text
