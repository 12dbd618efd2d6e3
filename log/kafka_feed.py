"""Following partitions as they grow: one consumer for many partitions, one thread that polls it.

The loop's side asks (follow, drop) and takes records from a bounded buffer; the thread's side does what was asked
between two polls and hands over what came. A partition whose buffer is full is paused and costs nothing.

A new place to read from makes what is already on its way stale. So every `follow` has a number, records carry the
number that they were fetched under, and those with an old one are dropped.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from refold.log.errors import LogError, LogUnavailable
from refold.log.kafka_client import (
    Clients,
    Consumer,
    ConsumerRecord,
    Corrupt,
    KafkaFailure,
    OutOfRange,
    TopicPartition,
    Truncated,
    Unauthorized,
    Undecodable,
    places_of,
    reason,
    unpark,
)
from refold.log.protocol import Record

logger = logging.getLogger(__name__)

_POLL_RECORDS = 1_000
# A partition's buffer is also bounded in bytes: 2,000 records of 1 MiB would be 2 GiB.
_PREFETCH_BYTES = 8 * 1024 * 1024
# After a failed poll. Brokers that restart take seconds.
_PAUSE_S = 0.2
_CLOSE_MS = 3_000


@dataclass(eq=False, slots=True)
class _Intake:
    """The loop's side of a followed partition: records that came and are not taken yet."""

    number: int
    offset: int  # of the next record that may come
    on_ready: Callable[[], None]
    chunks: deque[list[Record]] = field(default_factory=deque[list[Record]])
    records: int = 0
    bytes: int = 0
    paused: bool = False
    failure: LogError | None = None


