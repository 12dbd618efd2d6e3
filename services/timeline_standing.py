"""How a run stands: the last lines of its timeline, with what a person can do about it."""

import shlex

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from refold.log.events import (
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowParked,
    WorkflowTerminated,
)
from refold.services.spans import ago
from refold.services.terminal import counted, facts_table, printable
from refold.services.timeline_milestones import error_line, json_object, who_and_why
from refold.services.timeline_rows import Timeline

MAX_STACK_LINES = 12
"""Lines of a recorded stack that are shown; its end, which names the place. `refold history --json` has it all."""


def standing(
    timeline: Timeline, status: str, reason: str | None, now: int
) -> RenderableType | None:
    """The lines below the rows; None where the run completed.

    Args:
        timeline: What happened.
        status: How it stands, by the fold.
        reason: Why it is parked, by the fold; None where it isn't.
        now: Time to count from, microseconds since 1970-01-01 UTC.
    """
    if timeline.failure is not None:
        return _failure(timeline.failure)
    match status:
        case "parked":
            return _parked(timeline, reason)
        case "paused":
            return _paused(timeline)
        case "copying":
            return _copying(timeline, now)
        case "queued":
            return _queued(timeline, now)
        case "running":
            return _running(timeline, now)
        case _:
            return None


def _failure(failure: WorkflowFailed | WorkflowCancelled | WorkflowTerminated) -> Panel:
    style = "red" if isinstance(failure, WorkflowFailed) else "yellow"
    body: list[RenderableType] = [
        Text(printable(error_line(failure.error_type, failure.error_message)), style=style)
    ]
    stack = failure.error_stack if isinstance(failure, WorkflowFailed) else None
    lines = (stack or "").rstrip().splitlines()
    if lines:
        shown = lines[-MAX_STACK_LINES:]
        body.append(Text(printable("\n".join(["", *shown])), style="dim"))
    title = failure.kind.rpartition(".")[2]
    return Panel(Group(*body), title=title, title_align="left", border_style=style)


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
    facts: tuple[tuple[str, object, str], ...] = (
        ("operation", f"#{detail.get('step', '?')}{event}", ""),
        ("recorded", detail.get("expected"), "green"),
        ("code asks", detail.get("found"), "red"),
        ("where", detail.get("source"), ""),
        ("likely", detail.get("cause"), ""),
    )
    table = facts_table((name, Text(printable(str(v)), style)) for name, v, style in facts if v)
    return [Text("the code no longer matches the history", style="yellow"), "", table]


def _resume_hint(workflow_id: str, before: str = "Mend the cause, deploy, then: ") -> Text:
    return Text.assemble(
        (before, "dim"), (f"refold resume {shlex.quote(workflow_id)} --reason '...'", "bold")
    )


def _paused(timeline: Timeline) -> Panel:
    by = who_and_why(timeline.paused.payload) if timeline.paused is not None else ""
    body = Group(
        Text(printable(f"halted {by}".rstrip())),
        "",
        _resume_hint(timeline.workflow_id, "To let it go on: "),
    )
    title = "paused: a person halted it"
    return Panel(body, title=title, title_align="left", border_style="yellow")


def _copying(timeline: Timeline, now: int) -> Text:
    source = f"of {timeline.source_id} " if timeline.source_id is not None else ""
    return Text(
        printable(
            f"copying: the history {source}that it begins with is still coming, "
            f"{timeline.copied:,} outcomes so far; last event {ago(timeline.updated_at, now)}"
        ),
        style="cyan",
    )


def _queued(timeline: Timeline, now: int) -> Text:
    queue = timeline.queue or "?"
    return Text.assemble(
        (
            printable(
                f"queued: last event {ago(timeline.updated_at, now)}; it waits for its turn, see "
            ),
            "cyan",
        ),
        (f"refold queue show {shlex.quote(queue)}", "bold"),
    )


def _running(timeline: Timeline, now: int) -> Text:
    waits = [operation for operation in timeline.operations if operation.is_open]
    if waits:
        dues = [operation.due_at for operation in waits if operation.due_at is not None]
        what = f"waits for {counted(len(waits), 'operation')}"
        what += f", the next is due {ago(min(dues), now)}" if dues and min(dues) > now else ""
    else:
        what = "a step is under way, or it waits for a message or a worker"
    if timeline.cancel is not None:
        what += "; it was asked to cancel"
    text = Text(f"running: last event {ago(timeline.updated_at, now)}; {what}", style="cyan")
    if not waits:  # what its code waits for is in no event
        hint = f"refold debug {shlex.quote(timeline.workflow_id)} --app MODULE"
        text.append("\nwhere its code stands: ").append(hint, "bold")
    return text
