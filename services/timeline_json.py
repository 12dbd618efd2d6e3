"""Timelines and events as plain JSON values, for `--json`. Times are ISO 8601 in UTC."""

import json
from dataclasses import fields
from datetime import datetime

from refold.log.attributes import decode_attributes
from refold.log.codec import event_id_of
from refold.log.events import (
    Event,
    Unreadable,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowTerminated,
)
from refold.services.spans import iso
from refold.services.timeline_milestones import json_object
from refold.services.timeline_rows import Attempt, Operation, Row, Stream, Timeline

_TIMES = frozenset({"recorded_at", "started_at", "due_at"})


def timeline_json(timeline: Timeline, status: str, reason: str | None) -> dict[str, object]:
    """The object of `refold show --json`."""
    return {
        "workflow_id": timeline.workflow_id,
        "workflow": timeline.workflow,
        "version": timeline.version,
        "code_version": timeline.code_version,
        "status": status,
        "started_at": iso(timeline.started_at),
        "updated_at": iso(timeline.updated_at),
        "events": timeline.events,
        "deadline": _time(timeline.deadline),
        "parent_id": timeline.parent_id,
        "queue": timeline.queue,
        "parent_step": timeline.parent_step,
        "source_id": timeline.source_id,
        "attributes": attributes_json(timeline.attributes),
        "input": json_value(timeline.input),
        "result": json_value(timeline.result),
        "error": _error(timeline.failure),
        "reason": reason,
        "parked": json_object(timeline.parked.payload) if timeline.parked is not None else None,
        "paused": json_object(timeline.paused.payload) if timeline.paused is not None else None,
        "cancel": json_object(timeline.cancel.payload) if timeline.cancel is not None else None,
        "rows": [_row(row) for row in timeline.rows],
    }


def event_json(event: Event | Unreadable) -> dict[str, object]:
    """A line of `refold history --json`: all fields, payloads as the JSON text that was recorded."""
    if isinstance(event, Unreadable):
        return {
            "kind": "unreadable",
            "workflow_id": event.workflow_id,
            "claim": event.claim,
            "reason": event.reason,
        }
    line: dict[str, object] = {"kind": event.kind, "event_id": event_id_of(event)}
    for field in fields(event):
        value: object = getattr(event, field.name)
        if field.name in _TIMES and isinstance(value, int):
            value = iso(value)
        line[field.name] = value.hex() if isinstance(value, bytes) else value
    return line


def json_value(payload: str | None) -> object:
    """What a payload's JSON says; its text where that can't be read."""
    if payload is None:
        return None
    try:
        value: object = json.loads(payload)
    except ValueError:
        return payload
    return value


def attributes_json(attributes: dict[str, str]) -> dict[str, object]:
    """Tags as JSON's own strings, numbers and booleans; times as ISO 8601."""
    tags = decode_attributes(attributes)
    return {
        name: attributes[name] if isinstance(tag, datetime) else tag for name, tag in tags.items()
    }


def _error(
    failure: WorkflowFailed | WorkflowCancelled | WorkflowTerminated | None,
) -> dict[str, object] | None:
    if failure is None:
        return None
    return {
        "type": failure.error_type,
        "message": failure.error_message,
        "stack": failure.error_stack if isinstance(failure, WorkflowFailed) else None,
    }


def _row(row: Row) -> dict[str, object]:
    if isinstance(row, Operation):
        return _operation(row)
    if isinstance(row, Stream):
        return {
            "what": "stream",
            "name": row.name,
            "items": row.items,
            "started_at": iso(row.started_at),
            "ended_at": iso(row.ended_at),
        }
    return {
        "what": row.what,
        "at": _time(row.at),
        "text": row.text,
        "value": json_value(row.payload),
    }


def _operation(operation: Operation) -> dict[str, object]:
    return {
        "what": operation.sort.value,
        "step": operation.step,
        "name": operation.name,
        "state": operation.state.value,
        "started_at": iso(operation.started_at),
        "ended_at": _time(operation.ended_at),
        "due_at": _time(operation.due_at),
        "target_id": operation.target_id,
        "error": operation.error,
        "worker": operation.worker,
        "attempts": [_attempt(attempt) for attempt in operation.attempts],
        "result": json_value(operation.payload),
    }


def _attempt(attempt: Attempt) -> dict[str, object]:
    return {
        "number": attempt.number,
        "started_at": iso(attempt.started_at),
        "ended_at": iso(attempt.ended_at),
        "error": attempt.error,
    }


def _time(at: int | None) -> str | None:
    return None if at is None else iso(at)
