"""The workflows read model: how every run, step, attempt, message and timer stands, in tables with indexes.

What is said of a run is what the engine's fold says (`engine/fold.py`, whose rules the comments name): projections
know nothing of the engine, so the few transitions that show in a list stand here a second time, and a test holds the
two together over a corpus of logs. One thing is left to the fold: that an operation has two outcomes, or one that was
never asked for, which no release has ever written.

A batch is folded in memory, from the rows of its runs as they stand in the tables, and written in a few statements.
Rows of one run follow from its events alone, wherever the batches begin and end.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from refold.log.errors import LogCorrupt
from refold.log.events import (
    AskAnswered,
    AskReceived,
    AttributesSet,
    CancelSent,
    CheckpointBegun,
    ChildRequested,
    DeliveryConfirmed,
    DeliveryRefused,
    Event,
    HistoryCopied,
    MessageReceived,
    MessageSent,
    PartitionMigrated,
    PatchApplied,
    QueueSet,
    SlotGranted,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
    TimerStarted,
    Unreadable,
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
)
from refold.log.schedules import SCHEDULE
from refold.projections.feed import Logged
from refold.projections.projection import Dialect, Transaction, Value
from refold.projections.workflows_rows import DAY_US, VALUE_START_CHARS, Rows
from refold.projections.workflows_tables import RUN_COLUMNS, tables

ENDINGS: Final = {
    WorkflowCompleted: "completed",
    WorkflowFailed: "failed",
    WorkflowCancelled: "cancelled",
    WorkflowTerminated: "terminated",
}
OPEN: Final = frozenset({"running", "queued", "parked", "paused", "copying"})
ANYWHERE: Final = -1
"""The floor of a partition into which streams are copied (rule 12)."""

_ENDED = WorkflowCompleted | WorkflowFailed | WorkflowCancelled | WorkflowTerminated
_STARTS = WorkflowStarted | WorkflowReopened


@dataclass(slots=True)
class Run:
    """A row of `runs`, as it is being folded."""

    workflow_id: str
    partition: int
    workflow: str
    version: int
    status: str
    started_at: int
    updated_at: int
    ended_at: int | None
    events: int
    code_version: str | None
    parent_id: str | None
    parent_step: int | None
    source_id: str | None
    due_at: int | None
    error_type: str | None
    error: str | None
    broken: int
    open_timers: int
    attributes: str
    patches: str
    queue: str | None
    waits: int

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.status in OPEN

    @property
    def tally(self) -> tuple[int, int, str, int, str]:
        """Where it is counted."""
        day = self.started_at // DAY_US
        return (self.partition, day, self.workflow, self.version, self.status)

    @property
    def tagged(self) -> tuple[str, int, str]:
        """By what its tags are counted: see `tag_tallies`."""
        return (self.attributes, self.partition, self.status)


def tag_tallies(attributes: str, partition: int, status: str) -> list[tuple[str, str, int, str]]:
    """Where a run is counted by its tags."""
    if attributes == "{}":
        return []
    tags: dict[str, str] = json.loads(attributes)
    return [(name, tag[:VALUE_START_CHARS], partition, status) for name, tag in tags.items()]


_ROW: Callable[[Run], tuple[Value, ...]] = attrgetter(*RUN_COLUMNS)

_STANDING: Callable[[Run], tuple[Value, ...]] = attrgetter(
    *(c for c in RUN_COLUMNS if c not in {"updated_at", "events", "open_timers"})
)
"""What does not change with every event."""

UNKNOWN: Final = "?"
"""The workflow of a run whose first event can't be read; no workflow can be called so."""


class Workflows:
    """The read model, as a projection."""

    name = "workflows"
    version = 2

    def tables(self, dialect: Dialect) -> Sequence[str]:
        """See `Projection`."""
        return tables(dialect)

    def apply(self, transaction: Transaction, logged: Logged) -> None:
        """See `Projection`."""
        self.apply_all(transaction, [logged])

    def apply_all(self, transaction: Transaction, batch: Sequence[Logged]) -> None:
        """See `BulkProjection`."""
        fold = _Fold(transaction, batch)
        for logged in batch:
            fold.take(logged)
        fold.save()


