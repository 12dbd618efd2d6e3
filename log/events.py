"""Events: what happened, in the past tense, as frozen values. The union is closed.

Rules that hold for every event:

1. Only the current owner of a partition writes events, and only under its own claim.
2. An event is never changed. A new field is nullable with a default; none is renamed, retyped or dropped.
3. `position` counts 0, 1, 2, ... within one workflow's stream. Events that belong to the partition and not
   to a workflow (`PartitionClaimed`, `CommandRefused`) have no position.
4. Times are integers: microseconds since 1970-01-01 UTC. `recorded_at` never goes back within a stream.
5. `payload` is JSON text and `encoding` says so; what the text means is the workflow's own types' business.
6. `command` is the offset of the last command that the owner had consumed, so that recovery resumes at
   the greatest of them plus one. Therefore one command causes one event, never two.

On the wire all kinds are one flat Avro record (`log/schemas/event.avsc`): SQL engines read flat records with
nullable columns, and unions of records badly or not at all.
"""

from dataclasses import dataclass, field
from typing import ClassVar

JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBase:
    """What every event carries.

    Args:
        workflow_id: The stream that the event belongs to; None for the partition's own events.
        position: Place in the stream, from 0; None for the partition's own events.
        recorded_at: When the owner wrote it, in microseconds since 1970-01-01 UTC.
        claim: Offset of the claim that it was written under: the fencing token. -1 before any claim.
        command: Offset of the last command that the owner had consumed; -1 for none.
        worker: Name of the worker that wrote it.
        chain: BLAKE2b-256 over the previous event's chain and this record; set by the codec when it encodes
            or decodes. It is no part of the event's identity, so comparisons leave it out.
    """

    kind: ClassVar[str]

    workflow_id: str | None
    position: int | None
    recorded_at: int
    claim: int
    command: int
    worker: str
    chain: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionClaimed(EventBase):
    """A worker became the owner, if `claim` is still the current claim when the fold meets it.

    `partition` is its number: without it, two partitions' first claims would be one event twice.
    """

    kind: ClassVar[str] = "partition.claimed"

    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRefused(EventBase):
    """The owner refused the command at offset `command`; `name` is the command's kind.

    It is recorded so that a later owner, with other code, does not accept what a client was told is refused.
    """

    kind: ClassVar[str] = "command.refused"

    partition: int
    name: str
    error_type: str
    error_message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowStarted(EventBase):
    """A run began; `payload` is the JSON array/object of its input."""

    kind: ClassVar[str] = "workflow.started"

    workflow: str
    payload: str
    encoding: str = JSON
    code_version: str | None = None
    attributes: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCompleted(EventBase):
    """A run returned; `payload` is what it returned."""

    kind: ClassVar[str] = "workflow.completed"

    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFailed(EventBase):
    """A run raised. `payload` holds the error's arguments where they have a JSON form."""

    kind: ClassVar[str] = "workflow.failed"

    error_type: str
    error_message: str
    error_stack: str | None = None
    payload: str | None = None
    encoding: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowParked(EventBase):
    """A run waits for a person. `name` is the reason's code, `payload` its structured detail (JSON object)."""

    kind: ClassVar[str] = "workflow.parked"

    name: str
    error_message: str
    payload: str | None = None
    encoding: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowResumed(EventBase):
    """A person let a parked run go on. `payload` holds who and why (JSON object)."""

    kind: ClassVar[str] = "workflow.resumed"

    payload: str | None = None
    encoding: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCompleted(EventBase):
    """A step returned; `payload` is what it returned and what every replay will see."""

    kind: ClassVar[str] = "step.completed"

    step: int
    name: str
    payload: str
    attempt: int
    started_at: int
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed(EventBase):
    """A step failed for good: its error is raised in the workflow, now and on every replay."""

    kind: ClassVar[str] = "step.failed"

    step: int
    name: str
    attempt: int
    started_at: int
    error_type: str
    error_message: str
    error_stack: str | None = None
    payload: str | None = None
    encoding: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAttemptFailed(EventBase):
    """One attempt of a step failed. The next begins at `due_at`; None where the attempts are used up."""

    kind: ClassVar[str] = "step.attempt_failed"

    step: int
    name: str
    attempt: int
    started_at: int
    error_type: str
    error_message: str
    error_stack: str | None = None
    payload: str | None = None
    encoding: str | None = None
    due_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerStarted(EventBase):
    """The workflow began to wait for a time: `asyncio.sleep`, a timeout."""

    kind: ClassVar[str] = "timer.started"

    step: int
    name: str
    due_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired(EventBase):
    """The time of timer `step` came."""

    kind: ClassVar[str] = "timer.fired"

    step: int
    name: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What the codec returns for a record that it can't decode, or of a kind it does not know.

    Args:
        workflow_id: The record's key: the workflow to park; None where the record has none.
        claim: The claim from the record's headers; None where it can't be read.
        reason: What is wrong with it, for a person.
    """

    workflow_id: str | None
    claim: int | None
    reason: str


Event = (
    PartitionClaimed
    | CommandRefused
    | WorkflowStarted
    | WorkflowCompleted
    | WorkflowFailed
    | WorkflowParked
    | WorkflowResumed
    | StepCompleted
    | StepFailed
    | StepAttemptFailed
    | TimerStarted
    | TimerFired
)

EVENT_CLASSES: tuple[type[Event], ...] = (
    PartitionClaimed,
    CommandRefused,
    WorkflowStarted,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowParked,
    WorkflowResumed,
    StepCompleted,
    StepFailed,
    StepAttemptFailed,
    TimerStarted,
    TimerFired,
)
