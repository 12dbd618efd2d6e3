"""How far workers are behind, as the tools see it that operators have: the offsets of an ordinary consumer group."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from kafka_backend import TEST_SETTINGS, KafkaBackend
from log_backend import PATIENCE_S
from refold import Engine, workflow
from refold.log.protocol import Channel


@workflow
async def passing(n: int) -> int:
    """Ends at once."""
    return n


class Place(Protocol):
    """What librdkafka says of a partition."""

    topic: str
    partition: int
    offset: int


def committed(backend: KafkaBackend) -> dict[int, int]:
    """What the group has committed on commands, by partition, as librdkafka's admin client gives it."""
    admin: Any = AdminClient({"bootstrap.servers": ",".join(backend.servers)})
    group = f"{backend.namespace}.workers"
    answers = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    places: Sequence[Place] = answers[group].result(PATIENCE_S).topic_partitions
    assert {place.topic for place in places} <= {f"{backend.namespace}.commands"}
    return {place.partition: place.offset for place in places}


async def ends_of(backend: KafkaBackend) -> dict[int, int]:
    log = backend.log()
    await log.open()
    try:
        return {p: (await log.bounds(Channel.COMMANDS, p)).end for p in range(log.partitions)}
    finally:
        await log.close()


def test_lag_is_what_nobody_has_worked_through(kafka_bootstrap: str) -> None:
    """Given a worker that has caught up, the lag is 0; given commands after it has left, it is their number."""
    backend = KafkaBackend(kafka_bootstrap)
    with Engine(
        backend.kafka_log(TEST_SETTINGS), workflows=[passing], start_timeout_s=PATIENCE_S
    ) as engine:
        for handle in [engine.start(passing, n) for n in range(20)]:
            handle.result(PATIENCE_S)
        while committed(backend) != asyncio.run(ends_of(backend)):
            pass  # it is committed a second later at the latest
    assert sum(committed(backend).values()) >= 20
    before = asyncio.run(ends_of(backend))
    with Engine(backend.kafka_log(TEST_SETTINGS), worker=False) as client:
        for n in range(7):
            client.start(passing, 100 + n, confirm=False)
    lag = {p: end - committed(backend)[p] for p, end in asyncio.run(ends_of(backend)).items()}
    assert sum(lag.values()) == 7
    assert before == committed(backend)
