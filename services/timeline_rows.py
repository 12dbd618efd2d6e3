"""The rows of a run's timeline, as plain values: operations, streams, and what happened to the run as a whole.

`timeline.py` makes them of events; `timeline_view.py` and `timeline_json.py` show them.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from refold.log.events import (
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowFailed,
    WorkflowParked,
    WorkflowPaused,
    WorkflowTerminated,
)


class State(StrEnum):
    """How an operation stands."""

    DONE = "done"
    FAILED = "failed"
    RETRYING = "retrying"
    USED_UP = "used up"
    WAITING = "waiting"
    RUNNING = "running"
    DROPPED = "dropped"
    UNDONE = "undone"


class Sort(StrEnum):
    """What an operation is. A question is one that the run was asked; all others are what its code asked for."""

    STEP = "step"
    TIMER = "timer"
    MESSAGE = "message"
    CHILD = "child"
    CANCEL = "cancel"
    QUESTION = "question"


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
    """A step, a timer, a request to another workflow, or a question that the run was asked.

    Args:
        sort: Which of them.
        step: Its number in code order; of a question that of the answer, None before that.
        name: Name of the step or timer, topic of the message or question, workflow of the child.
        position: Position of its first event in the stream.
        started_at: When its first attempt began, or it was asked for; microseconds since 1970-01-01 UTC.
        ended_at: When it had its outcome; None while it has none.
        state: How it stands.
        due_at: When the timer, or the next attempt, is due; None where nothing is.
        worker: The worker that recorded its last event.
        attempts: Its attempts in order, of a step.
        payload: JSON of what it came to: a step's or child's result, the answer to a question.
        target_id: The other workflow that it is about.
        policy: What becomes of a child when its parent ends.
        error: Type and message of how it failed, where attempts do not say so.
    """

    sort: Sort
    step: int | None
    name: str
    position: int
    started_at: int
    ended_at: int | None
    state: State
    due_at: int | None
    worker: str
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    payload: str | None = None
    target_id: str | None = None
    policy: str | None = None
    error: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether its outcome is still to come."""
        return self.ended_at is None and self.state not in {State.DROPPED, State.UNDONE}

    def end(self, state: State, at: int, error: str | None = None) -> None:
        """It has its outcome."""
        self.state, self.ended_at, self.due_at, self.error = state, at, None, error


@dataclass(slots=True)
class Stream:
    """All that was written to one stream: a row, however many items there are.

    Args:
        name: Name of the stream.
        position: Position of the first event that wrote to it.
        started_at: Time of that event, microseconds since 1970-01-01 UTC.
        ended_at: Time of the last one.
        items: Number of items.
    """

    name: str
    position: int
    started_at: int
    ended_at: int
    items: int


@dataclass(slots=True)
class Milestone:
    """Something that happened to the run as a whole.

    Args:
        what: In a word or two: `started`, `taken over`, `received`, `published`, `parked`, `completed`, ...
        position: Position of its event in the stream.
        at: When, microseconds since 1970-01-01 UTC; None where it can't be read.
        text: Details in words.
        payload: JSON of the value that came or went with it; None where there is none.
    """

    what: str
    position: int
    at: int | None
    text: str
    payload: str | None = None


Row = Operation | Stream | Milestone


@dataclass(slots=True)
class Timeline:
    """A run's history.

    Args:
        workflow_id: The run.
        workflow: Its workflow's name; "?" where the start can't be read.
        version: Version of its code.
        code_version: That code's own hash.
        started_at: Time of its first readable event, microseconds since 1970-01-01 UTC.
        updated_at: Time of its last one.
        events: Number of events.
        rows: What happened, by when it began.
        input: JSON of the arguments.
        attributes: Its tags, as `log/attributes.py` writes them.
        deadline: Microseconds since 1970-01-01 UTC; None for none.
        parent_id: The workflow that started it as a child.
        parent_step: The operation by which it did.
        source_id: The workflow that it is a fork of.
        queue: The queue in which it waited or waits for its turn.
        copied: Outcomes that it began with as a fork, or since it was reopened.
        result: JSON of the result; None before it completed.
        failure: The error that it ended with.
        parked: Why it waits; None where it doesn't.
        paused: Who halted it, and why; None where nobody did.
        cancel: The last request to cancel it.
    """

    workflow_id: str
    workflow: str = "?"
    version: int = 1
    code_version: str | None = None
    started_at: int = 0
    updated_at: int = 0
    events: int = 0
    rows: list[Row] = field(default_factory=list[Row])
    input: str | None = None
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    deadline: int | None = None
    parent_id: str | None = None
    parent_step: int | None = None
    source_id: str | None = None
    queue: str | None = None
    copied: int = 0
    result: str | None = None
    failure: WorkflowFailed | WorkflowCancelled | WorkflowTerminated | None = None
    parked: WorkflowParked | None = None
    paused: WorkflowPaused | None = None
    cancel: WorkflowCancelRequested | None = None

    @property
    def operations(self) -> list[Operation]:
        """The steps, timers, requests and questions."""
        return [row for row in self.rows if isinstance(row, Operation)]
