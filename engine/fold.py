"""The fold: how events become state. The only way that state comes to be, for every reader on every backend.

Rules, in the order in which they are applied to a record:

1. An event counts only if it was written under the current claim; any other is a zombie's and is ignored.
   A `PartitionClaimed` names the claim that it replaces, so the same comparison decides who won a race: the
   first to name the current claim is accepted, and its own offset is the claim from then on.
2. Any accepted event may raise the mark of consumed commands; the mark never goes back.
3. The first start of an id wins. What comes before a start, out of position, twice for one step, or for a step
   that does not stand open is impossible: it breaks that workflow loudly, and no other.
4. A record that can't be read breaks its workflow as well. What can't be read and belongs to no workflow was
   written by something that is not refold or by a newer release: with the current claim it stops the fold
   (`LogCorrupt`), with another or none it is ignored like a zombie's.
5. A broken workflow stays open, until an operator terminates it, and is never run; its later events only move its
   position, and are confirmed to whoever sent what they record.
6. After a terminal event a stream changes no more, until an operator reopens it. What is kept of it is small: see
   `Closed`. A reopened run, like a fork, is `copying` until the last part of its history has come.
7. A parked or paused workflow still takes outcomes of steps that were under way, messages and ends of children: a
   recorded step never runs again, and nothing that was sent is lost.
8. What one workflow wants of another follows from events: each command to be posted stands in the outbox from its
   event on, until an event says that so many have been posted (`posted`). It may be posted twice; a second message
   with one id, a second start by one operation, a second answer to one request change nothing.
9. A workflow that is continued as new keeps its id, its position, its children, values, streams and the messages
   that its code had not taken; outcomes of operations from before no longer reach its code.
10. A rewound workflow forgets what the operation and all later ones came to; its children of those are cancelled.
11. Where a checkpoint begins, the runs that ended before the time that it names are forgotten: their ids can be used
    again, by streams that begin at a position that none of the forgotten had come to. Its parts change nothing.

12. While the streams of another namespace are copied into a partition (`PartitionMigrated`), each begins at the
    position at which it began there, also where an earlier one of that id has ended and was forgotten there.

13. A queue is folded on the partition of its name, and its runs on theirs. A run asks for a slot by its start, or by
    being reopened: it waits in the order in which the queue hears of it. Whenever there is room (fewer runs have a
    slot than the limit, and some wait), the first that waits gets one, in the very event that made room: so a queue
    never has more than its limit, whoever folds. What a run asked for is named by its id and the position of its
    event: nothing that comes twice, or late, counts twice. A slot is free again when the run's end is heard of, or when
    it comes to a run that has ended (`SlotReturned`).

`evolve` has no clock, no randomness and no I/O. It consumes the state that it is given and returns it changed:
a copy per event would make a history of n steps cost n squared. Whoever wants to keep an old state folds anew.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from refold.engine import outbox
from refold.engine.copied import Copied, read_copied
from refold.engine.operations import Emitted, Numbering, Outcome
from refold.engine.state import (
    ANYWHERE,
    ENDED_AS,
    MAX_REMEMBERED,
    NO_ATTEMPTS,
    NO_EXCHANGE,
    Attempts,
    Closed,
    Emission,
    Ended,
    Exchange,
    Handed,
    Origin,
    PartitionState,
    Queue,
    Sent,
    Status,
    Ticket,
    WorkflowState,
    digest_input,
)
from refold.log.codec import link_claim
from refold.log.commands import Command
from refold.log.errors import LogCorrupt
from refold.log.events import (
    AskAnswered,
    AskReceived,
    AttributesSet,
    CancelSent,
    CheckpointBegun,
    CheckpointCompleted,
    CheckpointPart,
    ChildCompleted,
    ChildFailed,
    ChildRequested,
    CommandRefused,
    DeliveryConfirmed,
    DeliveryRefused,
    Event,
    HistoryCopied,
    MessageReceived,
    MessageSent,
    PartitionClaimed,
    PartitionHandedOver,
    PartitionMigrated,
    PartitionOffered,
    PatchApplied,
    QueueSet,
    SlotGranted,
    SlotReleased,
    SlotRequested,
    SlotReturned,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    StreamWritten,
    SubjectErased,
    TimerFired,
    TimerStarted,
    Unreadable,
    ValuePublished,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowContinued,
    WorkflowFailed,
    WorkflowParked,
    WorkflowPaused,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowRewound,
    WorkflowStarted,
    WorkflowTerminated,
    WorkflowWarned,
)

T = TypeVar("T")


def evolve(state: PartitionState, event: Event | Unreadable, offset: int) -> PartitionState:
    """Fold one record into the state.

    Args:
        state: The state so far; consumed.
        event: What the codec made of the record.
        offset: The record's offset; for other events than claims also one a little before.

    Returns:
        The state after the record.

    Raises:
        LogCorrupt: A record of the partition itself can't be read (rule 4).
    """
    if isinstance(event, Unreadable):
        return _unreadable(state, event, offset)
    if event.claim != state.claim:
        return state
    state.offset = offset
    state.command = max(state.command, event.command)
    while state.posted < event.posted and state.outbox:
        state.outbox.popleft()
        state.posted += 1
    if isinstance(event, PartitionClaimed):
        state.claim = offset
        state.owner = event.worker
        state.offered_until = 0
        state.chain = link_claim(state.chain, event.chain)
        return state
    state.chain = event.chain
    workflow_id = event.workflow_id
    if event.position is None or workflow_id is None:
        _own_event(state, event, offset)
        return state
    workflow = state.open.get(workflow_id)
    if workflow is None:
        _first_event(state, workflow_id, event)
    elif workflow.broken is not None:
        workflow.position += 1
        if (
            isinstance(event, MessageReceived | WorkflowCancelRequested)
            and event.parent_step is not None
        ):
            state.outbox.append(outbox.confirm(event))  # it is recorded: the sender need not wait
        elif isinstance(event, WorkflowTerminated):
            _close(state, workflow_id, workflow, event)
    elif event.position != workflow.position:
        _break(
            workflow, f"event {event.kind} has position {event.position}, not {workflow.position}"
        )
    else:
        workflow.position += 1
        workflow.updated_at = event.recorded_at
        _transition(state, workflow_id, workflow, event)
    return state


def _own_event(state: PartitionState, event: Event, offset: int) -> None:
    """Fold an event of the partition itself."""
    try:
        match event:
            case CommandRefused():
                if event.parent_step is not None:
                    state.outbox.append(outbox.confirm(event))
            case PartitionOffered():
                state.offered_until = event.due_at
            case PartitionHandedOver():
                state.offered_until = 0
                # Steps of owners before this one may still go on where they began: they stay.
                state.handed |= {
                    (workflow_id, step): Handed(attempt, event.due_at)
                    for workflow_id, step, attempt in json.loads(event.payload)
                }
            case CheckpointBegun() | PartitionMigrated():
                _forget(state, event)
            case QueueSet() | SlotRequested() | SlotReleased():
                _queue(state, event)
            case SlotReturned():
                _release(state, event.queue, event.workflow_id or "", event.index, event)
            case CheckpointPart() | CheckpointCompleted() | SubjectErased():
                pass
            case _:
                raise LogCorrupt(
                    f"the event at offset {offset} is of kind {event.kind} and has no place in a workflow; "
                    "nothing after it can be trusted: compare the log with a backup or an archive"
                )
    except (ValueError, TypeError, KeyError) as error:
        raise LogCorrupt(
            f"the payload of {event.kind} at offset {offset} is not as refold writes it ({error!r}); "
            "nothing after it can be trusted: compare the log with a backup or an archive"
        ) from error


def _forget(state: PartitionState, event: CheckpointBegun | PartitionMigrated) -> None:
    terms: dict[str, int] = json.loads(event.payload)
    before = terms["forget_before"]
    state.floor = terms["floor"]
    if before > state.forgotten_before:
        state.forgotten_before = before
        if not state.remembers:
            state.closed = {id_: run for id_, run in state.closed.items() if run.ended_at >= before}
    if state.handed:
        at = event.recorded_at
        state.handed = {key: handed for key, handed in state.handed.items() if handed.due_at > at}


def _queue(state: PartitionState, event: QueueSet | SlotRequested | SlotReleased) -> None:
    """Fold an event of a queue, and give its slots away (rule 13)."""
    queue = state.queues.setdefault(event.queue, Queue())
    if isinstance(event, QueueSet):
        queue.limit = event.count
    else:
        ticket = Ticket(event.target_id, event.index)
        queue.waiting.pop(ticket, None)
        if isinstance(event, SlotReleased):
            queue.running.pop(ticket, None)
        elif ticket not in queue.running:
            queue.waiting[ticket] = None
    while queue.limit is not None and queue.waiting and len(queue.running) < queue.limit:
        ticket, _ = queue.waiting.popitem(last=False)
        queue.running[ticket] = None
        state.outbox.append(outbox.grant_slot(event.queue, *ticket, event.recorded_at))


def _request(
    state: PartitionState, workflow_id: str, run: WorkflowState, queue: str, event: Event
) -> None:
    """A run that is started or reopened in a queue asks for a slot."""
    run.ticket, run.waits = event.position or 0, True
    run.status = Status.QUEUED if run.status is Status.RUNNING else run.status
    state.outbox.append(outbox.request_slot(queue, workflow_id, run.ticket, event.recorded_at))


def _release(
    state: PartitionState, queue: str | None, workflow_id: str, ticket: int | None, event: Event
) -> None:
    if queue is not None and ticket is not None:
        state.outbox.append(outbox.release_slot(queue, workflow_id, ticket, event.recorded_at))


def _granted(workflow: WorkflowState, event: SlotGranted) -> None:
    started = workflow.started
    if started is None or not workflow.waits or event.index != workflow.ticket:
        _break(workflow, f"a slot of queue {event.queue!r} was granted that it does not wait for")
        return
    workflow.waits = False
    if workflow.status is not Status.COPYING and not workflow.exchange.parts:
        # Its code begins now: that is its first `now()`. Of a copied history, another begin has been told.
        workflow.started = replace(started, recorded_at=event.recorded_at)
    if workflow.status is Status.QUEUED:
        workflow.status = Status.RUNNING


def _transition(
    state: PartitionState, workflow_id: str, workflow: WorkflowState, event: Event
) -> None:
    match event:
        case (
            StepCompleted() | StepFailed() | TimerFired() | DeliveryConfirmed() | DeliveryRefused()
        ):
            _answered(workflow, event)
            if state.handed:
                state.handed.pop((workflow_id, event.step), None)
        case StepAttemptFailed():
            _attempt_failed(workflow, event)
            if state.handed:
                state.handed.pop((workflow_id, event.step), None)
        case TimerStarted():
            _number(workflow, event.step)
            workflow.timers[event.step] = event
        case MessageSent() | ChildRequested() | CancelSent():
            _sent(state, workflow, event)
        case (
            MessageReceived()
            | AskReceived()
            | ChildCompleted()
            | ChildFailed()
            | WorkflowCancelRequested()
        ):
            _came_in(state, workflow, event)
        case AskAnswered() | ValuePublished() | StreamWritten() | AttributesSet():
            _emitted(workflow, event)
        case PatchApplied():
            workflow.own_exchange().patches.add(event.name)
        case WorkflowCompleted() | WorkflowFailed() | WorkflowCancelled() | WorkflowTerminated():
            _close(state, workflow_id, workflow, event)
        case _:
            _controlled(state, workflow, event)


def _controlled(state: PartitionState, workflow: WorkflowState, event: Event) -> None:
    """Events by which a run is halted, goes on, or begins anew."""
    match event:
        case WorkflowParked():
            _number(workflow, (event.next_step or 0) - 1)
            workflow.status = Status.PARKED
            workflow.parked = event
        case WorkflowPaused():
            _number(workflow, (event.next_step or 0) - 1)
            workflow.status = Status.PAUSED
        case WorkflowResumed():
            _go_on(workflow)
        case WorkflowContinued():
            _continue(workflow, event)
        case WorkflowRewound():
            _rewind(state, workflow, event)
        case HistoryCopied() if workflow.status is Status.COPYING:
            _copy(workflow, event)
        case SlotGranted():
            _granted(workflow, event)
        case WorkflowWarned():
            pass
        case _:
            _break(
                workflow, f"event {event.kind} at position {event.position} can't follow a start"
            )


def _first_event(state: PartitionState, workflow_id: str, event: Event) -> None:
    position, at = event.position or 0, event.recorded_at
    closed = state.closed.get(workflow_id)
    if closed is not None and closed.ended_at < state.forgotten_before:
        del state.closed[workflow_id]  # its owner has forgotten it
        closed = None
    if closed is not None:
        if isinstance(event, WorkflowReopened) and position == closed.position:
            _reopen(state, workflow_id, closed, event)
            return
        anew = isinstance(event, WorkflowStarted) and position >= closed.position
        if not (anew and state.floor == ANYWHERE):
            return  # rule 6
        del state.closed[workflow_id]  # rule 12
    if isinstance(event, WorkflowStarted) and state.floor in {position, ANYWHERE}:
        status = Status.RUNNING if event.source_id is None else Status.COPYING
        origin = Origin(state.offset, state.claim)
        run = WorkflowState(event, position + 1, status, at, at, origin=origin)
        state.open[workflow_id] = run
        if event.parent_step is not None:
            state.outbox.append(outbox.confirm(event))
        if event.queue is not None:
            _request(state, workflow_id, run, event.queue, event)
        return
    workflow = WorkflowState(None, position + 1, Status.PARKED, at, at)
    _break(
        workflow,
        f"the stream begins with {event.kind} at position {event.position}, not with its start",
    )
    state.open[workflow_id] = workflow


def _number(workflow: WorkflowState, step: int) -> None:
    if step >= workflow.next_step:
        workflow.next_step = step + 1


def _answered(
    workflow: WorkflowState,
    event: StepCompleted | StepFailed | TimerFired | DeliveryConfirmed | DeliveryRefused,
) -> None:
    step = event.step
    if step in workflow.resolved:
        _break(workflow, f"operation {step} '{event.name}' has a second outcome")
        return
    if not isinstance(event, StepCompleted | StepFailed):
        problem = _not_asked(workflow, event)
        if problem is not None:
            _break(workflow, problem)
            return
    if step >= workflow.next_step:
        workflow.next_step = step + 1
    workflow.resolve(step)
    workflow.add_outcome(event)
    if workflow.attempts:
        workflow.own_attempts().pop(step, None)


def _not_asked(
    workflow: WorkflowState, event: TimerFired | DeliveryConfirmed | DeliveryRefused
) -> str | None:
    """Take away what an outcome answers; returns what is wrong where there is no such thing."""
    step = event.step
    if isinstance(event, TimerFired):
        if workflow.timers.pop(step, None) is None:
            return f"timer {step} '{event.name}' fired and was not running"
        return None
    if workflow.exchange.requests.pop(step, None) is None:
        return f"operation {step} '{event.name}' has an answer and was not sent"
    if isinstance(event, DeliveryRefused):
        workflow.exchange.children.pop(step, None)
    return None


def _attempt_failed(workflow: WorkflowState, event: StepAttemptFailed) -> None:
    if event.step in workflow.resolved:
        _break(workflow, f"step {event.step} '{event.name}' failed an attempt after its outcome")
        return
    _number(workflow, event.step)
    attempts = workflow.attempts.get(event.step)
    if attempts is None:
        attempts = Attempts(event.name, 0, event.started_at, None)
        workflow.own_attempts()[event.step] = attempts
    attempts.failed += 1
    attempts.due_at = event.due_at


def _sent(state: PartitionState, workflow: WorkflowState, event: Sent) -> None:
    _number(workflow, event.step)
    exchange = workflow.own_exchange()
    exchange.requests[event.step] = event
    if isinstance(event, ChildRequested) and event.policy != "detached":
        exchange.children[event.step] = event
    state.outbox.append(outbox.send(event))


def _came_in(
    state: PartitionState,
    workflow: WorkflowState,
    event: MessageReceived | AskReceived | ChildCompleted | ChildFailed | WorkflowCancelRequested,
) -> None:
    exchange = workflow.own_exchange()
    match event:
        case MessageReceived() | AskReceived():
            _remember(exchange.seen, event.message_id, None)
            if isinstance(event, AskReceived):
                exchange.asked[event.message_id] = event
        case WorkflowCancelRequested():
            exchange.cancel = event
            if workflow.status is not Status.COPYING:
                _go_on(workflow)
            if event.parent_step is not None:
                _remember(exchange.seen, f"{event.parent_id}/{event.parent_step}", None)
            state.outbox.extend(_cancels(exchange, event, 0))
        case ChildCompleted() | ChildFailed():
            if exchange.children.pop(event.step, None) is None:
                _break(workflow, f"the child of operation {event.step} ended and was not open")
                return
            if event.step < workflow.numbering.base:  # rule 9
                return
    workflow.add_outcome(event)
    if (
        isinstance(event, MessageReceived | WorkflowCancelRequested)
        and event.parent_step is not None
    ):
        state.outbox.append(outbox.confirm(event))


def _emitted(workflow: WorkflowState, event: Emission) -> None:
    exchange = workflow.own_exchange()
    match event:
        case ValuePublished():
            exchange.values[event.name] = event
        case StreamWritten():
            exchange.streams[event.name] = event.index + event.count
            if event.attempt is not None:  # a step wrote it: the code knows nothing of it
                return
        case AttributesSet():
            exchange.tags = {**workflow.attributes, **(event.attributes or {})}
        case AskAnswered():
            exchange.asked.pop(event.message_id, None)
            _remember(exchange.answers, event.message_id, event)
    if event.step in workflow.resolved:
        _break(workflow, f"operation {event.step} '{event.name}' is recorded twice")
        return
    _number(workflow, event.step)
    workflow.resolve(event.step)
    workflow.add_outcome(Emitted(event.step, event.kind, event.name, event.position))


def _ready(workflow: WorkflowState) -> Status:
    """How a run stands that nothing halts."""
    return Status.QUEUED if workflow.waits else Status.RUNNING


def _go_on(workflow: WorkflowState) -> None:
    """A person has looked at it, or wants it to end: attempts that were used up are given anew."""
    workflow.status = _ready(workflow)
    workflow.parked = None
    for step in [n for n, attempts in workflow.attempts.items() if attempts.due_at is None]:
        del workflow.own_attempts()[step]


def _continue(workflow: WorkflowState, event: WorkflowContinued) -> None:
    started = workflow.started
    if started is None:
        _break(workflow, f"event {event.kind} in a stream without a start")
        return
    if workflow.input_digest is None:
        workflow.input_digest = digest_input(started.payload)
    kept = frozenset(json.loads(event.detail))
    workflow.outcomes = [o for o in workflow.outcomes if o.position in kept]
    workflow.started = replace(
        started,
        payload=event.payload,
        version=event.version,
        code_version=event.code_version,
        recorded_at=event.recorded_at,
        attributes=workflow.attributes or None,
    )
    workflow.next_step = event.next_step
    workflow.numbering = Numbering(event.next_step)
    workflow.resolved = frozenset()
    workflow.attempts = NO_ATTEMPTS
    workflow.timers.clear()
    if workflow.exchange is not NO_EXCHANGE:
        exchange = workflow.exchange
        exchange.requests.clear()
        exchange.patches.clear()
        if exchange.cancel is not None and exchange.cancel.position not in kept:
            exchange.cancel = None
        exchange.asked = {n: ask for n, ask in exchange.asked.items() if ask.position in kept}


def _rewind(state: PartitionState, workflow: WorkflowState, event: WorkflowRewound) -> None:
    step = event.step
    workflow.outcomes = kept_before(workflow.outcomes, step)
    workflow.numbering = rewound(workflow.numbering, step, event.next_step)
    workflow.next_step = event.next_step
    workflow.resolved = {n for n in workflow.resolved if n < step}
    workflow.attempts = {n: a for n, a in workflow.attempts.items() if n < step}
    workflow.timers = {n: timer for n, timer in workflow.timers.items() if n < step}
    if workflow.exchange is not NO_EXCHANGE:
        exchange = workflow.exchange
        state.outbox.extend(_cancels(exchange, event, step))
        exchange.requests = {n: sent for n, sent in exchange.requests.items() if n < step}
        exchange.children = {n: child for n, child in exchange.children.items() if n < step}
        exchange.cancel = None
    _go_on(workflow)


def kept_before(outcomes: Iterable[Outcome], step: int) -> list[Outcome]:
    """What a run that is taken back to before operation `step` is told: outcomes of earlier operations, all inputs.

    Requests to cancel that came after the last of those outcomes are left out: the run is to go on. Numbers are given
    in the order of requests, so no earlier request depends on what is dropped.
    """
    kept = [o for o in outcomes if (number := getattr(o, "step", None)) is None or number < step]
    last = max((i for i, o in enumerate(kept) if hasattr(o, "step")), default=-1)
    return [o for i, o in enumerate(kept) if i < last or not isinstance(o, WorkflowCancelRequested)]


def rewound(numbering: Numbering, step: int, next_step: int) -> Numbering:
    """The numbering of a run that does `step` again under the number `next_step`."""
    jumps = tuple(jump for jump in numbering.jumps if jump[1] <= step)
    return Numbering(numbering.base, (*jumps, (step, next_step)))


def has_step(workflow: WorkflowState, step: int) -> bool:
    """Whether `step` is a number that the run, as it stands, may have given to an operation."""
    numbering = workflow.numbering
    return numbering.base <= step < workflow.next_step and not any(
        at <= step < to for at, to in numbering.jumps
    )


def _copy(workflow: WorkflowState, event: HistoryCopied) -> None:
    try:
        copied: Copied = read_copied(event.payload)
    except LogCorrupt as error:
        _break(workflow, str(error))
        return
    if copied.numbering is not None:
        workflow.numbering = copied.numbering
        workflow.next_step = max(workflow.next_step, copied.next_step)
    exchange = workflow.own_exchange()
    # Before what has come in meanwhile: that is news to the code, when it has been told its history.
    old, news = workflow.outcomes[: exchange.copied], workflow.outcomes[exchange.copied :]
    workflow.outcomes = [*old, *copied.outcomes, *news]
    exchange.copied += len(copied.outcomes)
    exchange.parts += 1
    for outcome in copied.outcomes:
        number = getattr(outcome, "step", None)
        if number is not None and not isinstance(outcome, ChildCompleted | ChildFailed):
            workflow.resolve(number)
            _number(workflow, number)
    exchange.patches.update(copied.patches)
    if copied.tags is not None:
        exchange.tags = copied.tags
    exchange.streams.update(copied.streams)
    exchange.values.update(copied.values)
    exchange.children.update(copied.children)
    for message_id in copied.seen:
        _remember(exchange.seen, message_id, None)
    if event.name == "last":
        workflow.status = _ready(workflow)


def _reopen(
    state: PartitionState, workflow_id: str, closed: Closed, event: WorkflowReopened
) -> None:
    started = WorkflowStarted(
        workflow_id=workflow_id,
        position=0,
        recorded_at=event.started_at,
        claim=event.claim,
        command=event.command,
        posted=event.posted,
        worker=event.worker,
        workflow=event.workflow,
        payload=event.payload,
        encoding=event.encoding,
        version=event.version,
        code_version=event.code_version,
        attributes=event.attributes,
        due_at=event.due_at,
        parent_id=event.parent_id,
        parent_step=event.parent_step,
        policy=event.policy,
        queue=event.queue,
    )
    del state.closed[workflow_id]
    run = state.open[workflow_id] = WorkflowState(
        started,
        closed.position + 1,
        Status.COPYING,
        event.recorded_at,
        closed.started_at,
        closed.input_digest,
        origin=closed.origin,
    )
    if event.queue is not None:
        _request(state, workflow_id, run, event.queue, event)


def _close(state: PartitionState, workflow_id: str, workflow: WorkflowState, event: Ended) -> None:
    started = workflow.started
    state.outbox.extend(_cancels(workflow.exchange, event, 0))
    del state.open[workflow_id]
    if started is None:  # a broken stream that was terminated
        started = _unknown_start(workflow_id, event)
    elif started.parent_step is not None and started.policy != "detached":
        state.outbox.append(outbox.report(started, event))
    _release(state, started.queue, workflow_id, workflow.ticket, event)
    state.closed[workflow_id] = Closed(
        started.workflow,
        started.version,
        workflow.input_digest or digest_input(started.payload),
        ENDED_AS[event.kind],
        workflow.position,
        workflow.first_started_at,
        event.recorded_at,
        started.parent_id,
        started.parent_step,
        workflow.attributes or None,
        state.offset,
        event.claim,
        workflow.origin,
        started.queue,
    )


def _unknown_start(workflow_id: str, event: Ended) -> WorkflowStarted:
    """What stands for a start that can't be read."""
    return WorkflowStarted(
        workflow_id=workflow_id,
        position=0,
        recorded_at=event.recorded_at,
        claim=event.claim,
        command=event.command,
        posted=event.posted,
        worker=event.worker,
        workflow="?",
        payload="",
    )


