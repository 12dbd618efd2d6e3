"""What happened to a run as a whole, in words; and what follows from it for how the run stands.

`told` says what an event's row shows; `follow` keeps the head of the timeline up to date.
"""

import json
from typing import cast

from refold.log.events import (
    AttributesSet,
    Event,
    MessageReceived,
    PatchApplied,
    SlotGranted,
    ValuePublished,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowContinued,
    WorkflowFailed,
    WorkflowParked,
    WorkflowPaused,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowRewound,
    WorkflowStarted,
    WorkflowTerminated,
    WorkflowWarned,
)
from refold.services.terminal import counted
from refold.services.timeline_rows import Milestone, Timeline


def error_line(error_type: str, message: str) -> str:
    """An error as one says it: the class without its module, and the message."""
    name = error_type.rpartition(":")[2].rpartition(".")[2] or "error"
    return f"{name}: {message}" if message else name


def json_object(text: str | None) -> dict[str, object]:
    """The members of a JSON object; none where it is something else."""
    try:
        value: object = json.loads(text or "{}")
    except ValueError:
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def who_and_why(payload: str | None) -> str:
    """Who gave an order, and why, as far as they said so: `by ada (too late)`."""
    detail = json_object(payload)
    who, why = detail.get("requested_by"), detail.get("reason")
    return _joined(f"by {who}" if who else "", f"({why})" if why else "")


def attributes_line(attributes: dict[str, str]) -> str:
    """Tags on one line: `customer=Zoë vip=true`."""
    return " ".join(f"{name}={text}" for name, text in attributes.items())


def told(event: Event, position: int) -> Milestone:
    """The row of an event that is about the run as a whole."""
    what, text, payload = _course(event) or _news(event) or _orders(event) or (event.kind, "", None)
    return Milestone(what, position, event.recorded_at, text, payload)


_Said = tuple[str, str, str | None]  # what, text, payload


def _course(event: Event) -> _Said | None:
    """How the run went."""
    match event:
        case WorkflowStarted():
            source = event.source_id
            copied = "all of it" if event.step is None else f"before #{event.step}"
            fork = f"as a fork of {source}, {copied}" if source is not None else ""
            queue = f"in queue {event.queue}" if event.queue is not None else ""
            return "started", _joined(fork, queue, f"by worker {event.worker}"), None
        case SlotGranted():
            return "its turn", f"in queue {event.queue}, by worker {event.worker}", None
        case WorkflowContinued():
            return "continued as new", _continued(event), event.payload
        case WorkflowWarned():
            return "warned", event.error_message, None
        case WorkflowCompleted():
            return "completed", "", None
        case WorkflowFailed() | WorkflowCancelled() | WorkflowTerminated():
            what = event.kind.rpartition(".")[2]
            return what, error_line(event.error_type, event.error_message), None
        case _:
            return None


def _news(event: Event) -> _Said | None:
    """What came to the run, and what it told of itself."""
    match event:
        case MessageReceived():
            sender = f"from {event.parent_id} #{event.parent_step}" if event.parent_id else ""
            return "received", _joined(event.name, sender), event.payload
        case ValuePublished():
            return "published", f"{event.name} =", event.payload
        case AttributesSet():
            return "attributes", attributes_line(event.attributes or {}), None
        case PatchApplied():
            return "patched", f"{event.name}: takes the new path", None
        case _:
            return None


def _orders(event: Event) -> _Said | None:
    """What somebody did to the run."""
    match event:
        case WorkflowParked():
            return "parked", event.error_message, None
        case WorkflowPaused() | WorkflowResumed():
            return event.kind.rpartition(".")[2], who_and_why(event.payload), None
        case WorkflowCancelRequested():
            return "cancel requested", _canceller(event), None
        case WorkflowRewound():
            text = f"to before #{event.step}, goes on as #{event.next_step}"
            return "rewound", _joined(who_and_why(event.payload), text), None
        case WorkflowReopened():
            text = "" if event.step is None else f"to before #{event.step}"
            return "reopened", _joined(who_and_why(event.detail), text), None
        case _:
            return None


def _continued(event: WorkflowContinued) -> str:
    try:
        kept: object = json.loads(event.detail)
    except ValueError:
        kept = []
    number = len(cast("list[object]", kept)) if isinstance(kept, list) else 0
    messages = f", {counted(number, 'message')} kept" if number else ""
    return f"from #{event.next_step}{messages}, with"


def _canceller(event: WorkflowCancelRequested) -> str:
    why = json_object(event.payload).get("reason")
    reason = f"({why})" if why else ""
    match event.name:
        case "deadline":
            return _joined("by its deadline", reason)
        case "parent":
            return _joined("with its parent", reason)
        case _ if event.parent_id is not None:
            return _joined(f"by {event.parent_id} #{event.parent_step}", reason)
        case _:
            return who_and_why(event.payload)


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def follow(timeline: Timeline, event: Event) -> None:
    """Keep what the timeline's head says up to date."""
    match event:
        case WorkflowStarted() | WorkflowReopened():
            _begin(timeline, event)
        case WorkflowContinued():
            timeline.input = event.payload
            timeline.version, timeline.code_version = event.version, event.code_version
        case AttributesSet():
            timeline.attributes |= event.attributes or {}
        case WorkflowParked():
            timeline.parked = event
        case WorkflowPaused():
            timeline.paused = event
        case WorkflowResumed() | WorkflowRewound():
            timeline.parked = timeline.paused = None
        case WorkflowCancelRequested():
            timeline.cancel = event
        case WorkflowCompleted():
            timeline.result = event.payload
        case WorkflowFailed() | WorkflowCancelled() | WorkflowTerminated():
            timeline.failure = event
        case _:
            pass


def _begin(timeline: Timeline, event: WorkflowStarted | WorkflowReopened) -> None:
    timeline.workflow, timeline.input = event.workflow, event.payload
    timeline.version, timeline.code_version = event.version, event.code_version
    timeline.attributes |= event.attributes or {}
    timeline.deadline, timeline.queue = event.due_at, event.queue
    timeline.parent_id, timeline.parent_step = event.parent_id, event.parent_step
    timeline.result = timeline.failure = timeline.cancel = None
    timeline.parked = timeline.paused = None
    if isinstance(event, WorkflowStarted):
        timeline.source_id = event.source_id
