"""KafkaLog: a namespace as topics on a Kafka cluster, for production.

`<namespace>.events`, `.commands` and `.replies` carry the three channels, `.meta` says what the namespace is. Who may
write where can be said with ACLs: clients need to write commands and read replies, only workers write events and meta.

What runs where: the event loop that opened the log calls everything here and is called back. kafka-python blocks, so
each of its clients has threads: the producer one (kafka_append), each read of history one while it runs (kafka_scan),
all tails and listeners together two (kafka_feed), a membership two (kafka_member).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from refold.log.errors import LogUnavailable, UsageError
from refold.log.kafka_append import Appender
from refold.log.kafka_bookmarks import Bookmarks
from refold.log.kafka_client import Clients
from refold.log.kafka_member import KafkaMembership
from refold.log.kafka_scan import Readers
from refold.log.kafka_settings import KafkaSettings, Topics, check_bootstrap, check_namespace
from refold.log.kafka_tail import Tails
from refold.log.kafka_topics import create_topics, require
from refold.log.partitioner import partition_of
from refold.log.protocol import Bounds, Channel, Entry, Listener, Membership, Record

__all__ = ["KafkaLog", "KafkaSettings", "create_topics"]

logger = logging.getLogger(__name__)

# What a batch's own header takes from the topic's max.message.bytes, with room to spare.
_BATCH_OVERHEAD_BYTES = 4 * 1024


class KafkaLog:
    """A `Log` on Kafka. `create_topics` makes the namespace first.

    Args:
        bootstrap: Addresses of brokers, host:port.
        namespace: Name that the topics begin with.
        settings: See there.

    Raises:
        UsageError: The addresses or the name can't be.
    """

    def __init__(
        self,
        bootstrap: Sequence[str],
        namespace: str,
        settings: KafkaSettings = KafkaSettings(),  # noqa: B008  # frozen
    ) -> None:
        check_namespace(namespace)
        self._topics = Topics(namespace)
        self._clients = Clients(check_bootstrap(bootstrap), settings)
        self._max_record_bytes = settings.max_record_bytes
        self._partitions = 0
        self._parts: _Parts | None = None
        self._closed = False

    @property
    def namespace(self) -> str:
        """Name of the namespace."""
        return self._topics.namespace

    @property
    def partitions(self) -> int:
        """Number of partitions; 0 before `open`."""
        return self._partitions

    @property
    def max_record_bytes(self) -> int:
        """Largest key + value + headers, in bytes; less than set where the topics take less."""
        return self._max_record_bytes

    async def open(self) -> None:
        """Connect and check that the topics are those that were made.

        Raises:
            LogUnavailable: No broker answers.
            TopicsMissing: The namespace was never made.
            LogMismatch: Topics or partition counts are not those recorded, or of a newer format.
        """
        if self._parts is not None or self._closed:
            raise UsageError(f"the log of {self.namespace} was opened before: make a new one")
        recorded, safety = await asyncio.to_thread(require, self._clients, self._topics)
        for warning in safety.warnings:
            logger.warning("%s", warning)
        settings = self._clients.settings
        room = safety.message_bytes_max - _BATCH_OVERHEAD_BYTES
        self._partitions = recorded.partitions
        self._max_record_bytes = min(settings.max_record_bytes, room)
        parts = _Parts(
            self._clients,
            self._topics,
            max_record_bytes=self._max_record_bytes,
            max_batch_bytes=min(settings.max_batch_bytes, room),
        )
        try:
            await parts.open()
        except BaseException:
            await parts.close()
            raise
        self._parts = parts

    async def close(self) -> None:
        """Wait for appends in flight, leave the group, stop all threads."""
        self._closed = True
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.close()

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """See `Log.append`."""
        parts, topic = self._opened(channel, partition)
        return await parts.appender.append(topic, partition, entries)

    async def read(
        self,
        channel: Channel,
        partition: int,
        start: int,
        stop: int | None = None,
        *,
        key: str | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """See `Log.read`. With `key`, the whole range still comes over the network: Kafka has no index on keys."""
        parts, topic = self._opened(channel, partition)
        async with aclosing(parts.readers.read(topic, partition, start, stop)) as batches:
            async for batch in batches:
                if key is None:
                    yield batch
                elif wanted := [record for record in batch if record.key in {key, None}]:
                    yield wanted

    async def tail(
        self, channel: Channel, partition: int, start: int
    ) -> AsyncGenerator[Sequence[Record], None]:
        """See `Log.tail`. Waits also while brokers are away.

        Raises:
            LogCorrupt: `start` is not in the log, or what follows is damaged or was cut off.
            LogUnavailable: The log was closed meanwhile.
        """
        parts, topic = self._opened(channel, partition)
        async with aclosing(parts.tails.tail(topic, partition, start)) as batches:
            async for batch in batches:
                yield batch

    async def bounds(self, channel: Channel, partition: int) -> Bounds:
        """See `Log.bounds`."""
        parts, topic = self._opened(channel, partition)
        return await parts.readers.bounds(topic, partition)

    async def bookmark(self, partition: int) -> int | None:
        """See `Log.bookmark`."""
        parts, _ = self._opened(Channel.EVENTS, partition)
        return await parts.bookmarks.get(partition)

    async def set_bookmark(self, partition: int, offset: int) -> None:
        """See `Log.set_bookmark`."""
        parts, _ = self._opened(Channel.EVENTS, partition)
        await parts.bookmarks.set(partition, offset)

    async def join(self, worker: str, listener: Listener) -> Membership:
        """See `Log.join`: the group `<namespace>.workers`."""
        parts, _ = self._opened(Channel.COMMANDS, 0)
        membership = KafkaMembership(self._clients, self._topics, worker, listener)
        await membership.open()
        parts.memberships.append(membership)
        return membership

    async def listen(self, client_id: str, deliver: Callable[[Sequence[Record]], None]) -> None:
        """See `Log.listen`."""
        partition = partition_of(client_id, self._partitions or 1)
        parts, topic = self._opened(Channel.REPLIES, partition)
        await parts.tails.listen(topic, partition, client_id, deliver)

    def _opened(self, channel: Channel, partition: int) -> "tuple[_Parts, str]":
        """What an open log has, and the channel's topic."""
        if self._parts is None:
            told = "is closed: make and open a new one" if self._closed else "is not open yet"
            raise LogUnavailable(f"the log of {self.namespace} {told}")
        if not 0 <= partition < self._partitions:
            raise UsageError(
                f"{self.namespace} has no partition {partition}: it has {self._partitions}, from 0 on"
            )
        return self._parts, self._topics.of(channel)


class _Parts:
    """What an open log consists of. Made on the event loop that will use it."""

    def __init__(
        self, clients: Clients, topics: Topics, *, max_record_bytes: int, max_batch_bytes: int
    ) -> None:
        self._topics = topics
        self.readers = Readers(clients)
        self.tails = Tails(clients, self.readers, [topics.of(channel) for channel in Channel])
        self.appender = Appender(
            clients,
            topics.all(),
            max_record_bytes=max_record_bytes,
            max_batch_bytes=max_batch_bytes,
        )
        self.bookmarks = Bookmarks(topics.meta, self.readers, self.appender)
        self.memberships: list[KafkaMembership] = []

    async def open(self) -> None:
        await asyncio.gather(self.appender.open(), self.readers.open(self._topics.all()))

    async def close(self) -> None:
        await self.appender.close()
        await asyncio.gather(*(membership.leave() for membership in self.memberships))
        await self.tails.close()
        await self.readers.close()
