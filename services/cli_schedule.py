"""`refold schedule`: workflows that are started again and again, at times that are said once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from rich.console import Console
from rich.text import Text

from refold.engine.blobs import Blobs
from refold.engine.schedule import Schedule, check_schedule_name, read_schedule, read_schedules
from refold.engine.schedule_run import ScheduleInfo
from refold.engine.schedule_times import (
    DEFAULT_CATCH_UP,
    ScheduleSpec,
    due_times,
)
from refold.engine.showing import ENCRYPTED
from refold.engine.state import Status
from refold.engine.worker import wall_clock
from refold.log.attributes import encode_attributes
from refold.log.errors import UsageError
from refold.log.schedules import PREFIX
from refold.log.urls import with_archive
from refold.projections.workflows_schedules import ScheduleRow
from refold.services.arguments import bind, plain_object, read_input
from refold.services.cli_bulk import By, Reason
from refold.services.cli_list import MAX_CELL_CHARS, FromLog, Json, Views
from refold.services.cli_run import Input, Words
from refold.services.cli_values import read_attributes, read_span, read_time
from refold.services.exits import reported
from refold.services.listing import view_of
from refold.services.loading import load_workflow
from refold.services.opening import (
    DEFAULT_URL,
    Archive,
    Debug,
    Url,
    awaiting_worker,
    client_at,
    opened,
    shared_log_at,
)
from refold.services.spans import ago, microseconds
from refold.services.terminal import (
    facts_table,
    note,
    one_line,
    plain_table,
    print_json,
    printable,
    to_reader,
)
from refold.services.timeline_view import STATUS_STYLES

UPCOMING: Final = 5
"""Due times that `show` tells: enough to see whether an expression means what was meant."""

schedule = typer.Typer(
    help="Workflows that are started by the clock.", no_args_is_help=True, rich_markup_mode="rich"
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]


def set_schedule(  # noqa: PLR0913 - each an option of the command
    name: Name,
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:WORKFLOW|NAME",
            help="The workflow's code, which checks the input; or only its name.",
        ),
    ],
    words: Words = None,
    *,
    cron: Annotated[
        str | None,
        typer.Option(
            "--cron",
            metavar="EXPRESSION",
            help="When: minute, hour, day of month, month, day of week, as in '0 3 * * *'.",
        ),
    ] = None,
    timezone: Annotated[
        str,
        typer.Option(
            "--timezone", metavar="ZONE", help="Whose clocks that means, as in Europe/Berlin."
        ),
    ] = "UTC",
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="SPAN", help="A fixed interval instead: 15m, 1h, 7d."),
    ] = None,
    skip: Annotated[
        bool, typer.Option("--skip", help="Start none while the last one has not ended.")
    ] = False,
    catch_up: Annotated[
        str | None,
        typer.Option(
            "--catch-up",
            metavar="SPAN",
            help="How late a due time may be met, when nobody was there to meet it. 1d if not given.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Not before this, as 2026-12-01T09:00+01:00."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Not after this.")
    ] = None,
    input_json: Input = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            "--attribute", metavar="NAME=VALUE", help="A tag of its runs; repeat it for several."
        ),
    ] = None,
    reason: Reason = None,
    by: By = None,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Make a schedule, or change the one of that name. The same again changes nothing.

    Each run has the schedule's name and the due time for its id. Workers carry it out: nothing runs here.
    """
    with reported(debug):
        check_schedule_name(name)
        workflow, payload, pool = _target(target, read_input(input_json), words or ())
        spec = ScheduleSpec(
            workflow=workflow,
            payload=payload,
            cron=cron,
            every=None if every is None else read_span(every, "--every"),
            timezone=timezone,
            overlap="skip" if skip else "allow",
            catch_up=DEFAULT_CATCH_UP if catch_up is None else read_span(catch_up, "--catch-up"),
            start_at=None if start is None else read_time(start, "--from"),
            end_at=None if end is None else read_time(end, "--until"),
            pool=pool,
            attributes=encode_attributes(read_attributes(attribute)),
        )

        async def put(one: Schedule) -> None:
            await one.set_async(spec, reason=reason)
            info = await one.info_async()
            due = "paused" if info.next_due is None else f"due next {_clock(info.next_due, spec)}"
            note(f"{name} is {due}")

        _give(url, name, by, put)


