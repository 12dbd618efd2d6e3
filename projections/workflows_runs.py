"""A run and a page of runs, as the workflows read model gives them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from refold.log.attributes import Tag, decode_attributes
from refold.projections.workflows import Run
from refold.projections.workflows_filter import EPOCH
from refold.projections.workflows_order import NO_DURATION, NO_END, Key, RunOrder


@dataclass(frozen=True, slots=True)
class RunRow:
    """How a run stands: a row of `runs`, with times as times.

    Args:
        workflow_id: Its id.
        workflow: Name of its workflow; "?" where its first event can't be read.
        version: Version of its code.
        status: `running`, `queued`, `parked`, `paused`, `copying`, `completed`, `failed`, `cancelled` or `terminated`.
        started_at: When it was started.
        updated_at: When its last event was recorded.
        ended_at: When it ended; None where it has not.
        events: Number of events in its stream.
        code_version: Hash of its code; None where it has ended, or is not known.
        parent_id: The workflow that started it as a child.
        source_id: The workflow that it is a fork of.
        deadline: When it is cancelled; None for never, or where it has ended.
        error_type: Type of the error with which it ended, or code of the reason why it is parked.
        error: That error, or that reason.
        broken: Whether its history can't be followed; `error` says why.
        attributes: Its tags.
        patches: Changes of code whose new path it takes; empty where it has ended.
        queue: The queue in which it waited or waits for its turn; None for none.
    """

    workflow_id: str
    workflow: str
    version: int
    status: str
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    events: int
    code_version: str | None
    parent_id: str | None
    source_id: str | None
    deadline: datetime | None
    error_type: str | None
    error: str | None
    broken: bool
    attributes: Mapping[str, Tag]
    patches: frozenset[str]
    queue: str | None


@dataclass(frozen=True, slots=True)
class StepRow:
    """What a step came to, as far as it has come.

    Args:
        step: Its number, in code order.
        name: Its name.
        status: `completed`, `failed`, `retrying` or `waiting` (for an operator).
        attempts: How many there were.
        started_at: When the last attempt began.
        ended_at: When that was recorded; None between two attempts.
        due_at: When the next attempt begins; None where none does.
        worker: Who made the last attempt.
        error_type: Type of its error; None where there was none.
        error_message: What that said.
        undone_at: When an operator took the run back to before it; None where it counts.
    """

    step: int
    name: str
    status: str
    attempts: int
    started_at: datetime
    ended_at: datetime | None
    due_at: datetime | None
    worker: str
    error_type: str | None
    error_message: str | None
    undone_at: datetime | None


STEP_COLUMNS: Final = ", ".join(field.name for field in fields(StepRow))


class QueueRow(NamedTuple):
    """How a queue stands.

    Args:
        name: Its name.
        concurrency: How many of its runs run at once; None where nobody has said so, and all of them wait.
        running: How many have their turn.
        waiting: How many wait for it.
        set_at: When somebody last said how many.
        by: Who did.
        reason: Why.
    """

    name: str
    concurrency: int | None
    running: int
    waiting: int
    set_at: datetime | None
    by: str | None
    reason: str | None


class RunPage(NamedTuple):
    """Some runs, and what to give as `after` for those that follow; None where none do."""

    runs: Sequence[RunRow]
    next: str | None


def _ended(run: Run) -> int:
    return NO_END if run.ended_at is None else run.ended_at


def _duration(run: Run) -> int:
    return NO_DURATION if run.ended_at is None else run.ended_at - run.started_at


_KEYS: Final[Mapping[RunOrder, Callable[[Run], Key]]] = {
    "started": lambda run: (run.started_at, run.workflow_id),
    "updated": lambda run: (run.updated_at, run.workflow_id),
    "ended": lambda run: (_ended(run), run.workflow_id),
    "duration": lambda run: (_duration(run), run.workflow_id),
    "id": lambda run: (run.workflow_id,),
    "workflow": lambda run: (run.workflow, run.started_at, run.workflow_id),
    "status": lambda run: (run.status, run.started_at, run.workflow_id),
    "version": lambda run: (run.version, run.started_at, run.workflow_id),
}


def key_of(order: RunOrder, run: Run) -> Key:
    """Where a run stands in an order."""
    return _KEYS[order](run)


def _utc(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


def _utc_or_none(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _utc(microseconds)


def row_of(run: Run) -> RunRow:
    """A row of `runs`, for readers."""
    return RunRow(
        workflow_id=run.workflow_id,
        workflow=run.workflow,
        version=run.version,
        status=run.status,
        started_at=_utc(run.started_at),
        updated_at=_utc(run.updated_at),
        ended_at=_utc_or_none(run.ended_at),
        events=run.events,
        code_version=run.code_version,
        parent_id=run.parent_id,
        source_id=run.source_id,
        deadline=_utc_or_none(run.due_at),
        error_type=run.error_type,
        error=run.error,
        broken=bool(run.broken),
        attributes=decode_attributes(json.loads(run.attributes)),
        patches=frozenset(json.loads(run.patches)),
        queue=run.queue,
    )


def queues_of(queues: Sequence[Sequence[Any]], counts: Sequence[Sequence[Any]]) -> list[QueueRow]:
    """Rows of `queues`, for readers.

    Args:
        queues: Name, concurrency, when, by whom and why that was set.
        counts: Name, open runs, and those among them that wait; of queues that nobody has set as well.
    """
    running = {name: int(count) - int(waits) for name, count, waits in counts}
    waiting = {name: int(waits) for name, _, waits in counts}
    told = {name: row for name, *row in queues}
    return [
        QueueRow(
            name, concurrency, running.get(name, 0), waiting.get(name, 0), _utc_or_none(at), by, why
        )
        for name in sorted(told.keys() | running.keys())
        for concurrency, at, by, why in (told.get(name, (None, None, None, None)),)
    ]


def step_of(row: Sequence[Any]) -> StepRow:
    """A row of `steps`, its columns as in `STEP_COLUMNS`, for readers."""
    step, name, status, attempts, started_at, ended_at, due_at, worker, *error, undone_at = row
    error_type, error_message = error
    return StepRow(
        step=step,
        name=name,
        status=status,
        attempts=attempts,
        started_at=_utc(started_at),
        ended_at=_utc_or_none(ended_at),
        due_at=_utc_or_none(due_at),
        worker=worker,
        error_type=error_type,
        error_message=error_message,
        undone_at=_utc_or_none(undone_at),
    )
