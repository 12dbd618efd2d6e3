"""Schedules in the workflows read model: how each stands, as its own run publishes it (`engine/schedule_run.py`).

What they start is told, and when; not with which input, for payloads stay in the log alone. Of one that is encrypted
nothing but its name and status is known here.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, cast

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
SCHEDULE_COLUMNS: Final = ", ".join(_COLUMNS[1:-1])
"""Those of a `ScheduleRow`, in its order."""
_OVER: Final = frozenset({"completed", "cancelled", "terminated"})


class ScheduleRow(NamedTuple):
    """How a schedule stands.

    Args:
        name: Its name.
        status: How its own run stands, as "running", "parked" or "failed".
        workflow: What it starts; None, as all that follows from what it says, where its payloads are encrypted.
        cron: When, as an expression of cron; None where there is an interval.
        every: When, as an interval; None where there is an expression.
        timezone: Whose clocks `cron` means.
        overlap: "allow" or "skip".
        start_at: Not due before this.
        end_at: Not due after this.
        paused: Whether it starts nothing until it is resumed.
        next_due: When it is due next.
        last_due: The last due time that it has started a run for.
        last_id: The last run that it has started.
        last_started_at: When that was.
        started: How many runs it has started.
        skipped: How many due times have passed with none.
        problem: Why the last due time could not be met; None where it could.
    """

    name: str
    status: str
    workflow: str | None
    cron: str | None
    every: timedelta | None
    timezone: str | None
    overlap: str | None
    start_at: datetime | None
    end_at: datetime | None
    paused: bool
    next_due: datetime | None
    last_due: datetime | None
    last_id: str | None
    last_started_at: datetime | None
    started: int
    skipped: int
    problem: str | None

    @property
    def is_over(self) -> bool:
        """Whether it was deleted or ended, so that it is no schedule any more. One that has failed is still one."""
        return self.status in _OVER


def schedule_of(values: Sequence[Any]) -> ScheduleRow:
    """A row from its `SCHEDULE_COLUMNS`."""
    row = ScheduleRow(*values)
    every_s: float | None = values[4]
    return row._replace(
        every=None if every_s is None else timedelta(seconds=every_s),
        start_at=_moment(values[7]),
        end_at=_moment(values[8]),
        paused=bool(values[9]),
        next_due=_moment(values[10]),
        last_due=_moment(values[11]),
        last_started_at=_moment(values[13]),
    )


def _moment(at: int | None) -> datetime | None:
    return None if at is None else _EPOCH + timedelta(microseconds=at)


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
