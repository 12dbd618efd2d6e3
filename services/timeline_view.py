"""A run's timeline as a terminal shows it: a head, a row with a bar for each operation, and how it stands.

Bars share one scale, from the run's start to its last event: solid where an attempt was under way, dotted where the
next one was waited for, thin where a timer ran.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from refold.log.events import WorkflowFailed, WorkflowParked
from refold.services.spans import ago, clock, since, span
from refold.services.terminal import one_line, printable
from refold.services.timeline import (
    Attempt,
    Operation,
    Row,
    State,
    Timeline,
    error_line,
    json_object,
)

STATUS_STYLES = {
    "running": "bold cyan",
    "completed": "bold green",
    "failed": "bold red",
    "parked": "bold yellow",
}

MAX_ROWS = 60
"""Rows that are shown without `--all`, half from either end: two screens tell a run's story, 5,000 rows don't."""

MAX_STACK_LINES = 12
"""Lines of a recorded stack that are shown; its end, which names the place. `refold history --json` has it all."""

_STATE_SIGNS = {
    State.DONE: ("✓", "green"),
    State.FAILED: ("✗", "red"),
    State.RETRYING: ("↻", "yellow"),
    State.USED_UP: ("✗", "yellow"),
    State.WAITING: ("◷", "cyan"),
    State.DROPPED: ("◌", "dim"),
}
_MILESTONE_SIGNS = {
    "started": ("●", "bold"),
    "taken over": ("⇄", "magenta"),
    "parked": ("‖", "bold yellow"),
    "resumed": ("▸", "bold cyan"),
    "completed": ("●", "bold green"),
    "failed": ("●", "bold red"),
    "unreadable": ("?", "bold red"),
}


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
    parts: list[RenderableType] = [_head(timeline, status, view), "", _rows(timeline, view)]
    if timeline.result is not None:
        parts += ["", _labelled("result", timeline.result, view)]
    if timeline.failure is not None:
        parts += ["", _failure(timeline.failure)]
    if status == "parked":
        parts += ["", _parked(timeline, reason)]
    if status == "running":
        parts += ["", _running(timeline, view)]
    return Group(*parts)


def _head(timeline: Timeline, status: str, view: View) -> RenderableType:
    title = Text.assemble(
        (printable(timeline.workflow_id), "bold"),
        ("  workflow ", "dim"),
        printable(timeline.workflow),
        "  ",
        (status, STATUS_STYLES.get(status, "bold")),
    )
    ended = timeline.updated_at if status in {"completed", "failed"} else view.now
    operations = timeline.operations
    steps = [operation for operation in operations if not operation.is_timer]
    facts = [
        f"started {clock(timeline.started_at)} ({ago(timeline.started_at, view.now)})",
        f"{'took' if ended == timeline.updated_at else 'open for'} {span(ended - timeline.started_at)}",
        _count(len(steps), "step"),
        _count(len(operations) - len(steps), "timer") if len(steps) != len(operations) else "",
        _count(timeline.events, "event"),
    ]
    head = [title, Text(" · ".join(fact for fact in facts if fact), style="dim")]
    if timeline.input is not None and timeline.input not in {"{}", "[]"}:
        head.append(_labelled("input", timeline.input, view))
    return Group(*head)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _labelled(label: str, payload: str, view: View) -> Text:
    """JSON after its label, on one line where it fits, else on as many as it needs up to a limit."""
    room = max(20, 3 * view.width - len(label) - 1)
    text = printable(payload) if len(payload) <= room else one_line(payload, room)
    return Text.assemble((f"{label} ", "dim"), text)


# Rows --------------------------------------------------------------------------------------------------------


def _rows(timeline: Timeline, view: View) -> Table:
    bar_width = max(10, min(40, view.width * 27 // 100))
    scale = _Scale(timeline.started_at, timeline.updated_at, bar_width)
    table = Table(box=None, padding=(0, 1), pad_edge=False, show_header=False, expand=True)
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(no_wrap=True, width=1)
    table.add_column(overflow="fold", ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, width=bar_width)
    head, left_out, tail = _shown(timeline.rows, view.show_all)
    for row in head:
        _add_row(table, row, scale, view)
    if left_out:
        table.add_row("", "", Text(f"… {left_out:,} more: --all shows them", style="dim"), "", "")
    for row in tail:
        _add_row(table, row, scale, view)
    return table


def _shown(rows: Sequence[Row], show_all: bool) -> tuple[Sequence[Row], int, Sequence[Row]]:
    if show_all or len(rows) <= MAX_ROWS:
        return rows, 0, ()
    half = MAX_ROWS // 2
    return rows[:half], len(rows) - 2 * half, rows[-half:]


def _add_row(table: Table, row: Row, scale: "_Scale", view: View) -> None:
    if isinstance(row, Operation):
        _add_operation(table, row, scale, view)
        return
    sign, style = _MILESTONE_SIGNS.get(row.what, ("●", ""))
    what = Text().append(row.what, style)
    if row.text and row.what not in {"failed", "parked"}:  # those have a box of their own below
        what.append(f" {printable(row.text)}", "dim")
    at = "" if row.at is None else scale.time(row.at)
    table.add_row(at, Text(sign, style=style), what, "", "")


def _add_operation(table: Table, operation: Operation, scale: "_Scale", view: View) -> None:
    sign, style = _STATE_SIGNS[operation.state]
    what = Text().append(printable(operation.name), "cyan" if operation.is_timer else None)
    what.append(f" #{operation.step}", "dim")
    what.append(_outlook(operation, view))
    took = "" if operation.ended_at is None else span(operation.ended_at - operation.started_at)
    at = scale.time(operation.started_at)
    table.add_row(at, Text(sign, style=style), what, took, scale.bar(operation))
    attempts = operation.attempts
    if any(attempt.error is not None for attempt in attempts):
        for attempt in attempts:
            table.add_row("", "", _attempt(attempt), _attempt_took(attempt), "")
    if view.results and operation.payload is not None:
        result = Text(f"→ {one_line(operation.payload, 300)}", style="dim")
        table.add_row("", "", Padding(result, (0, 0, 0, 2)), "", "")


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
        case State.RETRYING if due is not None and due > view.now:
            return Text(f"  attempt {_next(operation)} is due {ago(due, view.now)}", style="yellow")
        case State.RETRYING:
            text = f"  attempt {_next(operation)} is under way, or waits for a worker"
            return Text(text, style="yellow")
        case State.USED_UP:
            return Text("  attempts used up", style="yellow")
        case State.DROPPED:
            return Text("  not waited for", style="dim")
        case _:
            return Text()


def _next(operation: Operation) -> int:
    return operation.attempts[-1].number + 1 if operation.attempts else 1


class _Scale:
    """Times as columns of the bar.

    Args:
        start: The first column's time, microseconds since 1970-01-01 UTC.
        end: The last column's.
        width: Number of columns.
    """

    def __init__(self, start: int, end: int, width: int) -> None:
        self._start = start
        self._length = max(1, end - start)
        self._width = width

    def time(self, at: int) -> str:
        """A time as text, counted from the start."""
        return since(max(0, at - self._start), self._length)

    def bar(self, operation: Operation) -> Text:
        cells: list[tuple[str, str]] = [(" ", "")] * self._width
        if operation.is_timer:
            self._fill(cells, operation.started_at, operation.ended_at, ("─", "cyan"))
        else:
            self._fill(cells, operation.started_at, operation.ended_at, ("·", "yellow"))
            for attempt in operation.attempts:
                self._fill(cells, attempt.started_at, attempt.ended_at, ("━", _color(attempt)))
        bar = Text()
        for sign, style in cells:
            bar.append(sign, style)
        bar.rstrip()
        return bar

    def _fill(
        self, cells: list[tuple[str, str]], start: int, end: int | None, cell: tuple[str, str]
    ) -> None:
        first = self._column(start)
        last = self._width - 1 if end is None else max(first, self._column(end - 1))
        cells[first : last + 1] = [cell] * (last + 1 - first)

    def _column(self, at: int) -> int:
        column = (at - self._start) * self._width // self._length
        return max(0, min(self._width - 1, column))


def _color(attempt: Attempt) -> str:
    return "green" if attempt.error is None else "red"


# How it stands -----------------------------------------------------------------------------------------------


def _failure(failure: WorkflowFailed) -> Panel:
    body: list[RenderableType] = [
        Text(printable(error_line(failure.error_type, failure.error_message)), style="red")
    ]
    lines = (failure.error_stack or "").rstrip().splitlines()
    if lines:
        shown = lines[-MAX_STACK_LINES:]
        body.append(Text(printable("\n".join(["", *shown])), style="dim"))
    return Panel(Group(*body), title="failed", title_align="left", border_style="red")


def _parked(timeline: Timeline, reason: str | None) -> Panel:
    parked = timeline.parked
    if parked is None:  # the stream can't be folded: the fold's own words say why
        body: RenderableType = Text(printable(reason or "no reason was recorded"))
    elif parked.name == "diverged":
        body = Group(*_diverged(parked), "", _resume_hint(timeline.workflow_id))
    else:
        body = Group(Text(printable(parked.error_message)), "", _resume_hint(timeline.workflow_id))
    title = "parked: it waits for a person"
    return Panel(body, title=title, title_align="left", border_style="yellow")


def _diverged(parked: WorkflowParked) -> list[RenderableType]:
    detail = json_object(parked.payload)
    position = detail.get("position")
    event = "" if position is None else f" (event {position})"
    facts = (
        ("operation", f"#{detail.get('step', '?')}{event}", ""),
        ("recorded", detail.get("expected"), "green"),
        ("code asks", detail.get("found"), "red"),
        ("where", detail.get("source"), ""),
        ("likely", detail.get("cause"), ""),
    )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value, style in facts:
        if value:
            table.add_row(label, Text(printable(str(value)), style=style))
    return [Text("the code no longer matches the history", style="yellow"), "", table]


def _resume_hint(workflow_id: str) -> Text:
    return Text.assemble(
        ("Mend the cause, deploy, then: ", "dim"),
        (f"refold resume {shlex.quote(workflow_id)} --reason '...'", "bold"),
    )


def _running(timeline: Timeline, view: View) -> RenderableType:
    waits = [operation for operation in timeline.operations if operation.ended_at is None]
    if waits:
        dues = [operation.due_at for operation in waits if operation.due_at is not None]
        what = f"waits for {_count(len(waits), 'operation')}"
        what += (
            f", the next is due {ago(min(dues), view.now)}" if dues and min(dues) > view.now else ""
        )
    else:
        what = "a step is under way, or it waits for a worker"
    return Text(f"running: last event {ago(timeline.updated_at, view.now)}; {what}", style="cyan")
