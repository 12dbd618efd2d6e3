"""A run's history as a person would tell it: operations with their attempts, and what happened between them.

Pure: events in, values out (`timeline_rows.py`); `timeline_view.py` draws them. The row of an operation begins where
its first attempt did. The log has no event for the beginning of an attempt (it would cost a write for every step), so a
step that is under way for the first time has no row yet.
"""

import json
from collections.abc import Iterable
from typing import cast

from refold.log.events import (
    AskAnswered,
    AskReceived,
    CancelSent,
    ChildCompleted,
    ChildFailed,
    ChildRequested,
    DeliveryConfirmed,
    DeliveryRefused,
    Event,
    HistoryCopied,
    MessageSent,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    StreamWritten,
    TimerFired,
    TimerStarted,
    Unreadable,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowContinued,
    WorkflowFailed,
    WorkflowReopened,
    WorkflowRewound,
    WorkflowTerminated,
)
from refold.services.terminal import counted
from refold.services.timeline_milestones import error_line, follow, told
from refold.services.timeline_rows import (
    Attempt,
    Milestone,
    Operation,
    Row,
    Sort,
    State,
    Stream,
    Timeline,
)

__all__ = ["error_line", "timeline_of"]


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


_Tried = StepCompleted | StepFailed | StepAttemptFailed
_Begun = TimerStarted | MessageSent | ChildRequested | CancelSent | AskReceived
_Ended = (
    TimerFired | DeliveryConfirmed | DeliveryRefused | ChildCompleted | ChildFailed | AskAnswered
)

_SORTS = {
    TimerStarted: Sort.TIMER,
    MessageSent: Sort.MESSAGE,
    ChildRequested: Sort.CHILD,
    CancelSent: Sort.CANCEL,
    AskReceived: Sort.QUESTION,
}


