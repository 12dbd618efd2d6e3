"""The picture: cost of a step against the number of workflows. Flat is what it should be."""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# matplotlib is installed for `make bench` only.

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from plan import TITLES, Backend
from results import Curve

COLOURS: dict[Backend, str] = {"memory": "#6b7280", "sqlite": "#2563eb", "kafka": "#d97706"}
PANELS = {
    "growth": "1,000 workflows at a time, one after the other:\nworkflows done so far",
    "burst": "all workflows at once:\nhow many",
}


def draw(path: Path, curves: Sequence[Curve]) -> None:
    """Write the picture, in the format that the path's suffix names."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for panel, (benchmark, label) in zip(axes, PANELS.items(), strict=True):
        for curve in curves:
            if curve.benchmark == benchmark:
                style = "o-" if benchmark == "burst" else "-"
                panel.plot(
                    [workflows for workflows, _ in curve.points],
                    [cost for _, cost in curve.points],
                    style,
                    color=COLOURS[curve.backend],
                    linewidth=1.4,
                    markersize=4,
                    label=TITLES[curve.backend],
                )
        if benchmark == "burst":
            panel.set_xscale("log")
        panel.set_xlabel(label)
        panel.grid(visible=True, which="major", color="#e5e7eb")
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("cost of a one-step workflow, µs")
    axes[0].set_ylim(bottom=0)
    axes[-1].legend(frameon=False, loc="lower right")
    figure.suptitle(
        "Cost of a step against the number of workflows: a level line is what it should be",
        fontsize=11,
    )
    with mpl.rc_context({"svg.hashsalt": "refold"}):  # the same figures give the same file
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)
