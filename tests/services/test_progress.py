"""What `run` says while a workflow goes on."""

from collections.abc import Sequence
from typing import TypedDict

from rich.console import Console

from refold.log.events import (
    AskReceived,
    ChildCompleted,
    ChildFailed,
    Event,
    MessageReceived,
    StepCompleted,
    ValuePublished,
    WorkflowCancelRequested,
    WorkflowContinued,
    WorkflowStarted,
)
from refold.services.progress import MAX_LINES_A_SECOND, ProgressDisplay

S = 1_000_000


def step(number: int, at: int) -> StepCompleted:
    """A step that has ended at `at`."""
    return StepCompleted(
        workflow_id="a",
        position=number,
        recorded_at=at,
        claim=0,
        command=0,
        posted=0,
        worker="w",
        step=number,
        name="tick",
        payload="null",
        attempt=1,
        started_at=at - 1_000,
    )


def told(steps: Sequence[Event], since: int) -> tuple[list[str], str]:
    """The lines that are said about a run, and how many steps it is said to have."""
    console = Console(width=100, force_terminal=False)
    display = ProgressDisplay(console, quiet=False, since=since)
    started = WorkflowStarted(
        workflow_id="a", position=0, recorded_at=S, claim=0, command=0, posted=0, worker="w", workflow="w",
        payload="{}",
    )  # fmt: skip
    with console.capture() as capture, display.shown("a"):
        display.tell(started)
        for event in steps:
            display.tell(event)
    return capture.get().splitlines(), display.steps


def test_what_was_recorded_before_is_counted_and_not_told_again() -> None:
    """Given steps from an earlier process, one line says how many, then come the new ones."""
    lines, done = told([step(0, 2 * S), step(1, 3 * S), step(2, 9 * S)], since=5 * S)
    assert [line.strip() for line in lines] == [
        "⇄ going on after 2 steps recorded before: not run again",
        "✓ tick #2  1 ms",
    ]
    assert done == "3 steps"


def test_thousands_of_steps_are_not_thousands_of_lines() -> None:
    """Given many steps in one second, the first lines are shown and the rest counted, none forgotten."""
    lines, done = told([step(n, 10 * S + n) for n in range(1_000)] + [step(1_000, 11 * S)], since=S)
    assert len(lines) == MAX_LINES_A_SECOND + 2
    assert lines[-2].strip() == f"… and {1_000 - MAX_LINES_A_SECOND} more"
    assert "tick #1000" in lines[-1]
    assert done == "1,001 steps"


class Header(TypedDict):
    """What every event carries."""

    workflow_id: str
    position: int
    recorded_at: int
    claim: int
    command: int
    posted: int
    worker: str


def header(position: int) -> Header:
    """Of an event so many seconds after the start."""
    return Header(
        workflow_id="a",
        position=position,
        recorded_at=(position + 1) * S,
        claim=0,
        command=0,
        posted=0,
        worker="w",
    )


def test_what_comes_from_others_is_told() -> None:
    """Given a message, a question, two children's ends and a request to cancel, each has a line; a value has none."""
    lines, done = told(
        [
            MessageReceived(**header(1), name="note", payload="1", message_id="m"),
            AskReceived(**header(2), name="change", payload="1", message_id="q"),
            ValuePublished(**header(3), step=0, name="status", payload="1"),
            ChildCompleted(**header(4), step=1, name="ship", payload="1"),
            ChildFailed(
                **header(5), step=2, name="bill", error_type="app:NoStock", error_message="none"
            ),
            WorkflowContinued(**header(6), payload="[7]", next_step=3, detail="[1]"),
            WorkflowCancelRequested(
                **header(7), name="request", payload='{"requested_by":"ada","reason":"late"}'
            ),
        ],
        since=S,
    )
    assert [line.strip() for line in lines] == [
        "← received note",
        "← asked change",
        "✓ child ship #1",
        "✗ bill #2: NoStock: none",
        "‖ continued as new from #3, 1 message kept, with [7]",
        "‖ cancel requested by ada (late)",
    ]
    assert done == "0 steps"
