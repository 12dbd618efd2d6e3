"""Copying a namespace's records into another: which ones, in which order, and what changes about them.

1. Of each partition of the source, the records up to the claim that closed it (`Cut`) are copied, so the same source
   always gives the same sequence for each partition of the target: a copy that broke off goes on after what is there.
2. The source's partitions are merged by the log's time; those of one keep their order. So every stream keeps its
   order, and streams that meet in one partition stand about as they happened.
3. Copied are the events that count there. Former owners' are not, nor what is only about the source's partition: its
   claims, its checkpoints, its handing over. That its partitions have forgotten ids is told once all have.
4. The source's chain is checked on the way: what can't be vouched for is not copied.
5. Each copied event says that all commands to other workflows which its predecessors cause have been posted. That is
   made true by `copy_commands`, before the partition is completed: what the source had not posted it appends itself.
"""

import hashlib
import heapq
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, replace
from typing import Final, TypedDict

from refold.engine.digest import event_text
from refold.engine.fold import evolve
from refold.engine.migration_blobs import BlobCopy
from refold.engine.state import ANYWHERE, NO_CLAIM, NO_COMMAND, PartitionState
from refold.log.chain_walk import ChainWalk
from refold.log.codec import (
    decode_event,
    encode_command,
    encode_event,
    kind_of,
)
from refold.log.commands import (
    AskForPartition,
    BeginStep,
    Command,
    KeepStep,
    LookAtQueue,
    OfferWork,
    WatchValue,
    WatchWorkflow,
)
from refold.log.errors import LogCorrupt, LogMismatch
from refold.log.events import (
    CheckpointBegun,
    CheckpointCompleted,
    CheckpointPart,
    CommandRefused,
    Event,
    PartitionClaimed,
    PartitionHandedOver,
    PartitionMigrated,
    PartitionOffered,
    QueueSet,
    SlotReleased,
    SlotRequested,
    SlotReturned,
    SubjectErased,
    Unreadable,
)
from refold.log.layout import Layout
from refold.log.protocol import Channel, Entry, Log, Record

BATCH_ENTRIES: Final = 4_000
BATCH_BYTES: Final = 4_000_000
"""Records are appended together up to either: few fsyncs, and little memory."""
TO_AN_OWNER: Final = frozenset(
    kind.kind
    for kind in (
        WatchWorkflow,
        WatchValue,
        AskForPartition,
        OfferWork,
        BeginStep,
        KeepStep,
        LookAtQueue,
    )
)
"""Kinds of commands that ask something of the owner that was there, for somebody who hears its replies: not copied."""
_BODY: Final = 37
"""Where an event's bytes after its chain begin: see `log/codec.py`."""

