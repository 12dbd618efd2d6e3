"""Whether the topics under an open log are still those that it was opened on, and still keep everything.

A topic that is deleted and made again, cut, or set to expire says nothing to those who use it. This asks: a few cheap
requests, made by workers now and then (`log/health.py`).
"""

from collections.abc import Mapping

from refold.log.errors import LogCorrupt, LogError, LogMismatch
from refold.log.kafka_client import Clients, topic_partition
from refold.log.kafka_settings import Topics
from refold.log.kafka_topics import NamespaceRecord, check, described, inspect
from refold.log.protocol import Channel


def ailment(clients: Clients, topics: Topics, recorded: NamespaceRecord) -> LogMismatch | None:
    """Why the namespace must not be gone on with, and what to do; None where nothing speaks against it. Blocks.

    Args:
        clients: What makes clients.
        topics: The namespace's topics.
        recorded: What was recorded when the namespace was made.

    Raises:
        LogUnavailable: No broker answers, so nothing is known.
    """
    with clients.session(f"checking the namespace {topics.namespace}") as admin:
        found = described(admin, topics)
        try:
            check(topics, recorded, found, ignoring=clients.settings.ignore_added_partitions)
        except LogMismatch as error:
            return error
        return inspect(admin, topics, found).refusal


def message_bytes_max(clients: Clients, topics: Topics) -> int:
    """Largest batch that every topic takes now, as far as this user may know. Blocks.

    Raises:
        LogUnavailable: No broker answers.
    """
    with clients.session(f"asking for the limits of {topics.namespace}") as admin:
        return inspect(admin, topics, described(admin, topics)).message_bytes_max


def cut_off(clients: Clients, topics: Topics, bookmarks: Mapping[int, int]) -> dict[int, LogError]:
    """Partitions whose beginning is gone, where their last checkpoint does not make up for it. Blocks.

    Args:
        clients: What makes clients.
        topics: The namespace's topics.
        bookmarks: Where each partition's last checkpoint is, 0 where there is none.

    Raises:
        LogUnavailable: No broker answers, so nothing is known.
    """
    topic = topics.of(Channel.EVENTS)
    places = {partition: topic_partition(topic, partition) for partition in bookmarks}
    consumer = clients.reader(f"{clients.settings.client_id}-watch", [topic])
    try:
        with clients.errors(f"asking where {topic} begins"):
            starts = consumer.beginning_offsets(
                list(places.values()), timeout_ms=clients.settings.delivery_timeout_ms
            )
    finally:
        consumer.close(autocommit=False, timeout_ms=1_000)
    cut: dict[int, LogError] = {}
    for partition, place in places.items():
        start, bookmark = starts[place], bookmarks[partition]
        if start > bookmark:
            cut[partition] = LogCorrupt(
                f"the first {start} records of {topic}/{partition} were deleted, and no checkpoint stands after them"
                f" (last one: {bookmark or 'none'}): what is open there could not be taken up"
                " again. Restore the topic from a backup, or begin a new namespace; find out who may delete records"
            )
    return cut
