"""A run's history as a person would tell it: operations with their attempts, and what happened between them.

Pure: events in, values out. `timeline_view.py` draws it. An operation is a step or a timer; its row begins where
its first attempt did. The log has no event for the beginning of an attempt (it would cost a write for every step), so a
step that is under way for the first time has no row yet.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

from refold.log.events import (
    Event,
    EventBase,
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


class State(StrEnum):
    """How an operation stands."""

    DONE = "done"
    FAILED = "failed"
    RETRYING = "retrying"
    USED_UP = "used up"
    WAITING = "waiting"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a step.

    Args:
        number: 1 for the first.
        started_at: Microseconds since 1970-01-01 UTC.
        ended_at: When its outcome was recorded.
        error: Type and message; None where it succeeded.
    """

    number: int
    started_at: int
    ended_at: int
    error: str | None


@dataclass(slots=True)
class Operation:
    """A step or a timer.

    Args:
        step: Its number in code order.
        name: Name of the step, or of the timer.
        position: Position of its first event in the stream.
        started_at: When its first attempt began, or the timer was set; microseconds since 1970-01-01 UTC.
        ended_at: When it had its outcome; None while it has none.
        state: How it stands.
        is_timer: Whether it is a timer.
        due_at: When the timer, or the next attempt, is due; None where nothing is.
        attempts: Its attempts in order, of a step.
        worker: The worker that recorded its last event.
        payload: JSON of a step's result.
    """

    step: int
    name: str
    position: int
    started_at: int
    ended_at: int | None
    state: State
    is_timer: bool
    due_at: int | None
    worker: str
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    payload: str | None = None


@dataclass(frozen=True, slots=True)
class Milestone:
    """Something that happened to the run as a whole.

    Args:
        what: `started`, `taken over`, `parked`, `resumed`, `completed`, `failed`, `unreadable`.
        position: Position of its event in the stream.
        at: When, microseconds since 1970-01-01 UTC; None where it can't be read.
        text: Details in words.
    """

    what: str
    position: int
    at: int | None
    text: str


Row = Operation | Milestone


@dataclass(slots=True)
class Timeline:
    """A run's history.

    Args:
        workflow_id: The run.
        workflow: Its workflow's name; "?" where the start can't be read.
        started_at: Time of its first readable event, microseconds since 1970-01-01 UTC.
        updated_at: Time of its last one.
        events: Number of events.
        rows: What happened, by when it began.
        input: JSON of the arguments.
        result: JSON of the result; None before it completed.
        failure: The error that it failed with.
        parked: Why it waits; None where it doesn't.
    """

    workflow_id: str
    workflow: str = "?"
    started_at: int = 0
    updated_at: int = 0
    events: int = 0
    rows: list[Row] = field(default_factory=list[Row])
    input: str | None = None
    result: str | None = None
    failure: WorkflowFailed | None = None
    parked: WorkflowParked | None = None

    @property
    def operations(self) -> list[Operation]:
        """The steps and timers."""
        return [row for row in self.rows if isinstance(row, Operation)]


def timeline_of(workflow_id: str, history: Iterable[Event | Unreadable]) -> Timeline:
    """The timeline of a run.

    Args:
        workflow_id: The run.
        history: All its events that count, in order.
    """
    teller = _Teller(Timeline(workflow_id))
    for event in history:
        teller.tell(event)
    return teller.finish()


def error_line(error_type: str, message: str) -> str:
    """An error as one says it: the class without its module, and the message."""
    name = error_type.rpartition(":")[2].rpartition(".")[2] or "error"
    return f"{name}: {message}" if message else name


def json_object(text: str | None) -> dict[str, object]:
    """The members of a JSON object; none where it is something else."""
    try:
        value: object = json.loads(text or "{}")
    except ValueError:
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


