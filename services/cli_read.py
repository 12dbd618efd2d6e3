"""`refold list`, `show` and `history`: what the log says, read beside whatever is running."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from refold.engine.client import check_id
from refold.engine.fold import Status
from refold.engine.reader import WorkflowInfo, read_all, read_history, read_status
from refold.engine.worker import wall_clock
from refold.log.events import Event, Unreadable
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Debug, Url, opened, shared_log_at
from refold.services.spans import ago, microseconds, moment, span
from refold.services.terminal import one_line, print_json, printable, to_reader
from refold.services.timeline import timeline_of
from refold.services.timeline_json import event_json, info_json, timeline_json
from refold.services.timeline_view import STATUS_STYLES, View, draw

DEFAULT_LIMIT = 50
"""Runs that `refold list` shows: the latest, on a screen or two."""

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead, for programs.")]


def list_runs(
    *,
    status: Annotated[
        Status | None, typer.Option("--status", help="Only runs that stand so.")
    ] = None,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME", help="Only runs of this workflow.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="The latest so many; 0 for all.")
    ] = DEFAULT_LIMIT,
    json: Json = False,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """List the runs in the log, the latest first."""
    with reported(debug):
        infos = [
            info
            for info in asyncio.run(_read_all(url))
            if (status is None or info.status is status)
            and (workflow is None or info.workflow == workflow)
        ]
        shown = infos[:limit] if limit else infos
        if json:
            for info in shown:
                print_json(info_json(info))
            return
        filtered = status is not None or workflow is not None
        _print_list(to_reader(), shown, len(infos), wall_clock(), filtered=filtered)


async def _read_all(url: str) -> list[WorkflowInfo]:
    async with opened(shared_log_at(url, may_make=False)) as log:
        return await read_all(log)


def _print_list(
    console: Console, shown: Sequence[WorkflowInfo], found: int, now: int, *, filtered: bool
) -> None:
    if not shown:
        console.print(
            Text("no run is like that" if filtered else "there are no runs yet", style="dim")
        )
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("ID", overflow="fold")
    table.add_column("WORKFLOW", overflow="fold")
    table.add_column("STATUS", no_wrap=True)
    table.add_column("STARTED", no_wrap=True, justify="right")
    table.add_column("TOOK", no_wrap=True, justify="right")
    table.add_column("EVENTS", no_wrap=True, justify="right")
    for info in shown:
        table.add_row(*_cells(info, now))
    console.print(table)
    if found > len(shown):
        more = f"{found - len(shown):,} more: --limit 0 shows all"
        console.print(Text(more, style="dim"))


def _cells(info: WorkflowInfo, now: int) -> tuple[Text, ...]:
    started, updated = microseconds(info.started_at), microseconds(info.updated_at)
    open_ = info.status in {Status.RUNNING, Status.PARKED}
    took = f"{span(max(0, now - started))} so far" if open_ else span(updated - started)
    return (
        Text(printable(info.workflow_id), style="bold"),
        Text(printable(info.workflow)),
        Text(info.status.value, style=STATUS_STYLES[info.status.value]),
        Text(ago(started, now)),
        Text(took, style="dim" if open_ else ""),
        Text(f"{info.events:,}"),
    )


def show(
    id: RunId,
    *,
    all_rows: Annotated[
        bool, typer.Option("--all", help="Every operation, however many there are.")
    ] = False,
    results: Annotated[
        bool, typer.Option("--results", help="With what each step returned.")
    ] = False,
    json: Json = False,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Show one run as a timeline: steps with their attempts, timers, and how it stands.

    Bars share one scale from the run's start to its last event: solid while an attempt was under way, dotted while
    the next one was waited for. A step appears with its first outcome: the log does not record its beginning.
    """
    with reported(debug):
        check_id(id)
        info, history = asyncio.run(_read_one(url, id))
        timeline = timeline_of(id, history)
        if json:
            print_json(timeline_json(timeline, info.status.value, info.reason))
            return
        console = to_reader()
        view = View(wall_clock(), console.width, show_all=all_rows, results=results)
        console.print(draw(timeline, info.status.value, info.reason, view))


async def _read_one(url: str, id_: str) -> tuple[WorkflowInfo, list[Event | Unreadable]]:
    async with opened(shared_log_at(url, may_make=False)) as log:
        info, events = await read_status(log, id_), await read_history(log, id_)
        while info.status is not Status.RUNNING and info.events != len(events):
            # It went on between the two readings: what is said of it must be of one moment.
            info, events = await read_status(log, id_), await read_history(log, id_)
        return info, events


def history(
    id: RunId,
    *,
    json: Json = False,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """List the events of one run, in log order; with --json, a line for each with all its fields."""
    with reported(debug):
        check_id(id)
        events = asyncio.run(_read_history(url, id))
        if json:
            for event in events:
                print_json(event_json(event))
            return
        _print_events(to_reader(), events)


async def _read_history(url: str, id_: str) -> list[Event | Unreadable]:
    async with opened(shared_log_at(url, may_make=False)) as log:
        return await read_history(log, id_)


def _print_events(console: Console, events: Sequence[Event | Unreadable]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=True)
    table.add_column(
        "#", justify="right", style="dim", no_wrap=True, min_width=len(str(len(events)))
    )
    table.add_column("RECORDED (UTC)", no_wrap=True, min_width=len("2026-01-01 00:00:00.000"))
    table.add_column("KIND", no_wrap=True, min_width=len("step.attempt_failed"))
    table.add_column("WHAT", overflow="fold", ratio=2)
    table.add_column("PAYLOAD", no_wrap=True, overflow="ellipsis", style="dim", ratio=3)
    for number, event in enumerate(events):
        if isinstance(event, Unreadable):
            reason = Text(printable(event.reason))
            table.add_row(str(number), "", Text("unreadable", style="red"), reason, "")
            continue
        error: str | None = getattr(event, "error_message", None)
        payload: str | None = error or getattr(event, "payload", None)
        table.add_row(
            str(event.position),
            f"{moment(event.recorded_at):%Y-%m-%d %H:%M:%S.%f}"[:-3],
            Text(event.kind, style=_kind_style(event)),
            Text(_what(event)),
            Text(one_line(payload or "", 300)),
        )
    console.print(table)


def _kind_style(event: Event) -> str:
    if event.kind.endswith("failed"):
        return "red"
    return "yellow" if event.kind == "workflow.parked" else ""


def _what(event: Event) -> str:
    """The operation that an event is about: its name, number and attempt."""
    step: int | None = getattr(event, "step", None)
    name: str = getattr(event, "name", "") or getattr(event, "workflow", "")
    attempt: int = getattr(event, "attempt", 1)
    number = "" if step is None else f" #{step}"
    return one_line(f"{name}{number}{f' attempt {attempt}' if attempt > 1 else ''}", 60)
