"""What one workflow wants of another, as the commands that follow from its events.

A pure function of events, so that every reader finds the same commands in the same order: the owner posts them once
their event is confirmed, and a later owner posts again what is not known to have been posted. Each command has an id
made of the operation that it comes from: whoever gets it twice knows.
"""

import json
from typing import TypedDict

from refold.log.commands import (
    CancelWorkflow,
    Command,
    ConfirmDelivery,
    GrantSlot,
    ReleaseSlot,
    ReportChild,
    RequestSlot,
    SendMessage,
    StartWorkflow,
)
from refold.log.events import (
    CancelSent,
    ChildRequested,
    CommandRefused,
    MessageReceived,
    MessageSent,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowRewound,
    WorkflowStarted,
    WorkflowTerminated,
)


class _Envelope(TypedDict):
    """The part of a command that is the same for all kinds."""

    command_id: str
    workflow_id: str
    reply_to: None
    requested_at: int
    requested_by: str


def _envelope(to: str, sender: str | None, what: int | str, at: int) -> _Envelope:
    return {
        "command_id": f"{sender}/{what}",
        "workflow_id": to,
        "reply_to": None,
        "requested_at": at,
        "requested_by": f"workflow {sender}",
    }


def send(event: MessageSent | ChildRequested | CancelSent) -> Command:
    """The command by which a request reaches the other workflow."""
    sender, step = event.workflow_id, event.step
    envelope = _envelope(event.target_id, sender, step, event.recorded_at)
    match event:
        case MessageSent():
            return SendMessage(
                **envelope,
                name=event.name,
                payload=event.payload,
                encoding=event.encoding,
                message_id=f"{sender}/{step}",
                parent_id=sender,
                parent_step=step,
            )
        case ChildRequested():
            return StartWorkflow(
                **envelope,
                workflow=event.name,
                payload=event.payload,
                encoding=event.encoding,
                version=event.version,
                attributes=event.attributes,
                due_at=event.due_at,
                queue=event.queue,
                parent_id=sender,
                parent_step=step,
                policy=event.policy,
            )
        case CancelSent():
            return CancelWorkflow(
                **envelope,
                reason=json.loads(event.payload).get("reason"),
                parent_id=sender,
                parent_step=step,
            )


def confirm(
    event: WorkflowStarted | MessageReceived | WorkflowCancelRequested | CommandRefused,
) -> Command:
    """The answer to a request: it is recorded here, or refused. For events whose `parent_step` is set."""
    to, step = event.parent_id or "", event.parent_step or 0
    refused = event if isinstance(event, CommandRefused) else None
    return ConfirmDelivery(
        **_envelope(to, event.workflow_id, f"answer/{to}/{step}", event.recorded_at),
        step=step,
        error_type=refused.error_type if refused is not None else None,
        error_message=refused.error_message if refused is not None else None,
    )


def report(
    started: WorkflowStarted,
    event: WorkflowCompleted | WorkflowFailed | WorkflowCancelled | WorkflowTerminated,
) -> Command:
    """The news of a child's end for its parent."""
    to, step = started.parent_id or "", started.parent_step or 0
    envelope = _envelope(to, event.workflow_id, f"end/{event.position}", event.recorded_at)
    match event:
        case WorkflowCompleted():
            return ReportChild(
                **envelope, step=step, payload=event.payload, encoding=event.encoding
            )
        case WorkflowFailed():
            return ReportChild(
                **envelope,
                step=step,
                payload=event.payload,
                encoding=event.encoding,
                error_type=event.error_type,
                error_message=event.error_message,
                error_stack=event.error_stack,
            )
        case _:
            return ReportChild(
                **envelope,
                step=step,
                error_type=event.error_type,
                error_message=event.error_message,
            )


def cancel_child(
    event: WorkflowCancelRequested
    | WorkflowRewound
    | WorkflowCompleted
    | WorkflowFailed
    | WorkflowCancelled
    | WorkflowTerminated,
    child: ChildRequested,
) -> Command:
    """What a child is told when its parent ends, is asked to cancel, or forgets that it started it."""
    what = f"cancel/{child.step}/{event.position}"
    match event:
        case WorkflowCancelRequested(name="deadline"):
            why = "has reached its deadline"
        case WorkflowCancelRequested():
            why = "was asked to cancel"
        case WorkflowRewound():
            why = "was rewound to before its start"
        case _:
            why = "has ended"
    return CancelWorkflow(
        **_envelope(child.target_id, event.workflow_id, what, event.recorded_at),
        name="parent",
        reason=f"its parent {event.workflow_id!r} {why}",
    )


def request_slot(queue: str, workflow_id: str, position: int, at: int) -> Command:
    """What a queue is asked when a run of it is started or reopened, by the event at this position."""
    return RequestSlot(
        **_envelope(queue, workflow_id, f"slot/{position}", at),
        parent_id=workflow_id,
        position=position,
    )


def release_slot(queue: str, workflow_id: str, position: int, at: int) -> Command:
    """What a queue is told when the run needs that slot no more."""
    return ReleaseSlot(
        **_envelope(queue, workflow_id, f"slot/{position}/released", at),
        parent_id=workflow_id,
        position=position,
    )


def grant_slot(queue: str, workflow_id: str, position: int, at: int) -> Command:
    """What a run is told when it is its turn."""
    return GrantSlot(
        command_id=f"queue/{queue}/{workflow_id}/{position}",
        workflow_id=workflow_id,
        reply_to=None,
        requested_at=at,
        requested_by=f"queue {queue}",
        queue=queue,
        position=position,
    )
