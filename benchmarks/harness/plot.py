"""The pictures: cost of a step against the number of workflows, recovery against the log, gaps when partitions move."""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# matplotlib is installed for `make bench` only.

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from plan import BACKENDS, SESSION_MS, TITLES, Backend
from results import Curve, Sample

COLOURS: dict[Backend, str] = {"memory": "#6b7280", "sqlite": "#2563eb", "kafka": "#d97706"}
GRID = "#e5e7eb"
BOUND = "#dc2626"

COSTS = {
    "growth": "1,000 workflows at a time, one after the other:\nworkflows done so far",
    "burst": "all workflows at once:\nhow many",
}
RECOVERIES = {
    "history": ("-", "with checkpoints"),
    "whole-history": (":", "without checkpoints"),
}
GAPS = {
    "stopped": "a worker\nis stopped",
    "joined": "a worker\ncomes",
    "killed": "a worker\nis killed",
}
HAND_OVER = "hand-over"
OPEN_WORK = "open-work"
GRACEFUL_MS = 1_000
GAP_TICKS_MS = (100, 200, 500, 1_000, 2_000, 5_000, 10_000)
THOUSANDS = StrMethodFormatter("{x:,.0f}")
PLAIN = StrMethodFormatter("{x:g}")
LEGEND_ROOM = 8
"""How many times higher a logarithmic axis is for the legend to have room above the curves."""
ROW = 0.36
"""Height that the dots of one kind are spread over; a kind's row is 1 high."""


def draw_all(json_path: Path, curves: Sequence[Curve], samples: Sequence[Sample]) -> list[Path]:
    """Draw what there are figures for, beside the file that they are kept in.

    Returns:
        The pictures' paths.
    """
    drawn: list[Path] = []
    measured = {curve.benchmark for curve in curves}
    if measured & COSTS.keys():
        drawn.append(json_path.with_suffix(".svg"))
        draw(drawn[-1], curves)
    if measured & {*RECOVERIES, OPEN_WORK}:
        drawn.append(json_path.with_name(f"{json_path.stem}-recovery.svg"))
        draw_recovery(drawn[-1], curves)
    if samples:
        drawn.append(json_path.with_name(f"{json_path.stem}-gaps.svg"))
        draw_gaps(drawn[-1], samples)
    return drawn


def draw(path: Path, curves: Sequence[Curve]) -> None:
    """Draw the cost of a step, in the format that the path's suffix names. Flat is what it should be."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, len(COSTS), sharey=True)
    for panel, (benchmark, label) in zip(axes, COSTS.items(), strict=True):
        for curve in curves:
            if curve.benchmark == benchmark:
                _plot(panel, curve, "o-" if benchmark == "burst" else "-", TITLES[curve.backend])
        if benchmark == "burst":
            panel.set_xscale("log")
        panel.set_xlabel(label)
        _tidy(panel)
    axes[0].set_ylabel("cost of a one-step workflow, µs")
    axes[0].set_ylim(bottom=0)
    axes[-1].legend(frameon=False, loc="lower right")
    figure.suptitle(
        "Cost of a step against the number of workflows: a level line is what it should be",
        fontsize=11,
    )
    _save(figure, path)


def draw_recovery(path: Path, curves: Sequence[Curve]) -> None:
    """Draw how soon a worker is ready: against the history level, against what is open a straight line."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for curve in curves:
        title = TITLES[curve.backend]
        if curve.benchmark in RECOVERIES:
            style, how = RECOVERIES[curve.benchmark]
            _plot(left, curve, f"o{style}", f"{title}, {how}")
        elif curve.benchmark == OPEN_WORK:
            _plot(right, curve, "o-", title)
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_ylim(top=left.get_ylim()[1] * LEGEND_ROOM)
    for axis, formatter in ((left.xaxis, THOUSANDS), (left.yaxis, PLAIN)):
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter(formatter)
        axis.set_minor_formatter(NullFormatter())
    right.xaxis.set_major_formatter(THOUSANDS)
    left.set_xlabel("events in the log, the same number of runs open")
    right.set_xlabel("open runs, the log of the same length")
    right.set_xlim(left=0)
    right.set_ylim(bottom=0)
    for panel in (left, right):
        panel.set_ylabel("from opening to ready, s")
        _tidy(panel)
        if panel.lines:
            panel.legend(frameon=False, loc="upper left")
    figure.suptitle(
        "Recovery: with checkpoints it depends on what is open, not on how long the history is",
        fontsize=11,
    )
    _save(figure, path)


def draw_gaps(path: Path, samples: Sequence[Sample]) -> None:
    """Draw every gap as a dot, the median of each kind as a stroke, and how long they may be as a line."""
    measured = {sample.backend for sample in samples}
    backends: list[Backend] = [backend for backend in BACKENDS if backend in measured]
    figure = Figure(figsize=(10, 0.9 + 1.5 * len(backends)), layout="constrained")
    axes = figure.subplots(len(backends), 1, sharex=True, squeeze=False)[:, 0]
    for panel, backend in zip(axes, backends, strict=True):
        for row, kind in enumerate(reversed(GAPS)):
            gaps_ms = [
                gap
                for sample in samples
                if (sample.benchmark, sample.backend, sample.name) == (HAND_OVER, backend, kind)
                for gap in sample.values
            ]
            _strip(panel, row, gaps_ms, COLOURS[backend])
            bound = GRACEFUL_MS + (SESSION_MS if (backend, kind) == ("kafka", "killed") else 0)
            panel.plot([bound, bound], [row - 0.4, row + 0.4], color=BOUND, linewidth=1.4)
        panel.set_xscale("log")
        panel.set_xticks(GAP_TICKS_MS, labels=[f"{tick:,}" for tick in GAP_TICKS_MS])
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_yticks(range(len(GAPS)), labels=list(reversed(GAPS.values())), fontsize=8)
        panel.set_ylabel(TITLES[backend])
        _tidy(panel)
    axes[-1].set_xlabel(
        "how long a partition stands still, ms; each dot is one move, red is the most it may be"
    )
    figure.suptitle("Gaps when partitions go from one worker to another", fontsize=11)
    _save(figure, path)


def _strip(panel: Axes, row: int, gaps_ms: Sequence[float], colour: str) -> None:
    if not gaps_ms:
        return
    spread = [row + ROW * (2 * (number * 0.618 % 1) - 1) for number in range(len(gaps_ms))]
    panel.plot(gaps_ms, spread, "o", color=colour, markersize=3.5, alpha=0.55, markeredgewidth=0)
    median = statistics.median(gaps_ms)
    panel.plot([median, median], [row - ROW, row + ROW], color=colour, linewidth=2.2)


def _plot(panel: Axes, curve: Curve, style: str, label: str) -> None:
    panel.plot(
        [x for x, _ in curve.points],
        [y for _, y in curve.points],
        style,
        color=COLOURS[curve.backend],
        linewidth=1.4,
        markersize=4,
        label=label,
    )


def _tidy(panel: Axes) -> None:
    panel.grid(visible=True, which="major", color=GRID)
    panel.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    with mpl.rc_context({"svg.hashsalt": "refold"}):  # the same figures give the same file
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)
