"""What workflow code asks for, as events; and whether it asks for what its history says."""

import json

from refold.engine.ledger import Header
from refold.engine.operations import (
    CallRequest,
    CancelRequest,
    ChildRequest,
    Diverged,
    EmitRequest,
    Request,
    SendRequest,
    StepRequest,
    TimerRequest,
)
from refold.engine.state import Sent, WorkflowState
from refold.log.events import (
    AskAnswered,
    AttributesSet,
    CancelSent,
    ChildRequested,
    MessageSent,
    StreamWritten,
    ValuePublished,
)


def sent(request: CallRequest, header: Header) -> Sent:
    """The event that says what a request wants of another workflow."""
    step, name, target_id = request.step, request.name, request.target_id
    match request:
        case SendRequest():
            return MessageSent(
                **header, step=step, name=name, target_id=target_id, payload=request.payload
            )
        case ChildRequest():
            return ChildRequested(
                **header,
                step=step,
                name=name,
                target_id=target_id,
                payload=request.payload,
                policy=request.policy,
                version=request.version,
                attributes=request.attributes,
                due_at=request.due_at,
                queue=request.queue,
            )
        case CancelRequest():
            reason = json.dumps({"reason": request.reason})
            return CancelSent(**header, step=step, name=name, target_id=target_id, payload=reason)


def emitted(
    request: EmitRequest, header: Header, state: WorkflowState
) -> ValuePublished | StreamWritten | AskAnswered | AttributesSet:
    """The event that records what the code emits."""
    step, name, payload = request.step, request.name, request.payload
    match request.kind:
        case "value.published":
            return ValuePublished(**header, step=step, name=name, payload=payload or "null")
        case "stream.written":
            items = payload or "[]"
            return StreamWritten(
                **header,
                step=step,
                name=name,
                index=state.exchange.streams.get(name, 0),
                count=len(json.loads(items)),
                payload=items,
            )
        case "ask.answered":
            return AskAnswered(
                **header,
                step=step,
                name=name,
                message_id=request.message_id or "",
                payload=payload,
                encoding="json" if payload is not None else None,
                error_type=request.error_type,
                error_message=request.error_message,
            )
        case "attributes.set":
            return AttributesSet(**header, step=step, name=name, attributes=request.attributes)


def disagreement(
    state: WorkflowState, request: StepRequest | TimerRequest | CallRequest
) -> Diverged | None:
    """How an open request differs from what is recorded, without outcome, under its number."""
    if not state.attempts and not state.timers and not state.exchange.requests:
        return None  # nearly always
    step = request.step
    attempts, timer = state.attempts.get(step), state.timers.get(step)
    sent = state.exchange.requests.get(step)
    if attempts is None and timer is None and sent is None:
        return None
    found = _described(request)
    if attempts is not None:
        expected, position = f"step '{attempts.name}'", None
    elif timer is not None:
        # By its kind alone: how asyncio names what it waits with differs between versions of Python.
        expected, position = "a timer", timer.position
    else:
        assert sent is not None
        expected, position = _described(_request_of(sent)), sent.position
    if expected == found:
        return None
    return Diverged(
        step,
        position,
        expected,
        found,
        request.source,
        "the workflow's code was changed while the run was open",
    )


def _request_of(sent: MessageSent | ChildRequested | CancelSent) -> CallRequest:
    match sent:
        case MessageSent():
            return SendRequest(sent.step, sent.name, sent.target_id, sent.payload, "")
        case ChildRequested():
            return ChildRequest(
                sent.step, sent.name, sent.target_id, sent.payload, None, "cancel", None, None, ""
            )
        case CancelSent():
            return CancelRequest(sent.step, sent.name, sent.target_id, None, "")


def _described(request: Request) -> str:
    match request:
        case StepRequest():
            return f"step '{request.name}'"
        case TimerRequest():
            return "a timer"
        case SendRequest():
            return f"a message on '{request.name}' to {request.target_id!r}"
        case ChildRequest():
            return f"child '{request.name}' {request.target_id!r}"
        case CancelRequest():
            return f"a cancel of {request.target_id!r}"
        case EmitRequest():
            return f"{request.kind} '{request.name}'"