def _cancels(
    exchange: Exchange, event: Ended | WorkflowCancelRequested | WorkflowRewound, first: int
) -> list[Command]:
    """Commands that cancel the open children from operation `first` on: their parent ends, or is cancelled."""
    return [
        outbox.cancel_child(event, child)
        for step, child in exchange.children.items()
        if step >= first and child.policy == "cancel"
    ]


def _remember(memory: dict[str, T], key: str, value: T) -> None:
    memory[key] = value
    if len(memory) > MAX_REMEMBERED:
        del memory[next(iter(memory))]


def _break(workflow: WorkflowState, reason: str) -> None:
    workflow.status = Status.PARKED
    workflow.broken = reason


def _unreadable(state: PartitionState, event: Unreadable, offset: int) -> PartitionState:
    if event.claim is not None and event.claim != state.claim:
        return state
    if event.workflow_id is None:
        if event.claim is None:
            return state
        raise LogCorrupt(
            f"the record at offset {offset} belongs to the partition itself and can't be read: "
            f"{event.reason}. A newer release may have written it: upgrade this reader"
        )
    workflow = state.open.get(event.workflow_id)
    if workflow is None:
        if event.workflow_id in state.closed:
            return state
        workflow = WorkflowState(None, 0, Status.PARKED, 0, 0)
        state.open[event.workflow_id] = workflow
    workflow.position += 1
    if workflow.broken is None:
        _break(workflow, f"the record at offset {offset} can't be read: {event.reason}")
    return state
