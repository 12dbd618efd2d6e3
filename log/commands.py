"""Commands (what somebody asks for, imperative, may be refused) and the replies to them.

A reply is a hint: it is kept for a short time only, and a client that hears nothing asks again. What is true
is in the events.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from refold.log.events import JSON


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
    """Start a run of `workflow` with the JSON input `payload`; the first start of an id wins."""

    kind: ClassVar[str] = "workflow.start"

    workflow: str
    payload: str
    encoding: str = JSON
    attributes: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchWorkflow(CommandBase):
    """Tell `reply_to` how the run ended, now or when it ends."""

    kind: ClassVar[str] = "workflow.watch"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeWorkflow(CommandBase):
    """Let a parked run go on. `reason` is the operator's why, for the audit."""

    kind: ClassVar[str] = "workflow.resume"

    reason: str | None = None


Command = StartWorkflow | WatchWorkflow | ResumeWorkflow

COMMAND_CLASSES: tuple[type[Command], ...] = (StartWorkflow, WatchWorkflow, ResumeWorkflow)

ReplyStatus = Literal["accepted", "refused", "completed", "failed", "parked", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a command.

    Args:
        command_id: The command that it answers; results of a run carry the command that began the watch.
        workflow_id: The workflow that it is about.
        status: `accepted`/`refused` answer the command; `completed`/`failed`/`parked` tell how the run stands;
            `unknown` says that this worker lost the partition: ask again.
        payload: JSON of the result, or of the error's arguments.
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
