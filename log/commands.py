"""Commands (what somebody asks for, imperative, may be refused) and the replies to them.

A reply is a hint: it is kept for a short time only, and a client that hears nothing asks again. What is true
is in the events.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from refold.log.events import JSON
from refold.log.quick_init import quicken


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandBase:
    """What every command carries.

    Args:
        command_id: Unique name of this request; the reply carries it back.
        workflow_id: The workflow that it is about.
        reply_to: Client to answer; None where nobody waits.
        requested_at: Microseconds since 1970-01-01 UTC by the client's clock; for people, never for decisions.
        requested_by: Who asks, for the audit; None where the client does not say.
    """

    kind: ClassVar[str]

    command_id: str
    workflow_id: str
    reply_to: str | None
    requested_at: int
    requested_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorkflow(CommandBase):
    """Start a run of `workflow` with the JSON input `payload`; the first start of an id wins.

    Args:
        workflow: Name of the workflow.
        payload: JSON of the input.
        version: Version of its code; None for the newest that the worker has.
        attributes: The user's tags, as `log/attributes.py` writes them.
        due_at: Deadline, microseconds since 1970-01-01 UTC; None for none.
        parent_id: The workflow that starts it as a child; None where a client does.
        parent_step: The operation by which it does.
        policy: What becomes of a child when its parent ends (`events.OnParentEnd`).
        name: Topic of a message that goes with it; None for no message. Where the run exists, it is sent to that.
        message: JSON of the message.
        message_id: The message's own id.
        queue: The queue in which it waits for its turn; None for the workflow's own, if it has one.
    """

    kind: ClassVar[str] = "workflow.start"

    workflow: str
    payload: str
    encoding: str = JSON
    version: int | None = None
    attributes: dict[str, str] | None = None
    due_at: int | None = None
    parent_id: str | None = None
    parent_step: int | None = None
    policy: str | None = None
    name: str | None = None
    message: str | None = None
    message_id: str | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchWorkflow(CommandBase):
    """Tell `reply_to` how the run ended, now or when it ends."""

    kind: ClassVar[str] = "workflow.watch"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchValue(CommandBase):
    """Tell `reply_to` what the run has published under the key `name`, now or when it does."""

    kind: ClassVar[str] = "value.watch"

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SendMessage(CommandBase):
    """Send a message on the topic `name`. `parent_id` and `parent_step` name the operation of a workflow that sends."""

    kind: ClassVar[str] = "message.send"

    name: str
    payload: str
    message_id: str
    encoding: str = JSON
    parent_id: str | None = None
    parent_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskWorkflow(CommandBase):
    """Ask on the topic `name`; the code's answer comes as a reply. `command_id` names the question."""

    kind: ClassVar[str] = "workflow.ask"

    name: str
    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelWorkflow(CommandBase):
    """Ask the run to cancel: its code may clean up first. `reason` is why, for the audit.

    `name` is who asks: `request`, or `parent` where the parent ended or was cancelled. `parent_id` and `parent_step`
    name the operation of a workflow that waits for the answer.
    """

    kind: ClassVar[str] = "workflow.cancel"

    name: str = "request"
    reason: str | None = None
    parent_id: str | None = None
    parent_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateWorkflow(CommandBase):
    """End the run without asking its code. `reason` is the operator's why, for the audit."""

    kind: ClassVar[str] = "workflow.terminate"

    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseWorkflow(CommandBase):
    """Halt the run until it is resumed. `reason` is the operator's why, for the audit."""

    kind: ClassVar[str] = "workflow.pause"

    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeWorkflow(CommandBase):
    """Let a parked or paused run go on. `reason` is the operator's why, for the audit."""

    kind: ClassVar[str] = "workflow.resume"

    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RewindWorkflow(CommandBase):
    """Take an open run back to before operation `step`."""

    kind: ClassVar[str] = "workflow.rewind"

    step: int
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReopenWorkflow(CommandBase):
    """Reopen a run that has ended; its history follows in `CopyHistory`.

    Args:
        position: The number of events that its stream had when the history was read: where it has changed since,
            the command is refused.
        step: The first operation that is done again; None where all that was recorded stays.
        workflow, payload, version, attributes, due_at, parent_id, parent_step, policy, queue, started_at: As at its
            start.
    """

    kind: ClassVar[str] = "workflow.reopen"

    position: int
    step: int | None
    workflow: str
    payload: str
    started_at: int
    encoding: str = JSON
    version: int = 1
    attributes: dict[str, str] | None = None
    due_at: int | None = None
    parent_id: str | None = None
    parent_step: int | None = None
    policy: str | None = None
    reason: str | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkWorkflow(CommandBase):
    """Begin a fork of the workflow `source_id` under a new id; its history follows in `CopyHistory`.

    Args:
        step: The operation before which the copy ends; None for all of it.
        queue: The queue in which the fork waits for its turn; None for none.
    """

    kind: ClassVar[str] = "workflow.fork"

    source_id: str
    step: int | None
    workflow: str
    payload: str
    encoding: str = JSON
    version: int | None = None
    attributes: dict[str, str] | None = None
    reason: str | None = None
    queue: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyHistory(CommandBase):
    """A part of the history of a fork or a reopened run.

    Args:
        position: Which part it is, from 0: one that comes twice counts once.
        payload: JSON array, as `engine/copied.py` writes it.
        name: `more`, or `last`.
    """

    kind: ClassVar[str] = "history.copy"

    position: int
    payload: str
    name: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseSubject(CommandBase):
    """Record that a subject's keys were destroyed, for the partition of `workflow_id`, and park its open runs there.

    Args:
        payload: JSON array of the keys' ids.
        reason: Why, for the audit.
    """

    kind: ClassVar[str] = "subject.erase"

    payload: str
    encoding: str = JSON
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetQueue(CommandBase):
    """Set how many runs of the queue `workflow_id` run at once.

    Args:
        payload: JSON object: `concurrency`.
        reason: The operator's why, for the audit.
    """

    kind: ClassVar[str] = "queue.set"

    payload: str
    encoding: str = JSON
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAtQueue(CommandBase):
    """Tell `reply_to` how the queue `workflow_id` stands now; refused where nobody has set it."""

    kind: ClassVar[str] = "queue.look"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSlot(CommandBase):
    """From the owner of a run to that of the queue `workflow_id`: the run `parent_id` waits for a slot.

    Args:
        parent_id: The run.
        position: The position of the event by which it asks.
    """

    kind: ClassVar[str] = "slot.request"

    parent_id: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSlot(CommandBase):
    """Likewise: the run has ended, and holds its slot or waits for it no more. Fields as in `RequestSlot`."""

    kind: ClassVar[str] = "slot.release"

    parent_id: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantSlot(CommandBase):
    """From the owner of a queue to that of the run `workflow_id`: it has the slot that it asked for at `position`."""

    kind: ClassVar[str] = "slot.grant"

    queue: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmDelivery(CommandBase):
    """From one owner to another: what operation `step` of this workflow sent was recorded, or refused."""

    kind: ClassVar[str] = "delivery.confirm"

    step: int
    error_type: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportChild(CommandBase):
    """From one owner to another: how the child that operation `step` of this workflow started has ended.

    It returned `payload`, or it failed with the error.
    """

    kind: ClassVar[str] = "child.report"

    step: int
    payload: str | None = None
    encoding: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    error_stack: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportStep(CommandBase):
    """To a partition's owner: what became of a step that another worker carried out.

    Either the owner before handed the partition over and went on with the step, or `reply_to` is a pool's worker.

    Args:
        step: Its number.
        attempt: Which attempt it was.
        payload: JSON object, as `engine/handover.py` writes it.
    """

    kind: ClassVar[str] = "step.report"

    step: int
    attempt: int
    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class AskForPartition(CommandBase):
    """To a partition's owner, which has offered it (`PartitionOffered`): hand it over now. `workflow_id` names the
    worker that asks.
    """

    kind: ClassVar[str] = "partition.ask"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferWork(CommandBase):
    """From a pool's worker to a partition's owner: the steps that `reply_to` has. `workflow_id` names its pools.

    Args:
        payload: JSON object, as `engine/pool_messages.py` writes it.
    """

    kind: ClassVar[str] = "work.offer"

    payload: str
    encoding: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginStep(CommandBase):
    """May `reply_to`, a pool's worker, begin this attempt at step `step`, which it was given?"""

    kind: ClassVar[str] = "step.begin"

    step: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepStep(CommandBase):
    """`reply_to`, a pool's worker, goes on with this attempt at step `step`."""

    kind: ClassVar[str] = "step.keep"

    step: int
    attempt: int


