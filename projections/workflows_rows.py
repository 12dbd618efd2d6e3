"""What a batch writes into the tables of the workflows read model: collected, and written in a few statements.

Rows are added first and changed after, which is their order within every run, but where a run is rewound, reopened,
continued or ends with timers running: then what was collected is written before (`settle`).
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from refold.log.events import (
    AskAnswered,
    AskReceived,
    CancelSent,
    ChildRequested,
    DeliveryConfirmed,
    DeliveryRefused,
    MessageReceived,
    MessageSent,
    QueueSet,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
    TimerStarted,
    ValuePublished,
    WorkflowCancelRequested,
)
from refold.projections.projection import Transaction, Value
from refold.projections.workflows_schedules import SAVE_SCHEDULE, SCHEDULE_STATUS, schedule_row
from refold.projections.workflows_tables import RUN_COLUMNS

DAY_US: Final = 24 * 3_600_000_000
VALUE_START_CHARS: Final = 200
"""Of a tag's value, in its index: four bytes each at most, well below what a database's index takes."""
_TOGETHER: Final = 500
"""Ids in one question: SQLite takes 999 parameters, in its oldest builds."""

_RUN: Final = (
    f"INSERT INTO runs ({', '.join(RUN_COLUMNS)}) VALUES ({', '.join('?' * len(RUN_COLUMNS))})"  # noqa: S608 - names of our own
    " ON CONFLICT (workflow_id) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in RUN_COLUMNS[1:])
)
_TOUCHED: Final = (
    "UPDATE runs SET updated_at = ?, events = ?, open_timers = ? WHERE workflow_id = ?"
)
_STEP: Final = """INSERT INTO steps (workflow_id, step, name, status, attempts, started_at, ended_at, due_at, worker,
    error_type, error_message, undone_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)
    ON CONFLICT (workflow_id, step) DO UPDATE SET status = excluded.status, attempts = excluded.attempts,
    ended_at = excluded.ended_at, due_at = excluded.due_at, worker = excluded.worker,
    error_type = excluded.error_type, error_message = excluded.error_message"""
_ATTEMPT: Final = """INSERT INTO attempts (workflow_id, position, step, attempt, status, started_at, ended_at, worker,
    error_type, error_message) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_MESSAGE: Final = """INSERT INTO messages (workflow_id, direction, message_id, kind, name, other_id, recorded_at,
    status, settled_at, error_type, error_message) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL)
    ON CONFLICT (workflow_id, direction, message_id) DO NOTHING"""
_SETTLED: Final = """UPDATE messages SET status = ?, settled_at = ?, error_type = ?, error_message = ?
    WHERE workflow_id = ? AND direction = ? AND message_id = ?"""
_TIMER: Final = """INSERT INTO timers (workflow_id, step, name, started_at, due_at, status, fired_at)
    VALUES (?, ?, ?, ?, ?, 'running', NULL)"""
_FIRED: Final = (
    "UPDATE timers SET status = 'fired', fired_at = ? WHERE workflow_id = ? AND step = ?"
)
_TALLY: Final = """INSERT INTO tallies (partition, day, workflow, version, status, runs) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (partition, day, workflow, version, status) DO UPDATE SET runs = tallies.runs + excluded.runs"""
_NO_TALLY: Final = """DELETE FROM tallies
    WHERE partition = ? AND day = ? AND workflow = ? AND version = ? AND status = ? AND runs = 0"""
_TAG_TALLY: Final = """INSERT INTO tag_tallies (name, value_start, partition, status, runs) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (name, value_start, partition, status) DO UPDATE SET runs = tag_tallies.runs + excluded.runs"""
_NO_TAG_TALLY: Final = """DELETE FROM tag_tallies
    WHERE name = ? AND value_start = ? AND partition = ? AND status = ? AND runs = 0"""
_FLOOR: Final = """INSERT INTO floors VALUES (?, ?, ?)
    ON CONFLICT (partition) DO UPDATE SET floor = excluded.floor, forgotten_before = excluded.forgotten_before"""
_QUEUE: Final = """INSERT INTO queues (name, concurrency, set_at, set_by, reason) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency, set_at = excluded.set_at,
    set_by = excluded.set_by, reason = excluded.reason"""
_ATTRIBUTE: Final = "INSERT INTO attributes VALUES (?, ?, ?, ?, ?)"

_ADDED: Final = (_STEP, _ATTEMPT, _MESSAGE, _TIMER, SAVE_SCHEDULE)
_CHANGED: Final = (_SETTLED, _FIRED, SCHEDULE_STATUS)

_KEYS: Final[Mapping[str, Callable[[Sequence[Value]], Any]]] = {
    _STEP: itemgetter(0, 1),
    _ATTEMPT: itemgetter(0, 1),
}

_OWN_TABLES: Final = ("attributes", "steps", "attempts", "messages", "timers", "schedules")


