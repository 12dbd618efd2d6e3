"""`refold show` and `history`: what the log says, read beside whatever is running."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from refold.engine.blobs import Blobs
from refold.engine.moments import AtTime, Moment, stop_at
from refold.engine.names import check_id
from refold.engine.reader import WorkflowInfo, read_history, read_run
from refold.engine.showing import shown
from refold.engine.worker import wall_clock
from refold.log.events import Event, Unreadable
from refold.log.urls import with_archive
from refold.services.cli_list import Json, readable
from refold.services.cli_moments import At, read_at
from refold.services.event_words import kind_style, what_of
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url, opened, shared_log_at
from refold.services.spans import microseconds, moment
from refold.services.terminal import one_line, plain_table, print_json, printable, to_reader
from refold.services.timeline import timeline_of
from refold.services.timeline_json import event_json, timeline_json
from refold.services.timeline_view import View, draw

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]


def show(  # noqa: PLR0913 - each an option of the command
    id: RunId,
    *,
    all_rows: Annotated[
        bool, typer.Option("--all", help="Every operation, however many there are.")
    ] = False,
    results: Annotated[
        bool, typer.Option("--results", help="With what each step returned.")
    ] = False,
    at: At = None,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Show one run as a timeline: steps with their attempts, timers, and how it stands, or stood at a time.

    Bars share one scale from the run's start to its last event: solid while an attempt was under way, dotted while
    the next one was waited for. A step appears with its first outcome: the log does not record its beginning.
    """
    with reported(debug):
        check_id(id)
        now = wall_clock()
        moment_ = None if at is None else read_at(at, now)
        info, history = asyncio.run(_read_one(with_archive(url, archive), id, moment_))
        timeline = timeline_of(id, history)
        if json:
            print_json(timeline_json(timeline, info.status.value, info.reason))
            return
        console = to_reader()
        if moment_ is not None:  # "so far" counts up to then
            now = moment_.time if isinstance(moment_, AtTime) else microseconds(info.updated_at)
        view = View(now, console.width, show_all=all_rows, results=results)
        console.print(draw(timeline, info.status.value, info.reason, view))


async def _read_one(
    url: str, id_: str, moment_: Moment | None
) -> tuple[WorkflowInfo, list[Event | Unreadable]]:
    async with opened(shared_log_at(url, may_make=False)) as log:
        stop = None if moment_ is None else await stop_at(log, id_, moment_)
        info, events = await read_run(log, id_, stop)
        blobs = Blobs.of(log)
        return readable(info, blobs), [shown(event, blobs) for event in events]


def history(
    id: RunId,
    *,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """List the events of one run, in log order; with --json, a line for each with all its fields, as recorded."""
    with reported(debug):
        check_id(id)
        events = asyncio.run(_read_history(with_archive(url, archive), id, as_recorded=json))
        if json:
            for event in events:
                print_json(event_json(event))
            return
        print_events(to_reader(), events)


async def _read_history(url: str, id_: str, *, as_recorded: bool) -> list[Event | Unreadable]:
    async with opened(shared_log_at(url, may_make=False)) as log:
        events = await read_history(log, id_)
        blobs = Blobs.of(log)
        return events if as_recorded else [shown(event, blobs) for event in events]


def print_events(console: Console, events: Sequence[Event | Unreadable]) -> None:
    """A table of one run's events, at least one."""
    table = plain_table(expand=True)
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
            Text(event.kind, style=kind_style(event)),
            Text(what_of(event)),
            Text(one_line(payload or "", 300)),
        )
    console.print(table)
