"""Runs, timelines and events as plain JSON values, for `--json`. Times are ISO 8601 in UTC."""

import json
from dataclasses import fields

from refold.engine.reader import WorkflowInfo
from refold.log.codec import event_id_of
from refold.log.events import Event, Unreadable, WorkflowFailed
from refold.services.spans import iso
from refold.services.timeline import Attempt, Operation, Row, Timeline, json_object

_TIMES = frozenset({"recorded_at", "started_at", "due_at"})


def info_json(info: WorkflowInfo) -> dict[str, object]:
    """A line of `refold list --json`."""
    return {
        "workflow_id": info.workflow_id,
        "workflow": info.workflow,
        "status": info.status.value,
        "started_at": info.started_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "updated_at": info.updated_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "events": info.events,
        "reason": info.reason,
    }


def timeline_json(timeline: Timeline, status: str, reason: str | None) -> dict[str, object]:
    """The object of `refold show --json`."""
    return {
        "workflow_id": timeline.workflow_id,
        "workflow": timeline.workflow,
        "status": status,
        "started_at": iso(timeline.started_at),
        "updated_at": iso(timeline.updated_at),
        "events": timeline.events,
        "input": json_value(timeline.input),
        "result": json_value(timeline.result),
        "error": _error(timeline.failure),
        "reason": reason,
        "parked": json_object(timeline.parked.payload) if timeline.parked is not None else None,
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


def _error(failure: WorkflowFailed | None) -> dict[str, object] | None:
    if failure is None:
        return None
    return {
        "type": failure.error_type,
        "message": failure.error_message,
        "stack": failure.error_stack,
    }


def _row(row: Row) -> dict[str, object]:
    if isinstance(row, Operation):
        return _operation(row)
    return {"what": row.what, "at": _time(row.at), "text": row.text}


def _operation(operation: Operation) -> dict[str, object]:
    return {
        "what": "timer" if operation.is_timer else "step",
        "step": operation.step,
        "name": operation.name,
        "state": operation.state.value,
        "started_at": iso(operation.started_at),
        "ended_at": _time(operation.ended_at),
        "due_at": _time(operation.due_at),
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
