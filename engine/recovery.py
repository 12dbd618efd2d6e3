"""From where a partition is folded: its last checkpoint, or the log's beginning where none can be used.

The log's bookmark leads to the event that a checkpoint began with. Between that and the event that completes it stand
its parts and whatever else happened meanwhile, so the range is read twice: for the parts (the partition's own records
alone), then for the rest. What is found is checked (kind, claim, format, digest, nothing missing), and anything that is
not right means folding from the beginning: slower, and the same. A log that was trimmed begins with a checkpoint, which
serves as well. Where the beginning is gone and no checkpoint can be used, the partition halts.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from refold.engine.checkpoint import Restoration, Search, Text
from refold.engine.fold import evolve
from refold.engine.state import Origin, PartitionState
from refold.log.codec import decode_event
from refold.log.errors import LogCorrupt
from refold.log.events import (
    CheckpointBegun,
    CheckpointCompleted,
    CheckpointPart,
    PartitionClaimed,
    SubjectErased,
)
from refold.log.protocol import Bounds, Channel, Log, Record

NOBODY = ""
"""The id of no run: with it as key, a read gives the partition's own records and none of the runs' between them."""

logger = logging.getLogger("refold.recovery")


@dataclass(slots=True)
class Folded:
    """A fold on its way.

    Args:
        state: The fold of what comes before `position`.
        position: The offset to go on from.
        since_bytes: Length of the events since the checkpoint began, its own parts left out.
        checkpoint: Offset of the event that the checkpoint began with; None where the fold began at the beginning.
        erased: Keys that were destroyed meanwhile.
    """

    state: PartitionState
    position: int
    since_bytes: int = 0
    checkpoint: int | None = None
    erased: set[str] = field(default_factory=set[str])

    async def go_on(self, log: Log, partition: int, stop: int | None = None) -> None:
        """Fold on, up to (without) `stop`; without it, up to the end as of now.

        Raises:
            LogCorrupt: The partition can't be folded.
            LogError: The log can't be read.
        """
        if stop is not None and self.position >= stop:
            return
        async for batch in log.read(Channel.EVENTS, partition, self.position, stop):
            self.take(batch)

    def take(self, batch: Sequence[Record]) -> None:
        """Fold the next records.

        Raises:
            LogCorrupt: They can't be folded.
        """
        for record in batch:
            event = decode_event(record)
            evolve(self.state, event, record.offset)
            if not isinstance(event, CheckpointPart | CheckpointCompleted):
                self.since_bytes += len(record.value)
            if isinstance(event, SubjectErased):
                self.erased.update(json.loads(event.payload)["keys"])
        self.position = batch[-1].offset + 1


async def recover(log: Log, partition: int) -> Folded:
    """Where to begin: the state of the last checkpoint, or nothing at all at the log's beginning.

    Raises:
        LogCorrupt: The log's beginning is gone and there is no checkpoint that can be used.
        LogError: The log can't be read.
    """
    offset = await log.bookmark(partition)
    bounds = await log.bounds(
        Channel.EVENTS, partition
    )  # after: what the bookmark means is in the log
    if offset is None:
        problem = "there is no checkpoint"
    else:
        try:
            return Folded(
                await _restored(log, partition, offset, bounds), offset + 1, 0, checkpoint=offset
            )
        except LogCorrupt as error:
            problem = f"the checkpoint at offset {offset} can't be used ({error})"
    if bounds.start > 0:
        return await _from_start(log, partition, bounds, problem)
    if offset is not None:
        logger.warning(
            "partition %d: %s; folding all %d events instead, which takes longer and comes to the same",
            partition,
            problem,
            bounds.end,
        )
    return Folded(PartitionState(), 0)


async def _from_start(log: Log, partition: int, bounds: Bounds, problem: str) -> Folded:
    """The state that a trimmed log begins with: it is cut where a whole checkpoint begins (`engine/trimming.py`)."""
    start = bounds.start
    try:
        state = await _restored(log, partition, start, bounds)
    except LogCorrupt as error:
        raise LogCorrupt(
            f"the first {start} events of partition {partition} of {log.namespace!r} are gone, and {problem}: "
            "restore the log, or name an archive of it with ?archive=DIR in its URL; see that nothing else deletes "
            "records"
        ) from error
    logger.warning(
        "partition %d: %s; folding from the checkpoint at offset %d instead, with which the log begins",
        partition,
        problem,
        start,
    )
    return Folded(state, start + 1, 0, checkpoint=start)


async def checkpoint_at(log: Log, partition: int, offset: int) -> PartitionState:
    """The state that the checkpoint holds whose first event stands at `offset`.

    Raises:
        LogCorrupt: There is none that can be used.
        LogError: The log can't be read.
    """
    return await _restored(log, partition, offset, await log.bounds(Channel.EVENTS, partition))


class Found(NamedTuple):
    """What the last checkpoint says of one run.

    Args:
        begun: The event that it began with.
        offset: The offset of that.
        is_there: Whether the run is in it, open or ended.
        origin: Where the run's stream begins; None where it does not say.
    """

    begun: CheckpointBegun
    offset: int
    is_there: bool
    origin: Origin | None


async def find_run(log: Log, partition: int, workflow_id: str) -> Found | None:
    """What the last checkpoint says of a run; None where there is none that can be used.

    Raises:
        LogError: The log can't be read.
    """
    offset = await log.bookmark(partition)
    if offset is None:
        return None
    search = Search(workflow_id)
    try:
        bounds = await log.bounds(Channel.EVENTS, partition)
        begun = await _read_checkpoint(log, partition, offset, bounds, lambda _: search)
    except LogCorrupt:
        return None  # whoever recovers says so
    return Found(begun, offset, search.is_there, search.origin)


async def _restored(log: Log, partition: int, offset: int, bounds: Bounds) -> PartitionState:
    """The state that the checkpoint at `offset` holds.

    Raises:
        LogCorrupt: There is none that can be used.
    """
    states: list[PartitionState] = []

    def restoration(begun: CheckpointBegun) -> Restoration:
        states.append(
            PartitionState(
                claim=begun.claim,
                owner=begun.worker,
                command=begun.command,
                posted=begun.posted,
                chain=begun.chain,
            )
        )
        return Restoration(states[0])

    await _read_checkpoint(log, partition, offset, bounds, restoration)
    return states[0]


async def _read_checkpoint(
    log: Log,
    partition: int,
    offset: int,
    bounds: Bounds,
    reader: Callable[[CheckpointBegun], Text],
) -> CheckpointBegun:
    """Have the text of the checkpoint at `offset` read; returns the event that it began with.

    Raises:
        LogCorrupt: There is none that can be used.
    """
    if not bounds.start <= offset < bounds.end:
        raise LogCorrupt(f"the log has offsets {bounds.start} to {bounds.end}")
    reading: _Reading | None = None
    async for batch in log.read(Channel.EVENTS, partition, offset, key=NOBODY):
        for record in batch:
            if reading is None:
                begun = await _begin(log, partition, record, offset, bounds)
                reading = _Reading(begun, reader(begun))
            elif reading.take(record):
                return reading.begun
    raise LogCorrupt("it was never completed")


async def _begin(
    log: Log, partition: int, record: Record, offset: int, bounds: Bounds
) -> CheckpointBegun:
    begun = decode_event(record)
    if record.offset != offset or not isinstance(begun, CheckpointBegun):
        raise LogCorrupt("no checkpoint begins there")
    if begun.claim >= bounds.start:
        batches = log.read(Channel.EVENTS, partition, begun.claim, begun.claim + 1)
        claims = [decode_event(record) async for batch in batches for record in batch]
        if not (len(claims) == 1 and isinstance(claims[0], PartitionClaimed)):
            raise LogCorrupt(f"offset {begun.claim}, under which it was written, is no claim")
    return begun


class _Reading:
    """A checkpoint as it is put together.

    Args:
        begun: The event that it began with.
        text: What reads its text.
    """

    def __init__(self, begun: CheckpointBegun, text: Text) -> None:
        self.begun = begun
        self._text = text
        self._hasher = blake2b(digest_size=32)
        self._parts = 0

    def take(self, record: Record) -> bool:
        """Take the partition's next own record; returns whether the checkpoint is whole.

        Raises:
            LogCorrupt: It can't become whole.
        """
        event = decode_event(record)
        begun = self.begun
        if event.claim != begun.claim:
            return False  # a zombie's
        if isinstance(event, PartitionClaimed):
            raise LogCorrupt("its writer lost the partition before it was completed")
        if isinstance(event, CheckpointPart) and event.name == begun.name:
            if event.index != self._parts:
                raise LogCorrupt(f"its part {self._parts} is missing")
            self._parts += 1
            self._hasher.update(event.payload.encode())
            self._text.take(event.payload)
        elif isinstance(event, CheckpointCompleted) and event.name == begun.name:
            if (event.count, event.payload) != (self._parts, self._hasher.hexdigest()):
                raise LogCorrupt("its parts are not those that were written")
            self._text.check_whole()
            return True
        return False
