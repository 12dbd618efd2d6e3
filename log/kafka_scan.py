"""Reading history: a range of one partition, from an offset to another, as fast as the client decodes.

A consumer reads ahead by itself, so a scan is pulled: whoever iterates asks for the next batch, a thread polls for
it, and nothing piles up in between. Consumers are kept for the next scan: making one costs 20 to 40 ms.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TypeVar

from refold.log.errors import LogError, LogUnavailable
from refold.log.kafka_client import (
    Clients,
    Consumer,
    ConsumerRecord,
    TopicPartition,
    key_of,
    topic_partition,
)
from refold.log.protocol import Bounds, Record

T = TypeVar("T")

# Large enough that the hop between threads costs nothing a record, small enough for 1 MiB records.
_BATCH_RECORDS = 2_000
_POLL_MS = 500


class Cursor:
    """A consumer on one range of one partition. Blocks; one thread at a time.

    Args:
        clients: For errors and settings.
        consumer: Assigned to nothing that is still wanted.
        place: The partition.
        start: First offset wanted.
        stop: Offset to stop before, if the end as of now is not before it; None for that end.
        key: Give records of that key, and records without any; None for all.
    """

    def __init__(
        self,
        clients: Clients,
        consumer: Consumer,
        place: TopicPartition,
        start: int,
        stop: int | None,
        *,
        key: str | None = None,
    ) -> None:
        self._clients = clients
        self._key = key
        self._consumer = consumer
        self._place = place
        self._next = start
        with self._errors():
            end = end_of(clients, consumer, place)
            self._stop = end if stop is None else min(stop, end)
            consumer.assign([place])
            consumer.seek(place, max(start, 0))

    def batch(self) -> Sequence[Record] | None:
        """The next records, which may be none; None at the end.

        Raises:
            LogUnavailable: Nothing came for as long as one append may take.
            LogCorrupt: The range is not there, or its bytes are damaged.
        """
        patience_s = self._clients.settings.delivery_timeout_ms / 1000
        give_up_at = time.monotonic() + patience_s
        while self._next < self._stop:
            with self._errors():
                polled = self._consumer.poll(timeout_ms=_POLL_MS, max_records=_BATCH_RECORDS)
                found = self._clients.records(self._wanted(polled.get(self._place, ())))
                # Offsets have gaps where somebody else wrote a transaction or compaction removed records.
                after = self._consumer.position(self._place, timeout_ms=_POLL_MS) or self._next
            moved, self._next = after > self._next, max(after, self._next)
            if found and found[-1].offset >= self._stop:
                found = [record for record in found if record.offset < self._stop]
            if found or moved:
                return found
            if time.monotonic() > give_up_at:
                raise LogUnavailable(
                    f"reading {self._place.topic}/{self._place.partition} at offset {self._next}: no answer for"
                    f" {patience_s:g} s from {','.join(self._clients.bootstrap)}; check the brokers, then try again"
                )
        return None

    def _wanted(self, polled: Sequence[ConsumerRecord]) -> Sequence[ConsumerRecord]:
        """Those of the key: of others no record is made, since a scan for one run is mostly others."""
        key = self._key
        if key is None:
            return polled
        return [r for r in polled if r.key is None or key_of(r.key) == key]

    def _errors(self) -> AbstractContextManager[None]:
        place = self._place
        return self._clients.errors(
            f"reading {place.topic}/{place.partition} from offset {self._next}"
        )


def end_of(clients: Clients, consumer: Consumer, place: TopicPartition) -> int:
    """The offset that the partition's next record will get. Blocks."""
    return consumer.end_offsets([place], timeout_ms=clients.settings.delivery_timeout_ms)[place]


def read_all(clients: Clients, topic: str, partition: int) -> Iterator[Record]:
    """Every record of a small partition. Blocks."""
    consumer = clients.reader(f"{clients.settings.client_id}-meta", [topic])
    place = topic_partition(topic, partition)
    try:
        with clients.errors(f"reading {topic}"):
            first = consumer.beginning_offsets([place], clients.settings.delivery_timeout_ms)[place]
        cursor = Cursor(clients, consumer, place, first, None)
        while (batch := cursor.batch()) is not None:
            yield from batch
    finally:
        consumer.close(autocommit=False, timeout_ms=1_000)


