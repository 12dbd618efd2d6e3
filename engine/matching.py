"""Which outcomes answer which requests, and both in words, for the record of a divergence."""

import json
from typing import Final, cast

from refold.engine.callsite import is_user_file
from refold.engine.inbox import Topic
from refold.engine.operations import (
    CancelRequest,
    ChildRequest,
    EmitRequest,
    Emitted,
    Outcome,
    Request,
    SendRequest,
    StepRequest,
    TimerRequest,
)
from refold.log.errors import UsageError
from refold.log.events import (
    ChildCompleted,
    ChildFailed,
    DeliveryConfirmed,
    DeliveryRefused,
    StepCompleted,
    StepFailed,
    TimerFired,
    WorkflowCancelRequested,
)

CHANGED: Final = (
    "the workflow's code was changed while the run was open, or it depends on something that no event"
    " records (a clock, random numbers, the environment, the order of a set)"
)

ANSWERED: Final = (StepCompleted, StepFailed, TimerFired, DeliveryConfirmed, DeliveryRefused)
"""The classes of `operations.Answered`, as a tuple: isinstance takes it faster than a union, at every step."""

_REQUESTS: Final[dict[type, str]] = {
    StepRequest: "step",
    TimerRequest: "timer",
    SendRequest: "delivery",
    ChildRequest: "delivery",
    CancelRequest: "delivery",
}
_OUTCOMES: Final[dict[type, str]] = {
    StepCompleted: "step",
    StepFailed: "step",
    TimerFired: "timer",
    DeliveryConfirmed: "delivery",
    DeliveryRefused: "delivery",
    ChildCompleted: "end of child",
    ChildFailed: "end of child",
}
_CALLS: Final[dict[type, str]] = {
    SendRequest: "message",
    ChildRequest: "start of child",
    CancelRequest: "request",
}
_EMISSIONS: Final = {
    "value.published": "published value",
    "stream.written": "write to stream",
    "ask.answered": "answer on topic",
    "attributes.set": "setting of",
}


def kind_of_request(request: Request) -> str:
    """What kind of outcome answers a request."""
    if isinstance(request, EmitRequest):
        return request.kind
    return _REQUESTS[request.__class__]


def kind_of_outcome(outcome: Outcome) -> str:
    """What kind of request an outcome answers."""
    if isinstance(outcome, Emitted):
        return outcome.kind
    return _OUTCOMES[outcome.__class__]


def described_request(request: Request) -> str:
    """A request in words, such as "step 'charge'"."""
    kind = kind_of_request(request)
    return f"{_CALLS.get(request.__class__) or _EMISSIONS.get(kind, kind)} '{request.name}'"


def described_outcome(kind: str, name: str) -> str:
    """What an outcome answers, in words, such as "step 'charge'"."""
    return f"{_EMISSIONS.get(kind, kind)} '{name}'"


def two_waiters(workflow_id: str, topic: Topic, source: str) -> UsageError:
    """The error for a second task that waits on one topic."""
    name, asks = topic
    what = "questions" if asks else "messages"
    # A task made of `receive(...)` itself has no line of the user's.
    where = source if is_user_file(source) else "made of the call itself"
    return UsageError(
        f"workflow {workflow_id!r} waits for {what} on topic {name!r} already, and a second task did so ({where}):"
        " which of them gets the next would be chance. Receive in one task and hand on what came, or use two topics"
    )


def cancel_message(event: WorkflowCancelRequested) -> str:
    """Who asked the run to cancel, and why, in words."""
    try:
        detail: object = json.loads(event.payload)
    except ValueError:
        detail = None
    told = cast("dict[str, object]", detail) if isinstance(detail, dict) else {}
    reason = told.get("reason")
    match event.name:
        case "deadline":
            who = "its deadline has passed"
        case "parent":  # the reason says what became of the parent
            who, reason = str(reason or "its parent has ended or was cancelled"), None
        case _:
            asker = told.get("requested_by") or event.parent_id
            who = f"{asker} asked for it" if asker else "it was asked to"
    return f"workflow {event.workflow_id!r} was cancelled: {who}{f': {reason}' if reason else ''}"
