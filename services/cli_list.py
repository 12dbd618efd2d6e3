"""`refold list`: how the runs in the log stand, and the table of runs that bulk orders show as well."""

import asyncio
import json as json_text
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from refold.engine.moments import AtOffset, AtTime, stops_at, time_of
from refold.engine.reader import WorkflowInfo, read_all
from refold.engine.selection import Runs
from refold.engine.state import Status
from refold.engine.worker import wall_clock
from refold.log.attributes import Tag, decode_attributes
from refold.log.urls import with_archive
from refold.services.cli_filter import ListWords, filtered
from refold.services.cli_moments import AtMoment, read_moment_at
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url, opened, shared_log_at
from refold.services.spans import ago, iso, microseconds, span
from refold.services.terminal import one_line, print_json, printable, to_reader
from refold.services.timeline_view import STATUS_STYLES

DEFAULT_LIMIT = 50
"""Runs that `refold list` shows: the latest, on a screen or two."""

OPEN = frozenset({Status.RUNNING, Status.PARKED, Status.PAUSED, Status.COPYING})
"""How runs stand that have not ended."""

MAX_CELL_CHARS = 200
"""Of a run's attributes, or of the reason why it is parked; `--json` has all."""

Json = Annotated[bool, typer.Option("--json", help="JSON instead, for programs.")]


@filtered
def list_runs(
    *,
    where: ListWords,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="The latest so many; 0 for all.")
    ] = DEFAULT_LIMIT,
    at: AtMoment = None,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """List the runs in the log, the latest first, as they stand now or stood at a time.

    All that is asked for must hold: `--status failed --workflow checkout` are the checkouts that failed. Versions,
    parents, attributes and reasons have a column where a run on the list has them.
    """
    with reported(debug):
        now = wall_clock()
        if at is None:
            infos = find_runs(with_archive(url, archive), where.runs(now))
        else:  # "ago" and "so far" count from then
            infos, now = _runs_at(
                with_archive(url, archive), where.runs(now), read_moment_at(at, now)
            )
        shown = infos[:limit] if limit else infos
        if json:
            for info in shown:
                print_json(run_json(info))
            return
        if not shown:
            nothing = "no run is like that" if where.given else "there are no runs yet"
            to_reader().print(Text(nothing, style="dim"))
            return
        print_runs(to_reader(), shown, now)
        if len(infos) > len(shown):
            more = f"{len(infos) - len(shown):,} more: --limit 0 shows all"
            to_reader().print(Text(more, style="dim"))
        if at is not None:
            to_reader().print(Text(counts_line(infos), style="dim"))


def find_runs(url: str, where: Runs) -> list[WorkflowInfo]:
    """The runs that are meant, the latest started first.

    Raises:
        LogError: The log can't be read, or is not there.
    """

    async def find() -> list[WorkflowInfo]:
        async with opened(shared_log_at(url, may_make=False)) as log:
            return where.among(await read_all(log))

    return asyncio.run(find())


def _runs_at(url: str, where: Runs, moment: AtTime | AtOffset) -> tuple[list[WorkflowInfo], int]:
    """The same as of a moment, and its time in microseconds since 1970-01-01 UTC."""

    async def find() -> tuple[list[WorkflowInfo], int]:
        async with opened(shared_log_at(url, may_make=False)) as log:
            infos = await read_all(log, await stops_at(log, moment))
            return where.among(infos), await time_of(log, moment)

    return asyncio.run(find())


def counts_line(infos: Sequence[WorkflowInfo]) -> str:
    """How many runs there are, in all and by status: `7 runs: 5 completed, 2 failed`."""
    counts = Counter(info.status.value for info in infos)
    said = ", ".join(f"{count:,} {status}" for status, count in counts.most_common())
    return f"{len(infos):,} {'run' if len(infos) == 1 else 'runs'}: {said}"


def print_runs(console: Console, infos: Sequence[WorkflowInfo], now: int) -> None:
    """A table of runs.

    Args:
        console: Where to.
        infos: The runs, at least one.
        now: Time to count from, microseconds since 1970-01-01 UTC.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("ID", overflow="fold")
    table.add_column("WORKFLOW", overflow="fold")
    table.add_column("STATUS", no_wrap=True)
    table.add_column("STARTED", no_wrap=True, justify="right")
    table.add_column("TOOK", no_wrap=True, justify="right")
    table.add_column("EVENTS", no_wrap=True, justify="right")
    extras = _extras(infos)
    if "VERSION" in extras:
        table.add_column("VERSION", no_wrap=True, justify="right")
    for name in ("PARENT", "ATTRIBUTES", "REASON"):
        if name in extras:
            table.add_column(name, overflow="fold", max_width=48)
    for info in infos:
        table.add_row(*_cells(info, now), *(extra[info.workflow_id] for extra in extras.values()))
    console.print(table)


def _cells(info: WorkflowInfo, now: int) -> tuple[Text, ...]:
    started, updated = microseconds(info.started_at), microseconds(info.updated_at)
    open_ = info.status in OPEN
    took = f"{span(max(0, now - started))} so far" if open_ else span(updated - started)
    return (
        Text(printable(info.workflow_id), style="bold"),
        Text(printable(info.workflow)),
        Text(info.status.value, style=STATUS_STYLES[info.status.value]),
        Text(ago(started, now)),
        Text(took, style="dim" if open_ else ""),
        Text(f"{info.events:,}"),
    )


def _extras(infos: Sequence[WorkflowInfo]) -> dict[str, dict[str, Text]]:
    """Columns that not every list needs, by name: their cells by run."""
    columns: dict[str, dict[str, Text]] = {}
    if any(info.version != 1 for info in infos):
        columns["VERSION"] = {info.workflow_id: Text(str(info.version)) for info in infos}
    texts: Mapping[str, list[str]] = {
        "PARENT": [info.parent_id or "" for info in infos],
        "ATTRIBUTES": [attributes_text(info.attributes) for info in infos],
        "REASON": [info.reason or "" for info in infos],
    }
    for name, cells in texts.items():
        if any(cells):
            columns[name] = {
                info.workflow_id: Text(one_line(cell, MAX_CELL_CHARS), style="dim")
                for info, cell in zip(infos, cells, strict=True)
            }
    return columns


def attributes_text(tags: Mapping[str, Tag]) -> str:
    """Attributes on one line, as `--attribute` takes them."""
    return " ".join(f"{name}={_tag_text(tag)}" for name, tag in sorted(tags.items()))


def _tag_text(tag: Tag) -> str:
    if isinstance(tag, datetime):
        return f"{tag:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(tag, str):
        plain = decode_attributes({"tag": tag})["tag"] == tag
        return tag if plain else json_text.dumps(tag, ensure_ascii=False)
    return str(tag).lower()  # true, false


def run_json(info: WorkflowInfo) -> dict[str, object]:
    """A line of `refold list --json`: all that is known of a run. Times are ISO 8601 in UTC."""
    return {
        "workflow_id": info.workflow_id,
        "workflow": info.workflow,
        "status": info.status.value,
        "started_at": _iso(info.started_at),
        "updated_at": _iso(info.updated_at),
        "events": info.events,
        "reason": info.reason,
        "version": info.version,
        "code_version": info.code_version,
        "attributes": {
            name: _iso(tag) if isinstance(tag, datetime) else tag
            for name, tag in info.attributes.items()
        },
        "parent_id": info.parent_id,
        "deadline": _iso(info.deadline),
        "patches": sorted(info.patches),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else iso(microseconds(at))