def _target(
    target: str, input_json: str | None, words: Sequence[str]
) -> tuple[str, str, str | None]:
    """Name, input and pool of what is to be started."""
    if ":" in target or target.endswith(".py"):
        workflow = load_workflow(target)
        return workflow.name, bind(workflow, input_json, words).payload, workflow.pool
    if words:
        raise UsageError(
            f"{target!r} is only a name, so the order of its parameters is not known here: give --input "
            f"'{{...}}', or name the code, as in module:{target}"
        )
    return target, plain_object(input_json), None


def pause_schedule(
    name: Name,
    *,
    reason: Reason = None,
    by: By = None,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Let a schedule start nothing until it is resumed. What is due meanwhile is not made up for."""
    with reported(debug):
        _give(url, name, by, lambda one: one.pause_async(reason=reason))
        note(f"{name} is paused")


def resume_schedule(
    name: Name,
    *,
    reason: Reason = None,
    by: By = None,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Let a paused schedule go on, with the next due time."""
    with reported(debug):
        _give(url, name, by, lambda one: one.resume_async(reason=reason))
        note(f"{name} goes on")


def trigger_schedule(
    name: Name,
    *,
    reason: Reason = None,
    by: By = None,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Start a run now, beside those that are due, and print its id. Also where the schedule is paused."""

    async def trigger(one: Schedule) -> None:
        typer.echo((await one.trigger_async(reason=reason)).id)

    with reported(debug):
        _give(url, name, by, trigger)


def delete_schedule(
    name: Name,
    *,
    reason: Reason = None,
    by: By = None,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """End a schedule. Runs that it has started go on, and its history stays; its name can be used again."""
    with reported(debug):
        _give(url, name, by, lambda one: one.delete_async(reason=reason))
        note(f"{name} is deleted")


def _give(
    url: str, name: str, by: str | None, order: Callable[[Schedule], Awaitable[object]]
) -> None:
    async def give() -> None:
        async with client_at(url, by) as engine, awaiting_worker():
            await order(engine.get_schedule(name))

    asyncio.run(give())


# Looking at them ------------------------------------------------------------------------------------------


def list_schedules(
    *,
    views: Views = None,
    from_log: FromLog = False,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """List the schedules, with what they start, when they are due next, and what they have started.

    As `refold list` it asks the read model where one is kept that has all that is in the log. --json has the inputs as
    well, which stand in the log alone: it reads that.
    """

    async def read() -> Sequence[ScheduleInfo]:
        async with opened(shared_log_at(with_archive(url, archive), may_make=False)) as log:
            with ExitStack() as stack:
                only_log = from_log or json
                view = None if only_log else await view_of(stack, log, views)
                if view is not None:
                    return [_info_of(row) for row in view.schedules()]
            return await read_schedules(log, Blobs.of(log))

    with reported(debug):
        infos = asyncio.run(read())
        if json:
            for info in infos:
                print_json(_json(info))
        elif infos:
            _print_all(to_reader(), infos, wall_clock())
        else:
            to_reader().print(Text("there are no schedules", style="dim"))


def show_schedule(
    name: Name,
    *,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Show a schedule: what it starts, with which input, its next due times, and what it has started.

    Its whole history, with who changed it and why, is that of its own run: refold show schedule:NAME.
    """

    async def read() -> ScheduleInfo:
        async with opened(shared_log_at(with_archive(url, archive), may_make=False)) as log:
            return await read_schedule(log, Blobs.of(log), name)

    with reported(debug):
        info = asyncio.run(read())
        if json:
            print_json(_json(info))
        else:
            _print_one(to_reader(), info, wall_clock())


def _info_of(row: ScheduleRow) -> ScheduleInfo:
    """What the read model has of a schedule, as far as a line of the list needs it."""
    spec = ScheduleSpec(
        ENCRYPTED if row.workflow is None else row.workflow,
        "",
        cron=row.cron,
        every=row.every,
        timezone=row.timezone or "UTC",
    )
    return ScheduleInfo(
        row.name,
        spec,
        paused=row.paused,
        next_due=row.next_due,
        last_started_at=row.last_started_at,
        started=row.started,
        skipped=row.skipped,
        problem=row.problem,
        status=Status(row.status),
    )


def _print_all(console: Console, infos: Sequence[ScheduleInfo], now: int) -> None:
    numbers = ("LAST", "STARTED", "SKIPPED")
    table = plain_table("NAME", "WORKFLOW", "WHEN", "NEXT", *numbers, right=numbers, whole={"NEXT"})
    with_problems = any(info.problem for info in infos)
    if with_problems:
        table.add_column("PROBLEM", overflow="fold", max_width=48)
    for info in infos:
        problem = one_line(info.problem or "", MAX_CELL_CHARS)
        table.add_row(
            Text(printable(info.name), style="bold"),
            Text(printable(info.spec.workflow)),
            Text(_when(info.spec)),
            _next(info, now),
            Text("" if info.last_started_at is None else _ago(info.last_started_at, now)),
            Text(f"{info.started:,}"),
            Text(f"{info.skipped:,}"),
            *([Text(problem, style="yellow")] if with_problems else []),
        )
    console.print(table)


def _print_one(console: Console, info: ScheduleInfo, now: int) -> None:
    spec = info.spec
    rows: list[tuple[str, Text]] = [
        ("starts", Text(f"{printable(spec.workflow)}  {one_line(spec.payload, MAX_CELL_CHARS)}")),
        ("when", Text(_when(spec))),
        ("overlap", Text("skipped" if spec.overlap == "skip" else "allowed")),
        ("caught up", Text(f"up to {_span(spec.catch_up)} late")),
        ("next", _next(info, now)),
        ("started", Text(f"{info.started:,}, and {info.skipped:,} due times skipped")),
    ]
    if info.last_id is not None and info.last_started_at is not None:
        said = f"{printable(info.last_id)}, {_ago(info.last_started_at, now)}"
        rows.append(("last", Text(said)))
    if info.problem is not None:
        rows.append(("problem", Text(printable(info.problem), style="yellow")))
    console.print(Text(printable(info.name), style="bold"))
    console.print(facts_table(rows))
    if info.next_due is not None:
        after = info.next_due - timedelta(microseconds=1)
        upcoming = [_clock(at, spec) for at in islice(due_times(spec, after), UPCOMING)]
        console.print(Text("due " + "\n    ".join(upcoming), style="dim"))
    console.print(Text(f"history: refold show {PREFIX}{printable(info.name)}", style="dim"))


def _next(info: ScheduleInfo, now: int) -> Text:
    if info.status is not Status.RUNNING:
        return Text(info.status.value, style=STATUS_STYLES[info.status.value])
    if info.paused:
        return Text("paused", style=STATUS_STYLES[Status.PAUSED.value])
    if info.next_due is None:
        return Text("")
    return Text(f"{_clock(info.next_due, info.spec)}, {_ago(info.next_due, now)}")


def _when(spec: ScheduleSpec) -> str:
    if spec.every is not None:
        return f"every {_span(spec.every)}"
    return "" if spec.cron is None else f"{spec.cron}  {spec.timezone}"


def _span(length: timedelta) -> str:
    """A length of time as it is typed: 15m, 1h30m, 1d."""
    minutes, seconds = divmod(length.seconds, 60)
    parts = zip((length.days, minutes // 60, minutes % 60), "dhm", strict=True)
    text = "".join(f"{count}{unit}" for count, unit in parts if count)
    seconds_us = seconds * 1_000_000 + length.microseconds
    return f"{text}{seconds_us / 1_000_000:g}s" if seconds_us or not text else text


def _ago(at: datetime, now: int) -> str:
    return ago(microseconds(at), now)


def _clock(at: datetime, spec: ScheduleSpec) -> str:
    """A due time by the clocks that it is meant by."""
    try:
        local = at.astimezone(ZoneInfo(spec.timezone))
    except (ZoneInfoNotFoundError, ValueError, OSError):  # not on this machine
        return at.isoformat()
    return f"{local:%Y-%m-%d %H:%M:%S %Z}"


def _json(info: ScheduleInfo) -> dict[str, Any]:
    """All that is known, times in ISO 8601, lengths in seconds."""
    told: dict[str, Any] = {**asdict(info.spec), **asdict(info)}
    del told["spec"], told["ended"], told["payload"]
    told["input"] = info.spec.payload
    told["status"] = info.status.value
    for key, value in told.items():
        if isinstance(value, datetime):
            told[key] = value.isoformat().replace("+00:00", "Z")
        elif isinstance(value, timedelta):
            told[key] = value.total_seconds()
    return told
