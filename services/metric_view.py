"""Metrics as tables: a row for each series, with a picture of how it went."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from rich.console import Console
from rich.text import Text

from refold.projections.histogram import Cell
from refold.projections.metric_fold import Cells
from refold.projections.metrics import Metric
from refold.services.spans import MICROSECONDS, iso, moment, span
from refold.services.terminal import one_line, plain_table, printable

BARS: Final = "▁▂▃▄▅▆▇█"
MAX_BARS: Final = 30
"""Windows side by side in a picture: where there are more, some are drawn as one."""
MAX_LABEL_CHARS: Final = 40
_PERCENTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


class Period(NamedTuple):
    """From where to where, and in which windows.

    Args:
        since: Where the first window begins, microseconds since 1970-01-01 UTC.
        until: Where the last one ends.
        every: Length of a window.
    """

    since: int
    until: int
    every: int


class Series(NamedTuple):
    """One series of a metric: its labels' values, its cells by window, and all of them together."""

    labels: tuple[str, ...]
    windows: Mapping[int, Cell]
    whole: Cell


def series_of(cells: Cells, one: Metric, since: int | None, until: int | None) -> list[Series]:
    """The series of a metric, the fullest first.

    Args:
        cells: All cells.
        one: The metric.
        since: Only windows that begin then or later, microseconds since 1970-01-01 UTC.
        until: Only windows that begin before.
    """
    found: dict[tuple[str, ...], dict[int, Cell]] = {}
    for key, cell in cells.items():
        inside = (since is None or key.at >= since) and (until is None or key.at < until)
        if key.metric == one.name and inside:
            found.setdefault(key.labels, {})[key.at] = cell
    series = [
        Series(labels, windows, merged(windows.values())) for labels, windows in found.items()
    ]
    return sorted(series, key=lambda s: (-s.whole.count, s.labels))


def merged(cells: Iterable[Cell]) -> Cell:
    """All of some cells in one."""
    whole = Cell()
    for cell in cells:
        whole.merge(cell)
    return whole


def figures_of(cell: Cell, one: Metric) -> dict[str, float]:
    """What is told of a cell, by name."""
    match one.aggregate:
        case "count":
            return {"count": cell.count}
        case "sum":
            return {"count": cell.count, "sum": cell.sum}
        case "rate":
            return {"count": cell.count, "rate": cell.mean}
        case "percentiles":
            spread = {name: cell.percentile(share) for name, share in _PERCENTILES}
            return {
                "count": cell.count,
                "sum": cell.sum,
                "mean": cell.mean,
                **spread,
                "max": cell.high,
            }


_DRAWN: Final = {"count": "count", "sum": "sum", "rate": "rate", "percentiles": "p95"}


def lines_of(series: Sequence[Series], one: Metric) -> list[dict[str, object]]:
    """Lines of `refold metrics --json`: one for each series and window."""
    return [
        {
            "metric": one.name,
            "unit": one.unit,
            **dict(zip(one.by, each.labels, strict=True)),
            "at": iso(at),
            **figures_of(cell, one),
        }
        for each in series
        for at, cell in sorted(each.windows.items())
    ]


def print_metric(console: Console, one: Metric, series: Sequence[Series], period: Period) -> None:
    """A metric's table.

    Args:
        console: Where to.
        one: The metric.
        series: Its series; may be none.
        period: What the pictures show.
    """
    title = Text().append(one.name, "bold")
    title.append(f"  {one_line(one.about, 90)}" if one.about else "", "dim")
    console.print(title)
    if not series:
        console.print(Text("  nothing was measured", style="dim"))
        return
    table = plain_table()
    for label in one.by:
        heading = Text(printable(label.upper()))
        table.add_column(heading, overflow="fold", max_width=MAX_LABEL_CHARS)
    shown = [name for name in figures_of(series[0].whole, one) if name != "mean"]
    for name in shown:
        unit = f" ({one.unit})" if name == "sum" and one.unit not in {"", "s"} else ""
        table.add_column(Text(f"{name.upper()}{unit}"), justify="right", no_wrap=True)
    drawn = _DRAWN[one.aggregate]
    table.add_column(f"{drawn.upper()} OVER TIME", no_wrap=True)
    for each in series:
        figures = figures_of(each.whole, one)
        table.add_row(
            *(Text(printable(value)) for value in each.labels),
            *(Text(_text(name, figures[name], one)) for name in shown),
            Text(sparkline(each, one, period), style="cyan"),
        )
    console.print(table)


def period_text(period: Period) -> str:
    """What the pictures show, in words: from when to when, and what a bar is."""
    windows = -(-(period.until - period.since) // period.every)
    bar = period.every * _together(windows)
    days = f"{moment(period.since):%Y-%m-%d %H:%M} to {moment(period.until):%Y-%m-%d %H:%M} UTC"
    return f"{days}; a bar is {span(bar)}"


def sparkline(series: Series, one: Metric, period: Period) -> str:
    """A bar for each window, on the scale of the highest; a space where nothing was measured."""
    windows = -(-(period.until - period.since) // period.every)
    together = _together(windows)
    bars: list[float | None] = []
    for first in range(0, windows, together):
        times = range(first, min(first + together, windows))
        cells = [series.windows.get(period.since + n * period.every) for n in times]
        there = [cell for cell in cells if cell is not None]
        bars.append(figures_of(merged(there), one)[_DRAWN[one.aggregate]] if there else None)
    top = max((bar for bar in bars if bar is not None), default=0.0)
    return "".join(" " if bar is None else _bar(bar, top) for bar in bars)


def _together(windows: int) -> int:
    return max(1, -(-windows // MAX_BARS))


def _bar(value: float, top: float) -> str:
    if top <= 0 or value <= 0:
        return BARS[0]
    return BARS[min(len(BARS) - 1, int(value / top * len(BARS)))]


def _text(name: str, value: float, one: Metric) -> str:
    if name == "count":
        return f"{value:,.0f}"
    if name == "rate":
        return f"{value:.1%}" if 0 < value < 1 else f"{value:.0%}"
    if one.unit == "s":
        return span(round(value * MICROSECONDS))
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.3g}"