class _Teller:
    """Folds events into a timeline."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._operations: dict[int, Operation] = {}
        self._milestones: list[Milestone] = []
        self._worker: str | None = None
        self._ended = False

    def tell(self, event: Event | Unreadable) -> None:
        timeline = self._timeline
        position = timeline.events
        timeline.events += 1
        if isinstance(event, Unreadable):
            self._milestones.append(Milestone("unreadable", position, None, event.reason))
            return
        if not timeline.started_at:
            timeline.started_at = event.recorded_at
        timeline.updated_at = event.recorded_at
        self._notice_worker(event, position)
        match event:
            case StepCompleted() | StepFailed() | StepAttemptFailed():
                self._attempt(event, position)
            case TimerStarted():
                self._operations[event.step] = _timer(event, position)
            case TimerFired():
                self._fired(event)
            case _:
                self._milestone(event, position)

    def finish(self) -> Timeline:
        """The timeline, its rows in the order in which they began."""
        if self._ended:
            for operation in self._operations.values():
                if operation.ended_at is None:
                    operation.state, operation.due_at = State.DROPPED, None
        rows: list[tuple[int, int, Row]] = []
        last = self._timeline.started_at
        for row in self._in_order_of_events():
            at = row.started_at if isinstance(row, Operation) else row.at
            last = last if at is None else at
            rows.append((last, row.position, row))
        rows.sort(key=lambda entry: entry[:2])
        self._timeline.rows = [row for _, _, row in rows]
        return self._timeline

    def _in_order_of_events(self) -> list[Row]:
        return sorted([*self._milestones, *self._operations.values()], key=lambda row: row.position)

    def _notice_worker(self, event: Event, position: int) -> None:
        if self._worker is not None and event.worker != self._worker:
            # Said to be when the new worker began what it recorded first, for that comes after it in the story.
            at = min(event.recorded_at, getattr(event, "started_at", event.recorded_at))
            self._milestones.append(
                Milestone("taken over", position, at, f"by worker {event.worker}")
            )
        self._worker = event.worker

    def _attempt(
        self, event: StepCompleted | StepFailed | StepAttemptFailed, position: int
    ) -> None:
        operation = self._operations.get(event.step)
        if operation is None:
            operation = self._operations[event.step] = Operation(
                step=event.step,
                name=event.name,
                position=position,
                started_at=event.started_at,
                ended_at=None,
                state=State.RETRYING,
                is_timer=False,
                due_at=None,
                worker=event.worker,
            )
        error = None
        if not isinstance(event, StepCompleted):
            error = error_line(event.error_type, event.error_message)
        operation.attempts.append(
            Attempt(event.attempt, event.started_at, event.recorded_at, error)
        )
        operation.worker = event.worker
        match event:
            case StepAttemptFailed():
                operation.due_at = event.due_at
                operation.state = State.USED_UP if event.due_at is None else State.RETRYING
            case StepCompleted():
                operation.state, operation.payload = State.DONE, event.payload
                operation.ended_at, operation.due_at = event.recorded_at, None
            case StepFailed():
                operation.state = State.FAILED
                operation.ended_at, operation.due_at = event.recorded_at, None

    def _fired(self, event: TimerFired) -> None:
        timer = self._operations.get(event.step)
        if timer is not None:
            timer.state, timer.ended_at, timer.due_at = State.DONE, event.recorded_at, None
            timer.worker = event.worker

    def _milestone(self, event: EventBase, position: int) -> None:
        timeline = self._timeline
        what, text = event.kind.rpartition(".")[2], ""
        match event:
            case WorkflowStarted():
                timeline.workflow, timeline.input = event.workflow, event.payload
                text = f"by worker {event.worker}"
            case WorkflowParked():
                timeline.parked, text = event, event.error_message
            case WorkflowResumed():
                timeline.parked, text = None, _why(event)
            case WorkflowCompleted():
                timeline.result, self._ended = event.payload, True
            case WorkflowFailed():
                timeline.failure, self._ended = event, True
                text = error_line(event.error_type, event.error_message)
            case _:
                what = event.kind
        self._milestones.append(Milestone(what, position, event.recorded_at, text))


def _timer(event: TimerStarted, position: int) -> Operation:
    return Operation(
        step=event.step,
        name=event.name,
        position=position,
        started_at=event.recorded_at,
        ended_at=None,
        state=State.WAITING,
        is_timer=True,
        due_at=event.due_at,
        worker=event.worker,
    )


def _why(event: WorkflowResumed) -> str:
    detail = json_object(event.payload)
    who, why = detail.get("requested_by"), detail.get("reason")
    parts = [f"by {who}" if who else "", f"({why})" if why else ""]
    return " ".join(part for part in parts if part)
