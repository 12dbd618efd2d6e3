"""Events: what happened, in the past tense, as frozen values. The union is closed.

Rules that hold for every event:

1. Only the current owner of a partition writes events, and only under its own claim.
2. An event is never changed. A new field is nullable with a default; none is renamed, retyped or dropped.
3. `position` counts up by one within one workflow's stream, mostly from 0: a workflow that is started after its
   partition has forgotten ids (`CheckpointBegun`) begins where no forgotten stream had come to, so that the id and
   the position name an event for ever. Events that belong to the partition and not to a workflow (`OwnEvent`) have
   no position.
4. Times are integers: microseconds since 1970-01-01 UTC. `recorded_at` never goes back within a stream.
5. `payload` is JSON text and `encoding` says so, or (`json+blob`) a reference to one in a blob store; what the
   text means is the workflow's own types' business.
6. `command` is the offset of the last command that the owner had consumed, so that recovery resumes at
   the greatest of them plus one. Therefore one command causes one event; where it causes two, only the last
   carries its offset, and the first is one that a repeat would not cause again.
7. `posted` counts the commands that the partition has sent to other workflows: each event that causes one does so
   once, in log order, so that a later owner knows which of them are still to be sent.
8. `step` numbers a workflow's operations in code order and is never used twice in a stream, whatever is continued,
   rewound or copied: with the workflow's id it names the operation for ever. `next_step`, on events after which the
   code is not in memory, is the number that it would have used next; None where that is not known.

On the wire all kinds are one flat Avro record (`log/schemas/event.avsc`): SQL engines read flat records with
nullable columns, and unions of records badly or not at all.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from refold.log.quick_init import quicken

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
        posted: How many commands to other workflows the partition was known to have sent.
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
    posted: int
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
    Where a workflow asked, `parent_id` and `parent_step` name it and its operation, which hears of the refusal.
    """

    kind: ClassVar[str] = "command.refused"

    partition: int
    name: str
    error_type: str
    error_message: str
    parent_id: str | None = None
    parent_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionOffered(EventBase):
    """The partition is to go to another worker; until that one asks for it (`AskForPartition`), its owner works on.

    Whoever should own the partition asks and waits until the owner has handed it over. An owner that falls silent has
    begun no step later than `OFFER_S` (`log/protocol.py`) after this.

    Args:
        due_at: Until when, at the latest, the owner works on.
    """

    kind: ClassVar[str] = "partition.offered"

    partition: int
    due_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionHandedOver(EventBase):
    """The owner gives the partition up for another worker to claim, while steps go on in it.

    What becomes of them it tells the next owner by commands (`ReportStep`). Until `due_at` the next owner waits for
    that and does not begin them again.

    Args:
        payload: JSON array of `[workflow_id, step, attempt]` of the steps under way.
        due_at: Until when.
    """

    kind: ClassVar[str] = "partition.handed_over"

    partition: int
    payload: str
    due_at: int
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointBegun(EventBase):
    """The owner begins to write the partition's state, as it stands after this event, into the log.

    The state follows in the `CheckpointPart` events of the same `name`, with other events between them, and is whole
    when `CheckpointCompleted` has come. It is a cache of the fold, but for one thing: from this event on the runs
    that ended before a time are forgotten, so that their ids are free.

    Args:
        name: Number of the claim and of the checkpoint under it: its id within the partition.
        payload: JSON object: `forget_before` (microseconds since 1970-01-01 UTC) and `floor`, the position at which
            streams begin from here on.
    """

    kind: ClassVar[str] = "checkpoint.begun"

    partition: int
    name: str
    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPart(EventBase):
    """A piece of the text of the checkpoint `name`; `index` counts them from 0. Readers of history do without it."""

    kind: ClassVar[str] = "checkpoint.part"

    partition: int
    name: str
    index: int
    payload: str
    encoding: str = "checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointCompleted(EventBase):
    """The checkpoint `name` is whole: `count` parts, whose text has the digest `payload` (BLAKE2b-256, hex)."""

    kind: ClassVar[str] = "checkpoint.completed"

    partition: int
    name: str
    count: int
    payload: str
    encoding: str = "digest"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionMigrated(EventBase):
    """The streams of this partition are copied from another namespace; `refold migrate` writes it.

    While they are, a stream begins at the position at which it began there, and an id may be used again that was
    forgotten there. A copied event is what it was but for `claim`, `command`, `posted` and `chain`, which are the
    partition's own; of a copied `CommandRefused`, `command` is a number below -1 that tells it from others.

    Args:
        name: `begun`; `forgot-1`, `forgot-2`, ...: what every partition of the source had forgotten by then; or
            `completed`.
        payload: JSON object: `forget_before` and `floor` as in `CheckpointBegun` (-1 while streams are copied). In the
            first also where they come from, with the head of each partition's chain (`engine/migration.py`).
    """

    kind: ClassVar[str] = "partition.migrated"

    partition: int
    name: str
    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectErased(EventBase):
    """A person had a subject's keys destroyed: what is encrypted with them can't be read any more, by anybody.

    The subject is not named: `refold.key` of its runs names the keys. By now they are destroyed.

    Args:
        payload: JSON object: `keys`, who and why.
    """

    kind: ClassVar[str] = "subject.erased"

    partition: int
    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSet(EventBase):
    """A person set how many runs of a queue run at once. The key of a queue's own events is its name.

    Args:
        queue: The queue.
        count: How many.
        payload: Who and why (JSON object).
    """

    kind: ClassVar[str] = "queue.set"

    partition: int
    queue: str
    count: int
    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRequested(EventBase):
    """The run `target_id` waits in a queue for a slot, which it gets as soon as it is its turn (`engine/fold.py`).

    Args:
        queue: The queue.
        index: The position of the event by which the run asked: with its id, the name of this wait for ever.
    """

    kind: ClassVar[str] = "slot.requested"

    partition: int
    queue: str
    target_id: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReleased(EventBase):
    """The run `target_id` has ended: its slot is free, or it waits no more. Fields as in `SlotRequested`."""

    kind: ClassVar[str] = "slot.released"

    partition: int
    queue: str
    target_id: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReturned(EventBase):
    """A slot came for the run that the key names, which had ended: the queue has it back. Fields: see `SlotGranted`."""

    kind: ClassVar[str] = "slot.returned"

    partition: int
    queue: str
    index: int


