"""Compressed topics: what is written comes back, from whichever process reads it."""

import asyncio
from dataclasses import replace

import pytest
from kafka import KafkaAdminClient

from kafka_backend import TEST_SETTINGS, KafkaBackend
from log_backend import PATIENCE_S, opened, records_of
from refold.log.kafka_settings import COMPRESSIONS
from refold.log.protocol import Channel, Entry

# A megabyte in all, of what compresses well: a batch that is far smaller on its way than in memory.
VALUES = [f"{number}:{'refold ' * 14_000}".encode() for number in range(10)]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_is_written_compressed_is_read_by_everybody(
    kafka_bootstrap: str, compression: str
) -> None:
    """Given each kind of compression, a reader that is not told of it gets the same bytes, scanning and tailing."""
    writing = KafkaBackend(kafka_bootstrap, 1, replace(TEST_SETTINGS, compression=compression))

    async def scenario() -> None:
        async with opened(writing) as log:
            await log.append(Channel.EVENTS, 0, [Entry("k", value) for value in VALUES])
        reader = writing.kafka_log(TEST_SETTINGS)
        async with asyncio.timeout(PATIENCE_S):
            await reader.open()
            try:
                assert [one.value for one in await records_of(reader, Channel.EVENTS)] == VALUES
                tailed: list[bytes] = []
                async for batch in reader.tail(Channel.EVENTS, 0, 0):
                    tailed += [record.value for record in batch]
                    if len(tailed) == len(VALUES):
                        break
                assert tailed == VALUES
            finally:
                await reader.close()

    asyncio.run(scenario())
    assert (bytes_on_disk(writing) < sum(map(len, VALUES)) // 10) == (compression != "none")


def bytes_on_disk(backend: KafkaBackend) -> int:
    """What the broker has of the events, in bytes."""
    admin = KafkaAdminClient(bootstrap_servers=backend.servers)
    try:
        described = admin.describe_log_dirs({f"{backend.namespace}.events": [0]})
    finally:
        admin.close()
    return max(
        int(partition["partition_size"])
        for broker in described
        for directory in broker["log_dirs"]
        for topic in directory["topics"]
        for partition in topic["partitions"]
    )
