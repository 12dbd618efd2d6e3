"""A namespace of its own on a real Kafka broker, for the contract suite and the tests of KafkaLog."""

import asyncio
import uuid
from dataclasses import replace

from refold.log.kafka import KafkaLog, KafkaSettings, create_topics
from refold.log.protocol import Log

TEST_SETTINGS = KafkaSettings(
    connect_timeout_ms=5_000, request_timeout_ms=5_000, delivery_timeout_ms=15_000
)
"""A test need not wait for a broker as long as production does."""


class KafkaBackend:
    """A fresh namespace on a broker that other tests use as well.

    Args:
        bootstrap: Addresses of brokers, comma-separated.
        partitions: How many the namespace has.
        settings: How its logs use Kafka.
        pools: Each pool of workflows with the number of its own partitions.
    """

    name = "kafka"

    def __init__(
        self,
        bootstrap: str,
        partitions: int = 2,
        settings: KafkaSettings = TEST_SETTINGS,
        pools: tuple[tuple[str, int], ...] = (),
    ) -> None:
        self.servers = bootstrap.split(",")
        self.namespace = f"test-{uuid.uuid4().hex[:12]}"
        self.settings = settings
        patient = replace(
            settings,
            request_timeout_ms=max(settings.request_timeout_ms, TEST_SETTINGS.request_timeout_ms),
            delivery_timeout_ms=max(
                settings.delivery_timeout_ms, TEST_SETTINGS.delivery_timeout_ms
            ),
        )
        asyncio.run(create_topics(self.servers, self.namespace, partitions, None, patient, pools))

    def log(self, *, queue_entries: int | None = None) -> Log:
        """A log over the same topics."""
        return self.kafka_log(
            self.settings
            if queue_entries is None
            else replace(self.settings, queue_entries=queue_entries)
        )

    def kafka_log(self, settings: KafkaSettings) -> KafkaLog:
        """A log over the same topics, with other settings."""
        return KafkaLog(self.servers, self.namespace, settings)
