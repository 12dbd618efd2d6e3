"""A moment of the past, as offsets: what of each partition had been recorded by then.

A moment includes what was recorded in it: as of an event's offset, or of its time, that event counts. Between
partitions nothing but the log's own times says what was before what; so of the whole namespace, a moment is a time of
the log.

Whoever folds up to such an offset (`engine/reader.py`) folds from the log's beginning, or from where it was trimmed; of
one run, its own events alone. No checkpoint shortens it: they are the owner's, hold no runs that were forgotten, and
the last one is mostly later than what is asked for.
"""

from dataclasses import dataclass

from refold.engine.reader import near, not_found
from refold.log.accepted import Accepted
from refold.log.chain_walk import Beginning, beginning
from refold.log.errors import UsageError
from refold.log.events import Unreadable
from refold.log.protocol import Channel, Log


@dataclass(frozen=True, slots=True)
class AtTime:
    """All that the log had taken in by a time.

    Args:
        time: Microseconds since 1970-01-01 UTC, by the log's clock.
    """

    time: int


@dataclass(frozen=True, slots=True)
class AtOffset:
    """All up to a record; of the other partitions, all that the log had taken in by that record's time."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class AtPosition:
    """All up to the event at a position of one run's stream."""

    position: int


Moment = AtTime | AtOffset | AtPosition


async def stops_at(log: Log, moment: AtTime | AtOffset) -> dict[int, int]:
    """For each partition, the offset before which everything had been recorded by then.

    Raises:
        UsageError: There is no record at the offset.
        LogError: The log can't be read.
    """
    time = await time_of(log, moment)
    stops = {p: await _stop_at(log, p, time) for p in range(log.partitions)}
    if isinstance(moment, AtOffset):  # others of its partition may have its time
        stops[moment.partition] = moment.offset + 1
    return stops


async def stop_at(log: Log, workflow_id: str, moment: Moment) -> int:
    """The offset of a run's partition before which everything had been recorded by then.

    Raises:
        UsageError: There is no record at the offset, or no event of the run at the position.
        WorkflowNotFound: No run has that id.
        LogError: The log can't be read.
    """
    partition = log.layout.place(workflow_id)
    match moment:
        case AtPosition():
            return await _after_position(log, partition, workflow_id, moment.position)
        case AtTime() | AtOffset():
            return (await stops_at(log, moment))[partition]


async def _stop_at(log: Log, partition: int, time: int) -> int:
    return await log.offset_at(Channel.EVENTS, partition, time + 1)


async def time_of(log: Log, moment: AtTime | AtOffset) -> int:
    """The log's time of a moment, microseconds since 1970-01-01 UTC.

    Raises:
        UsageError: There is no record at the offset.
        LogError: The log can't be read.
    """
    if isinstance(moment, AtTime):
        return moment.time
    partition, offset = moment.partition, moment.offset
    if not 0 <= partition < log.partitions:
        raise UsageError(
            f"{log.namespace!r} has no partition {partition}: it has {log.partitions}, from 0 on"
        )
    start, end = await log.bounds(Channel.EVENTS, partition)
    if offset >= end:
        raise UsageError(
            f"partition {partition} of {log.namespace!r} has no event at offset {offset}: it has offsets {start} to "
            f"{end - 1}"
        )
    async for batch in log.read(Channel.EVENTS, partition, offset, offset + 1):
        return batch[0].timestamp
    raise UsageError(  # Kafka's own records, and those of strangers, can leave gaps
        f"partition {partition} of {log.namespace!r} has no event at offset {offset}: give the offset of one"
    )


async def _after_position(log: Log, partition: int, workflow_id: str, position: int) -> int:
    """The offset after the event at a position."""
    close_by = await near(log, partition, workflow_id)
    if close_by is not None:
        offset, _ = await _find_position(log, partition, workflow_id, position, close_by)
        if offset is not None:
            return offset + 1
    start = await beginning(log, partition)
    offset, last = await _find_position(log, partition, workflow_id, position, start)
    if offset is not None:
        return offset + 1
    if last is None:
        raise not_found(log, workflow_id, start)
    raise UsageError(
        f"workflow {workflow_id!r} has no event at position {position}: the last one is at {last}"
    )


async def _find_position(
    log: Log, partition: int, workflow_id: str, position: int, start: Beginning
) -> tuple[int | None, int | None]:
    """Offset of a run's event at a position, if it is there, and the position of the last that was read."""
    accepted = Accepted(start.claim)
    last: int | None = (
        None  # position of the last event; of one that can't be read, the next after that
    )
    async for batch in log.read(Channel.EVENTS, partition, start.offset, key=workflow_id):
        for record in batch:
            event = accepted.take(record)
            if event is None:
                continue
            if isinstance(event, Unreadable):
                last = 0 if last is None else last + 1
            elif event.position is not None:  # else it is the partition's own
                last = event.position
            if last == position:
                return record.offset, last
    return None, last
