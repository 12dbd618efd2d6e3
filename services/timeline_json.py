"""A run's timeline, and the runs' list, as plain JSON values: `--json`. Times are ISO 8601 in UTC."""

import json

from refold.engine.reader import WorkflowInfo
from refold.log.events import Event, Unreadable, WorkflowFailed
from refold.services.spans import iso
from refold.services.timeline import Row, Milestone, Timeline, json_object


def as_json(timeline: Timeline, status: str, reason: str | None) -> dict[str, object]:
    """The timeline as plain JSON values; times are ISO 8601 in UTC."""
    return {
        "workflow_id": timeline.workflow_id,
        "workflow": timeline.workflow,
        "status": status,
        "started_at": timeline.started_at,
        "updated_at": timeline.updated_at,
        "events": timeline.events,
        "input": json_value(timeline.input),
        "result": json_value(timeline.result),
        "error": _error(timeline.failure),
        "reason": reason,
        "parked": json_object(timeline.parked.payload) if timeline.parked is not None else None,
        "rows": [_row_json(row) for row in timeline.rows],
    }


def json_value(payload: str | None) -> object:
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


def _row_json(row: Row) -> dict[str, object]:
    if isinstance(row, Milestone):
        return {"what": row.what, "at": row.at, "text": row.text}
    return {
        "what": "timer" if row.is_timer else "step",
        "step": row.step,
        "name": row.name,
        "state": row.state.value,
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "due_at": row.due_at,
        "worker": row.worker,
        "attempts": [
            {
                "number": attempt.number,
                "started_at": attempt.started_at,
                "ended_at": attempt.ended_at,
                "error": attempt.error,
            }
            for attempt in row.attempts
        ],
        "result": json_value(row.payload),
    }
