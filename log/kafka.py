"""KafkaLog: a namespace as topics on a Kafka cluster, for production.

`<namespace>.events`, `.commands` and `.replies` carry the three channels, `.meta` says what the namespace is. Who may
write where can be said with ACLs: clients need to write commands and read replies, only workers write events and meta.

What runs where: the event loop that opened the log calls everything here and is called back. kafka-python blocks, so
each of its clients has threads: the producer one (kafka_append), each read of history one while it runs (kafka_scan),
all tails and listeners together two (kafka_feed), a membership two (kafka_member).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing

from refold.log.blob_urls import open_blobs
from refold.log.blobs import BlobStore
from refold.log.errors import (
    AppendUnknown,
    LogCorrupt,
    LogError,
    LogUnavailable,
    RecordTooLarge,
    UsageError,
)
from refold.log.findings import Examination
from refold.log.kafka_acls import Role
from refold.log.kafka_append import Appender
from refold.log.kafka_bookmarks import Bookmarks
from refold.log.kafka_client import Clients, is_too_large
from refold.log.kafka_doctor import examine
from refold.log.kafka_member import KafkaMembership
from refold.log.kafka_rights import require_rights
from refold.log.kafka_scan import Readers
from refold.log.kafka_schemas import frames_of, read_notes
from refold.log.kafka_settings import KafkaSettings, Topics, check_bootstrap, check_namespace
from refold.log.kafka_share import KafkaShare
from refold.log.kafka_tail import Tails
from refold.log.kafka_topics import NamespaceRecord, create_topics, require
from refold.log.kafka_trim import delete_before
from refold.log.kafka_watch import ailment, cut_off, message_bytes_max
from refold.log.key_urls import open_keys
from refold.log.layout import Layout
from refold.log.partitioner import partition_of
from refold.log.protocol import (
    Bounds,
    Channel,
    Entry,
    Listener,
    Membership,
    Record,
    Share,
    ShareListener,
    check_group,
)
from refold.log.schema_frames import Frames
from refold.log.schema_ids import Published
from refold.log.schema_registry import SchemaRegistry, registry_at
from refold.log.trimmed import check_trim, trimmed

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
        registry: Gives the numbers of schemas, in place of the one that the settings name. The caller closes it.
        blobs: Where large payloads are kept, in place of the store that the settings name.

    Raises:
        UsageError: The addresses, the name, the registry or the blob store can't be.
    """

    def __init__(
        self,
        bootstrap: Sequence[str],
        namespace: str,
        settings: KafkaSettings = KafkaSettings(),  # noqa: B008  # frozen
        registry: SchemaRegistry | None = None,
        blobs: BlobStore | None = None,
    ) -> None:
        check_namespace(namespace)
        if blobs is None and settings.blobs is not None:
            blobs = open_blobs(settings.blobs, namespace)
        self._blobs = blobs
        self.keys = None if settings.keys is None else open_keys(settings.keys)
        self._topics = Topics(namespace)
        self._clients = Clients(check_bootstrap(bootstrap), settings)
        # What is read of the meta topic has no frames, and must not ask for them.
        self._asking = Clients(self._clients.bootstrap, settings)
        self._max_record_bytes = settings.max_record_bytes
        self._registry, self._own_registry = registry, None
        if registry is None and settings.schema_registry is not None:
            self._registry = self._own_registry = registry_at(settings.schema_registry)
        self._layout = Layout(0)
        self._recorded: NamespaceRecord | None = None
        self._parts: _Parts | None = None
        self._closed = False

    @property
    def namespace(self) -> str:
        """Name of the namespace."""
        return self._topics.namespace

    @property
    def blobs(self) -> BlobStore | None:
        """Where large payloads are kept; None where no store was given."""
        return self._blobs

    @property
    def identity(self) -> str:
        """A name that no other namespace has, for archives: the id of its topic of events. Known after `open`."""
        recorded = self._recorded
        return (
            "" if recorded is None else recorded.topic_ids.get(self._topics.of(Channel.EVENTS), "")
        )

    @property
    def partitions(self) -> int:
        """Number of partitions; 0 before `open`."""
        return self._layout.partitions

    @property
    def layout(self) -> Layout:
        """What the partitions are for; none are known before `open`."""
        return self._layout

    @property
    def max_record_bytes(self) -> int:
        """Largest key + value + headers, in bytes; less than set where the topics take less."""
        return self._max_record_bytes

    async def open(self) -> None:
        """Connect and check that the topics are those that were made.

        Raises:
            LogUnavailable: No broker answers, or the schema registry does not.
            TopicsMissing: The namespace was never made.
            LogMismatch: Topics or partition counts are not those recorded, or of a newer format; or the schema
                registry refuses refold's schemas, or is another than the one that gave the log its numbers.
        """
        if self._parts is not None or self._closed:
            raise UsageError(f"the log of {self.namespace} was opened before: make a new one")
        recorded, safety = await asyncio.to_thread(require, self._clients, self._topics)
        for warning in safety.warnings:
            logger.warning("%s", warning)
        settings = self._clients.settings
        frames = await asyncio.to_thread(frames_of, self._asking, self._topics, self._registry)
        self._clients.frames = frames
        room = safety.message_bytes_max - _BATCH_OVERHEAD_BYTES
        self._layout = recorded.layout
        self._recorded = recorded
        self._max_record_bytes = min(settings.max_record_bytes, room)
        parts = _Parts(
            self._clients,
            self._topics,
            frames,
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
        registry, self._own_registry = self._own_registry, None
        if registry is not None:
            registry.close()

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
        try:
            return await parts.appender.append(topic, partition, parts.frames.outgoing(entries))
        except (RecordTooLarge, AppendUnknown) as error:
            if isinstance(error.__cause__, Exception) and is_too_large(error.__cause__):
                await self._heed_limit(parts)
            raise

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
        try:
            async with aclosing(parts.readers.read(topic, partition, start, stop, key)) as batches:
                async for batch in batches:
                    yield batch
        except LogCorrupt as error:
            raise await self._of_gone(error, channel, partition, start) from error

    async def tail(
        self, channel: Channel, partition: int, start: int
    ) -> AsyncGenerator[Sequence[Record], None]:
        """See `Log.tail`. Waits also while brokers are away.

        Raises:
            LogCorrupt: `start` is not in the log, or what follows is damaged or was cut off.
            LogUnavailable: The log was closed meanwhile.
        """
        parts, topic = self._opened(channel, partition)
        try:
            async with aclosing(parts.tails.tail(topic, partition, start)) as batches:
                async for batch in batches:
                    yield batch
        except LogCorrupt as error:
            raise await self._of_gone(error, channel, partition, start) from error

    async def bounds(self, channel: Channel, partition: int) -> Bounds:
        """See `Log.bounds`."""
        parts, topic = self._opened(channel, partition)
        return await parts.readers.bounds(topic, partition)

    async def offset_at(self, channel: Channel, partition: int, time: int) -> int:
        """See `Log.offset_at`. Brokers count in milliseconds."""
        parts, topic = self._opened(channel, partition)
        return await parts.readers.offset_at(topic, partition, max(0, -(-time // 1000)))

    async def trim(self, channel: Channel, partition: int, before: int) -> None:
        """See `Log.trim`. Its user needs DELETE on the topic."""
        parts, topic = self._opened(channel, partition)
        bounds = await parts.readers.bounds(topic, partition)
        check_trim(self.namespace, channel, partition, before, bounds)
        if before > bounds.start:
            await asyncio.to_thread(delete_before, self._clients, topic, partition, before)

    async def bookmark(self, partition: int) -> int | None:
        """See `Log.bookmark`."""
        parts, _ = self._opened(Channel.EVENTS, partition)
        return await parts.bookmarks.get(partition)

    async def set_bookmark(self, partition: int, offset: int) -> None:
        """See `Log.set_bookmark`."""
        parts, _ = self._opened(Channel.EVENTS, partition)
        await parts.bookmarks.set(partition, offset)

    async def _heed_limit(self, parts: "_Parts") -> None:
        """A broker refused a record for its size, so the topics take less than at `open`: stay below that from now on.

        Each such refusal costs all partitions their producer; what is refused here costs nobody anything.
        """
        try:
            largest = await asyncio.to_thread(message_bytes_max, self._asking, self._topics)
        except LogError as error:
            logger.warning("the topics' new limit is not known yet: %s", error)
            return
        room = largest - _BATCH_OVERHEAD_BYTES
        settings = self._clients.settings
        self._max_record_bytes = min(settings.max_record_bytes, room)
        parts.appender.limit(self._max_record_bytes, min(settings.max_batch_bytes, room))

    async def check(self) -> Mapping[int, LogError]:
        """See `Checked.check`: the same topics, with the same partitions, nothing cut off, nothing set to expire."""
        parts, _ = self._opened(Channel.EVENTS, 0)
        assert self._recorded is not None
        clients, topics, recorded = self._asking, self._topics, self._recorded
        error = await asyncio.to_thread(ailment, clients, topics, recorded)
        if error is not None:
            return dict.fromkeys(range(self.partitions), error)
        known = await parts.bookmarks.known()
        bookmarks = {partition: known.get(partition, 0) for partition in range(self.partitions)}
        return await asyncio.to_thread(cut_off, clients, topics, bookmarks)

    async def examine(self) -> Examination:
        """See `Examined.examine`."""
        return await asyncio.to_thread(examine, self._asking, self._topics)

    async def join(self, worker: str, listener: Listener, pool: str | None = None) -> Membership:
        """See `Log.join`: the group `<namespace>.workers`, and for a pool the one with `.POOL` after it.

        Raises:
            LogUnavailable: No broker answers, or this user may not do what a worker does.
        """
        parts, _ = self._opened(Channel.COMMANDS, 0)
        await asyncio.to_thread(require_rights, self._clients, Role.WORKER, self._topics, pool=pool)
        membership = KafkaMembership(
            self._clients, self._topics, worker, listener, layout=self.layout, pool=pool
        )
        await membership.open()
        parts.memberships.append(membership)
        return membership

    async def share(self, group: str, reader: str, listener: ShareListener) -> Share:
        """See `Log.share`: the consumer group `<namespace>.<group>` on the topic of events.

        Raises:
            UsageError: The group can't have that name.
            LogUnavailable: No broker answers, or this user may not read in that group.
        """
        check_group(group)
        parts, _ = self._opened(Channel.EVENTS, 0)
        await asyncio.to_thread(
            require_rights, self._clients, Role.READER, self._topics, group=group
        )
        share = KafkaShare(self._clients, self._topics, group, reader, listener, self.partitions)
        await share.open()
        parts.memberships.append(share)
        return share

    async def listen(self, client_id: str, deliver: Callable[[Sequence[Record]], None]) -> None:
        """See `Log.listen`."""
        partition = partition_of(client_id, self.partitions or 1)
        parts, topic = self._opened(Channel.REPLIES, partition)
        await parts.tails.listen(topic, partition, client_id, deliver)

    @property
    def has_registry(self) -> bool:
        """Whether a schema registry gives the numbers."""
        return self._registry is not None

    @property
    def registered_schemas(self) -> Mapping[int, Published]:
        """Number, of a registry or another base -> schema that is written under it. None before `open`."""
        frames = self._clients.frames
        return {} if frames is None else frames.written

    async def noted_schemas(self) -> Mapping[int, str]:
        """Number -> Avro schema, for every number that is noted in this namespace. Needs no open log.

        Raises:
            LogUnavailable: No broker answers.
        """
        return await asyncio.to_thread(read_notes, self._asking, self._topics)

    async def _of_gone(
        self, error: LogCorrupt, channel: Channel, partition: int, start: int
    ) -> LogCorrupt:
        """The error for records from `start` on that can't be read: it may be that they were trimmed."""
        first = (await self.bounds(channel, partition)).start
        return trimmed(self.namespace, channel, partition, start, first) if start < first else error

    def _opened(self, channel: Channel, partition: int) -> "tuple[_Parts, str]":
        """What an open log has, and the channel's topic."""
        if self._parts is None:
            told = "is closed: make and open a new one" if self._closed else "is not open yet"
            raise LogUnavailable(f"the log of {self.namespace} {told}")
        if not 0 <= partition < self.partitions:
            raise UsageError(
                f"{self.namespace} has no partition {partition}: it has {self.partitions}, from 0 on"
            )
        return self._parts, self._topics.of(channel)


class _Parts:
    """What an open log consists of. Made on the event loop that will use it."""

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        frames: Frames,
        *,
        max_record_bytes: int,
        max_batch_bytes: int,
    ) -> None:
        self._topics = topics
        self.frames = frames
        self.readers = Readers(clients, topics.all())
        self.tails = Tails(clients, self.readers, [topics.of(channel) for channel in Channel])
        self.appender = Appender(
            clients,
            topics.all(),
            max_record_bytes=max_record_bytes,
            max_batch_bytes=max_batch_bytes,
        )
        self.bookmarks = Bookmarks(topics.meta, self.readers, self.appender)
        self.memberships: list[KafkaMembership | KafkaShare] = []

    async def open(self) -> None:
        await asyncio.gather(self.appender.open(), self.readers.open())

    async def close(self) -> None:
        await self.appender.close()
        await asyncio.gather(*(membership.leave() for membership in self.memberships))
        await self.tails.close()
        await self.readers.close()