Told = Callable[[int], None]
"""Is told how many more records were dealt with."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Up to where a partition of the source is copied, and what vouches for it.

    Args:
        events: The offset after the claim that closed the partition.
        chain: Head of its chain there, hex.
        digest: Digest of its state there (`engine/digest.py`).
        first_command: The first command that its owners have not consumed.
        commands: The offset after the last command that is copied.
    """

    events: int
    chain: str
    digest: str
    first_command: int
    commands: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is copied: written into every partition of the target before anything else.

    Args:
        source: Name of the source.
        cuts: One for each of its partitions.
    """

    source: str
    cuts: tuple[Cut, ...]

    def payload(self) -> str:
        """The payload of the event that begins the copy; the same text for the same plan."""
        told = {"source": self.source, "cuts": [asdict(cut) for cut in self.cuts]}
        return json.dumps({**_terms(ANYWHERE, 0), **told}, sort_keys=True)

    @classmethod
    def from_payload(cls, payload: str) -> "Plan":
        """The plan of a copy that was begun.

        Raises:
            LogCorrupt: The payload is not what `payload` writes.
        """
        try:
            told = json.loads(payload)
            return cls(str(told["source"]), tuple(Cut(**cut) for cut in told["cuts"]))
        except (ValueError, KeyError, TypeError) as error:
            raise LogCorrupt(
                f"the plan of the migration that was begun can't be read ({error!r}): migrate into a fresh namespace"
            ) from error


def _terms(floor: int, forget_before: int) -> dict[str, int]:
    return {"floor": floor, "forget_before": forget_before}


class History:
    """The events of a partition that count and are not claims, with its chain checked.

    Args:
        partition: The partition's number, for messages.
        namespace: Its namespace, for messages.
    """

    def __init__(self, partition: int, namespace: str) -> None:
        self._walk = ChainWalk(partition, namespace=namespace)

    @property
    def chain(self) -> bytes:
        """Head of the chain so far."""
        chain = self._walk.chain
        assert chain is not None, "it is known from the first event on"
        return chain

    @property
    def where(self) -> str:
        """Which partition it is, in words."""
        return self._walk.where

    def take(self, record: Record) -> Event | Unreadable | None:
        """The next record's event; None for a claim, and for what does not count.

        Raises:
            LogCorrupt: Its chain does not follow, or it is the partition's own and can't be read.
        """
        event = decode_event(record)
        if isinstance(event, Unreadable) and event.workflow_id is not None:
            # A run's, which is parked by it and moves with it. The chain passes it over, as the fold does.
            return event if event.claim in {None, self._walk.claim} else None
        if not self._walk.take(record, event):
            return None
        return None if isinstance(event, PartitionClaimed | Unreadable) else event


class Filling:
    """One partition of the target, as it is filled.

    Args:
        log: The target.
        partition: Its number.
        state: The fold of what is there, up to and with the copier's claim, which is its last record.
        done: How many events of the sequence are there already.
        worker: The copier's name.
    """

    def __init__(
        self, log: Log, partition: int, state: PartitionState, done: int, worker: str
    ) -> None:
        self.state = state
        self.partition = partition
        self.count = 0
        self.hasher = hashlib.blake2b(digest_size=32)
        self.waiting_bytes = 0
        self._log = log
        self._done = done
        self._worker = worker
        self._answers = 0
        self._next_offset = state.claim + 1
        self._entries: list[Entry] = []

    @property
    def waiting(self) -> int:
        """Entries that are not appended yet."""
        return len(self._entries)

    @property
    def next_offset(self) -> int:
        """The offset that the next entry gets."""
        return self._next_offset + len(self._entries)

    def tell(self, name: str, payload: str, at: int) -> None:
        """Record how far the migration has come."""
        migrated = PartitionMigrated(
            **own(at, self._worker), partition=self.partition, name=name, payload=payload
        )
        if self._is_new():
            self.record(migrated)

    def copy(self, event: Event | Unreadable, record: Record) -> None:
        """The next event of the sequence."""
        self.count += 1
        self.hasher.update(content(event, record))
        if isinstance(event, _OF_COMMANDS):
            self._answers += 1
        if not self._is_new():
            return
        if isinstance(event, Unreadable):
            self._copy_unreadable(event, record)
        elif isinstance(event, _OF_COMMANDS):
            self.record(replace(event, partition=self.partition), NO_COMMAND - self._answers)
        else:
            self.record(event)

    def record(self, event: Event, command: int = NO_COMMAND) -> None:
        """Encode, fold and queue an event of the copier's own, or one that is copied."""
        state = self.state
        posted = state.posted + len(state.outbox)
        event = replace(event, claim=state.claim, command=command, posted=posted)
        entry, chain = encode_event(event, state.chain)
        evolve(state, event, self.next_offset)
        if not isinstance(event, PartitionClaimed):
            state.chain = chain
        self._add(entry)

    async def flush(self) -> None:
        """Append what waits.

        Raises:
            LogMismatch: Somebody else writes into the partition.
        """
        entries, self._entries = self._entries, []
        self.waiting_bytes = 0
        if not entries:
            return
        offsets = await self._log.append(Channel.EVENTS, self.partition, entries)
        first, stop = self._next_offset, self._next_offset + len(entries)
        if (offsets[0], offsets[-1]) != (first, stop - 1):
            raise LogMismatch(
                f"somebody else wrote into partition {self.partition} of {self._log.namespace!r} while it was filled:"
                " see that no other migration runs, then run it again; it goes on where it stopped"
            )
        self._next_offset = stop

    def _is_new(self) -> bool:
        """Count one of the sequence; whether it is still to be written."""
        self._done -= 1
        return self._done < 0

    def _copy_unreadable(self, event: Unreadable, record: Record) -> None:
        claim = None if event.claim is None else self.state.claim
        headers = tuple(
            (name, b"%d" % claim if name == "claim" and claim is not None else value)
            for name, value in record.headers
        )
        evolve(self.state, replace(event, claim=claim), self.next_offset)
        self._add(Entry(record.key, record.value, headers))

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        self.waiting_bytes += len(entry.value)


