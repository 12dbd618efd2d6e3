"""Which parts of an event hold what the user's code said, and are encrypted: payloads, errors' messages and stacks.

Left readable, so that a run can be found and followed by whoever has no key: ids, names, topics, types of errors,
times, attributes, and who ordered what and why.
"""

from dataclasses import replace
from typing import Any, Final, TypeVar, cast

from refold.engine.privacy import Privacy, Role
from refold.engine.state import PartitionState
from refold.log.commands import AskWorkflow, Command, ReportChild, SendMessage, StartWorkflow
from refold.log.envelope import ELSEWHERE, ENCRYPTED, PREFIX, context_of, envelopes_in
from refold.log.events import (
    AskAnswered,
    AskReceived,
    ChildCompleted,
    ChildFailed,
    ChildRequested,
    EventBase,
    MessageReceived,
    MessageSent,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    StreamWritten,
    ValuePublished,
    WorkflowCompleted,
    WorkflowContinued,
    WorkflowFailed,
    WorkflowParked,
    WorkflowReopened,
    WorkflowStarted,
)
from refold.log.keys import KEY_TAG

E = TypeVar("E", bound=EventBase)

ROLES: Final[dict[type[EventBase], Role]] = {
    AskAnswered: "answer",
    AskReceived: "ask",
    ChildCompleted: "result",
    ChildFailed: "error",
    ChildRequested: "input",
    MessageReceived: "message",
    MessageSent: "message",
    StepAttemptFailed: "error",
    StepCompleted: "step",
    StepFailed: "error",
    StreamWritten: "stream",
    ValuePublished: "value",
    WorkflowCompleted: "result",
    WorkflowContinued: "input",
    WorkflowFailed: "error",
    WorkflowParked: "note",
    WorkflowReopened: "input",
    WorkflowStarted: "input",
}
"""Events whose payload is a value of the user's, or a note on a run, and what it is."""
_OWN_WORDS: Final = frozenset({"attempts_used_up", "erased", "history_full", "payload", "stuck"})
"""Reasons for parking that refold states in its own words; what they quote of an error is an envelope."""


def protected(event: E, state: PartitionState, privacy: Privacy) -> E:
    """An event as it is recorded: encrypted where its run has a key.

    Args:
        event: The event.
        state: The partition's fold before it.
        privacy: The keys.

    Raises:
        KeyMissing: The key store has no such key.
        KeysUnavailable: The key store can't be reached now.
    """
    role = ROLES.get(event.__class__)
    if role is None:
        return event
    workflow_id = event.workflow_id or ""
    if isinstance(event, WorkflowStarted | WorkflowReopened):
        ring = (event.attributes or {}).get(KEY_TAG)
        if ring is None and isinstance(event, WorkflowStarted):
            ring = privacy.tag_missing(workflow_id)
            if ring is not None:
                event = replace(event, attributes={**(event.attributes or {}), KEY_TAG: ring})
    else:
        run = state.open.get(workflow_id)
        ring = None if run is None else run.attributes.get(KEY_TAG)
    if ring is None:
        return event
    changes: dict[str, Any] = {}
    if isinstance(event, ChildRequested):
        attributes = event.attributes or {}
        changes["attributes"] = {KEY_TAG: ring, **attributes}
    if not (isinstance(event, WorkflowParked) and event.name in _OWN_WORDS):
        _protect_texts(event, changes, ring, role, privacy)
    return cast(E, replace(cast(Any, event), **changes)) if changes else event


def _protect_texts(
    event: EventBase, changes: dict[str, Any], ring: str, role: Role, privacy: Privacy
) -> None:
    whose: str = getattr(event, "target_id", None) or event.workflow_id or ""
    payload: str | None = getattr(event, "payload", None)
    if payload is not None:
        text = privacy.protect(payload, ring, role, whose)
        if text is not payload:
            changes["payload"] = text
            if text[:4] == PREFIX:
                changes["encoding"] = ENCRYPTED
    for name in ("error_message", "error_stack"):
        said: str | None = getattr(event, name, None)
        if said:
            changes[name] = privacy.protect(said, ring, "error", whose)


def is_misplaced(command: Command, state: PartitionState) -> bool:
    """Whether a command brings what was encrypted for another workflow, or to be something else.

    Else whoever may write commands, and has no key, could have a workflow of theirs read it.
    """
    whose = command.workflow_id
    match command:
        case StartWorkflow():
            texts: list[tuple[str | None, Role]] = [
                (command.payload, "input"),
                (command.message, "message"),
            ]
        case SendMessage():
            texts = [(command.payload, "message")]
        case AskWorkflow():
            texts = [(command.payload, "ask")]
        case ReportChild():
            run = state.open.get(whose)
            child = None if run is None else run.exchange.children.get(command.step)
            if child is None:
                return False
            whose = child.target_id
            role: Role = "result" if command.error_type is None else "error"
            texts = [
                (command.payload, role),
                (command.error_message, "error"),
                (command.error_stack, "error"),
            ]
        case _:
            return False
    return any(
        envelope.context != context_of(role, whose)
        for text, role in texts
        if text is not None and text[:1] in ELSEWHERE
        for envelope in envelopes_in(text)
    )
