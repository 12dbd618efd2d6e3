"""A run's history as rows, and what they look like."""

import json
from typing import TypedDict

from rich.console import Console

from refold.log.events import (
    Event,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
    TimerStarted,
    Unreadable,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowParked,
    WorkflowResumed,
    WorkflowStarted,
)
from refold.services.timeline import timeline_of
from refold.services.timeline_json import event_json, timeline_json
from refold.services.timeline_rows import Milestone, Operation, State, Timeline
from refold.services.timeline_view import MAX_ROWS, View, draw

S = 1_000_000
T0 = 1_700_000_000 * S


class Header(TypedDict):
    """What every event carries."""

    workflow_id: str
    position: int
    recorded_at: int
    claim: int
    command: int
    posted: int
    worker: str


def header(position: int, at_s: float, worker: str = "w1") -> Header:
    """An event's place: `at_s` seconds after the start."""
    return Header(
        workflow_id="order-1",
        position=position,
        recorded_at=T0 + round(at_s * S),
        claim=0,
        command=0,
        posted=0,
        worker=worker,
    )


def at(seconds: float) -> int:
    """A time that many seconds after the start."""
    return T0 + round(seconds * S)


STARTED = WorkflowStarted(**header(0, 0), workflow="checkout", payload='{"order":1}')


def attempt_failed(
    position: int, started_s: float, ended_s: float, due_s: float | None
) -> StepAttemptFailed:
    """A failed attempt of step 0."""
    return StepAttemptFailed(
        **header(position, ended_s),
        step=0,
        name="charge",
        attempt=position,
        started_at=at(started_s),
        error_type="builtins:ConnectionError",
        error_message="gateway is away",
        due_at=None if due_s is None else at(due_s),
    )


def completed(
    position: int, step: int, started_s: float, ended_s: float, worker: str = "w1"
) -> StepCompleted:
    """An outcome."""
    return StepCompleted(
        **header(position, ended_s, worker),
        step=step,
        name="charge" if step == 0 else "reserve",
        payload='"paid"',
        attempt=2 if step == 0 else 1,
        started_at=at(started_s),
    )


def drawn(timeline: Timeline, status: str, reason: str | None = None, now_s: float = 10) -> str:
    """The picture as text, 100 columns wide."""
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        console.print(draw(timeline, status, reason, View(at(now_s), 100)))
    return capture.get()


def row(picture: str, text: str) -> str:
    """The line that has `text` in it."""
    return next(line for line in picture.splitlines() if text in line)


def test_a_step_with_a_failed_attempt_is_one_row_with_two_attempts() -> None:
    """Given a failed and a successful attempt, the operation runs from the first's start to the outcome."""
    timeline = timeline_of("order-1", [STARTED, attempt_failed(1, 0, 1, 2), completed(2, 0, 2, 3)])
    (operation,) = timeline.operations
    assert operation.state is State.DONE
    assert (operation.started_at, operation.ended_at) == (at(0), at(3))
    assert [attempt.error for attempt in operation.attempts] == [
        "ConnectionError: gateway is away",
        None,
    ]


def test_rows_stand_in_the_order_in_which_they_began() -> None:
    """Given a slow step that began before a fast one and ended after it, the slow one comes first."""
    history: list[Event | Unreadable] = [STARTED, completed(1, 1, 0.5, 1), completed(2, 0, 0.1, 3)]
    rows = timeline_of("order-1", history).rows
    assert [row.name for row in rows if isinstance(row, Operation)] == ["charge", "reserve"]


def test_bars_are_solid_for_attempts_and_dotted_for_waits() -> None:
    """Given an attempt, a wait and an attempt of equal length, the bar has a third of each."""
    history: list[Event | Unreadable] = [STARTED, attempt_failed(1, 0, 1, 2), completed(2, 0, 2, 3)]
    picture = drawn(timeline_of("order-1", history), "running")
    line = row(picture, "charge #0")
    assert "━━━━━━━━━·········━━━━━━━━━" in line
    assert "3.00 s" in line
    assert "attempt 1 ConnectionError: gateway is away" in picture


def test_a_retry_says_when_it_is_due() -> None:
    """Given a failed attempt and now before the next, its time is told; after it, that it may be under way."""
    timeline = timeline_of("order-1", [STARTED, attempt_failed(1, 0, 1, 60)])
    assert timeline.operations[0].state is State.RETRYING
    assert "attempt 2 is due in 50.0 s" in drawn(timeline, "running", now_s=10)
    assert "attempt 2 is under way" in drawn(timeline, "running", now_s=61)


def test_a_timer_waits_then_is_done() -> None:
    """Given a timer, it waits until it fires; one that has not when the run ends was not waited for."""
    set_ = TimerStarted(**header(1, 1), step=0, name="sleep", due_at=at(5))
    fired = TimerFired(**header(2, 5), step=0, name="sleep")
    end = WorkflowCompleted(**header(2, 2), payload="null")
    assert timeline_of("order-1", [STARTED, set_]).operations[0].state is State.WAITING
    assert timeline_of("order-1", [STARTED, set_, fired]).operations[0].state is State.DONE
    assert timeline_of("order-1", [STARTED, set_, end]).operations[0].state is State.DROPPED
    assert "due in 1.00 s" in drawn(timeline_of("order-1", [STARTED, set_]), "running", now_s=4)


