"""Reading runs straight from the log, for those who own nothing: status, history, list, and how a run ended."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from refold.engine.effects import Lookup
from refold.engine.fold import NO_CLAIM, PartitionState, Status, evolve
from refold.engine.watchers import ended_reply, why_parked
from refold.log.codec import decode_event
from refold.log.commands import Reply
from refold.log.errors import WorkflowNotFound
from refold.log.events import (
    Event,
    PartitionClaimed,
    Unreadable,
    WorkflowCompleted,
    WorkflowFailed,
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
        status: `running`, `parked`, `completed` or `failed`.
        started_at: When it was started (UTC).
        updated_at: When its last event was recorded (UTC).
        events: Number of events in its stream.
        reason: Why it is parked; None otherwise.
    """

    workflow_id: str
    workflow: str
    status: Status
    started_at: datetime
    updated_at: datetime
    events: int
    reason: str | None = None


async def accepted_events(
    log: Log, partition: int, workflow_id: str
) -> AsyncIterator[Event | Unreadable]:
    """The events of one stream that count, in order: zombies' are left out by the same rule as in the fold."""
    claim = NO_CLAIM
    async for batch in log.read(Channel.EVENTS, partition, 0, key=workflow_id):
        for record in batch:
            event = decode_event(record)
            if event.claim is not None and event.claim != claim:
                continue
            if isinstance(event, PartitionClaimed):
                claim = record.offset
            elif isinstance(event, Unreadable) or event.position is not None:
                yield event


async def read_history(log: Log, workflow_id: str) -> list[Event | Unreadable]:
    """All events of a run, in order.

    Raises:
        WorkflowNotFound: No run has that id.
    """
    partition = partition_of(workflow_id, log.partitions)
    events = [event async for event in accepted_events(log, partition, workflow_id)]
    if not events:
        raise _not_found(log, workflow_id)
    return events


async def read_status(log: Log, workflow_id: str) -> WorkflowInfo:
    """How one run stands.

    Raises:
        WorkflowNotFound: No run has that id.
    """
    partition = partition_of(workflow_id, log.partitions)
    for info in _infos(await read_partition(log, partition, workflow_id)):
        return info
    raise _not_found(log, workflow_id)


async def read_all(log: Log) -> list[WorkflowInfo]:
    """How every run stands, the latest started first. Folds the whole log."""
    infos: list[WorkflowInfo] = []
    for partition in range(log.partitions):
        infos.extend(_infos(await read_partition(log, partition)))
    infos.sort(key=lambda info: info.started_at, reverse=True)
    return infos


async def read_partition(
    log: Log, partition: int, workflow_id: str | None = None
) -> PartitionState:
    """The fold of a partition as of now, or of one stream in it where `workflow_id` is given."""
    state = PartitionState()
    async for batch in log.read(Channel.EVENTS, partition, 0, key=workflow_id):
        for record in batch:
            state = evolve(state, decode_event(record), record.offset)
    return state


async def read_ending(log: Log, partition: int, lookup: Lookup) -> Reply:
    """The reply that tells how an ended run ended, found in the log."""
    ending: WorkflowCompleted | WorkflowFailed | None = None
    async for event in accepted_events(log, partition, lookup.workflow_id):
        if isinstance(event, WorkflowCompleted | WorkflowFailed):
            ending = event
    if ending is None:
        return Reply(command_id=lookup.command_id, workflow_id=lookup.workflow_id, status="unknown")
    return ended_reply(ending, lookup.command_id)


def _not_found(log: Log, workflow_id: str) -> WorkflowNotFound:
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
                utc(started.recorded_at if started is not None else run.updated_at),
                utc(run.updated_at),
                run.position,
                reason,
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
            )
        )
    return infos


def utc(microseconds: int) -> datetime:
    """Microseconds since 1970-01-01 UTC as a datetime."""
    return EPOCH + timedelta(microseconds=microseconds)
