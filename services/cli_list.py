"""`refold list`: how the runs in the log stand, and the table of runs that bulk orders show as well."""

import asyncio
import json as json_text
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, NamedTuple, get_args

import typer
from rich.console import Console
from rich.text import Text

from refold.engine.blobs import Blobs
from refold.engine.moments import AtOffset, AtTime, stops_at, time_of
from refold.engine.reader import WorkflowInfo, read_all
from refold.engine.selection import Runs
from refold.engine.showing import shown_note
from refold.engine.state import Status
from refold.engine.worker import wall_clock
from refold.log.attributes import Tag, decode_attributes
from refold.log.urls import with_archive
from refold.projections.workflows_counts import RunGroup
from refold.services.cli_filter import PANEL, ListWords, filtered
from refold.services.cli_moments import AtMoment, read_moment_at
from refold.services.exits import reported
from refold.services.listing import By, FoldListing, Listing, Page, Sort, Wanted, listing
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url, opened, shared_log_at
from refold.services.service_options import without_password
from refold.services.spans import ago, iso, microseconds, span
from refold.services.terminal import (
    counted,
    one_line,
    plain_table,
    print_json,
    printable,
    to_reader,
)
from refold.services.timeline_view import STATUS_STYLES

DEFAULT_LIMIT = 50
"""Runs that `refold list` shows: the latest, on a screen or two."""

OPEN = frozenset({Status.RUNNING, Status.QUEUED, Status.PARKED, Status.PAUSED, Status.COPYING})
"""How runs stand that have not ended."""

MAX_CELL_CHARS = 200
"""Of a run's attributes, or of the reason why it is parked; `--json` has all."""

Views = Annotated[
    str | None,
    typer.Option(
        "--views",
        envvar="REFOLD_VIEWS",
        callback=without_password,
        metavar="PLACE",
        help="Where `refold project` keeps the read model; beside a log in a file if not given.",
    ),
]

FromLog = Annotated[bool, typer.Option("--from-log", help="Read the log, not the read model.")]

Json = Annotated[bool, typer.Option("--json", help="JSON instead, for programs.")]


@filtered
def list_runs(  # noqa: PLR0913 - each an option of the command
    *,
    where: ListWords,
    parent: Annotated[
        str | None,
        typer.Option("--parent", metavar="ID", help="Children of this run.", rich_help_panel=PANEL),
    ] = None,
    error: Annotated[
        str | None,
        typer.Option(
            "--error",
            metavar="TEXT",
            help="Runs with TEXT in the error with which they ended.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    sort: Annotated[
        Sort,
        typer.Option("--sort", help="By what; the latest, longest, or last of the alphabet first."),
    ] = Sort.STARTED,
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="So many of them, or of their groups; 0 for all.")
    ] = DEFAULT_LIMIT,
    after: Annotated[
        str | None,
        typer.Option(
            "--after", metavar="PLACE", help="The page after this: what the last one said."
        ),
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Only how many they are.")] = False,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="WHAT",
            help=f"How many there are of each {', '.join(get_args(RunGroup))} or attribute:NAME; the most first.",
        ),
    ] = None,
    at: AtMoment = None,
    views: Views = None,
    from_log: FromLog = False,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """List the runs in the log, the latest first, as they stand now or stood at a time.

    All that is asked for must hold: `--status failed --workflow checkout` are the checkouts that failed. Versions,
    queues, parents, attributes and reasons have a column where a run on the list has them.

    Where `refold project` keeps the workflows read model, and it has all that is in the log, the answer comes from
    there; else the log is read.
    """
    with reported(debug):
        now = wall_clock()
        wanted = Wanted(where.runs(now), parent, error, sort, reverse)
        moment = None if at is None else read_moment_at(at, now)
        kind = None if by is None else By.read(by)
        asked = _Asked(wanted, limit, after, count, kind)
        address = with_archive(url, archive)
        answer = asyncio.run(_answered(address, asked, moment, views, from_log=from_log))
        if answer.page is None:
            _print_counts(answer.counts, kind, limit, json=json)
            return
        if json:
            for info in answer.page.infos:
                print_json(run_json(info))
            return
        given = where.given or parent is not None or error is not None or after is not None
        # "ago" and "so far" count from the moment
        _print_page(answer, now if answer.at is None else answer.at, limit, given=given)


def find_runs(url: str, where: Runs) -> list[WorkflowInfo]:
    """The runs that are meant, the latest started first.

    Raises:
        LogError: The log can't be read, or is not there.
    """

    async def find() -> list[WorkflowInfo]:
        async with opened(shared_log_at(url, may_make=False)) as log:
            blobs = Blobs.of(log)
            return [readable(info, blobs) for info in where.among(await read_all(log))]

    return asyncio.run(find())


