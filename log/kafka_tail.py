"""Tails and listeners: who waits for new records shares consumers, since each consumer costs two threads."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from refold.log.errors import LogError, LogUnavailable
from refold.log.kafka_client import Clients, topic_partition
from refold.log.kafka_feed import Feed
from refold.log.kafka_scan import Readers
from refold.log.protocol import Record

logger = logging.getLogger(__name__)

_LISTEN_AGAIN_S: Final = 1.0


class Tails:
    """Follows any number of partitions, each from where its reader wants.

    Args:
        clients: What makes consumers.
        readers: Finds the end of a partition.
        topics: Topics that will be followed.
    """

    def __init__(self, clients: Clients, readers: Readers, topics: Sequence[str]) -> None:
        self._clients = clients
        self._topics = tuple(topics)
        self._readers = readers
        # A consumer has one position in a partition: a second tail of the same one goes to a second feed.
        self._feeds: list[Feed] = []
        self._making = asyncio.Lock()
        self._waiting: set[asyncio.Event] = set()
        self._moves: set[asyncio.Task[None]] = set()
        self._closed = False

    async def tail(
        self, topic: str, partition: int, start: int
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Batches from `start` on, for ever.

        Raises:
            LogCorrupt: `start` is not in the log, or what follows is damaged or was cut off.
            LogUnavailable: The log was closed meanwhile.
        """
        place = topic_partition(topic, partition)
        came = asyncio.Event()
        feed = await self._feed_without(topic, partition)
        feed.follow(place, start, came.set)
        self._waiting.add(came)
        try:
            while not self._closed:
                came.clear()
                if records := feed.take(place):
                    yield records
                else:
                    await came.wait()
            raise LogUnavailable(f"the log was closed while {topic}/{partition} was followed")
        finally:
            self._waiting.discard(came)
            feed.drop(place)

    async def listen(
        self, topic: str, partition: int, key: str, deliver: Callable[[Sequence[Record]], None]
    ) -> None:
        """From when this returns, call `deliver` with the new records of `key`."""
        place = topic_partition(topic, partition)
        _, end = await self._readers.bounds(
            topic, partition
        )  # fixed here: nothing after it is missed
        feed = await self._feed_without(topic, partition)

        def on_ready() -> None:
            try:
                records = feed.take(place)
            except LogError as error:
                logger.warning(
                    "replies to %s were missed, they will be asked for again: %s", key, error
                )
                feed.drop(place)
                again = asyncio.ensure_future(self._listen_again(topic, partition, key, deliver))
                self._moves.add(again)
                again.add_done_callback(self._moved)
                return
            if own := [record for record in records if record.key == key]:
                deliver(own)

        feed.follow(place, end, on_ready)

    async def _listen_again(
        self, topic: str, partition: int, key: str, deliver: Callable[[Sequence[Record]], None]
    ) -> None:
        """`listen`, as soon as a broker answers: after a laptop's sleep, none may at first."""
        while not self._closed:
            try:
                await self.listen(topic, partition, key, deliver)
            except LogUnavailable as error:
                logger.warning("replies to %s can't be listened to yet: %s", key, error)
                await asyncio.sleep(_LISTEN_AGAIN_S)
            else:
                return

    async def close(self) -> None:
        """Stop all threads; iterators that wait raise `LogUnavailable`."""
        self._closed = True
        for task in list(self._moves):
            task.cancel()
        for came in self._waiting:
            came.set()
        async with self._making:
            await asyncio.gather(*(feed.close() for feed in self._feeds))

    async def _feed_without(self, topic: str, partition: int) -> Feed:
        """A feed that does not follow the partition yet. The caller has it follow before its next await."""
        place = topic_partition(topic, partition)
        async with self._making:
            if self._closed:
                raise LogUnavailable(f"the log is closed: {topic}/{partition} can't be followed")
            for feed in self._feeds:
                if not feed.follows(place):
                    return feed
            name = f"{self._clients.settings.client_id}-tail-{len(self._feeds)}"
            feed = Feed(self._clients, name, self._topics)
            await feed.open()
            self._feeds.append(feed)
            return feed

    def _moved(self, task: "asyncio.Task[None]") -> None:
        self._moves.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("replies can't be listened to any more: %s", task.exception())
