"""Reading runs straight from the log, for those who own nothing: status, history, list, and how a run ended."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from refold.engine.answers import refused_reply
from refold.engine.copied import read_copied
from refold.engine.effects import Lookup
from refold.engine.fold import evolve
from refold.engine.recovery import checkpoint_at, find_run, recover
from refold.engine.scope import datetime_of
from refold.engine.state import Closed, Ended, PartitionState, Status, WorkflowState
from refold.engine.watchers import ended_reply, no_value_reply, reason_of, value_reply, why_parked
from refold.log.accepted import Accepted
from refold.log.attributes import Tag, decode_attributes
from refold.log.chain_walk import Beginning, beginning
from refold.log.codec import decode_event
from refold.log.commands import Reply
from refold.log.errors import LogTrimmed, WorkflowNotFound
from refold.log.events import (
    Event,
    HistoryCopied,
    Unreadable,
    ValuePublished,
    WorkflowReopened,
    WorkflowStarted,
)
from refold.log.protocol import Channel, Log, Record
from refold.log.trimmed import ARCHIVE_ADVICE, trimmed


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """How a run stands.

    Args:
        workflow_id: Its id.
        workflow: Name of its workflow; "?" where its first event can't be read.
        status: `running`, `queued`, `parked`, `paused`, `copying`, `completed`, `failed`, `cancelled` or `terminated`.
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
        queue: The queue in which it waited or waits for its turn; None for none.
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
    queue: str | None = None


async def accepted_events(
    log: Log, partition: int, workflow_id: str, start: Beginning, stop: int | None = None
) -> AsyncIterator[Event | Unreadable]:
    """The events of one stream that count, in order: zombies' are left out by the same rule as in the fold.

    Args:
        log: An open log.
        partition: Where the stream is.
        workflow_id: The stream.
        start: From where the partition can be read.
        stop: The offset to stop before; the end as of now where not given.
    """
    accepted = Accepted(start.claim)
    async for batch in log.read(Channel.EVENTS, partition, start.offset, stop, key=workflow_id):
        for record in batch:
            event = accepted.take(record)
            if isinstance(event, Unreadable) or (event is not None and event.position is not None):
                yield event


class RunReading:
    """One run's events, and how it stands, of one reading of its partition.

    Where an id was used again, the events are those of its last use.

    Args:
        workflow_id: The run.
        start: From where on the records are given.
    """

    def __init__(self, workflow_id: str, start: Beginning) -> None:
        self.events: list[Event | Unreadable] = []
        self.is_whole = start.offset == 0
        self._workflow_id = workflow_id
        self._state = PartitionState(claim=start.claim, remembers=True)

    @property
    def info(self) -> WorkflowInfo | None:
        """How it stands; None where there is none."""
        return info_of(self._state, self._workflow_id)

    def take(self, record: Record) -> None:
        """Take the next record of the run, or of the partition itself."""
        state, event = self._state, decode_event(record)
        # As in `Accepted`: what has no claim is a stranger's, which breaks the workflow that it names.
        counts = event.workflow_id is not None and event.claim in {state.claim, None}
        if counts and isinstance(event, WorkflowStarted):
            if not self.is_whole and not self.events:
                self.is_whole = True
                state.floor = event.position or 0  # what it was is not known, and it was accepted
            before = state.open.get(self._workflow_id)
            evolve(state, event, record.offset)
            if state.open.get(self._workflow_id) is not before:
                self.events.clear()
        else:
            evolve(state, event, record.offset)
        if counts and (isinstance(event, Unreadable) or event.position is not None):
            self.events.append(event)


async def _read_run(
    log: Log, partition: int, workflow_id: str, start: Beginning, stop: int | None
) -> RunReading:
    reading = RunReading(workflow_id, start)
    async for batch in log.read(Channel.EVENTS, partition, start.offset, stop, key=workflow_id):
        for record in batch:
            reading.take(record)
    return reading


async def near(
    log: Log, partition: int, workflow_id: str, stop: int | None = None
) -> Beginning | None:
    """From where on a run can be read without all that came before it: as the last checkpoint says.

    Where that has no such run, it has begun after it, or was forgotten before: the reading tells.

    Returns:
        None where nothing is known, or the run begins at `stop` or later.

    Raises:
        LogError: The log can't be read.
    """
    found = await find_run(log, partition, workflow_id)
    if found is None or (found.is_there and found.origin is None):
        return None
    offset, claim = found.origin or (found.offset, found.begun.claim)
    start = (await log.bounds(Channel.EVENTS, partition)).start
    if offset < start or (stop is not None and offset >= stop):
        return None
    return Beginning(offset, claim, None, found.begun.command)


async def _read_near(
    log: Log, partition: int, workflow_id: str, stop: int | None
) -> RunReading | None:
    start = await near(log, partition, workflow_id, stop)
    if start is None:
        return None
    reading = await _read_run(log, partition, workflow_id, start, stop)
    return reading if reading.is_whole and reading.events else None


