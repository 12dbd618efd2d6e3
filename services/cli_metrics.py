"""`refold metrics`: metrics folded from the log's events, as tables, as JSON, or served to Prometheus."""

import asyncio
import signal
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from refold.engine.worker import wall_clock
from refold.log.errors import LogUnavailable, UsageError
from refold.log.protocol import Log
from refold.log.urls import with_archive
from refold.projections.metric_fold import MONDAY, Cells, MetricFold
from refold.projections.metric_tables import MemoryMetrics, MetricTables, cells_of
from refold.projections.metrics import Metric
from refold.projections.metrics_ready import READY
from refold.projections.runner import Runner
from refold.projections.sqlite_store import SqliteStore, ViewFiles, open_for_reading
from refold.projections.store import Identity
from refold.projections.target import Target
from refold.services.cli_list import Json
from refold.services.cli_values import read_moment, read_span
from refold.services.exits import reported
from refold.services.intake import catch_up
from refold.services.loading import load_metrics
from refold.services.metric_view import Period, lines_of, period_text, print_metric, series_of
from refold.services.opening import (
    DEFAULT_URL,
    Archive,
    Debug,
    Url,
    opened,
    shared_log_at,
)
from refold.services.spans import microseconds
from refold.services.terminal import note, print_json, to_reader

DEFAULT_ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class _Kept:
    """Where the metrics are folded into, and what they came to."""

    target: Target
    cells: Callable[[], Cells]


def metrics(  # noqa: PLR0913 - each an option of the command
    modules: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODULE[:NAME]]...",
            help="Where the metrics are: functions with @metric. Without, those that come with refold.",
            show_default=False,
        ),
    ] = None,
    *,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="From then on: 30d is thirty days ago.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", "--before", metavar="TIME", help="Before then.", show_default=False
        ),
    ] = None,
    every: Annotated[
        str, typer.Option("--every", metavar="SPAN", help="Length of a window: 1h, 1d, 1w.")
    ] = "1d",
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            help="Keep what was folded there, and go on from it next time.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65_535,
            help="Follow the log and serve the metrics for Prometheus at this port, at /metrics; 0 takes any free one.",
            show_default=False,
        ),
    ] = None,
    address: Annotated[
        str, typer.Option("--address", help="Where to serve them.")
    ] = DEFAULT_ADDRESS,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Fold metrics from the log's events: from the first one on, so that a metric of today has values for last year.

    A window belongs to the period in which it begins. Windows are counted from a Monday, 00:00 UTC. With --json
    there is a line for each series and window.
    """
    with reported(debug):
        now = wall_clock()
        span = round(read_span(every, "--every").total_seconds() * 1_000_000)
        fold = MetricFold(load_metrics(modules) if modules else READY, span)
        first, last = (
            None if at is None else microseconds(at)
            for at in (read_moment(since, now, "--since"), read_moment(until, now, "--until"))
        )
        whole = with_archive(url, archive)
        if port is not None:
            asyncio.run(_serve(whole, fold, keep, address, port))
            return
        _refuse_no_window(first, now if last is None else last, span, every)
        cells = asyncio.run(_folded(whole, fold, keep))
        if json:
            for one in fold.metrics:
                for line in lines_of(series_of(cells, one, first, last), one):
                    print_json(line)
            return
        _print(fold.metrics, cells, _period(cells, span, first, last))


def _refuse_no_window(since: int | None, until: int, every: int, said: str) -> None:
    if since is not None and since < until <= _next_window(since, every):
        raise UsageError(
            f"no window of {said} begins in that period, so that nothing would be in it: give a shorter one, as in "
            "--every 5m, or an earlier --since"
        )


def _next_window(at: int, every: int) -> int:
    """Where the first window begins that does not begin before a time."""
    return -(-(at - MONDAY) // every) * every + MONDAY


def _period(cells: Cells, every: int, since: int | None, until: int | None) -> Period:
    """Where the period is open, it begins and ends with what was measured."""
    times = [key.at for key in cells]
    first = min(times, default=MONDAY) if since is None else _next_window(since, every)
    last = max(times, default=MONDAY) + every if until is None else until
    return Period(first, max(last, first + every), every)


def _print(metrics: Sequence[Metric], cells: Cells, period: Period) -> None:
    console = to_reader()
    for one in metrics:
        print_metric(console, one, series_of(cells, one, period.since, period.until), period)
        console.print()
    console.print(Text(period_text(period), style="dim"))


async def _folded(url: str, fold: MetricFold, keep: Path | None) -> Cells:
    async with opened(shared_log_at(url, may_make=False)) as log:
        kept = _kept(log, fold, keep)
        runner = Runner(log, kept.target)
        await catch_up(runner)
        return kept.cells()


async def _serve(url: str, fold: MetricFold, keep: Path | None, address: str, port: int) -> None:
    # Imported when asked for: it needs a package that others can do without.
    from refold.services.metric_exposition import served  # noqa: PLC0415

    async with opened(shared_log_at(url, may_make=False)) as log:
        kept = _kept(log, fold, keep)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        with served(fold.metrics, kept.cells, address, port) as bound:
            note(f"metrics at http://{address}:{bound}/metrics; Ctrl-C ends")
            await Runner(log, kept.target).follow(stop)


def _kept(log: Log, fold: MetricFold, keep: Path | None) -> _Kept:
    if keep is None:
        memory = MemoryMetrics(fold)
        return _Kept(memory, memory.cells)
    tables = MetricTables(fold)
    store = SqliteStore(tables, Identity.of(log), keep)
    return _Kept(store, lambda: _read_cells(ViewFiles(keep, tables.name).link))


def _read_cells(path: Path) -> Cells:
    if not path.exists():  # the server may be asked before the tables are there
        return {}
    try:
        with closing(open_for_reading(path)) as connection:
            return cells_of(connection.execute("SELECT metric, at, labels, cell FROM metric_cells"))
    except sqlite3.Error as error:
        raise LogUnavailable(
            f"the metrics that are kept in {path} can't be read: {error}"
        ) from error