class Feed:
    """A consumer, its thread, and the buffers between it and the event loop that made it.

    Args:
        clients: For errors and settings.
        name: Client id, and part of the thread's name.
        topics: Topics that will be followed.
    """

    def __init__(self, clients: Clients, name: str, topics: Sequence[str]) -> None:
        self._clients = clients
        self._name = name
        self._topics = tuple(topics)
        self._loop = asyncio.get_running_loop()
        self._intakes: dict[TopicPartition, _Intake] = {}
        self._number = 0
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"refold-kafka-{name}", daemon=True)
        # Shared with the thread.
        self._orders: deque[Callable[[Consumer], None]] = deque()
        self._ring = threading.Event()
        self._stopping = False
        # The thread's own: what it fetches, and under which number.
        self._numbers: dict[TopicPartition, int] = {}
        self._complaint = ""

    async def open(self) -> None:
        """Start the thread and wait until its consumer is connected.

        Raises:
            LogUnavailable: No broker answers.
        """
        self._thread.start()
        try:
            await self._opened
        except BaseException:
            self._stopping = True
            self._ring.set()
            raise

    async def close(self) -> None:
        """Stop the thread and close its consumer."""
        self._stopping = True
        self._ring.set()
        if self._thread.ident is not None:
            await self._ended.wait()
            await asyncio.to_thread(self._thread.join)

    def follows(self, place: TopicPartition) -> bool:
        """Whether the partition is followed here: a consumer has one position in each."""
        return place in self._intakes

    def follow(self, place: TopicPartition, offset: int, on_ready: Callable[[], None]) -> None:
        """Buffer the records of `place` from `offset` on; call `on_ready` on the loop when there is news."""
        self._number += 1
        number = self._number
        self._intakes[place] = _Intake(number, offset, on_ready)
        self._order(lambda consumer: self._seek(consumer, place, offset, number))

    def next_offset(self, place: TopicPartition) -> int | None:
        """Offset of the first record that `take` would give or wait for; None where the partition is not followed."""
        intake = self._intakes.get(place)
        if intake is None:
            return None
        return intake.chunks[0][0].offset if intake.chunks else intake.offset

    def buffered(self, place: TopicPartition) -> int:
        """Number of records that have come and are not taken."""
        intake = self._intakes.get(place)
        return 0 if intake is None else intake.records

    def take(self, place: TopicPartition) -> Sequence[Record]:
        """Records that have come, in order; none where there are none yet.

        Raises:
            LogError: The partition can't be followed on, and all that came before is taken.
        """
        intake = self._intakes.get(place)
        if intake is None:
            return ()
        if not intake.chunks:
            if intake.failure is not None:
                raise intake.failure
            return ()
        chunk = intake.chunks.popleft()
        intake.records -= len(chunk)
        intake.bytes -= _bytes_of(chunk)
        if intake.paused and not self._is_full(intake, 2):
            intake.paused = False
            self._order(lambda consumer: self._if_fetched(place, consumer.resume))
        return chunk

    def drop(self, place: TopicPartition) -> None:
        """Follow the partition no more and forget what came."""
        if self._intakes.pop(place, None) is not None:
            self._order(lambda consumer: self._forget(consumer, place))

    def _order(self, order: Callable[[Consumer], None]) -> None:
        """Have the thread do something with its consumer, soon and in order."""
        self._orders.append(order)
        self._ring.set()

    def _is_full(self, intake: _Intake, part: int = 1) -> bool:
        records_max = self._clients.settings.prefetch_records // part
        return intake.records >= records_max or intake.bytes >= _PREFETCH_BYTES // part

    def _arrived(self, batches: Sequence[tuple[TopicPartition, int, list[Record]]]) -> None:
        """On the loop: buffer what the thread fetched, and tell who waits for it."""
        for place, number, records in batches:
            intake = self._intakes.get(place)
            if intake is None or intake.number != number:
                continue
            intake.chunks.append(records)
            intake.offset = records[-1].offset + 1
            intake.records += len(records)
            intake.bytes += _bytes_of(records)
            if not intake.paused and self._is_full(intake):
                intake.paused = True
                self._order(lambda consumer, place=place: self._if_fetched(place, consumer.pause))  # type: ignore[misc]
            # Not at once: one that fails must not keep what came for others out of its buffer.
            self._loop.call_soon(intake.on_ready)

    def _failed(self, places: Mapping[TopicPartition, int], error: LogError) -> None:
        """On the loop: these partitions can't be followed on."""
        for place, number in places.items():
            intake = self._intakes.get(place)
            if intake is not None and intake.number == number:
                intake.failure = error
                self._loop.call_soon(intake.on_ready)

    def _connected(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def _died(self, error: LogError | None) -> None:
        """On the loop: the thread has ended."""
        self._ended.set()
        if not self._opened.done():
            self._opened.set_exception(error or LogError("closed before it was open"))
        elif error is not None:
            self._failed({place: intake.number for place, intake in self._intakes.items()}, error)

    # From here on: on the thread.

    def _run(self) -> None:
        error: LogError | None = None
        try:
            consumer = self._clients.consumer(self._name, self._topics)
            try:
                self._tell(self._connected)
                while not self._stopping:
                    self._round(consumer)
            finally:
                consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)
        except LogError as failure:
            error = failure
        except Exception as failure:
            logger.exception("%s ends", self._thread.name)
            error = self._clients.translated(failure, self._thread.name)
        self._tell(lambda: self._died(error))

    def _round(self, consumer: Consumer) -> None:
        self._ring.clear()
        self._obey(consumer)
        if not self._numbers:
            self._ring.wait()
            return
        unpark(consumer)
        try:
            polled = consumer.poll(self._clients.settings.fetch_wait_ms, _POLL_RECORDS)
        except (OutOfRange, Truncated, Corrupt, Unauthorized, Undecodable) as error:
            self._give_up(consumer, error)
        except KafkaFailure as error:
            self._complain(error)
            self._ring.wait(_PAUSE_S)
        else:
            self._hand_over(polled)

    def _obey(self, consumer: Consumer) -> None:
        while self._orders:
            self._orders.popleft()(consumer)

    def _hand_over(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        batches = [
            (place, self._numbers[place], self._recognized(records))
            for place, records in polled.items()
            if records and place in self._numbers
        ]
        if batches:
            self._complaint = ""
            self._tell(lambda: self._arrived(batches))

    def _recognized(self, records: Sequence[ConsumerRecord]) -> list[Record]:
        """The log's records. Waits while nobody can say which schema is meant: they can't be fetched a second time."""
        while True:
            try:
                return self._clients.records(records)
            except LogUnavailable as error:
                self._complain(error)
                if self._stopping:
                    raise
            time.sleep(_PAUSE_S)

    def _give_up(self, consumer: Consumer, error: Exception) -> None:
        """Partitions that can't be read: a poll would raise again and again, and starve the others."""
        about = places_of(error) if isinstance(error, (OutOfRange, Truncated)) else self._numbers
        doomed = {place: self._numbers[place] for place in about if place in self._numbers}
        for place in doomed:
            self._forget(consumer, place)
        names = ", ".join(f"{place.topic}/{place.partition}" for place in doomed)
        failure = self._clients.translated(error, f"following {names}")
        self._tell(lambda: self._failed(doomed, failure))

    def _complain(self, error: Exception) -> None:
        """Say it once, not five times a second."""
        complaint = reason(error)
        if complaint != self._complaint:
            logger.warning("%s goes on after: %s", self._thread.name, complaint)
            self._complaint = complaint

    def _seek(self, consumer: Consumer, place: TopicPartition, offset: int, number: int) -> None:
        self._numbers[place] = number
        consumer.assign(list(self._numbers))
        consumer.seek(place, offset)
        consumer.resume(place)

    def _forget(self, consumer: Consumer, place: TopicPartition) -> None:
        if self._numbers.pop(place, None) is None:
            return
        if self._numbers:
            consumer.assign(list(self._numbers))
        else:  # never assign nothing: that would unsubscribe
            consumer.pause(place)

    def _if_fetched(self, place: TopicPartition, act: Callable[[TopicPartition], None]) -> None:
        if place in self._numbers:
            act(place)

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            self._stopping = True


def _bytes_of(records: Sequence[Record]) -> int:
    return sum([len(record.value) for record in records])
