"""`refold diff`: what changed between two moments of the log."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from refold.engine.blobs import Blobs
from refold.engine.changes import Changes, RunChange, read_changes
from refold.engine.moments import AtPosition, Moment, stop_at, stops_at
from refold.engine.names import check_id
from refold.engine.showing import shown
from refold.engine.state import Status
from refold.engine.worker import wall_clock
from refold.log.errors import UsageError
from refold.log.protocol import Log
from refold.log.urls import with_archive
from refold.projections.audit_actions import Action, Wanted, action_of
from refold.projections.feed import position_at, read_batches
from refold.services.cli_audit import action_table
from refold.services.cli_list import Json, readable, run_json
from refold.services.cli_moments import read_at, read_moment_at
from refold.services.cli_read import print_events
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url, opened, shared_log_at
from refold.services.spans import iso
from refold.services.terminal import one_line, plain_table, print_json, printable, to_reader
from refold.services.timeline_json import event_json
from refold.services.timeline_view import STATUS_STYLES

DEFAULT_LIMIT = 30
"""Rows of each table: with all tables, two screens or three."""

_OUTCOMES = ("step.completed", "step.failed", "step.attempt_failed")


def diff(  # noqa: PLR0913 - each an option of the command
    id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="What concerns this run alone.", show_default=False),
    ] = None,
    *,
    first: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="WHEN",
            help="The earlier moment: a time (2h is two hours ago), PARTITION:OFFSET, or of one run a position.",
        ),
    ],
    last: Annotated[
        str, typer.Option("--to", metavar="WHEN", help="The later one; now where not given.")
    ] = "now",
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Rows of each table; 0 for all.")
    ] = DEFAULT_LIMIT,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Show what changed between two moments: how runs stood and stand, what steps came to, who did what.

    The log is folded up to the later moment; of one run, its own events alone.
    """
    with reported(debug):
        now = wall_clock()
        if id is not None:
            check_id(id)
            between = read_at(first, now, "--from"), read_at(last, now, "--to")
        else:
            between = read_moment_at(first, now, "--from"), read_moment_at(last, now, "--to")
        whole = with_archive(url, archive)
        changes, actions = asyncio.run(_read(whole, id, between))
        if json:
            print_json(changes_json(changes, actions))
            return
        blobs = Blobs.of(shared_log_at(whole, may_make=False))
        changes.history = [shown(event, blobs) for event in changes.history]
        changes.runs = [run._replace(after=readable(run.after, blobs)) for run in changes.runs]
        _print(to_reader(), changes, actions, limit)


async def _read(
    url: str, id_: str | None, between: tuple[Moment, Moment]
) -> tuple[Changes, list[Action]]:
    async with opened(shared_log_at(url, may_make=False)) as log:
        first, last = [await _stops(log, id_, moment_) for moment_ in between]
        late = [p for p, stop in first.items() if stop > last[p]]
        if late:
            raise UsageError(
                f"--from is after --to: of partition {late[0]} it means offset {first[late[0]]}, and --to means "
                f"{last[late[0]]}. Give the earlier moment first"
            )
        return await read_changes(log, first, last, id_), await _actions(log, first, last, id_)


async def _actions(
    log: Log, first: Mapping[int, int], last: Mapping[int, int], id_: str | None
) -> list[Action]:
    """Who did what in between, as `refold audit log` tells it."""
    wanted, found = Wanted(workflow_id=id_), list[Action]()
    for partition, offset in first.items():
        start = await position_at(log, partition, offset)
        batches = read_batches(log, partition, start, last[partition], key=id_)
        async for batch in batches:
            actions = [action_of(logged) for logged in batch.logged]
            found.extend(one for one in actions if one is not None and wanted.has(one))
    return sorted(found, key=lambda action: action.at)


async def _stops(log: Log, id_: str | None, moment_: Moment) -> Mapping[int, int]:
    if id_ is None:
        assert not isinstance(moment_, AtPosition), "of all runs, nothing reads one"
        return await stops_at(log, moment_)
    return {log.layout.place(id_): await stop_at(log, id_, moment_)}


