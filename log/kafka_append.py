"""Appending: a lane for each partition, one batch of it on its way at a time, the next one forming meanwhile.

That is group commit: what arrives while a produce request is out goes into the next, and one request carries it all.
It also makes failure simple. Only one batch of a partition can be in doubt, and when it is,

1. the producer is killed in the callback that brings the bad news, on the producer's own I/O thread: before that
   thread can send anything that was behind. So what reached the log is a prefix of what was given, always;
2. whatever waits in the same lane fails as well, and the caller finds out from the log where it stands;
3. the next append makes a new producer, with a new producer id. If that finds no broker, its append fails with
   `LogUnavailable`: nothing of it was written.

kafka-python's producer goes fatal for every partition after one refused record and has no bound on its memory, so sizes
are checked before the send, and the queue here is bounded.

Offsets of a partition rise. A producer takes a topic that was deleted and made again for the one that it knew, and a
leader that was elected unclean for one that has everything: the acknowledgement tells, by an offset that was given
before. Then the lane is closed for good: what this log goes on from is not there any more.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from refold.log.errors import (
    AppendUnknown,
    LogCorrupt,
    LogError,
    LogUnavailable,
    PayloadError,
    RecordTooLarge,
)
from refold.log.kafka_client import Clients, Producer, ProducerClosed, Sent, is_too_large, kill
from refold.log.local import record_bytes
from refold.log.protocol import Entry

logger = logging.getLogger(__name__)

# What a record costs in a batch beside its bytes: lengths, deltas and attributes, each at its longest.
_RECORD_OVERHEAD_BYTES = 64
_HEADER_OVERHEAD_BYTES = 10
# Giving a record to the producer takes the event loop some 20 us: a batch must not stop everything else for long.
_BATCH_RECORDS_MAX = 1_000


@dataclass(eq=False, slots=True)
class _Append:
    """One call of `append`: what is left to send of it, and where it already is."""

    lane: "_Lane"
    entries: Sequence[Entry]
    sizes: Sequence[int]
    size: int
    future: asyncio.Future[Sequence[int]]
    offsets: list[int] = field(default_factory=list[int])
    sent: int = 0


@dataclass(eq=False, slots=True)
class _Lane:
    """What waits for one partition, in order, and whether a batch of it is on its way."""

    topic: str
    partition: int
    waiting: deque[_Append] = field(default_factory=deque[_Append])
    busy: bool = False
    next_offset: int = 0  # no record gets a lower one, while the partition is the one that it was
    broken: LogCorrupt | None = None

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(eq=False, slots=True)
class _Batch:
    """Records that were given to a producer together: for each append how many, and the producer's futures."""

    lane: _Lane
    producer: Producer
    parts: list[tuple[_Append, int]]
    sent: list[Sent] = field(default_factory=list[Sent])
    failure: Exception | None = None

    def failed(self, error: Exception) -> None:
        """A record of it failed. Called on the producer's I/O thread, before that can send what comes behind."""
        if self.failure is None:
            self.failure = error
            kill(self.producer)