OnParentEnd = Literal["cancel", "abandon", "detached"]
"""What becomes of a child when its parent ends or is cancelled: it is cancelled too, or goes on. A `detached` one
goes on and its parent never hears how it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowStarted(EventBase):
    """A run began; `payload` is the JSON array/object of its input.

    Args:
        workflow: Name of its workflow.
        version: Version of its code, which the run keeps until it ends or is continued as new.
        code_version: The code's own hash.
        attributes: The user's tags.
        due_at: Deadline at which the run is cancelled; None for none.
        parent_id: The workflow that started it as a child; None where a client did.
        parent_step: The operation by which it did.
        policy: What becomes of a child when its parent ends.
        source_id: The workflow that it is a fork of. Its history is then copied before it runs
            (`HistoryCopied`); `step` is the operation before which the copy ends.
        detail: Of a fork: who and why (JSON object).
        queue: The queue in which it waits until it is its turn; None where it runs at once.
    """

    kind: ClassVar[str] = "workflow.started"

    workflow: str
    payload: str
    encoding: str = JSON
    version: int = 1
    code_version: str | None = None
    attributes: dict[str, str] | None = None
    due_at: int | None = None
    parent_id: str | None = None
    parent_step: int | None = None
    policy: str | None = None
    source_id: str | None = None
    step: int | None = None
    detail: str | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCompleted(EventBase):
    """A run returned; `payload` is what it returned."""

    kind: ClassVar[str] = "workflow.completed"

    payload: str
    encoding: str = JSON
    next_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFailed(EventBase):
    """A run raised. `payload` holds the error's arguments where they have a JSON form."""

    kind: ClassVar[str] = "workflow.failed"

    error_type: str
    error_message: str
    error_stack: str | None = None
    payload: str | None = None
    encoding: str | None = None
    next_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCancelled(EventBase):
    """A run that was asked to cancel has ended by it. `error_message` says who asked, and why."""

    kind: ClassVar[str] = "workflow.cancelled"

    error_type: str
    error_message: str
    next_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowTerminated(EventBase):
    """A run was ended from outside, its code not asked. `payload` holds who and why (JSON object)."""

    kind: ClassVar[str] = "workflow.terminated"

    error_type: str
    error_message: str
    payload: str
    encoding: str = JSON
    next_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowParked(EventBase):
    """A run waits for a person. `name` is the reason's code, `payload` its structured detail (JSON object)."""

    kind: ClassVar[str] = "workflow.parked"

    name: str
    error_message: str
    payload: str | None = None
    encoding: str | None = None
    next_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowPaused(EventBase):
    """A person halted a run until it is resumed. `payload` holds who and why (JSON object)."""

    kind: ClassVar[str] = "workflow.paused"

    payload: str
    encoding: str = JSON
    next_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowResumed(EventBase):
    """A person let a parked or paused run go on. `payload` holds who and why (JSON object)."""

    kind: ClassVar[str] = "workflow.resumed"

    payload: str | None = None
    encoding: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowCancelRequested(EventBase):
    """Somebody asked the run to cancel: its code is told at its next durable call, and may clean up.

    `name` is who: `request` (a client or another workflow), `parent` or `deadline`; `payload` holds who and why
    (JSON object).
    """

    kind: ClassVar[str] = "workflow.cancel_requested"

    name: str
    payload: str
    encoding: str = JSON
    parent_id: str | None = None
    parent_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowContinued(EventBase):
    """A run began afresh under the same id, with the input `payload` and no history but messages not yet received.

    Args:
        payload: The new input.
        next_step: The number that its next operation gets.
        version: Version of its code from here on.
        code_version: That code's own hash.
        detail: JSON array of the positions of the messages that are kept.
    """

    kind: ClassVar[str] = "workflow.continued"

    payload: str
    next_step: int
    detail: str
    encoding: str = JSON
    version: int = 1
    code_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowRewound(EventBase):
    """A person took an open run back to before operation `step`: what it and later ones came to no longer counts.

    Args:
        step: The first operation that is done again.
        next_step: The number that it gets this time.
        payload: Who and why (JSON object).
    """

    kind: ClassVar[str] = "workflow.rewound"

    step: int
    next_step: int
    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowReopened(EventBase):
    """A person reopened a run that had ended: as much of its history as counts is copied, then it goes on.

    Args:
        step: The first operation that is done again; None where all that was recorded stays.
        detail: Who and why (JSON object).
        started_at: When it was started.
        payload, workflow, version, code_version, attributes, due_at, parent_id, parent_step, policy, queue: As at
            its start, or when it was last continued as new. In a queue it waits anew.
    """

    kind: ClassVar[str] = "workflow.reopened"

    step: int | None
    detail: str
    workflow: str
    payload: str
    started_at: int
    encoding: str = JSON
    version: int = 1
    code_version: str | None = None
    attributes: dict[str, str] | None = None
    due_at: int | None = None
    parent_id: str | None = None
    parent_step: int | None = None
    policy: str | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotGranted(EventBase):
    """The run has a slot of its queue and begins; it keeps the slot until it ends.

    Args:
        queue: The queue.
        index: The position of the event by which the run asked for it.
    """

    kind: ClassVar[str] = "slot.granted"

    queue: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCopied(EventBase):
    """Some of the history that a fork or a reopened run begins with.

    Args:
        payload: JSON array of what is copied, in order (`engine/copied.py`).
        name: `more`, or `last`: now the run goes on.
    """

    kind: ClassVar[str] = "history.copied"

    payload: str
    name: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowWarned(EventBase):
    """Something that a person should look at, while the run goes on: `name` is its code (`history_grows`)."""

    kind: ClassVar[str] = "workflow.warned"

    name: str
    error_message: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSent(EventBase):
    """The code sends `payload` to another workflow, `target_id`, on the topic `name`."""

    kind: ClassVar[str] = "message.sent"

    step: int
    name: str
    target_id: str
    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildRequested(EventBase):
    """The code starts a child: a run of the workflow `name` with the id `target_id` and the input `payload`.

    Args:
        version: Version of its code; None for the newest that its worker has.
        policy: What becomes of it when its parent ends.
        attributes: The child's tags.
        due_at: The child's deadline.
        queue: The queue in which it waits; None for its workflow's own.
    """

    kind: ClassVar[str] = "child.requested"

    step: int
    name: str
    target_id: str
    payload: str
    policy: str
    encoding: str = JSON
    version: int | None = None
    attributes: dict[str, str] | None = None
    due_at: int | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelSent(EventBase):
    """The code asks another workflow, `target_id`, to cancel. `payload` holds the reason (JSON object)."""

    kind: ClassVar[str] = "cancel.sent"

    step: int
    name: str
    target_id: str
    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryConfirmed(EventBase):
    """What operation `step` sent is recorded with the other workflow: the message, the start, the cancel."""

    kind: ClassVar[str] = "delivery.confirmed"

    step: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRefused(EventBase):
    """What operation `step` sent was refused: the error is raised in the workflow."""

    kind: ClassVar[str] = "delivery.refused"

    step: int
    name: str
    error_type: str
    error_message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCompleted(EventBase):
    """The child that operation `step` started returned `payload`."""

    kind: ClassVar[str] = "child.completed"

    step: int
    name: str
    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildFailed(EventBase):
    """The child that operation `step` started failed, was cancelled or was terminated."""

    kind: ClassVar[str] = "child.failed"

    step: int
    name: str
    error_type: str
    error_message: str
    error_stack: str | None = None
    payload: str | None = None
    encoding: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceived(EventBase):
    """A message came on the topic `name`; it waits until the code receives it.

    Args:
        message_id: Its own id: a second one with the same id is none.
        parent_id: The workflow that sent it; None where a client did.
        parent_step: The operation by which it did.
    """

    kind: ClassVar[str] = "message.received"

    name: str
    payload: str
    message_id: str
    encoding: str = JSON
    parent_id: str | None = None
    parent_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskReceived(EventBase):
    """A client asks on the topic `name` and waits for an answer; `message_id` names the question."""

    kind: ClassVar[str] = "ask.received"

    name: str
    payload: str
    message_id: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAnswered(EventBase):
    """The code answered the question `message_id`: with `payload`, or with an error where `error_type` is set."""

    kind: ClassVar[str] = "ask.answered"

    step: int
    name: str
    message_id: str
    payload: str | None = None
    encoding: str | None = None
    error_type: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuePublished(EventBase):
    """The code gave the key `name` the value `payload`, for anyone to read."""

    kind: ClassVar[str] = "value.published"

    step: int
    name: str
    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamWritten(EventBase):
    """Items were added to the stream `name`.

    Args:
        payload: JSON array of the items.
        index: Index of the first of them in the stream, from 0.
        count: How many they are.
        step: The operation that wrote them; the step, where a step did.
        attempt: The attempt of the step that wrote them; None where the workflow's code did. What an attempt wrote
            that then failed stays: a step writes at least once.
    """

    kind: ClassVar[str] = "stream.written"

    step: int
    name: str
    index: int
    count: int
    payload: str
    attempt: int | None = None
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributesSet(EventBase):
    """The code set some of its run's tags; `name` says so."""

    kind: ClassVar[str] = "attributes.set"

    step: int
    name: str
    attributes: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchApplied(EventBase):
    """The run takes the new path of the change `name` (`patched`), now and on every replay."""

    kind: ClassVar[str] = "patch.applied"

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