class _Fold:
    """A batch, being folded."""

    def __init__(self, transaction: Transaction, batch: Sequence[Logged]) -> None:
        self._rows = Rows(transaction)
        named = {logged.event.workflow_id: None for logged in batch}
        ids = [workflow_id for workflow_id in named if workflow_id is not None]
        self._runs = {row[0]: Run(*row) for row in self._rows.runs(ids)}
        self._before = Counter(run.tally for run in self._runs.values())
        self._tagged = {run.workflow_id: run.tagged for run in self._runs.values()}
        self._stood = {run.workflow_id: _STANDING(run) for run in self._runs.values()}
        self._floors = self._rows.floors({logged.partition for logged in batch})

    def take(self, logged: Logged) -> None:
        event = logged.event
        if isinstance(event, Unreadable):
            self._unreadable(event, logged)
            return
        workflow_id, position = event.workflow_id, event.position
        if workflow_id is None or position is None:
            if isinstance(event, CheckpointBegun | PartitionMigrated):
                self._forget(event)
            elif isinstance(event, QueueSet):
                self._rows.save_queue(event)
            return
        run = self._runs.get(workflow_id)
        if run is None or not run.is_open:
            self._first(workflow_id, position, run, event, logged.partition)
        elif run.broken:  # rule 5
            run.events += 1
            if isinstance(event, WorkflowTerminated):
                self._end(run, event)
        elif position != run.events:
            _break(run, f"event {event.kind} has position {position}, not {run.events}")
        else:
            run.events += 1
            run.updated_at = event.recorded_at
            self._transition(run, event)

    def save(self) -> None:
        """Write what has changed."""
        after = Counter(run.tally for run in self._runs.values())
        after.subtract(self._before)
        whole: list[tuple[Value, ...]] = []
        touched: list[tuple[int, int, int, str]] = []
        for run in sorted(self._runs.values(), key=attrgetter("workflow_id")):
            if self._stood.get(run.workflow_id) == _STANDING(run):
                touched.append((run.updated_at, run.events, run.open_timers, run.workflow_id))
            else:
                whole.append(_ROW(run))
        self._rows.save_runs(whole)
        self._rows.touch_runs(touched)
        self._save_tags()
        for run in self._runs.values():
            if run.workflow == SCHEDULE:
                self._rows.schedule_status(run.workflow_id, run.status)
        self._rows.save_tallies(after)
        self._rows.settle()

    def _save_tags(self) -> None:
        changes: Counter[tuple[str, str, int, str]] = Counter()
        for run in self._runs.values():
            before = self._tagged.get(run.workflow_id, ("{}", run.partition, run.status))
            if before == run.tagged:
                continue
            if before[0] != run.attributes:
                self._rows.save_attributes(run.workflow_id, run.started_at, run.attributes)
            changes.subtract(tag_tallies(*before))
            changes.update(tag_tallies(*run.tagged))
        self._rows.save_tag_tallies(changes)

    def _forget(self, event: CheckpointBegun | PartitionMigrated) -> None:
        terms: dict[str, int] = json.loads(event.payload)
        _, forgotten = self._floors.get(event.partition, (0, 0))
        found = (terms["floor"], max(forgotten, terms["forget_before"]))
        self._floors[event.partition] = found
        self._rows.save_floor(event.partition, *found)

    def _first(
        self, workflow_id: str, position: int, ended: Run | None, event: Event, partition: int
    ) -> None:
        """An event of a stream that stands not open (rules 3, 6, 11 and 12)."""
        floor, forgotten_before = self._floors.get(partition, (0, 0))
        if ended is not None and (ended.ended_at or 0) >= forgotten_before:
            if isinstance(event, WorkflowReopened) and position == ended.events:
                self._reopen(ended, event)
                return
            anew = isinstance(event, WorkflowStarted) and position >= ended.events
            if not (anew and floor == ANYWHERE):
                return
        if ended is not None:
            self._rows.forget(workflow_id)
        at = event.recorded_at
        run = _blank(workflow_id, partition, at, position + 1)
        self._runs[workflow_id] = run
        if isinstance(event, WorkflowStarted) and floor in {position, ANYWHERE}:
            _start(run, event)
            run.status = _ready(run) if event.source_id is None else "copying"
            run.source_id = event.source_id
            return
        _break(
            run, f"the stream begins with {event.kind} at position {position}, not with its start"
        )

    def _reopen(self, run: Run, event: WorkflowReopened) -> None:
        self._rows.settle()
        _start(run, event)
        run.status = "copying"
        run.updated_at = event.recorded_at
        run.events += 1
        run.ended_at = None
        run.patches = "[]"
        run.error_type = run.error = None
        if event.step is not None:
            self._rows.undo(run.workflow_id, event.step, event.recorded_at)

    def _transition(self, run: Run, event: Event) -> None:
        match event:
            case StepCompleted() | StepFailed() | StepAttemptFailed():
                self._rows.step(run.workflow_id, event)
            case ValuePublished() if run.workflow == SCHEDULE:
                self._rows.published(run.workflow_id, event)
            case TimerStarted():
                run.open_timers += 1
                self._rows.timer_started(run.workflow_id, event)
            case TimerFired():
                run.open_timers -= 1
                self._rows.timer_fired(run.workflow_id, event)
            case MessageSent() | ChildRequested() | CancelSent():
                self._rows.sent(run.workflow_id, event)
            case DeliveryConfirmed() | DeliveryRefused():
                self._rows.settled(run.workflow_id, event)
            case MessageReceived() | AskReceived():
                self._rows.received(run.workflow_id, event)
            case AskAnswered():
                self._rows.answered(run.workflow_id, event)
            case WorkflowCancelRequested():
                self._rows.cancel_received(run.workflow_id, event)
                if run.status != "copying":
                    _go_on(run)
            case AttributesSet():
                run.attributes = _merged(run.attributes, event.attributes or {})
            case PatchApplied():
                run.patches = _added(run.patches, [event.name])
            case (
                WorkflowCompleted() | WorkflowFailed() | WorkflowCancelled() | WorkflowTerminated()
            ):
                self._end(run, event)
            case _:
                self._controlled(run, event)

    def _controlled(self, run: Run, event: Event) -> None:
        """Events by which a run is halted, goes on, or begins anew."""
        match event:
            case WorkflowParked():
                run.status, run.error_type, run.error = "parked", event.name, event.error_message
            case WorkflowPaused():
                run.status = "paused"
            case WorkflowResumed():
                _go_on(run)
            case WorkflowContinued():  # rule 9
                self._drop_timers(run)
                run.version, run.code_version = event.version, event.code_version
                run.patches = "[]"
            case WorkflowRewound():  # rule 10
                self._rows.settle()
                self._rows.undo(run.workflow_id, event.step, event.recorded_at)
                run.open_timers = self._rows.open_timers(run.workflow_id)
                _go_on(run)
            case HistoryCopied() if run.status == "copying":
                self._copy(run, event)
            case SlotGranted():
                run.waits = 0
                if run.status == "queued":
                    run.status = "running"
            case WorkflowStarted() | WorkflowReopened() | HistoryCopied():
                _break(run, f"event {event.kind} at position {event.position} can't follow a start")
            case _:
                pass  # nothing that shows

    def _copy(self, run: Run, event: HistoryCopied) -> None:
        """The history that a fork or a reopened run begins with, as far as it can be read without a key."""
        if event.encoding == "json":
            for entry in json.loads(event.payload):
                if "numbering" in entry:
                    run.patches = _added(run.patches, entry["patches"])
                    if entry["tags"] is not None:
                        run.attributes = _text(entry["tags"])
                elif entry.get("kind") in {StepCompleted.kind, StepFailed.kind}:
                    self._rows.copied_step(run.workflow_id, entry)
        if event.name == "last":
            run.status = _ready(run)

    def _end(self, run: Run, event: _ENDED) -> None:
        self._drop_timers(run)
        run.status = ENDINGS[type(event)]
        run.ended_at = run.updated_at = event.recorded_at
        run.code_version = run.due_at = None
        run.patches = "[]"
        run.broken = run.waits = 0
        run.error_type = run.error = None
        if not isinstance(event, WorkflowCompleted):
            run.error_type = event.error_type
            run.error = f"{event.error_type}: {event.error_message}"

    def _drop_timers(self, run: Run) -> None:
        if run.open_timers:
            self._rows.settle()
            self._rows.drop_timers(run.workflow_id)
            run.open_timers = 0

    def _unreadable(self, event: Unreadable, logged: Logged) -> None:
        """Rule 4."""
        if event.workflow_id is None:
            raise LogCorrupt(
                f"the record at offset {logged.offset} of partition {logged.partition} belongs to the partition itself "
                f"and can't be read: {event.reason}. A newer release may have written it: upgrade this reader"
            )
        run = self._runs.get(event.workflow_id)
        if run is None:
            run = _blank(event.workflow_id, logged.partition, 0, 0)
            self._runs[event.workflow_id] = run
        elif not run.is_open:
            return
        run.events += 1
        if not run.broken:
            _break(run, f"the record at offset {logged.offset} can't be read: {event.reason}")