def changes_json(changes: Changes, actions: Sequence[Action]) -> dict[str, object]:
    """The object of `refold diff --json`."""
    return {
        "before": dict(changes.before),
        "after": dict(changes.after),
        "events": dict(changes.events),
        "runs": [
            {
                "before": None if run.before is None else run_json(run.before),
                "after": run_json(run.after),
            }
            for run in changes.runs
        ],
        "steps": [
            {**step._asdict(), **{kind: counts[kind] for kind in _OUTCOMES}}
            for step, counts in sorted(changes.steps.items())
        ],
        "orders": [{**action._asdict(), "at": iso(action.at)} for action in actions],
        "history": [event_json(event) for event in changes.history],
    }


def _print(console: Console, changes: Changes, actions: Sequence[Action], limit: int) -> None:
    if not changes.events:
        console.print(Text("nothing was recorded in between", style="dim"))
        return
    console.print(_counts(changes.before, changes.after))
    runs = [run for run in changes.runs if _changed(run)]
    _titled(console, _run_table(runs[: limit or None]), len(runs), limit, "RUNS THAT CHANGED")
    _titled(console, _step_table(changes, limit), len(changes.steps), limit, "STEPS")
    orders = action_table(actions[: limit or None])
    _titled(console, orders, len(actions), limit, "WHO DID WHAT")
    if changes.history:
        console.print()
        print_events(console, changes.history)
    total = sum(changes.events.values())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in changes.events.most_common(4))
    console.print(
        Text(f"\n{total:,} events: {kinds}{', ...' if len(changes.events) > 4 else ''}", "dim")
    )


def _titled(console: Console, table: Table, rows: int, limit: int, title: str) -> None:
    if not rows:
        return
    console.print(Text(f"\n{title}", style="bold"))
    console.print(table)
    if limit and rows > limit:
        console.print(Text(f"{rows - limit:,} more: --limit 0 shows all", style="dim"))


def _counts(before: Counter[str], after: Counter[str]) -> Table:
    table = plain_table("RUNS", "BEFORE", "AFTER", "CHANGE", right=("BEFORE", "AFTER", "CHANGE"))
    for status in Status:
        was, is_ = before[status.value], after[status.value]
        if was or is_:
            change = Text(f"{is_ - was:+,}" if is_ != was else "", style="bold")
            name = Text(status.value, style=STATUS_STYLES[status.value])
            table.add_row(name, f"{was:,}", f"{is_:,}", change)
    return table


def _changed(run: RunChange) -> bool:
    return run.before is None or run.before != run.after


def _run_table(runs: list[RunChange]) -> Table:
    table = plain_table("ID", "WORKFLOW", "WAS", "IS", "EVENTS", "REASON", right=("EVENTS",))
    for before, after in runs:
        was = "" if before is None else before.status.value
        table.add_row(
            Text(printable(after.workflow_id), style="bold"),
            Text(printable(after.workflow)),
            Text(was or "not there", style=STATUS_STYLES.get(was, "dim")),
            Text(after.status.value, style=STATUS_STYLES[after.status.value]),
            Text(f"+{after.events - (0 if before is None else before.events):,}"),
            Text(one_line(after.reason or "", 60), style="dim"),
        )
    return table


def _step_table(changes: Changes, limit: int) -> Table:
    numbers = ("COMPLETED", "FAILED", "ATTEMPTS FAILED")
    table = plain_table("WORKFLOW", "VERSION", "STEP", *numbers, right=("VERSION", *numbers))
    for step, counts in sorted(changes.steps.items())[: limit or None]:
        done, failed, attempts = (counts[kind] for kind in _OUTCOMES)
        table.add_row(
            Text(printable(step.workflow)),
            str(step.version),
            Text(printable(step.name), style="bold"),
            f"{done:,}",
            Text(f"{failed:,}" if failed else "", style="red"),
            Text(f"{attempts:,}" if attempts else "", style="yellow"),
        )
    return table