class Rows:
    """Reads and writes within one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._collected: dict[str, list[Sequence[Value]]] = {}
        for statement in (*_ADDED, *_CHANGED):
            self._collected[statement] = []
        self._steps = self._collected[_STEP]
        self._attempts = self._collected[_ATTEMPT]
        self._messages = self._collected[_MESSAGE]

    def runs(self, ids: Sequence[str]) -> list[tuple[Any, ...]]:
        """The rows of those of the runs that there are."""
        found: list[tuple[Any, ...]] = []
        marks = ", ".join("?" * _TOGETHER)
        query = f"SELECT {', '.join(RUN_COLUMNS)} FROM runs WHERE workflow_id IN ({marks})"  # noqa: S608 - names of our own
        for first in range(0, len(ids), _TOGETHER):
            some = ids[first : first + _TOGETHER]
            padded = [*some, *[some[-1]] * (_TOGETHER - len(some))]  # one statement for all
            found.extend(self._transaction.query(query, padded))
        return found

    def floors(self, partitions: Collection[int]) -> dict[int, tuple[int, int]]:
        """Floor and time before which runs are forgotten, by partition."""
        rows = self._transaction.query("SELECT partition, floor, forgotten_before FROM floors")
        return {
            partition: (floor, before)
            for partition, floor, before in rows
            if partition in partitions
        }

    def save_runs(self, rows: Sequence[Sequence[Value]]) -> None:
        """Add or replace whole rows."""
        self._transaction.execute_many(_RUN, rows)

    def touch_runs(self, rows: Sequence[tuple[int, int, int, str]]) -> None:
        """Note a run's last event, number of events and timers that run; all else is as it was.

        Most runs of a batch need no more, and whatever is set has its indexes written anew.
        """
        self._transaction.execute_many(_TOUCHED, rows)

    def save_attributes(self, workflow_id: str, started_at: int, attributes: str) -> None:
        """Replace a run's tags; `attributes` is the JSON object of them."""
        self._transaction.execute("DELETE FROM attributes WHERE workflow_id = ?", (workflow_id,))
        tags: dict[str, str] = json.loads(attributes)
        self._transaction.execute_many(
            _ATTRIBUTE,
            [
                (workflow_id, name, value, value[:VALUE_START_CHARS], started_at)
                for name, value in tags.items()
            ],
        )

    def save_tallies(self, changes: Mapping[tuple[int, int, str, int, str], int]) -> None:
        """Count runs here and no longer there. Nothing stays of a count that is back at none."""
        self._save_counts(_TALLY, _NO_TALLY, changes)

    def save_tag_tallies(self, changes: Mapping[tuple[str, str, int, str], int]) -> None:
        """The same for tags."""
        self._save_counts(_TAG_TALLY, _NO_TAG_TALLY, changes)

    def _save_counts(self, add: str, drop: str, changes: Mapping[Any, int]) -> None:
        self._transaction.execute_many(
            add, [(*tally, change) for tally, change in sorted(changes.items()) if change]
        )
        self._transaction.execute_many(
            drop, [tally for tally, change in sorted(changes.items()) if change < 0]
        )

    def save_floor(self, partition: int, floor: int, forgotten_before: int) -> None:
        """From where new streams begin, and which ended runs are forgotten."""
        self._transaction.execute(_FLOOR, (partition, floor, forgotten_before))

    def save_queue(self, event: QueueSet) -> None:
        """How many runs of a queue run at once."""
        who = json.loads(event.payload)
        row = (
            event.queue,
            event.count,
            event.recorded_at,
            who.get("requested_by"),
            who.get("reason"),
        )
        self._transaction.execute(_QUEUE, row)

    def step(self, workflow_id: str, event: StepCompleted | StepFailed | StepAttemptFailed) -> None:
        """An attempt, and what it means for its step."""
        at, attempt = event.recorded_at, event.attempt
        error_type = error_message = due_at = None
        ended: int | None = at
        of_step = of_attempt = "completed"
        if not isinstance(event, StepCompleted):
            error_type, error_message = event.error_type, event.error_message
            of_step = of_attempt = "failed"
            if isinstance(event, StepAttemptFailed):
                due_at, ended = event.due_at, None
                of_step = "waiting" if due_at is None else "retrying"
        self._steps.append(
            (
                *(workflow_id, event.step, event.name, of_step, attempt, event.started_at, ended),
                *(due_at, event.worker, error_type, error_message),
            )
        )
        self._attempts.append(
            (
                *(workflow_id, event.position, event.step, attempt, of_attempt, event.started_at),
                *(at, event.worker, error_type, error_message),
            )
        )

    def copied_step(self, workflow_id: str, entry: Mapping[str, Any]) -> None:
        """A step of another history, or of this one, that a run begins with."""
        status = "completed" if entry["kind"] == StepCompleted.kind else "failed"
        self._steps.append(
            (
                *(workflow_id, entry["step"], entry["name"], status, entry["attempt"]),
                *(entry["started_at"], entry["recorded_at"], None, entry["worker"]),
                *(entry.get("error_type"), entry.get("error_message")),
            )
        )

    def timer_started(self, workflow_id: str, event: TimerStarted) -> None:
        """A timer runs."""
        self._collected[_TIMER].append(
            (workflow_id, event.step, event.name, event.recorded_at, event.due_at)
        )

    def timer_fired(self, workflow_id: str, event: TimerFired) -> None:
        """Its time has come."""
        self._collected[_FIRED].append((event.recorded_at, workflow_id, event.step))

    def published(self, workflow_id: str, event: ValuePublished) -> None:
        """A schedule says how it stands."""
        row = schedule_row(workflow_id, event)
        if row is not None:
            self._collected[SAVE_SCHEDULE].append(row)

    def schedule_status(self, workflow_id: str, status: str) -> None:
        """How the run of a schedule stands."""
        self._collected[SCHEDULE_STATUS].append((status, workflow_id))

    def sent(self, workflow_id: str, event: MessageSent | ChildRequested | CancelSent) -> None:
        """Something for another workflow; its id is the operation's number."""
        kinds = {MessageSent: "message", ChildRequested: "start", CancelSent: "cancel"}
        self._messages.append(
            (
                *(workflow_id, "out", str(event.step), kinds[type(event)], event.name),
                *(event.target_id, event.recorded_at, "sent"),
            )
        )

    def settled(self, workflow_id: str, event: DeliveryConfirmed | DeliveryRefused) -> None:
        """The other workflow has it, or does not take it."""
        status, error_type, error_message = "delivered", None, None
        if isinstance(event, DeliveryRefused):
            status, error_type, error_message = "refused", event.error_type, event.error_message
        self._collected[_SETTLED].append(
            (
                *(status, event.recorded_at, error_type, error_message),
                *(workflow_id, "out", str(event.step)),
            )
        )

    def received(self, workflow_id: str, event: MessageReceived | AskReceived) -> None:
        """Something came in."""
        kind, other = "ask", None
        if isinstance(event, MessageReceived):
            kind, other = "message", event.parent_id
        self._messages.append(
            (
                *(workflow_id, "in", event.message_id, kind, event.name, other),
                *(event.recorded_at, "received"),
            )
        )

    def answered(self, workflow_id: str, event: AskAnswered) -> None:
        """A question has its answer."""
        self._collected[_SETTLED].append(
            (
                *("answered", event.recorded_at, event.error_type, event.error_message),
                *(workflow_id, "in", event.message_id),
            )
        )

    def cancel_received(self, workflow_id: str, event: WorkflowCancelRequested) -> None:
        """Somebody asks the run to cancel."""
        self._messages.append(
            (
                *(workflow_id, "in", f"cancel-{event.position}", "cancel", event.name),
                *(event.parent_id, event.recorded_at, "received"),
            )
        )

    def undo(self, workflow_id: str, step: int, at: int) -> None:
        """What a step and all later ones came to no longer counts. `settle` first."""
        self._transaction.execute(
            "UPDATE steps SET undone_at = ? WHERE workflow_id = ? AND step >= ? AND undone_at IS NULL",
            (at, workflow_id, step),
        )
        self._transaction.execute(
            "UPDATE timers SET status = 'dropped' WHERE workflow_id = ? AND step >= ? AND status = 'running'",
            (workflow_id, step),
        )

    def drop_timers(self, workflow_id: str) -> None:
        """Timers that run are not waited for any more. `settle` first."""
        self._transaction.execute(
            "UPDATE timers SET status = 'dropped' WHERE workflow_id = ? AND status = 'running'",
            (workflow_id,),
        )

    def open_timers(self, workflow_id: str) -> int:
        """How many timers run. `settle` first."""
        count = "SELECT count(*) FROM timers WHERE workflow_id = ? AND status = 'running'"
        return int(self._transaction.query(count, (workflow_id,))[0][0])

    def forget(self, workflow_id: str) -> None:
        """Delete what is known of a run but its row, which is another run's from now on."""
        self.settle()
        for table in _OWN_TABLES:
            self._transaction.execute(
                f"DELETE FROM {table} WHERE workflow_id = ?",  # noqa: S608 - a name of our own
                (workflow_id,),
            )

    def settle(self) -> None:
        """Write what was collected so far."""
        for statement, rows in self._collected.items():
            if rows:
                # By their keys, and those of one key in the order of events: neighbours share pages.
                key = _KEYS.get(statement)
                self._transaction.execute_many(
                    statement, sorted(rows, key=key) if key is not None else rows.copy()
                )
                rows.clear()
