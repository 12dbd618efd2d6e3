"""Schedules in the workflows read model: how each stands, as its own run publishes it (`engine/schedule_run.py`).

What they start is told, and when; not with which input, for payloads stay in the log alone. Of one that is encrypted
nothing but its name and status is known here.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from pydantic import TypeAdapter

from refold.log.events import ValuePublished
from refold.log.schedules import PREFIX, SCHEDULE
from refold.projections.projection import Value

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SPAN: Final = TypeAdapter(timedelta)  # JSON's form of an interval: PT1H30M

_COLUMNS: Final = (
    *("workflow_id", "name", "status", "workflow", "cron", "every_s", "timezone", "overlap"),
    *("start_at", "end_at", "paused", "next_due", "last_due", "last_id", "last_started_at"),
    *("started", "skipped", "problem", "updated_at"),
)
SAVE_SCHEDULE: Final = (
    f"INSERT INTO schedules ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - our own
    " ON CONFLICT (workflow_id) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[1:])
)
SCHEDULE_STATUS: Final = "UPDATE schedules SET status = ? WHERE workflow_id = ?"


def schedule_row(workflow_id: str, event: ValuePublished) -> tuple[Value, ...] | None:
    """The row of a schedule that has published how it stands; None where the event says something else."""
    if event.name != SCHEDULE:
        return None
    told = _told(event.payload)
    spec = told.get("spec", {})
    every = spec.get("every")
    return (
        *(workflow_id, workflow_id.removeprefix(PREFIX), "running"),
        *(spec.get("workflow"), spec.get("cron")),
        None if every is None else _SPAN.validate_strings(every).total_seconds(),
        *(spec.get("timezone"), spec.get("overlap")),
        *(_time(spec.get("start_at")), _time(spec.get("end_at"))),
        *(int(told.get("paused", False)), _time(told.get("next_due"))),
        *(_time(told.get("last_due")), told.get("last_id"), _time(told.get("last_started_at"))),
        *(told.get("started", 0), told.get("skipped", 0), told.get("problem")),
        event.recorded_at,
    )


def _told(payload: str) -> dict[str, Any]:
    try:
        told: object = json.loads(payload)
    except ValueError:  # an envelope
        return {}
    return cast("dict[str, Any]", told) if isinstance(told, dict) and "spec" in told else {}


def _time(text: str | None) -> int | None:
    return (
        None
        if text is None
        else (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)
    )