def test_a_new_worker_is_a_row_before_what_it_did() -> None:
    """Given an event by another worker, the take-over stands before the step that it ran."""
    history: list[Event | Unreadable] = [
        STARTED,
        completed(1, 0, 0, 1),
        completed(2, 1, 4, 5, worker="w2"),
    ]
    rows = timeline_of("order-1", history).rows
    assert [row.what if isinstance(row, Milestone) else row.name for row in rows] == [
        "started",
        "charge",
        "taken over",
        "reserve",
    ]


def test_a_failure_shows_its_error_and_the_end_of_its_stack() -> None:
    """Given a failed run, the box has type, message, and the last lines of the stack."""
    stack = "".join(f"  line {n}\n" for n in range(100))
    failed = WorkflowFailed(
        **header(1, 1), error_type="app:NoStock", error_message="none left", error_stack=stack
    )
    picture = drawn(timeline_of("order-1", [STARTED, failed]), "failed")
    assert "NoStock: none left" in picture
    assert "line 99" in picture
    assert "line 10 " not in picture


def test_a_divergence_shows_both_sides_and_the_way_out() -> None:
    """Given a run parked because its code changed, the diff is told field by field."""
    detail = {
        "step": 3,
        "position": 7,
        "expected": "step 'charge'",
        "found": "step 'reserve'",
        "source": "app.py:42",
        "cause": "code was changed",
    }
    parked = WorkflowParked(
        **header(1, 1), name="diverged", error_message="m", payload=json.dumps(detail)
    )
    timeline = timeline_of("order-1", [STARTED, parked])
    picture = drawn(timeline, "parked")
    for text in (
        "#3 (event 7)",
        "step 'charge'",
        "step 'reserve'",
        "app.py:42",
        "code was changed",
        "refold resume order-1",
    ):
        assert text in picture
    resumed = WorkflowResumed(**header(2, 2), payload='{"requested_by":"ada","reason":"mended"}')
    timeline = timeline_of("order-1", [STARTED, parked, resumed])
    assert timeline.parked is None
    assert "resumed by ada (mended)" in drawn(timeline, "running")


def test_what_cant_be_read_is_told_with_the_folds_reason() -> None:
    """Given a record that can't be decoded, the timeline goes on around it."""
    history: list[Event | Unreadable] = [
        STARTED,
        Unreadable("order-1", 0, "kind step.teleported is unknown"),
        completed(2, 0, 1, 2),
    ]
    picture = drawn(
        timeline_of("order-1", history), "parked", reason="its history can't be followed"
    )
    assert "unreadable kind step.teleported is unknown" in picture
    assert "its history can't be followed" in picture
    assert "charge #0" in picture


def test_a_long_history_shows_both_ends() -> None:
    """Given thousands of steps, the first and the last are shown and the others counted."""
    steps = [completed(n, n, n, n + 1) for n in range(1, 5_001)]
    picture = drawn(timeline_of("order-1", [STARTED, *steps]), "running", now_s=6_000)
    assert "4,941 more: --all shows them" in picture
    assert "reserve #5000" in picture
    assert len(picture.splitlines()) < MAX_ROWS + 10


def test_recorded_text_cant_steer_the_terminal() -> None:
    """Given escape sequences in an error's message, they are spelled out."""
    failed = WorkflowFailed(**header(1, 1), error_type="a:B", error_message="\x1b[2J\x07 gone")
    picture = drawn(timeline_of("order-1", [STARTED, failed]), "failed")
    assert "\x1b" not in picture
    assert "\\x1b[2J\\x07 gone" in picture


def test_json_has_the_same_story() -> None:
    """Given --json, operations with their attempts, results as values, times as ISO 8601."""
    history: list[Event | Unreadable] = [STARTED, attempt_failed(1, 0, 1, 2), completed(2, 0, 2, 3)]
    story = json.loads(json.dumps(timeline_json(timeline_of("order-1", history), "running", None)))
    assert story["input"] == {"order": 1}
    step = story["rows"][1]
    assert (step["what"], step["state"], step["result"]) == ("step", "done", "paid")
    assert step["attempts"][0]["ended_at"] == "2023-11-14T22:13:21.000000Z"


def test_an_event_as_json_has_all_its_fields() -> None:
    """Given an event, each field is there by name, with its kind and id; bytes as hex."""
    failed = StepFailed(
        **header(3, 1), step=0, name="charge", attempt=1, started_at=at(0), error_type="a:B", error_message="m"
    )  # fmt: skip
    line = event_json(failed)
    assert line["kind"] == "step.failed"
    assert line["event_id"] == "order-1/3/step.failed"
    assert line["recorded_at"] == "2023-11-14T22:13:21.000000Z"
    assert {"payload", "error_stack", "chain", "claim", "worker"} <= line.keys()
    assert event_json(Unreadable(None, None, "torn"))["reason"] == "torn"
