"""Deleting records from a partition's beginning: Kafka's DeleteRecords, which moves its log start offset."""

import time
from typing import Final

from refold.log.errors import LogUnavailable
from refold.log.kafka_client import Clients, topic_partition

_LOOK_AGAIN_S: Final = 0.05


def delete_before(clients: Clients, topic: str, partition: int, before: int) -> None:
    """Delete a partition's records before an offset, and wait until nobody is given them any more. Blocks.

    The broker frees whole segments of the partition, within `log.retention.check.interval.ms` (5 minutes).

    Raises:
        LogUnavailable: No broker answers, or this user may not delete. They may be deleted later.
    """
    place = topic_partition(topic, partition)
    timeout_ms = clients.settings.delivery_timeout_ms
    doing = f"deleting records of {topic}/{partition} before offset {before}"
    with clients.session(doing) as admin:
        admin.delete_records({place: before}, timeout_ms=timeout_ms)
    give_up_at = time.monotonic() + timeout_ms / 1000
    consumer = clients.reader(f"{clients.settings.client_id}-trim", [topic])
    try:
        with clients.errors(doing):
            while consumer.beginning_offsets([place], timeout_ms=timeout_ms)[place] < before:
                if time.monotonic() > give_up_at:
                    raise LogUnavailable(
                        f"{doing}: the brokers took the order, and {timeout_ms / 1000:g} s later they still give out"
                        " what is before; trim it again"
                    )
                time.sleep(_LOOK_AGAIN_S)
    finally:
        consumer.close(autocommit=False, timeout_ms=1_000)