def _blank(workflow_id: str, partition: int, at: int, events: int) -> Run:
    """A run of which no start is known."""
    return Run(
        workflow_id=workflow_id,
        partition=partition,
        workflow=UNKNOWN,
        version=1,
        status="parked",
        started_at=at,
        updated_at=at,
        ended_at=None,
        events=events,
        code_version=None,
        parent_id=None,
        parent_step=None,
        source_id=None,
        due_at=None,
        error_type=None,
        error=None,
        broken=0,
        open_timers=0,
        attributes="{}",
        patches="[]",
        queue=None,
        waits=0,
    )


def _start(run: Run, event: _STARTS) -> None:
    run.workflow, run.version = event.workflow, event.version
    run.code_version, run.due_at = event.code_version, event.due_at
    run.parent_id, run.parent_step = event.parent_id, event.parent_step
    run.attributes = _text(event.attributes or {})
    run.queue, run.waits = event.queue, int(event.queue is not None)  # rule 13


def _ready(run: Run) -> str:
    """How a run stands that nothing halts."""
    return "queued" if run.waits else "running"


def _go_on(run: Run) -> None:
    run.status = _ready(run)
    run.error_type = run.error = None


def _break(run: Run, reason: str) -> None:
    """Rule 5: it stays as it is until an operator ends it."""
    run.status, run.broken = "parked", 1
    run.error_type, run.error = "broken", reason


def _merged(attributes: str, more: Mapping[str, str]) -> str:
    return _text({**json.loads(attributes), **more})


def _added(patches: str, names: Iterable[str]) -> str:
    return _text(sorted({*json.loads(patches), *names}))


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