Command = (
    StartWorkflow
    | WatchWorkflow
    | WatchValue
    | SendMessage
    | AskWorkflow
    | CancelWorkflow
    | TerminateWorkflow
    | PauseWorkflow
    | ResumeWorkflow
    | RewindWorkflow
    | ReopenWorkflow
    | ForkWorkflow
    | CopyHistory
    | EraseSubject
    | SetQueue
    | LookAtQueue
    | RequestSlot
    | ReleaseSlot
    | GrantSlot
    | ConfirmDelivery
    | ReportChild
    | ReportStep
    | AskForPartition
    | OfferWork
    | BeginStep
    | KeepStep
)

COMMAND_CLASSES: tuple[type[Command], ...] = (
    StartWorkflow,
    WatchWorkflow,
    WatchValue,
    SendMessage,
    AskWorkflow,
    CancelWorkflow,
    TerminateWorkflow,
    PauseWorkflow,
    ResumeWorkflow,
    RewindWorkflow,
    ReopenWorkflow,
    ForkWorkflow,
    CopyHistory,
    EraseSubject,
    SetQueue,
    LookAtQueue,
    RequestSlot,
    ReleaseSlot,
    GrantSlot,
    ConfirmDelivery,
    ReportChild,
    ReportStep,
    AskForPartition,
    OfferWork,
    BeginStep,
    KeepStep,
)

ReplyStatus = Literal[
    "accepted",
    "refused",
    "completed",
    "failed",
    "cancelled",
    "terminated",
    "parked",
    "answered",
    "value",
    "unknown",
    "step",
    "granted",
    "cancel",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a command.

    Args:
        command_id: The command that it answers; results of a run carry the command that began the watch.
        workflow_id: The workflow that it is about.
        status: `accepted`/`refused` answer the command; `completed`/`failed`/`cancelled`/`terminated`/`parked` tell
            how the run stands; `answered` is the code's answer to a question, with an error where it has one;
            `value` is a published value; `unknown` says that this worker lost the partition: ask again. To a pool's
            worker: `step` gives it an attempt, `granted` lets it begin, `cancel` says that nobody waits for it.
        payload: JSON of the result, the answer or the value, or of the error's arguments.
        error_type: `module:qualname` of the error.
        error_message: Its message.
        error_stack: Its stack, as text.
    """

    command_id: str
    workflow_id: str
    status: ReplyStatus
    payload: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    error_stack: str | None = None


quicken((*COMMAND_CLASSES, Reply))