def readable(info: WorkflowInfo, blobs: Blobs) -> WorkflowInfo:
    """A run whose reason can be read, where it is encrypted or in a blob store."""
    return info if info.reason is None else replace(info, reason=shown_note(info.reason, blobs))


class _Asked(NamedTuple):
    """What was typed."""

    wanted: Wanted
    limit: int
    after: str | None
    only_count: bool
    by: By | None


class _Answer(NamedTuple):
    """A page, or counts; as of a moment, its time (microseconds since 1970-01-01 UTC) and how many runs stood how."""

    page: Page | None
    counts: Mapping[str, int]
    at: int | None = None
    by_status: Mapping[str, int] | None = None


async def _answered(
    url: str,
    asked: _Asked,
    moment: AtTime | AtOffset | None,
    views: str | None,
    *,
    from_log: bool,
) -> _Answer:
    async with opened(shared_log_at(url, may_make=False)) as log:
        if moment is None:
            async with listing(log, views, from_log=from_log) as source:
                return _ask(source, asked, Blobs.of(log))
        source = FoldListing(await read_all(log, await stops_at(log, moment)))
        counts = source.group(asked.wanted, By("status"))
        return _ask(source, asked, Blobs.of(log))._replace(
            at=await time_of(log, moment), by_status=counts
        )


def _ask(source: Listing, asked: _Asked, blobs: Blobs) -> _Answer:
    if asked.by is not None:
        # one more, to know whether there are more
        return _Answer(None, source.group(asked.wanted, asked.by, asked.limit and asked.limit + 1))
    if asked.only_count:
        return _Answer(None, {"": source.count(asked.wanted)})
    page = source.page(asked.wanted, asked.limit, asked.after)
    return _Answer(replace(page, infos=[readable(info, blobs) for info in page.infos]), {})


def _print_page(answer: _Answer, now: int, limit: int, *, given: bool) -> None:
    page, console = answer.page, to_reader()
    if page is None or not page.infos:
        nothing = "no run is like that" if given else "there are no runs yet"
        console.print(Text(nothing, style="dim"))
        return
    print_runs(console, page.infos, now)
    if page.next is not None:
        more = f"{page.in_all:,} in all: --limit 0 shows all, --after {shlex.quote(page.next)} the next {limit}"
        console.print(Text(more, style="dim"))
    if answer.by_status is not None:
        console.print(Text(counts_line(answer.by_status), style="dim"))


def _print_counts(counts: Mapping[str, int], by: By | None, limit: int, *, json: bool) -> None:
    """Counts of each, or the one count."""
    shown = dict(list(counts.items())[: limit or None])
    if json:
        for key, count in shown.items():
            print_json({"runs": count} if by is None else {by.title: key, "runs": count})
        return
    if by is None:
        to_reader().print(Text(f"{counts['']:,}"))
        return
    title = by.title.upper().replace("_", " ")
    table = plain_table(title, "RUNS", right={"RUNS"})
    for key, count in shown.items():
        style = STATUS_STYLES.get(key, "") if by.kind == "status" else ""
        table.add_row(Text(printable(key), style=style), Text(f"{count:,}"))
    to_reader().print(table)
    if len(shown) < len(counts):
        to_reader().print(Text("there are more: --limit 0 shows all", style="dim"))


def counts_line(counts: Mapping[str, int]) -> str:
    """How many runs there are, in all and by status: `7 runs: 5 completed, 2 failed`."""
    said = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    return f"{counted(sum(counts.values()), 'run')}: {said}"


def print_runs(console: Console, infos: Sequence[WorkflowInfo], now: int) -> None:
    """A table of runs.

    Args:
        console: Where to.
        infos: The runs, at least one.
        now: Time to count from, microseconds since 1970-01-01 UTC.
    """
    extras = _extras(infos)
    numbers = ("STARTED", "TOOK", "EVENTS", *(("VERSION",) if "VERSION" in extras else ()))
    table = plain_table("ID", "WORKFLOW", "STATUS", *numbers, right=numbers, whole={"STATUS"})
    for name in ("QUEUE", "PARENT", "ATTRIBUTES", "REASON"):
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
        "QUEUE": [info.queue or "" for info in infos],
        "PARENT": [info.parent_id or "" for info in infos],
        "ATTRIBUTES": [attributes_text(info.attributes) for info in infos],
        "REASON": [
            (info.reason or "").removeprefix(f"workflow {info.workflow_id!r} is parked: ")
            for info in infos
        ],
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
        "queue": info.queue,
        "deadline": _iso(info.deadline),
        "patches": sorted(info.patches),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else iso(microseconds(at))
