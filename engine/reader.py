"""Reading runs straight from the log, for those who own nothing: status, history, list, and how a run ended."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from refold.engine.accepted import Accepted
from refold.engine.copied import read_copied
from refold.engine.effects import Lookup
from refold.engine.fold import evolve
from refold.engine.state import Ended, PartitionState, Status
from refold.engine.watchers import ended_reply, no_value_reply, value_reply, why_parked
from refold.log.attributes import Tag, decode_attributes
from refold.log.codec import decode_event
from refold.log.commands import Reply
from refold.log.errors import WorkflowNotFound
from refold.log.events import (
    Event,
    HistoryCopied,
    Unreadable,
    ValuePublished,
    WorkflowReopened,
)
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Log

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """How a run stands.

    Args:
        workflow_id: Its id.
        workflow: Name of its workflow; "?" where its first event can't be read.
        status: `running`, `parked`, `paused`, `copying`, `completed`, `failed`, `cancelled` or `terminated`.
        started_at: When it was started (UTC).
        updated_at: When its last event was recorded (UTC).
        events: Number of events in its stream.
        reason: Why it is parked; None otherwise.
        version: Version of its code.
        code_version: Hash of that code at its start; None where it has ended, or is not known.
        attributes: Its tags.
        parent_id: The workflow that started it as a child.
        deadline: When it is cancelled (UTC); None for never, or where it has ended.
        patches: Changes of code whose new path it takes; empty where it has ended.
    """

    workflow_id: str
    workflow: str
    status: Status
    started_at: datetime
    updated_at: datetime
    events: int
    reason: str | None = None
    version: int = 1
    code_version: str | None = None
    attributes: Mapping[str, Tag] = field(default_factory=dict[str, Tag])
    parent_id: str | None = None
    deadline: datetime | None = None
    patches: frozenset[str] = frozenset()


async def accepted_events(
    log: Log, partition: int, workflow_id: str
) -> AsyncIterator[Event | Unreadable]:
    """The events of one stream that count, in order: zombies' are left out by the same rule as in the fold."""
    accepted = Accepted()
    async for batch in log.read(Channel.EVENTS, partition, 0, key=workflow_id):
        for record in batch:
            event = accepted.take(record)
            if isinstance(event, Unreadable) or (event is not None and event.position is not None):
                yield event


async def read_history(log: Log, workflow_id: str) -> list[Event | Unreadable]:
    """All events of a run, in order.

    Raises:
        WorkflowNotFound: No run has that id.
    """
    partition = partition_of(workflow_id, log.partitions)
    events = [event async for event in accepted_events(log, partition, workflow_id)]
    if not events:
        raise not_found(log, workflow_id)
    return events


async def read_status(log: Log, workflow_id: str) -> WorkflowInfo:
    """How one run stands.

    Raises:
        WorkflowNotFound: No run has that id.
    """
    partition = partition_of(workflow_id, log.partitions)
    for info in _infos(await read_partition(log, partition, workflow_id)):
        return info
    raise not_found(log, workflow_id)


async def read_all(log: Log) -> list[WorkflowInfo]:
    """How every run stands, the latest started first. Folds the whole log."""
    infos: list[WorkflowInfo] = []
    for partition in range(log.partitions):
        infos.extend(_infos(await read_partition(log, partition)))
    infos.sort(key=lambda info: info.started_at, reverse=True)
    return infos


async def fold_range(  # noqa: PLR0917 - a range of a partition
    log: Log,
    partition: int,
    state: PartitionState,
    start: int,
    stop: int | None = None,
    workflow_id: str | None = None,
) -> int:
    """Fold a range of a partition's events into `state`.

    Args:
        log: An open log.
        partition: Which of its partitions.
        state: The fold of what comes before.
        start: The first offset to fold.
        stop: The offset to stop before; the end as of now where not given.
        workflow_id: Fold this stream alone, and the partition's own events.

    Returns:
        The offset to go on from.
    """
    async for batch in log.read(Channel.EVENTS, partition, start, stop, key=workflow_id):
        for record in batch:
            evolve(state, decode_event(record), record.offset)
        start = batch[-1].offset + 1
    return start


async def read_partition(
    log: Log, partition: int, workflow_id: str | None = None
) -> PartitionState:
    """The fold of a partition as of now, or of one stream in it where `workflow_id` is given."""
    state = PartitionState()
    await fold_range(log, partition, state, 0, workflow_id=workflow_id)
    return state


async def read_ending(log: Log, partition: int, lookup: Lookup) -> Reply:
    """The reply that tells how an ended run ended, found in the log."""
    ending: Ended | None = None
    async for event in accepted_events(log, partition, lookup.workflow_id):
        if isinstance(event, Ended):
            ending = event
        elif isinstance(event, WorkflowReopened):
            ending = None
    if ending is None:
        return Reply(command_id=lookup.command_id, workflow_id=lookup.workflow_id, status="unknown")
    return ended_reply(ending, lookup.command_id)


async def read_lookup(log: Log, partition: int, lookup: Lookup) -> Reply:
    """What a client is told of a run that is not in memory: how it ended, or what it published."""
    if lookup.key is None:
        return await read_ending(log, partition, lookup)
    published: ValuePublished | None = None
    async for event in accepted_events(log, partition, lookup.workflow_id):
        if isinstance(event, ValuePublished) and event.name == lookup.key:
            published = event
        elif isinstance(event, HistoryCopied):
            published = read_copied(event.payload).values.get(lookup.key) or published
    if published is None:
        return no_value_reply(lookup.workflow_id, lookup.key, lookup.command_id)
    return value_reply(published, lookup.command_id)


def not_found(log: Log, workflow_id: str) -> WorkflowNotFound:
    """The error for an id that the log has no run of."""
    return WorkflowNotFound(
        f"no workflow has the id {workflow_id!r} in {log.namespace!r}: check the id, "
        "or list the runs with `refold list`"
    )


def _infos(state: PartitionState) -> list[WorkflowInfo]:
    infos: list[WorkflowInfo] = []
    for workflow_id, run in state.open.items():
        started = run.started
        reason = None
        if run.status is Status.PARKED:
            reason = why_parked(workflow_id, run.parked, run.broken)
        infos.append(
            WorkflowInfo(
                workflow_id,
                started.workflow if started is not None else "?",
                run.status,
                utc(run.first_started_at),
                utc(run.updated_at),
                run.position,
                reason,
                version=started.version if started is not None else 1,
                code_version=started.code_version if started is not None else None,
                attributes=decode_attributes(run.attributes),
                parent_id=started.parent_id if started is not None else None,
                deadline=utc(started.due_at)
                if started is not None and started.due_at is not None
                else None,
                patches=frozenset(run.exchange.patches),
            )
        )
    for workflow_id, closed in state.closed.items():
        infos.append(
            WorkflowInfo(
                workflow_id,
                closed.workflow,
                closed.status,
                utc(closed.started_at),
                utc(closed.ended_at),
                closed.position,
                version=closed.version,
                attributes=decode_attributes(closed.attributes or {}),
                parent_id=closed.parent_id,
            )
        )
    return infos


def utc(microseconds: int) -> datetime:
    """Microseconds since 1970-01-01 UTC as a datetime."""
    return EPOCH + timedelta(microseconds=microseconds)