OwnEvent = (
    PartitionClaimed
    | CommandRefused
    | PartitionOffered
    | PartitionHandedOver
    | CheckpointBegun
    | CheckpointPart
    | CheckpointCompleted
    | PartitionMigrated
    | SubjectErased
    | QueueSet
    | SlotRequested
    | SlotReleased
    | SlotReturned
)
"""The partition's own events: they belong to no workflow."""

Event = (
    PartitionClaimed
    | CommandRefused
    | PartitionOffered
    | PartitionHandedOver
    | CheckpointBegun
    | CheckpointPart
    | CheckpointCompleted
    | PartitionMigrated
    | SubjectErased
    | QueueSet
    | SlotRequested
    | SlotReleased
    | SlotReturned
    | WorkflowStarted
    | WorkflowCompleted
    | WorkflowFailed
    | WorkflowCancelled
    | WorkflowTerminated
    | WorkflowParked
    | WorkflowPaused
    | WorkflowResumed
    | WorkflowCancelRequested
    | WorkflowContinued
    | WorkflowRewound
    | WorkflowReopened
    | SlotGranted
    | HistoryCopied
    | WorkflowWarned
    | StepCompleted
    | StepFailed
    | StepAttemptFailed
    | TimerStarted
    | TimerFired
    | MessageSent
    | ChildRequested
    | CancelSent
    | DeliveryConfirmed
    | DeliveryRefused
    | ChildCompleted
    | ChildFailed
    | MessageReceived
    | AskReceived
    | AskAnswered
    | ValuePublished
    | StreamWritten
    | AttributesSet
    | PatchApplied
)

EVENT_CLASSES: tuple[type[Event], ...] = (
    PartitionClaimed,
    CommandRefused,
    PartitionOffered,
    PartitionHandedOver,
    CheckpointBegun,
    CheckpointPart,
    CheckpointCompleted,
    PartitionMigrated,
    SubjectErased,
    QueueSet,
    SlotRequested,
    SlotReleased,
    SlotReturned,
    WorkflowStarted,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowCancelled,
    WorkflowTerminated,
    WorkflowParked,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowCancelRequested,
    WorkflowContinued,
    WorkflowRewound,
    WorkflowReopened,
    SlotGranted,
    HistoryCopied,
    WorkflowWarned,
    StepCompleted,
    StepFailed,
    StepAttemptFailed,
    TimerStarted,
    TimerFired,
    MessageSent,
    ChildRequested,
    CancelSent,
    DeliveryConfirmed,
    DeliveryRefused,
    ChildCompleted,
    ChildFailed,
    MessageReceived,
    AskReceived,
    AskAnswered,
    ValuePublished,
    StreamWritten,
    AttributesSet,
    PatchApplied,
)

quicken(EVENT_CLASSES)
