"""A run's timeline as a terminal shows it: a head, a row with a bar for each operation, and how it stands.

The bars are drawn in `timeline_bars.py`, how it stands is told in `timeline_standing.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from refold.services.spans import ago, clock, span
from refold.services.terminal import counted, one_line, printable
from refold.services.timeline_bars import LINES, Scale
from refold.services.timeline_milestones import attributes_line
from refold.services.timeline_rows import (
    Attempt,
    Milestone,
    Operation,
    Row,
    Sort,
    State,
    Stream,
    Timeline,
)
from refold.services.timeline_standing import standing

STATUS_STYLES = {
    "running": "bold cyan",
    "queued": "cyan",
    "completed": "bold green",
    "failed": "bold red",
    "cancelled": "bold yellow",
    "terminated": "bold yellow",
    "parked": "bold yellow",
    "paused": "bold yellow",
    "copying": "bold cyan",
}

MAX_ROWS = 60
"""Rows that are shown without `--all`, half from either end: two screens tell a run's story, 5,000 rows don't."""

MAX_VALUE_CHARS = 80
"""Of a message's or published value's JSON; `refold history` shows more of it, and with `--json` all."""

_ENDED = frozenset({"completed", "failed", "cancelled", "terminated"})

_STATE_SIGNS = {
    State.DONE: ("✓", "green"),
    State.FAILED: ("✗", "red"),
    State.RETRYING: ("↻", "yellow"),
    State.USED_UP: ("✗", "yellow"),
    State.WAITING: ("◷", "cyan"),
    State.RUNNING: ("▸", "cyan"),
    State.DROPPED: ("◌", "dim"),
    State.UNDONE: ("↶", "dim"),
}
_MILESTONE_SIGNS = {
    "started": ("●", "bold"),
    "continued as new": ("↺", "bold"),
    "its turn": ("▸", "cyan"),
    "taken over": ("⇄", "magenta"),
    "received": ("←", "blue"),
    "published": ("◆", "magenta"),
    "attributes": ("◆", "magenta"),
    "patched": ("◆", "magenta"),
    "copied": ("⧉", "magenta"),
    "warned": ("!", "bold yellow"),
    "cancel requested": ("⊘", "bold yellow"),
    "parked": ("‖", "bold yellow"),
    "paused": ("‖", "bold yellow"),
    "resumed": ("▸", "bold cyan"),
    "rewound": ("↶", "bold cyan"),
    "reopened": ("▸", "bold cyan"),
    "completed": ("●", "bold green"),
    "failed": ("●", "bold red"),
    "cancelled": ("●", "bold yellow"),
    "terminated": ("●", "bold yellow"),
    "unreadable": ("?", "bold red"),
}
_IN_A_BOX = frozenset({"failed", "cancelled", "terminated", "parked", "paused"})
"""Told in full below the rows, where that is how the run stands."""


@dataclass(frozen=True, slots=True)
class View:
    """How a timeline is shown.

    Args:
        now: Time to count from, microseconds since 1970-01-01 UTC.
        width: Columns of the terminal.
        show_all: Show every row.
        results: Show each step's result.
    """

    now: int
    width: int
    show_all: bool = False
    results: bool = False


def draw(timeline: Timeline, status: str, reason: str | None, view: View) -> RenderableType:
    """The whole picture of a run.

    Args:
        timeline: What happened.
        status: How it stands, by the fold.
        reason: Why it is parked, by the fold; None where it isn't.
        view: How to show it.
    """
    parts: list[RenderableType] = [_head(timeline, status, view), "", _rows(timeline, status, view)]
    if timeline.result is not None:
        parts += ["", _labelled("result", timeline.result, view)]
    stands = standing(timeline, status, reason, view.now)
    if stands is not None:
        parts += ["", stands]
    return Group(*parts)


# Head --------------------------------------------------------------------------------------------------------


def _head(timeline: Timeline, status: str, view: View) -> RenderableType:
    title = Text.assemble(
        (printable(timeline.workflow_id), "bold"),
        ("  workflow ", "dim"),
        printable(timeline.workflow),
        (f" version {timeline.version}" if timeline.version != 1 else "", "dim"),
        "  ",
        (status, STATUS_STYLES.get(status, "bold")),
    )
    head = [title, Text(" · ".join(_facts(timeline, status, view)), style="dim")]
    if timeline.parent_id is not None:
        parent = f"{timeline.parent_id} #{timeline.parent_step}"
        head.append(Text.assemble(("child of ", "dim"), printable(parent)))
    if timeline.source_id is not None:
        head.append(Text.assemble(("fork of ", "dim"), printable(timeline.source_id)))
    if timeline.attributes:
        line = one_line(attributes_line(timeline.attributes), 3 * view.width)
        head.append(Text.assemble(("attributes ", "dim"), line))
    if timeline.input is not None and timeline.input not in {"{}", "[]"}:
        head.append(_labelled("input", timeline.input, view))
    return Group(*head)


def _facts(timeline: Timeline, status: str, view: View) -> list[str]:
    ended = timeline.updated_at if status in _ENDED else view.now
    sorts = [operation.sort for operation in timeline.operations]
    facts = [
        f"started {clock(timeline.started_at)} ({ago(timeline.started_at, view.now)})",
        f"{'took' if ended == timeline.updated_at else 'open for'} {span(ended - timeline.started_at)}",
        counted(sorts.count(Sort.STEP), "step"),
    ]
    for sort, plural in ((Sort.TIMER, "timers"), (Sort.CHILD, "children")):
        if sort in sorts:
            facts.append(counted(sorts.count(sort), sort.value, plural))
    facts.append(counted(timeline.events, "event"))
    if timeline.deadline is not None and status not in _ENDED:
        facts.append(f"deadline {ago(timeline.deadline, view.now)}")
    return facts


def _labelled(label: str, payload: str, view: View) -> Text:
    """JSON after its label, on one line where it fits, else on as many as it needs up to a limit."""
    room = max(20, 3 * view.width - len(label) - 1)
    text = printable(payload) if len(payload) <= room else one_line(payload, room)
    return Text.assemble((f"{label} ", "dim"), text)


# Rows --------------------------------------------------------------------------------------------------------


def _rows(timeline: Timeline, status: str, view: View) -> Table:
    bar_width = max(10, min(40, view.width * 27 // 100))
    scale = Scale(timeline.started_at, timeline.updated_at, bar_width)
    table = Table(box=None, padding=(0, 1), pad_edge=False, show_header=False, expand=True)
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(no_wrap=True, width=1)
    table.add_column(overflow="fold", ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, width=bar_width)
    boxed = _told_below(timeline, status)
    head, left_out, tail = _shown(timeline.rows, view.show_all)
    for row in head:
        _add_row(table, row, scale, view, boxed)
    if left_out:
        table.add_row("", "", Text(f"… {left_out:,} more: --all shows them", style="dim"), "", "")
    for row in tail:
        _add_row(table, row, scale, view, boxed)
    return table


def _told_below(timeline: Timeline, status: str) -> Milestone | None:
    """The row whose text is in the box below: the last of the kind, where the run stands so."""
    if status not in _IN_A_BOX:
        return None
    found = (row for row in reversed(timeline.rows) if isinstance(row, Milestone))
    return next((row for row in found if row.what == status), None)


def _shown(rows: Sequence[Row], show_all: bool) -> tuple[Sequence[Row], int, Sequence[Row]]:
    if show_all or len(rows) <= MAX_ROWS:
        return rows, 0, ()
    half = MAX_ROWS // 2
    return rows[:half], len(rows) - 2 * half, rows[-half:]


def _add_row(
    table: Table, row: Row, scale: Scale, view: View, told_below: Milestone | None
) -> None:
    match row:
        case Operation():
            _add_operation(table, row, scale, view)
        case Stream():
            what = Text.assemble(("stream ", "magenta"), printable(row.name))
            what.append(f"  {counted(row.items, 'item', 'items')}", "dim")
            took = span(row.ended_at - row.started_at) if row.ended_at > row.started_at else ""
            sign = Text("≋", style="magenta")
            table.add_row(scale.time(row.started_at), sign, what, took, scale.bar(row))
        case Milestone():
            text = "" if row is told_below else one_line(row.text, 300)
            _add_milestone(table, row, text, scale)


def _add_milestone(table: Table, row: Milestone, text: str, scale: Scale) -> None:
    sign, style = _MILESTONE_SIGNS.get(row.what, ("●", ""))
    what = Text().append(row.what, style)
    if text:
        what.append(f" {text}", "dim")
    if row.payload is not None:
        what.append(f" {one_line(row.payload, MAX_VALUE_CHARS)}")
    at = "" if row.at is None else scale.time(row.at)
    table.add_row(at, Text(sign, style=style), what, "", "")


def _add_operation(table: Table, operation: Operation, scale: Scale, view: View) -> None:
    sign, style = _STATE_SIGNS[operation.state]
    what = _named(operation)
    what.append(_outlook(operation, view))
    took = "" if operation.ended_at is None else span(operation.ended_at - operation.started_at)
    at = scale.time(operation.started_at)
    table.add_row(at, Text(sign, style=style), what, took, scale.bar(operation))
    attempts = operation.attempts
    if any(attempt.error is not None for attempt in attempts):
        for attempt in attempts:
            table.add_row("", "", _attempt(attempt), _attempt_took(attempt), "")
    if operation.error is not None:
        error = Text(one_line(operation.error, 300), style="red")
        table.add_row("", "", Padding(error, (0, 0, 0, 1)), "", "")
    if view.results and operation.payload is not None:
        result = Text(f"→ {one_line(operation.payload, 300)}", style="dim")
        table.add_row("", "", Padding(result, (0, 0, 0, 2)), "", "")


def _named(operation: Operation) -> Text:
    """What an operation is: its sort where it is no step, its name, whom it is about, its number."""
    name, target = printable(operation.name), printable(operation.target_id or "")
    _, style = LINES.get(operation.sort, ("", ""))
    match operation.sort:
        case Sort.MESSAGE:
            what = Text.assemble(("sent ", style), name, (" to ", "dim"), target)
        case Sort.CHILD:
            what = Text.assemble(("child ", style), name, " ", (target, "dim"))
        case Sort.CANCEL:
            what = Text.assemble(("cancel ", style), target)
        case Sort.QUESTION:
            what = Text.assemble(("asked ", style), name)
        case _:
            what = Text().append(name, style or None)
    if operation.step is not None:
        what.append(f" #{operation.step}", "dim")
    if operation.state is State.UNDONE:
        what.stylize("dim strike")
    return what


def _attempt(attempt: Attempt) -> RenderableType:
    text = Text(f"attempt {attempt.number} ", style="dim")
    if attempt.error is None:
        text.append("succeeded", "not dim green")
    else:
        text.append(one_line(attempt.error, 300), "not dim red")
    return Padding(text, (0, 0, 0, 1))


def _attempt_took(attempt: Attempt) -> Text:
    return Text(span(attempt.ended_at - attempt.started_at), style="dim")


def _outlook(operation: Operation, view: View) -> Text:
    """What an operation without outcome waits for."""
    due = operation.due_at
    match operation.state:
        case State.WAITING if due is not None:
            return Text(f"  due {ago(due, view.now)}", style="cyan")
        case State.WAITING if operation.sort is Sort.QUESTION:
            return Text("  waits for the answer", style="cyan")
        case State.WAITING:
            return Text("  on its way", style="cyan")
        case State.RUNNING:
            return Text("  goes on", style="cyan")
        case State.RETRYING if due is not None and due > view.now:
            return Text(f"  attempt {_next(operation)} is due {ago(due, view.now)}", style="yellow")
        case State.RETRYING:
            text = f"  attempt {_next(operation)} is under way, or waits for a worker"
            return Text(text, style="yellow")
        case _:
            return _afterword(operation)


def _afterword(operation: Operation) -> Text:
    """What else there is to say of an operation that nothing is waited for any more."""
    match operation.state:
        case State.USED_UP:
            return Text("  attempts used up", style="yellow")
        case State.UNDONE:
            return Text("  no longer counts", style="dim")
        case State.DONE if operation.policy == "detached":
            return Text("  started, goes on by itself", style="dim")
        case State.DROPPED if operation.sort is Sort.CHILD:
            by_itself = operation.policy != "cancel"
            text = "  goes on by itself" if by_itself else "  was cancelled with its parent"
            return Text(text, style="dim")
        case State.DROPPED:
            asked = operation.sort is Sort.QUESTION
            return Text("  not answered" if asked else "  not waited for", style="dim")
        case _:
            return Text()


def _next(operation: Operation) -> int:
    return operation.attempts[-1].number + 1 if operation.attempts else 1