class _Teller:
    """Folds events into a timeline."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._operations: dict[int | str, Operation] = {}  # by number; a question by its id
        self._streams: dict[str, Stream] = {}
        self._milestones: list[Milestone] = []
        self._copied: Milestone | None = None  # the copy that is still coming
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
            case TimerStarted() | MessageSent() | ChildRequested() | CancelSent() | AskReceived():
                self._begin(event, position)
            case (
                TimerFired()
                | DeliveryConfirmed()
                | DeliveryRefused()
                | ChildCompleted()
                | ChildFailed()
                | AskAnswered()
            ):
                self._end(event)
            case StreamWritten():
                self._written(event, position)
            case HistoryCopied():
                self._copy(event, position)
            case _:
                self._milestone(event, position)

    def finish(self) -> Timeline:
        """The timeline, its rows in the order in which they began."""
        if self._ended:
            self._drop_open()
        rows: list[tuple[int, int, Row]] = []
        last = self._timeline.started_at
        for row in self._in_order_of_events():
            at = row.at if isinstance(row, Milestone) else row.started_at
            last = last if at is None else at
            rows.append((last, row.position, row))
        rows.sort(key=lambda entry: entry[:2])
        self._timeline.rows = [row for _, _, row in rows]
        return self._timeline

    def _in_order_of_events(self) -> list[Row]:
        rows: list[Row] = [*self._milestones, *self._operations.values(), *self._streams.values()]
        return sorted(rows, key=lambda row: row.position)

    def _notice_worker(self, event: Event, position: int) -> None:
        if self._worker is not None and event.worker != self._worker:
            # Said to be when the new worker began what it recorded first, for that comes after it in the story.
            began = event.started_at if isinstance(event, _Tried) else event.recorded_at
            at = min(event.recorded_at, began)
            self._milestones.append(
                Milestone("taken over", position, at, f"by worker {event.worker}")
            )
        self._worker = event.worker

    # Operations -----------------------------------------------------------------------------------------------

    def _attempt(self, event: _Tried, position: int) -> None:
        operation = self._operations.get(event.step)
        if operation is None:
            operation = self._operations[event.step] = Operation(
                sort=Sort.STEP,
                step=event.step,
                name=event.name,
                position=position,
                started_at=event.started_at,
                ended_at=None,
                state=State.RETRYING,
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
                operation.end(State.DONE, event.recorded_at)
                operation.payload = event.payload
            case StepFailed():
                operation.end(State.FAILED, event.recorded_at)

    def _begin(self, event: _Begun, position: int) -> None:
        question = event.message_id if isinstance(event, AskReceived) else None
        step = None if isinstance(event, AskReceived) else event.step
        key = question if step is None else step
        assert key is not None
        self._operations[key] = Operation(
            sort=_SORTS[type(event)],
            step=step,
            name=event.name,
            position=position,
            started_at=event.recorded_at,
            ended_at=None,
            state=State.WAITING,
            due_at=event.due_at if isinstance(event, TimerStarted) else None,
            worker=event.worker,
            target_id=getattr(event, "target_id", None),
            policy=event.policy if isinstance(event, ChildRequested) else None,
        )

    def _end(self, event: _Ended) -> None:
        key = event.message_id if isinstance(event, AskAnswered) else event.step
        operation = self._operations.get(key)
        if operation is None or operation.state is State.UNDONE:
            return
        operation.worker = event.worker
        match event:
            case DeliveryConfirmed() if (
                operation.sort is Sort.CHILD and operation.policy != "detached"
            ):
                operation.state = State.RUNNING
            case TimerFired() | DeliveryConfirmed():
                operation.end(State.DONE, event.recorded_at)
            case ChildCompleted():
                operation.end(State.DONE, event.recorded_at)
                operation.payload = event.payload
            case AskAnswered():
                self._answer(operation, event)
            case DeliveryRefused() | ChildFailed():
                error = error_line(event.error_type, event.error_message)
                operation.end(State.FAILED, event.recorded_at, error)

    def _answer(self, question: Operation, event: AskAnswered) -> None:
        question.step, question.payload = event.step, event.payload
        if event.error_type is None:
            question.end(State.DONE, event.recorded_at)
        else:
            error = error_line(event.error_type, event.error_message or "")
            question.end(State.FAILED, event.recorded_at, error)

    def _drop_open(self) -> None:
        """Nobody waits any more for what has no outcome."""
        for operation in self._operations.values():
            if operation.is_open:
                operation.state, operation.due_at = State.DROPPED, None

    def _undo(self, first: int) -> None:
        """What this operation and later ones came to no longer counts."""
        for key, operation in self._operations.items():
            if isinstance(key, int) and key >= first:
                operation.state, operation.due_at = State.UNDONE, None

    # The run as a whole ---------------------------------------------------------------------------------------

    def _written(self, event: StreamWritten, position: int) -> None:
        stream = self._streams.get(event.name)
        if stream is None:
            at = event.recorded_at
            stream = self._streams[event.name] = Stream(event.name, position, at, at, 0)
        stream.ended_at = event.recorded_at
        stream.items += event.count

    def _copy(self, event: HistoryCopied, position: int) -> None:
        if self._copied is None:
            self._timeline.copied = 0
            self._copied = Milestone("copied", position, event.recorded_at, "")
            self._milestones.append(self._copied)
        self._timeline.copied += _outcomes(event.payload)
        coming = "" if event.name == "last" else ", more is coming"
        outcomes = counted(self._timeline.copied, "outcome")
        self._copied.text = f"{outcomes} of the history{coming}"
        if event.name == "last":
            self._copied = None

    def _milestone(self, event: Event, position: int) -> None:
        match event:
            case WorkflowRewound():
                self._undo(event.step)
            case WorkflowReopened():
                self._ended = False
                if event.step is not None:
                    self._undo(event.step)
            case WorkflowContinued():
                self._drop_open()
            case (
                WorkflowCompleted() | WorkflowFailed() | WorkflowCancelled() | WorkflowTerminated()
            ):
                self._ended = True
            case _:
                pass
        follow(self._timeline, event)
        self._milestones.append(told(event, position))


def _outcomes(payload: str) -> int:
    """How many outcomes a part of a copied history holds (`engine/copied.py`): the objects with a kind."""
    try:
        part: object = json.loads(payload)
    except ValueError:
        return 0
    items = cast("list[object]", part) if isinstance(part, list) else []
    return sum(isinstance(item, dict) and "kind" in item for item in items)
