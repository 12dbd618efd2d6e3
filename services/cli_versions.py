"""`refold versions`: which code is still needed, because runs are open on it, and which can go."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from refold.engine.definitions import Catalogue
from refold.engine.selection import Runs, meant
from refold.engine.state import Status
from refold.engine.worker import wall_clock
from refold.services.cli_list import OPEN, Json, find_runs
from refold.services.exits import ExitCode, reported
from refold.services.loading import load_workflows
from refold.services.opening import DEFAULT_URL, Debug, Url
from refold.services.spans import ago, iso, microseconds
from refold.services.terminal import plain_table, print_json, printable, to_person, to_reader
from refold.services.version_rows import Code, VersionRow, rows_of, unused

MAX_IDS = 5
"""Runs that are named where they wait for code; `refold list` has them all."""

_HASH_CHARS = 8
"""Of a code hash in the table: enough to see that two differ."""

_STATUSES = (Status.RUNNING, Status.QUEUED, Status.PARKED, Status.PAUSED, Status.COPYING)
_CODE_STYLES = {
    Code.SAME: "green",
    Code.CHANGED: "yellow",
    Code.MISSING: "bold red",
    Code.NEWEST: "dim",
    Code.UNUSED: "cyan",
    Code.UNKNOWN: "dim",
}


def versions(
    modules: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODULE[:NAME]",
            help="The code that is to be deployed, as `refold worker` takes it.",
        ),
    ] = None,
    *,
    json: Json = False,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Show which versions of workflows have open runs, so that one knows what code is still needed.

    PATCHES tells how many of the open runs take the new path of `patched(NAME)`: where it is all of them, the old path
    can go. With the code given it is compared: `same`, `changed` since the runs were started, `missing`, or `can go`
    where no open run is on an old version. The exit code is 5 where open runs wait for code that is missing.
    """
    with reported(debug):
        catalogue = Catalogue.of(load_workflows(modules)) if modules else None
        infos = meant(
            Runs(), find_runs(url, Runs(status=OPEN))
        )  # refold's own code goes with refold
        rows = rows_of(infos, catalogue)
        if catalogue is not None:
            rows = sorted([*rows, *unused(rows, catalogue)], key=lambda row: row.sort_key)
        if json:
            for row in rows:
                print_json(_json(row))
        else:
            _print(to_reader(), rows, wall_clock(), compared=catalogue is not None)
        missing = [row for row in rows if row.code is Code.MISSING]
        _tell_missing(missing)
        if missing:
            raise typer.Exit(ExitCode.REFUSED)


def _print(console: Console, rows: Sequence[VersionRow], now: int, *, compared: bool) -> None:
    if not rows:
        console.print(Text("no run is open: no version of any code is needed", style="dim"))
        return
    table = plain_table("WORKFLOW", "VERSION", right={"VERSION"})
    table.add_column("CODE", no_wrap=True, style="dim")
    if compared:
        table.add_column("HERE", no_wrap=True)
    statuses = [status for status in _STATUSES if _any(rows, status)] or [Status.RUNNING]
    for status in statuses:
        table.add_column(status.value.upper(), no_wrap=True, justify="right")
    table.add_column("OLDEST", no_wrap=True, justify="right")
    patches = any(row.patches for row in rows)
    if patches:
        table.add_column("PATCHES", overflow="fold")
    for row in rows:
        cells = [
            Text(printable(row.workflow), style="bold"),
            Text(str(row.version)),
            Text((row.code_version or "?")[:_HASH_CHARS]),
        ]
        if compared:
            cells.append(Text(row.code.value, style=_CODE_STYLES[row.code]))
        cells.extend(_count(row.counts[status]) for status in statuses)
        cells.append(_oldest(row.oldest, now))
        if patches:
            cells.append(_patches(row))
        table.add_row(*cells)
    console.print(table)


def _any(rows: Iterable[VersionRow], status: Status) -> bool:
    return any(row.counts[status] for row in rows)


def _count(count: int) -> Text:
    return Text(f"{count:,}" if count else "·", style="" if count else "dim")


def _oldest(oldest: datetime | None, now: int) -> Text:
    return Text("" if oldest is None else ago(microseconds(oldest), now))


def _patches(row: VersionRow) -> Text:
    """`euros 3/5`: of five runs, three take the new path."""
    text = Text()
    for name, taken in sorted(row.patches.items()):
        everyone = taken == row.open
        style = "green" if everyone else "yellow"
        text.append(f"{', ' if text else ''}{printable(name)} ")
        text.append(f"all {taken:,}" if everyone else f"{taken:,} of {row.open:,}", style)
    return text


def _tell_missing(missing: Sequence[VersionRow]) -> None:
    """What open runs wait for, on standard error."""
    person = to_person()
    for row in missing:
        runs = "1 open run waits" if row.open == 1 else f"{row.open:,} open runs wait"
        names = ", ".join(printable(id_) for id_ in row.ids[:MAX_IDS])
        more = ", ..." if row.open > MAX_IDS else ""
        line = Text.assemble(
            ("missing: ", "bold red"),
            f"{runs} for version {row.version} of workflow {printable(row.workflow)!r} ({names}{more}), which this "
            f"code does not have. Keep it, with @workflow(version={row.version}), until "
            f"{'it has' if row.open == 1 else 'they have'} ended",
        )
        person.print(line)


def _json(row: VersionRow) -> dict[str, object]:
    counts: Counter[Status] = row.counts
    return {
        "workflow": row.workflow,
        "version": row.version,
        "code_version": row.code_version,
        "code": None if row.code is Code.UNKNOWN else row.code.value,
        "open": row.open,
        **{status.value: counts[status] for status in _STATUSES},
        "oldest_started_at": None if row.oldest is None else iso(microseconds(row.oldest)),
        "patches": dict(sorted(row.patches.items())),
    }