class Appender:
    """The write side of a KafkaLog. Used from one event loop.

    Args:
        clients: What makes producers.
        topics: Topics that will be written to: their metadata is fetched before the first append.
        max_record_bytes: Largest record; a broker never sees a larger one.
        max_batch_bytes: Most that one batch carries; a single larger record has a batch of its own.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Sequence[str],
        *,
        max_record_bytes: int,
        max_batch_bytes: int,
    ) -> None:
        self._clients = clients
        self._settings = clients.settings
        self._topics = tuple(topics)
        self._max_record_bytes = max_record_bytes
        self._max_batch_bytes = max_batch_bytes
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._producer: Producer | None = None
        self._making: asyncio.Task[None] | None = None
        self._stalled: list[_Lane] = []
        # Appends that found the queue full, in order; those in the lanes are within the bounds.
        self._outside: deque[_Append] = deque()
        self._entries = 0
        self._bytes = 0
        # Filled on the producer's I/O thread, emptied on the loop: one wake-up for many batches.
        self._finished: deque[_Batch] = deque()
        self._wake_up_due = False
        self._drained = asyncio.Event()
        self._drained.set()
        self._closed = False

    async def open(self) -> None:
        """Connect.

        Raises:
            LogUnavailable: No broker answers.
        """
        self._producer = await asyncio.to_thread(self._make_producer)

    async def close(self) -> None:
        """Refuse new appends, wait for those under way, and disconnect."""
        self._closed = True
        await self._drained.wait()
        if self._making is not None:
            await asyncio.gather(self._making, return_exceptions=True)
        if self._producer is not None:
            await asyncio.to_thread(_close, self._producer)
            self._producer = None

    def limit(self, max_record_bytes: int, max_batch_bytes: int) -> None:
        """Take other limits from the next append on."""
        self._max_record_bytes = max_record_bytes
        self._max_batch_bytes = max_batch_bytes

    async def append(self, topic: str, partition: int, entries: Sequence[Entry]) -> Sequence[int]:
        """Append in order; return the offsets once all are durable. A call that is cancelled may still be written.

        Raises:
            RecordTooLarge: One is over the limit; nothing of the batch was written.
            LogUnavailable: No broker answers; nothing of the batch was written.
            AppendUnknown: Any prefix of the batch may be in the log.
        """
        if self._closed:
            raise LogUnavailable(f"the log is closed: nothing was appended to {topic}/{partition}")
        if not entries:
            return ()
        sizes = [self._size_of(topic, partition, entry) for entry in entries]
        lane = self._lanes.setdefault((topic, partition), _Lane(topic, partition))
        if lane.broken is not None:
            raise lane.broken
        append = _Append(lane, entries, sizes, sum(sizes), self._loop.create_future())
        if self._outside or not self._admit(append):
            self._outside.append(append)
        self._drained.clear()
        return await append.future

    def _size_of(self, topic: str, partition: int, entry: Entry) -> int:
        """What the record takes in a batch, in bytes, if the log takes it."""
        try:
            size = record_bytes(entry)
        except UnicodeEncodeError as error:
            raise PayloadError(
                f"the key {entry.key!r}, or a header's name, has no UTF-8 form: nothing was appended to"
                f" {topic}/{partition}. Use an id without surrogates"
            ) from error
        if size > self._max_record_bytes:
            raise RecordTooLarge(
                f"a record for {topic}/{partition}, key {entry.key!r}, is {size:,} bytes, the limit is"
                f" {self._max_record_bytes:,}: nothing was appended. Keep large data in a file or an object"
                " store, and its address in the payload"
            )
        return size + _RECORD_OVERHEAD_BYTES + len(entry.headers) * _HEADER_OVERHEAD_BYTES

    def _admit(self, append: _Append) -> bool:
        """Put an append into its lane if the bounds allow it; a giant one when nothing else is there."""
        entries, size = self._entries + len(append.entries), self._bytes + append.size
        within = entries <= self._settings.queue_entries and size <= self._settings.queue_bytes
        if not within and self._entries:
            return False
        self._entries, self._bytes = entries, size
        append.lane.waiting.append(append)
        if not append.lane.busy:
            append.lane.busy = True
            # Not now: appends of other tasks that are ready to run go into the same batch.
            self._loop.call_soon(self._send, append.lane)
        return True

    def _send(self, lane: _Lane) -> None:
        """Give the lane's next batch to the producer, or leave the lane idle."""
        while lane.waiting and lane.waiting[0].future.cancelled() and not lane.waiting[0].sent:
            self._leave(lane.waiting.popleft())
        if not lane.waiting:
            lane.busy = False
            self._refill()
            return
        if self._producer is None:
            self._stalled.append(lane)
            self._making = self._making or self._loop.create_task(self._remake_producer())
            return
        batch = self._next_batch(lane, self._producer)
        try:
            self._give(batch)
        except Exception as error:  # noqa: BLE001  # whatever it is, the lane must hear of it
            self._not_given(batch, error)

    def _give(self, batch: _Batch) -> None:
        """Give the records to the producer. Callbacks run on its I/O thread, or here and now if all is over already."""
        lane, send = batch.lane, batch.producer.send
        for append, count in batch.parts:
            for entry in islice(append.entries, append.sent - count, append.sent):
                key = None if entry.key is None else entry.key.encode()
                sent = send(lane.topic, entry.value, key, list(entry.headers), lane.partition)
                sent.add_errback(batch.failed)  # before the next record can be sent
                batch.sent.append(sent)
        # A partition's records end in order, so the last one's end is the batch's.
        last = batch.sent[-1]
        last.add_callback(lambda _: self._ended(batch))
        last.add_errback(lambda _: self._ended(batch))

    def _not_given(self, batch: _Batch, error: Exception) -> None:
        """The producer did not take the batch, or not all of it."""
        if batch.sent:
            batch.failed(error)
            self._ended(batch)
            return
        lane = batch.lane
        for append, count in batch.parts:
            append.sent -= count
        if isinstance(error, ProducerClosed):  # by another lane's failure, which is being told now
            self._drop(batch.producer)
        else:
            self._refuse(lane, self._clients.translated(error, f"appending to {lane}"))
        self._send(lane)

    def _ended(self, batch: _Batch) -> None:
        """Have the loop settle it. Called on the I/O thread; a burst of batches wakes the loop once."""
        self._finished.append(batch)
        if not self._wake_up_due:
            self._wake_up_due = True
            self._loop.call_soon_threadsafe(self._settle)

    def _next_batch(self, lane: _Lane, producer: Producer) -> _Batch:
        """As many of the waiting entries as one request takes; an append may be cut, and goes on in the next."""
        room, records = self._max_batch_bytes, _BATCH_RECORDS_MAX
        parts: list[tuple[_Append, int]] = []
        for append in lane.waiting:
            count = 0
            for size in islice(append.sizes, append.sent, append.sent + records):
                if size > room and (parts or count):
                    break
                room -= size
                count += 1
            append.sent += count
            records -= count
            if count:
                parts.append((append, count))
            if append.sent < len(append.entries):
                break
        return _Batch(lane, producer, parts)

    def _settle(self) -> None:
        """On the loop: tell the callers of finished batches, and send what waited behind them."""
        self._wake_up_due = False
        while self._finished:
            batch = self._finished.popleft()
            if batch.failure is None and min([one.value.offset for one in batch.sent]) < 0:
                # What a broker may answer to a repeat that it remembers only vaguely.
                batch.failure = LogError("acknowledged, but not where in the log they are")
            if batch.failure is not None:
                self._doubt(batch, batch.failure)
            elif batch.sent[0].value.offset < batch.lane.next_offset:
                self._break(batch)
            else:
                self._succeed(batch)
            self._send(batch.lane)
        self._refill()

    def _break(self, batch: _Batch) -> None:
        """The partition is not the one that it was: nothing more goes there."""
        lane, offset = batch.lane, batch.sent[0].value.offset
        broken = lane.broken = LogCorrupt(
            f"appending to {lane}: a record was given offset {offset}, where {lane.next_offset - 1} had been given"
            " before: the topic was deleted and made again, or cut by an unclean election, so acknowledged records"
            " are gone. Nothing more is written there: stop all workers, restore the topic from a backup or begin a"
            " new namespace; `refold doctor` says more"
        )
        self._fail(lane, lambda _: broken)

    def _succeed(self, batch: _Batch) -> None:
        batch.lane.next_offset = batch.sent[-1].value.offset + 1
        at = 0
        for append, count in batch.parts:
            append.offsets.extend([sent.value.offset for sent in batch.sent[at : at + count]])
            at += count
            if len(append.offsets) == len(append.entries):
                batch.lane.waiting.popleft()  # appends end in order: it is this one
                self._leave(append)
                if not append.future.done():
                    append.future.set_result(append.offsets)

    def _doubt(self, batch: _Batch, error: Exception) -> None:
        """Fail the lane's appends, sent or not: those behind a doubtful one must not overtake it."""
        self._drop(batch.producer)
        doing = f"appending to {batch.lane}"
        refused: dict[int, Exception] = {}
        at = 0
        for append, count in batch.parts:
            sent = batch.sent[at : at + count]
            at += count
            if sent and not append.offsets and all(is_too_large(one.exception) for one in sent):
                refused[id(append)] = sent[0].exception or error

        def told(append: _Append) -> LogError:
            if id(append) in refused:
                return self._clients.translated(refused[id(append)], doing)
            if append.sent:
                return self._clients.unknown(error, doing)
            return AppendUnknown(
                f"not appended to {batch.lane}: the outcome of the append before it is unknown"
                " (read the log to know, then append again)"
            )

        self._fail(batch.lane, told)

    def _fail(self, lane: _Lane, told: Callable[[_Append], LogError]) -> None:
        """Empty the lane, and tell everybody in it, or waiting for room in it, why."""
        inside = list(lane.waiting)
        lane.waiting.clear()
        for append in inside:
            self._leave(append)
        behind = [append for append in self._outside if append.lane is lane]
        self._outside = deque(append for append in self._outside if append.lane is not lane)
        for append in (*inside, *behind):
            if not append.future.done():
                append.future.set_exception(told(append))

    def _leave(self, append: _Append) -> None:
        self._entries -= len(append.entries)
        self._bytes -= append.size

    def _refill(self) -> None:
        """Let in what waited for room, in order."""
        while self._outside:
            if self._outside[0].future.cancelled() or self._admit(self._outside[0]):
                self._outside.popleft()
            else:
                return
        if not self._entries:
            self._drained.set()

    def _drop(self, producer: Producer) -> None:
        """Have the next append make another producer. A later one than this stays."""
        kill(producer)
        if self._producer is producer:
            self._producer = None
            self._loop.run_in_executor(None, _close, producer)

    async def _remake_producer(self) -> None:
        """Make a producer for the lanes that wait for one, or fail what waits in them: nothing of it was sent."""
        failure: LogError | None = None
        try:
            self._producer = await asyncio.to_thread(self._make_producer)
        except LogError as error:
            failure = error
        self._making = None
        stalled, self._stalled = self._stalled, []
        for lane in stalled:
            if failure is not None:
                self._refuse(lane, failure)
            self._send(lane)
        self._refill()

    def _refuse(self, lane: _Lane, failure: LogError) -> None:
        """Nothing of what waits in the lane can be sent."""

        def told(append: _Append) -> LogError:
            # Cut in two, with the first part written and the producer lost to another lane's failure.
            kind = AppendUnknown if append.offsets else type(failure)
            error = kind(f"appending to {lane}: {failure}")
            error.__cause__ = failure
            return error

        self._fail(lane, told)

    def _make_producer(self) -> Producer:
        producer = self._clients.producer(f"{self._settings.client_id}-producer", self._topics)
        try:
            self._clients.learn_partitions(producer, self._topics)
        except LogError:
            _close(producer)
            raise
        return producer


def _close(producer: Producer) -> None:
    try:
        producer.close(timeout=1.0)
    except Exception as error:  # noqa: BLE001  # it is not used any more, whatever it says
        logger.debug("closing a producer: %r", error)
