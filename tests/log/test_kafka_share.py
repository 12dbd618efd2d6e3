"""How far a group of readers is behind, as the tools see it that operators have."""

import asyncio
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient

from kafka_backend import KafkaBackend
from log_backend import PATIENCE_S
from projection_samples import Tale, fill
from refold.log.protocol import Channel
from refold.projections.places import store_for
from refold.projections.runner import Runner, RunnerSettings


def test_what_a_projection_has_taken_in_is_committed_for_lag_tools(
    kafka_bootstrap: str, tmp_path: Any
) -> None:
    """Given a projection that has caught up and left, its consumer group stands at the ends of the events."""
    backend = KafkaBackend(kafka_bootstrap)

    async def scenario() -> tuple[str, dict[int, int]]:
        log = backend.log()
        await log.open()
        await fill(log, 20)
        store = store_for(Tale(), log, str(tmp_path))
        done, stop = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def caught_up() -> None:
            loop.call_soon_threadsafe(done.set)

        runner = Runner(
            log,
            store,
            RunnerSettings(group=lambda: store.group),
            caught_up=caught_up,
        )
        following = asyncio.create_task(runner.follow(stop))
        async with asyncio.timeout(PATIENCE_S):
            await done.wait()
        stop.set()
        await following
        ends = {p: (await log.bounds(Channel.EVENTS, p)).end for p in range(log.partitions)}
        await log.close()
        store.open()
        group = f"{backend.namespace}.{store.group}"
        store.close()
        return group, ends

    group, ends = asyncio.run(scenario())
    admin: Any = AdminClient({"bootstrap.servers": kafka_bootstrap})
    answers = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    places = answers[group].result(PATIENCE_S).topic_partitions
    assert {place.partition: place.offset for place in places} == ends
    assert {place.topic for place in places} == {f"{backend.namespace}.events"}