class Own(TypedDict):
    """What an event of the copier's own carries; the rest is filled in when it is recorded."""

    workflow_id: None
    position: None
    recorded_at: int
    claim: int
    command: int
    posted: int
    worker: str


def own(at: int, worker: str) -> Own:
    """The common fields of an event of the copier's own.

    Args:
        at: Microseconds since 1970-01-01 UTC.
        worker: The copier's name.
    """
    return {
        "workflow_id": None,
        "position": None,
        "recorded_at": at,
        "claim": NO_CLAIM,
        "command": NO_COMMAND,
        "posted": 0,
        "worker": worker,
    }


def content(event: Event | Unreadable, record: Record) -> bytes:
    """What of an event must be the same in source and target, to be hashed."""
    return record.value if isinstance(event, Unreadable) else event_text(event)


def is_of_sequence(event: Event | Unreadable | None) -> bool:
    """Whether what `Accepted` makes of a record of the target is one of those that are made in a fixed order."""
    if isinstance(event, Unreadable):
        return event.workflow_id is not None
    return event is not None and not isinstance(
        event, PartitionClaimed | CheckpointBegun | CheckpointPart | CheckpointCompleted
    )


def is_copied(event: Event | Unreadable) -> bool:
    """Whether an event that counts is copied: one that says something of its partition alone is not."""
    if isinstance(event, Unreadable):
        return event.workflow_id is not None
    return not isinstance(event, _ABOUT_PARTITION)


_OF_COMMANDS: Final = (
    CommandRefused,
    SubjectErased,
    QueueSet,
    SlotRequested,
    SlotReleased,
    SlotReturned,
)
"""Events that are told apart by the command that caused them, and by their own number in the target."""
_ABOUT_PARTITION: Final = (
    PartitionClaimed,
    CheckpointBegun,
    CheckpointPart,
    CheckpointCompleted,
    PartitionOffered,
    PartitionHandedOver,
    PartitionMigrated,
)


async def copy_events(  # noqa: PLR0917 - where from, where to, and what is told
    source: Log,
    plan: Plan,
    layout: Layout,
    fillings: Sequence[Filling],
    blobs: BlobCopy,
    told: Told,
) -> None:
    """Copy the events, as far as they are not there, and leave nothing waiting.

    Args:
        source: The source.
        plan: What of it is copied.
        layout: The target's partitions.
        fillings: They, as they are filled.
        blobs: Copies large payloads.
        told: Is told how many records were read.

    Raises:
        LogCorrupt: The source's chain is broken, or is not the one that the plan names.
        LogError: A log can't be read or written.
    """
    histories = [History(p, source.namespace) for p in range(len(plan.cuts))]
    forgetting = _Forgetting(len(plan.cuts))
    ranges = [(0, cut.events) for cut in plan.cuts]
    async with aclosing(merged(source, Channel.EVENTS, ranges)) as records:
        async for partition, record in records:
            told(1)
            event = histories[partition].take(record)
            if event is None:
                continue
            if not is_copied(event):
                forgetting.take(partition, event, fillings)
                continue
            await blobs.copy(record.value)
            filling = fillings[_target(event.workflow_id, partition, layout)]
            filling.copy(event, record)
            if filling.waiting_bytes >= BATCH_BYTES or filling.waiting >= BATCH_ENTRIES:
                await filling.flush()
    for history, cut in zip(histories, plan.cuts, strict=True):
        if history.chain.hex() != cut.chain:
            raise LogCorrupt(
                f"the chain of {history.where} ends otherwise than when it was closed: the source has changed. Compare"
                " it with a backup or an archive, then migrate into a fresh namespace"
            )
    for filling in fillings:
        await filling.flush()


class _Forgetting:
    """What all partitions of the source have forgotten, as their checkpoints come by."""

    def __init__(self, partitions: int) -> None:
        self._before = [0] * partitions
        self._low = 0
        self._count = 0

    def take(self, partition: int, event: Event | Unreadable, fillings: Sequence[Filling]) -> None:
        if not isinstance(event, CheckpointBegun | PartitionMigrated):
            return
        before = self._before
        before[partition] = max(before[partition], json.loads(event.payload)["forget_before"])
        if min(before) <= self._low:
            return
        self._low = min(before)
        self._count += 1
        for filling in fillings:
            payload = json.dumps(_terms(ANYWHERE, self._low))
            filling.tell(f"forgot-{self._count}", payload, event.recorded_at)