async def read_run(
    log: Log, workflow_id: str, stop: int | None = None
) -> tuple[WorkflowInfo, list[Event | Unreadable]]:
    """How a run stands, and all its events, in order; as of an offset of its partition where `stop` is given.

    Raises:
        WorkflowNotFound: No run has that id.
        LogTrimmed: Its first events were trimmed.
    """
    partition = log.layout.place(workflow_id)
    reading = await _read_near(log, partition, workflow_id, stop)
    if reading is None:
        start = await beginning(log, partition)
        reading = await _read_run(log, partition, workflow_id, start, stop)
        if not reading.events and stop is not None:
            raise not_found(log, workflow_id, start)
        if not reading.events:
            raise await missing(log, workflow_id, start)
        if not reading.is_whole and not isinstance(reading.events[0], Unreadable):
            raise beheaded(workflow_id, start)
    info = reading.info if reading.is_whole else None
    return info or await read_status(log, workflow_id, stop), reading.events


async def read_history(
    log: Log, workflow_id: str, stop: int | None = None
) -> list[Event | Unreadable]:
    """All events of a run, in order; as of an offset of its partition where `stop` is given (without that one).

    Raises:
        WorkflowNotFound: No run has that id.
        LogTrimmed: Its first events were trimmed.
    """
    return (await read_run(log, workflow_id, stop))[1]


async def read_status(log: Log, workflow_id: str, stop: int | None = None) -> WorkflowInfo:
    """How one run stands, or stood before the offset `stop` of its partition.

    Raises:
        WorkflowNotFound: No run has that id.
    """
    partition = log.layout.place(workflow_id)
    reading = await _read_near(log, partition, workflow_id, stop)
    if reading is not None and reading.info is not None:
        return reading.info
    state = await read_partition(log, partition, workflow_id, stop, remembers=True)
    info = info_of(state, workflow_id)
    if info is not None:
        return info
    raise not_found(log, workflow_id, await beginning(log, partition))


async def read_all(log: Log, stops: Mapping[int, int] | None = None) -> list[WorkflowInfo]:
    """How every run stands, the latest started first. Folds the whole log.

    Args:
        log: An open log.
        stops: As of when: for each partition the offset to stop before (`engine/moments.py`); now where not given.
    """
    infos: list[WorkflowInfo] = []
    for partition in range(log.partitions):
        stop = None if stops is None else stops[partition]
        infos.extend(infos_of(await read_partition(log, partition, stop=stop, remembers=True)))
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
    log: Log,
    partition: int,
    workflow_id: str | None = None,
    stop: int | None = None,
    *,
    remembers: bool = False,
) -> PartitionState:
    """The fold of a partition as of now or as of an offset, or of one stream in it where `workflow_id` is given.

    Args:
        log: An open log.
        partition: Which of its partitions.
        workflow_id: Fold this stream alone, and the partition's own events.
        stop: As of before this offset; as of now where not given.
        remembers: Keep the runs that owners have forgotten as well.

    Raises:
        LogTrimmed: What came before `stop` was trimmed.
        LogError: The log can't be read.
    """
    start = (await log.bounds(Channel.EVENTS, partition)).start
    if start > 0 and stop is not None:
        if stop <= start:
            raise trimmed(log.namespace, Channel.EVENTS, partition, stop, start)
        state = await checkpoint_at(log, partition, start)
        state.remembers = remembers
        await fold_range(log, partition, state, start + 1, stop)
        return state
    if start > 0:
        recovered = await recover(log, partition)
        await recovered.go_on(log, partition)
        return recovered.state
    state = PartitionState(remembers=remembers)
    await fold_range(log, partition, state, 0, stop, workflow_id)
    return state


async def read_ending(
    log: Log, partition: int, lookup: Lookup, *, has_ended: bool = False
) -> Reply:
    """The reply that tells how an ended run ended, found in the log.

    Args:
        log: An open log.
        partition: Where the run is.
        lookup: What is asked.
        has_ended: It is known that it has: then its end, if it is not found, was trimmed.
    """
    start = await beginning(log, partition)
    if lookup.offset is not None and lookup.offset >= start.offset:
        there = Beginning(lookup.offset, lookup.claim)
        async for event in accepted_events(log, partition, lookup.workflow_id, there):
            if isinstance(event, Ended):
                return ended_reply(event, lookup.command_id)
    ending: Ended | None = None
    async for event in accepted_events(log, partition, lookup.workflow_id, start):
        if isinstance(event, Ended):
            ending = event
        elif isinstance(event, WorkflowReopened | WorkflowStarted):
            ending = None
    if ending is not None:
        return ended_reply(ending, lookup.command_id)
    if lookup.forgotten:
        return refused_reply(lookup, not_found(log, lookup.workflow_id, start))
    if start.offset > 0 and not has_ended:
        state = await read_partition(log, partition, lookup.workflow_id)
        has_ended = lookup.workflow_id in state.closed
    if start.offset > 0 and has_ended:
        told = f"the result of workflow {lookup.workflow_id!r} was trimmed"
        return refused_reply(lookup, trimmed_away(told, start))
    return Reply(command_id=lookup.command_id, workflow_id=lookup.workflow_id, status="unknown")