class Readers:
    """Consumers for reading history, a few at once, each with a thread while it works.

    Args:
        clients: What makes them.
        topics: Which may be read.
    """

    def __init__(self, clients: Clients, topics: Sequence[str]) -> None:
        self._clients = clients
        self._topics = topics
        count = clients.settings.readers
        self._turns = asyncio.Semaphore(count)
        self._idle: list[Consumer] = []
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="refold-kafka-read")
        self._closed = False

    async def open(self) -> None:
        """Make a consumer and have it connect to the topics' leaders, for the first read to have it."""
        places = [topic_partition(topic, 0) for topic in self._topics]
        timeout_ms = self._clients.settings.delivery_timeout_ms

        def connect(consumer: Consumer) -> None:
            with self._clients.errors("asking for the topics' leaders"):
                consumer.end_offsets(places, timeout_ms=timeout_ms)

        async with self._turn() as turn:
            await turn.run(connect)

    async def read(
        self, topic: str, partition: int, start: int, stop: int | None, key: str | None = None
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Batches from `start` up to `stop`, or to the end as of now; of one key and of none, where it is given."""
        place = topic_partition(topic, partition)
        async with self._turn() as turn:
            cursor = await turn.run(
                lambda consumer: Cursor(self._clients, consumer, place, start, stop, key=key)
            )
            while (batch := await turn.run(lambda _: cursor.batch())) is not None:
                if batch:
                    yield batch

    async def bounds(self, topic: str, partition: int) -> Bounds:
        """First offset and end of the partition, now."""
        place = topic_partition(topic, partition)
        timeout_ms = self._clients.settings.delivery_timeout_ms

        def ask(consumer: Consumer) -> Bounds:
            with self._clients.errors(f"asking for the bounds of {topic}/{partition}"):
                first = consumer.beginning_offsets([place], timeout_ms=timeout_ms)[place]
                return Bounds(first, end_of(self._clients, consumer, place))

        async with self._turn() as turn:
            return await turn.run(ask)

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """Offset of the first record of a time, in milliseconds since 1970-01-01 UTC, or later; else the end."""
        place = topic_partition(topic, partition)
        timeout_ms = self._clients.settings.delivery_timeout_ms

        def ask(consumer: Consumer) -> int:
            with self._clients.errors(f"asking for an offset by time of {topic}/{partition}"):
                end = end_of(self._clients, consumer, place)
                found = consumer.offsets_for_times({place: time_ms}, timeout_ms=timeout_ms)[place]
                return end if found is None or found.offset < 0 else found.offset

        async with self._turn() as turn:
            return await turn.run(ask)

    async def close(self) -> None:
        """Wait for the polls under way and close every consumer."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        idle, self._idle = self._idle, []
        await asyncio.gather(*(asyncio.to_thread(_close, consumer) for consumer in idle))

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator["_Turn", None]:
        await self._turns.acquire()
        consumer = self._idle.pop() if self._idle else None
        turn = _Turn(self._clients, self._topics, self._threads, consumer)
        loop = asyncio.get_running_loop()
        try:
            yield turn
        finally:
            turn.when_free(loop, lambda: self._give_back(turn))

    def _give_back(self, turn: "_Turn") -> None:
        self._turns.release()
        if turn.consumer is None:
            return
        if self._closed:
            _close(turn.consumer)
        else:
            self._idle.append(turn.consumer)


class _Turn:
    """One consumer's use, on one thread at a time. Its caller may be cancelled while the thread still works."""

    def __init__(
        self,
        clients: Clients,
        topics: Sequence[str],
        threads: ThreadPoolExecutor,
        consumer: Consumer | None,
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._threads = threads
        self._work: Future[object] | None = None
        self.consumer = consumer

    async def run(self, call: Callable[[Consumer], T]) -> T:
        try:
            work = self._threads.submit(self._run, call)
        except RuntimeError as error:
            raise LogUnavailable("the log was closed while it was read") from error
        self._work = work  # type: ignore[assignment]  # only its end matters
        return await asyncio.wrap_future(work)

    def _run(self, call: Callable[[Consumer], T]) -> T:
        if self.consumer is None:
            name = f"{self._clients.settings.client_id}-reader"
            self.consumer = self._clients.reader(name, self._topics)
        try:
            return call(self.consumer)
        except LogError:
            # What failed may be remembered in the consumer and raised in somebody else's scan.
            _close(self.consumer)
            self.consumer = None
            raise

    def when_free(self, loop: asyncio.AbstractEventLoop, then: Callable[[], None]) -> None:
        if self._work is None or self._work.done():
            then()
        else:
            self._work.add_done_callback(lambda _: loop.call_soon_threadsafe(then))


def _close(consumer: Consumer) -> None:
    consumer.close(autocommit=False, timeout_ms=1_000)