class CommandCopy:
    """The commands that the target begins with: those that the source has not consumed, then what it has not posted.

    Args:
        target: The target.
        present: How many commands are in each of its partitions already.
        blobs: Copies large payloads.
    """

    def __init__(self, target: Log, present: Sequence[int], blobs: BlobCopy) -> None:
        self.counts = [0] * len(present)
        self.hashers = [hashlib.blake2b(digest_size=32) for _ in present]
        self._target = target
        self._present = present
        self._blobs = blobs
        self._waiting: list[list[Entry]] = [[] for _ in present]
        self._bytes = [0] * len(present)

    async def copy(
        self, source: Log, plan: Plan, outboxes: Sequence[Sequence[Command]], told: Told
    ) -> None:
        """Append them, as far as they are not there.

        Raises:
            LogMismatch: Others have sent commands to the target.
            LogError: A log can't be read or written.
        """
        ranges = [(cut.first_command, cut.commands) for cut in plan.cuts]
        async with aclosing(merged(source, Channel.COMMANDS, ranges)) as records:
            async for partition, record in records:
                told(1)
                if kind_of(record) not in TO_AN_OWNER:
                    await self._add(partition, Entry(record.key, record.value, record.headers))
        for partition, outbox in enumerate(outboxes):
            for command in outbox:
                await self._add(partition, encode_command(command))
        for partition in range(len(self.counts)):
            await self._flush(partition)
        for partition, (count, present) in enumerate(zip(self.counts, self._present, strict=True)):
            if present > count:
                raise LogMismatch(
                    f"partition {partition} of {self._target.namespace!r} has {present - count} commands that do not"
                    " come from the source: others use the target already. Migrate into a fresh namespace"
                )

    async def _add(self, source_partition: int, entry: Entry) -> None:
        partition = _target(entry.key, source_partition, self._target.layout)
        self.counts[partition] += 1
        self.hashers[partition].update(command_content(entry))
        if self.counts[partition] > self._present[partition]:
            await self._blobs.copy(entry.value)
            waiting = self._waiting[partition]
            waiting.append(entry)
            self._bytes[partition] += len(entry.value)
            if len(waiting) >= BATCH_ENTRIES or self._bytes[partition] >= BATCH_BYTES:
                await self._flush(partition)

    async def _flush(self, partition: int) -> None:
        entries, self._waiting[partition] = self._waiting[partition], []
        self._bytes[partition] = 0
        if entries:
            await self._target.append(Channel.COMMANDS, partition, entries)


def command_content(entry: Entry | Record) -> bytes:
    """What of a command must be the same in source and target: all but the number of its schema."""
    key = b"" if entry.key is None else entry.key.encode()
    return b"%d:%b%d:%b" % (len(key), key, len(entry.value), entry.value[5:])


def _target(key: str | None, source_partition: int, layout: Layout) -> int:
    return source_partition % layout.partitions if key is None else layout.place(key)


async def merged(
    log: Log, channel: Channel, ranges: Sequence[tuple[int, int]]
) -> AsyncGenerator[tuple[int, Record], None]:
    """The records of all partitions, each with its partition's number: the earliest by the log's time comes first.

    Args:
        log: An open log.
        channel: Which records.
        ranges: For each partition the first offset, and the one to stop before.
    """
    async with AsyncExitStack() as stack:
        cursors: list[_Cursor] = []
        for partition, (start, stop) in enumerate(ranges):
            batches = await stack.enter_async_context(
                aclosing(log.read(channel, partition, start, stop))
            )
            cursors.append(_Cursor(batches if start < stop else None))
        heads: list[tuple[int, int, Record]] = []
        for partition, cursor in enumerate(cursors):
            if (record := await cursor.next()) is not None:
                heapq.heappush(heads, (record.timestamp, partition, record))
        while heads:
            _, partition, record = heads[0]
            yield partition, record
            following = await cursors[partition].next()
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (following.timestamp, partition, following))


class _Cursor:
    """Records one by one, out of batches."""

    def __init__(self, batches: AsyncIterator[Sequence[Record]] | None) -> None:
        self._batches = batches
        self._batch: Sequence[Record] = ()
        self._at = 0

    async def next(self) -> Record | None:
        """The next record; None at the end."""
        while self._at >= len(self._batch):
            if self._batches is None:
                return None
            batch = await anext(self._batches, None)
            if batch is None:
                self._batches = None
                return None
            self._batch, self._at = batch, 0
        self._at += 1
        return self._batch[self._at - 1]
