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
5. A broken workflow stays open and is never run; its later events only move its position.
6. After a terminal event a stream changes no more. What is kept of it is small: see `Closed`.
7. A parked workflow still takes outcomes of steps that were under way: a recorded step never runs again.

`evolve` has no clock, no randomness and no I/O. It consumes the state that it is given and returns it changed:
a copy per event would make a history of n steps cost n squared. Whoever wants to keep an old state folds anew.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from refold.engine.operations import Outcome
from refold.log.codec import link_claim
from refold.log.errors import LogCorrupt
from refold.log.events import (
    CommandRefused,
    Event,
    PartitionClaimed,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
    TimerStarted,
    Unreadable,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowParked,
    WorkflowResumed,
    WorkflowStarted,
)

NO_CLAIM = -1
NO_COMMAND = -1


class Status(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    PARKED = "parked"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(slots=True)
class Attempts:
    """Failed attempts of a step that has no outcome yet.

    Args:
        name: The step's name.
        failed: How many attempts have failed.
        started_at: Start of the first attempt, microseconds since 1970-01-01 UTC.
        due_at: When the next attempt begins; None where they are used up.
    """

    name: str
    failed: int
    started_at: int
    due_at: int | None


@dataclass(slots=True)
class WorkflowState:
    """An open run: all that is needed to bring it back.

    Args:
        started: Its first event; None only for a broken stream that has none.
        position: The position that its next event gets.
        status: `running` or `parked`.
        outcomes: What a replay tells the code, in log order.
        resolved: Numbers of the operations that have an outcome.
        attempts: Failed attempts by operation number, of operations without outcome.
        timers: Timers that were started and have not fired.
        parked: Why it is parked; None while it runs.
        broken: Why its stream can't be folded (rules 3 and 4); None where it can.
        updated_at: `recorded_at` of its last event.
    """

    started: WorkflowStarted | None
    position: int
    status: Status
    updated_at: int
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    resolved: set[int] = field(default_factory=set[int])
    attempts: dict[int, Attempts] = field(default_factory=dict[int, Attempts])
    timers: dict[int, TimerStarted] = field(default_factory=dict[int, TimerStarted])
    parked: WorkflowParked | None = None
    broken: str | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """What stays of a run that has ended: enough to answer a second start and to find its result in the log."""

    workflow: str
    input_digest: bytes
    status: Status
    position: int
    started_at: int
    ended_at: int


@dataclass(slots=True)
class PartitionState:
    """State of one partition.

    Args:
        claim: Offset of the current claim; -1 before the first.
        owner: Worker that made it.
        command: Offset of the last command consumed; -1 for none.
        chain: Head of the hash chain over accepted events.
        open: Runs that have not ended, by workflow id.
        closed: Runs that have, by workflow id.
    """

    claim: int = NO_CLAIM
    owner: str = ""
    command: int = NO_COMMAND
    chain: bytes = bytes(32)
    open: dict[str, WorkflowState] = field(default_factory=dict[str, WorkflowState])
    closed: dict[str, Closed] = field(default_factory=dict[str, Closed])


def evolve(state: PartitionState, event: Event | Unreadable, offset: int) -> PartitionState:
    """Fold one record into the state.

    Args:
        state: The state so far; consumed.
        event: What the codec made of the record.
        offset: The record's offset (it matters for claims alone).

    Returns:
        The state after the record.

    Raises:
        LogCorrupt: A record of the partition itself can't be read (rule 4).
    """
    if isinstance(event, Unreadable):
        return _unreadable(state, event, offset)
    if event.claim != state.claim:
        return state
    state.command = max(state.command, event.command)
    if isinstance(event, PartitionClaimed):
        state.claim = offset
        state.owner = event.worker
        state.chain = link_claim(state.chain, event.chain)
        return state
    state.chain = event.chain
    if isinstance(event, CommandRefused):
        return state
    workflow_id = event.workflow_id
    if workflow_id is None:
        raise LogCorrupt(
            f"the event at offset {offset} is of kind {event.kind} and names no workflow; "
            "nothing after it can be trusted: compare the log with a backup or an archive"
        )
    workflow = state.open.get(workflow_id)
    if workflow is None:
        _first_event(state, workflow_id, event)
    elif workflow.broken is not None:
        workflow.position += 1
    elif event.position != workflow.position:
        _break(
            workflow, f"event {event.kind} has position {event.position}, not {workflow.position}"
        )
    else:
        workflow.position += 1
        workflow.updated_at = event.recorded_at
        _transition(state, workflow_id, workflow, event)
    return state


def _transition(
    state: PartitionState, workflow_id: str, workflow: WorkflowState, event: Event
) -> None:
    match event:
        case StepCompleted() | StepFailed():
            if event.step in workflow.resolved:
                _break(workflow, f"step {event.step} '{event.name}' has a second outcome")
            else:
                workflow.resolved.add(event.step)
                workflow.outcomes.append(event)
                workflow.attempts.pop(event.step, None)
        case StepAttemptFailed():
            _attempt_failed(workflow, event)
        case TimerStarted():
            workflow.timers[event.step] = event
        case TimerFired():
            if workflow.timers.pop(event.step, None) is None:
                _break(workflow, f"timer {event.step} '{event.name}' fired and was not running")
            else:
                workflow.resolved.add(event.step)
                workflow.outcomes.append(event)
        case WorkflowCompleted():
            _close(state, workflow_id, workflow, event, Status.COMPLETED)
        case WorkflowFailed():
            _close(state, workflow_id, workflow, event, Status.FAILED)
        case WorkflowParked():
            workflow.status = Status.PARKED
            workflow.parked = event
        case WorkflowResumed():
            _resume(workflow)
        case _:
            _break(
                workflow, f"event {event.kind} at position {event.position} can't follow a start"
            )


def _first_event(state: PartitionState, workflow_id: str, event: Event) -> None:
    if workflow_id in state.closed:  # rule 6
        return
    if isinstance(event, WorkflowStarted) and event.position == 0:
        state.open[workflow_id] = WorkflowState(event, 1, Status.RUNNING, event.recorded_at)
        return
    workflow = WorkflowState(None, (event.position or 0) + 1, Status.PARKED, event.recorded_at)
    _break(
        workflow,
        f"the stream begins with {event.kind} at position {event.position}, not with its start",
    )
    state.open[workflow_id] = workflow


def _attempt_failed(workflow: WorkflowState, event: StepAttemptFailed) -> None:
    if event.step in workflow.resolved:
        _break(workflow, f"step {event.step} '{event.name}' failed an attempt after its outcome")
        return
    attempts = workflow.attempts.get(event.step)
    if attempts is None:
        attempts = Attempts(event.name, 0, event.started_at, None)
        workflow.attempts[event.step] = attempts
    attempts.failed += 1
    attempts.due_at = event.due_at


def _resume(workflow: WorkflowState) -> None:
    """A person has looked at it: attempts that were used up are given anew."""
    workflow.status = Status.RUNNING
    workflow.parked = None
    for step in [n for n, attempts in workflow.attempts.items() if attempts.due_at is None]:
        del workflow.attempts[step]


def _close(
    state: PartitionState,
    workflow_id: str,
    workflow: WorkflowState,
    event: WorkflowCompleted | WorkflowFailed,
    status: Status,
) -> None:
    started = workflow.started
    if started is None:
        _break(workflow, f"event {event.kind} in a stream without a start")
        return
    del state.open[workflow_id]
    state.closed[workflow_id] = Closed(
        started.workflow,
        digest_input(started.payload),
        status,
        workflow.position,
        started.recorded_at,
        event.recorded_at,
    )


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
        workflow = WorkflowState(None, 0, Status.PARKED, 0)
        state.open[event.workflow_id] = workflow
    workflow.position += 1
    if workflow.broken is None:
        _break(workflow, f"the record at offset {offset} can't be read: {event.reason}")
    return state


def digest_input(payload: str) -> bytes:
    """Digest (16 bytes) by which a second start's input is compared with the first's."""
    return hashlib.blake2b(payload.encode(), digest_size=16).digest()


def digest(state: PartitionState) -> str:
    """Digest of a whole partition's state, hex: equal for every reader that folded the same records."""
    hasher = hashlib.blake2b(digest_size=32)
    for line in _canonical(state):
        hasher.update(json.dumps(line, separators=(",", ":"), sort_keys=True).encode())
        hasher.update(b"\n")
    return hasher.hexdigest()


def _canonical(state: PartitionState) -> Iterable[list[object]]:
    yield [state.claim, state.owner, state.command, state.chain.hex()]
    for workflow_id, run in sorted(state.open.items()):
        yield [
            workflow_id,
            _flat(run.started),
            run.position,
            run.status,
            run.updated_at,
            [_flat(outcome) for outcome in run.outcomes],
            sorted((n, a.name, a.failed, a.started_at, a.due_at) for n, a in run.attempts.items()),
            sorted((n, _flat(timer)) for n, timer in run.timers.items()),
            _flat(run.parked),
            run.broken,
        ]
    for workflow_id, closed in sorted(state.closed.items()):
        yield [
            workflow_id,
            closed.workflow,
            closed.input_digest.hex(),
            closed.status,
            closed.position,
            closed.started_at,
            closed.ended_at,
        ]


def _flat(event: Event | None) -> list[object]:
    """An event as a list of its values, without its chain: that is set on events which were read, and not on the
    owner's own; the state's head of the chain stands for all of them.
    """
    if event is None:
        return []
    names = [name for base in type(event).__mro__ for name in getattr(base, "__slots__", ())]
    return [event.kind, *(getattr(event, name) for name in names if name != "chain")]