async def read_lookup(log: Log, partition: int, lookup: Lookup) -> Reply:
    """What a client is told of a run that is not in memory: how it ended, or what it published."""
    if lookup.key is None:
        return await read_ending(log, partition, lookup, has_ended=not lookup.forgotten)
    start = await beginning(log, partition)
    published: ValuePublished | None = None
    found, whole = not lookup.forgotten, start.offset == 0
    async for event in accepted_events(log, partition, lookup.workflow_id, start):
        found = True
        if isinstance(event, WorkflowStarted):
            whole, published = True, None  # perhaps of an id that was used before
        elif isinstance(event, ValuePublished) and event.name == lookup.key:
            published = event
        elif isinstance(event, HistoryCopied):
            published = read_copied(event.payload).values.get(lookup.key) or published
    if not found:
        return refused_reply(lookup, not_found(log, lookup.workflow_id, start))
    if published is not None:
        return value_reply(published, lookup.command_id)
    if not whole:
        told = f"what workflow {lookup.workflow_id!r} published under {lookup.key!r}, if it did, was trimmed"
        return refused_reply(lookup, trimmed_away(told, start))
    return no_value_reply(lookup.workflow_id, lookup.key, lookup.command_id)


def not_found(log: Log, workflow_id: str, start: Beginning) -> WorkflowNotFound:
    """The error for an id that the log has no run of, as far as it can be read."""
    trimmed = ""
    if start.offset > 0:
        partition = log.layout.place(workflow_id)
        trimmed = f". Events of partition {partition} before offset {start.offset} were trimmed. {ARCHIVE_ADVICE}"
    return WorkflowNotFound(
        f"no workflow has the id {workflow_id!r} in {log.namespace!r}: check the id, "
        f"or list the runs with `refold list`{trimmed}"
    )


async def missing(log: Log, workflow_id: str, start: Beginning) -> LogTrimmed | WorkflowNotFound:
    """The error for a run of which no event is left: it was trimmed, or there was none."""
    if start.offset > 0:
        state = await read_partition(log, log.layout.place(workflow_id))
        if workflow_id in state.open or workflow_id in state.closed:
            return beheaded(workflow_id, start)
    return not_found(log, workflow_id, start)


def beheaded(workflow_id: str, start: Beginning) -> LogTrimmed:
    """The error for a run whose first events were trimmed."""
    return trimmed_away(f"the first events of workflow {workflow_id!r} were trimmed", start)


def trimmed_away(told: str, start: Beginning) -> LogTrimmed:
    """The error for what is not there any more; `told` says what was trimmed."""
    return LogTrimmed(
        f"{told}, with all before offset {start.offset} of its partition. {ARCHIVE_ADVICE}"
    )


def infos_of(state: PartitionState) -> list[WorkflowInfo]:
    """How every run of a partition stands."""
    open_ = [_open_info(workflow_id, run) for workflow_id, run in state.open.items()]
    return [*open_, *(_closed_info(id_, closed) for id_, closed in state.closed.items())]


def info_of(state: PartitionState, workflow_id: str) -> WorkflowInfo | None:
    """How one run of a partition stands; None where there is none."""
    run, closed = state.open.get(workflow_id), state.closed.get(workflow_id)
    if run is not None:
        return _open_info(workflow_id, run)
    return None if closed is None else _closed_info(workflow_id, closed)


def _open_info(workflow_id: str, run: WorkflowState) -> WorkflowInfo:
    started = run.started
    reason = None
    if run.status is Status.PARKED:
        reason = why_parked(workflow_id, reason_of(run.parked), run.broken)
    due_at = started.due_at if started is not None else None
    return WorkflowInfo(
        workflow_id,
        started.workflow if started is not None else "?",
        run.status,
        datetime_of(run.first_started_at),
        datetime_of(run.updated_at),
        run.position,
        reason,
        version=started.version if started is not None else 1,
        code_version=started.code_version if started is not None else None,
        attributes=decode_attributes(run.attributes),
        parent_id=started.parent_id if started is not None else None,
        deadline=datetime_of(due_at) if due_at is not None else None,
        patches=frozenset(run.exchange.patches),
        queue=started.queue if started is not None else None,
    )


def _closed_info(workflow_id: str, closed: Closed) -> WorkflowInfo:
    return WorkflowInfo(
        workflow_id,
        closed.workflow,
        closed.status,
        datetime_of(closed.started_at),
        datetime_of(closed.ended_at),
        closed.position,
        version=closed.version,
        attributes=decode_attributes(closed.attributes or {}),
        parent_id=closed.parent_id,
        queue=closed.queue,
    )
