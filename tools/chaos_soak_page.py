"""The page that a soak leaves behind: a chart for each quantity, and what the rule says of it."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chaos_flatness import Flatness, Sample
from chaos_page import page, table, tiles

if TYPE_CHECKING:
    from chaos_soak import Soaked

WIDTH: Final = 560
HEIGHT: Final = 170
LEFT: Final = 92
TOP: Final = 24
BOTTOM: Final = 22
POINTS: Final = 600


def write_page(
    path: Path, soaked: "Soaked", verdicts: Mapping[str, Flatness], units: Mapping[str, str]
) -> None:
    """Write the page.

    Args:
        path: Where to.
        soaked: What was measured.
        verdicts: What the rule says, by series.
        units: Of the quantities.
    """
    grows = [name for name, verdict in verdicts.items() if verdict.flat is False]
    unsaid = [name for name, verdict in verdicts.items() if verdict.flat is None]
    verdict = f"{len(grows)} of {len(verdicts)} grow" if grows else "flat"
    if unsaid:
        verdict = "too short to say"
    body = _body(soaked, verdicts, units)
    title = f"Soak on {soaked.load.log}"
    path.write_text(page(title, not grows and not unsaid, verdict, body), encoding="utf-8")


def _body(
    soaked: "Soaked", verdicts: Mapping[str, Flatness], units: Mapping[str, str]
) -> Iterable[str]:
    load = soaked.load
    yield (
        '<p class="dim">The first quarter is warm-up. Of what follows, the median of the last third is compared with '
        "that of the first (the three bars): more than the tolerance is growth.</p>"
    )
    yield tiles(
        [
            (f"{load.seconds / 60:g} min", "of load"),
            (f"{load.rate:g} /s", "runs started"),
            (f"{soaked.ended:,}", "runs ended"),
            (f"{sum(soaked.failed.values()):,}", "failed"),
            (f"{load.workers}", "workers"),
        ]
    )
    yield '<div class="side" style="gap:18px">'
    for name, verdict in verdicts.items():
        unit = units[name.rpartition(".")[2]]
        yield f'<div style="width:{WIDTH}px">{_chart(name, soaked.series[name], verdict, unit)}</div>'
    yield "</div><h2>Numbers</h2>"
    yield table(
        (
            "quantity",
            "verdict",
            "first third",
            "second",
            "last",
            "tolerated",
            "slope an hour",
            "bytes a run",
        ),
        (
            (
                name,
                verdict.word,
                *(f"{median:,.1f}" for median in verdict.medians),
                f"{verdict.tolerated:,.1f}",
                f"{verdict.slope_per_h:,.1f}",
                _number(soaked.bytes_a_run(name, verdict)),
            )
            for name, verdict in verdicts.items()
        ),
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _chart(name: str, samples: Sequence[Sample], verdict: Flatness, unit: str) -> str:
    length_s = max((sample.at_s for sample in samples), default=1.0) or 1.0
    highest = max([1.0, *(sample.value for sample in samples)]) * 1.08

    def x(at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - 8) * at_s / length_s

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / highest)

    step = max(1, len(samples) // POINTS)
    points = " ".join(f"{x(s.at_s):.1f},{y(s.value):.1f}" for s in samples[::step])
    colour = {True: "good", False: "bad", None: "dim"}[verdict.flat]
    third_s = (length_s - verdict.warm_s) / 3
    bars = "".join(
        f'<line x1="{x(verdict.warm_s + place * third_s):.1f}" x2="{x(verdict.warm_s + (place + 1) * third_s):.1f}" '
        f'y1="{y(median):.1f}" y2="{y(median):.1f}" style="stroke:var(--{colour});stroke-width:3;opacity:.75"/>'
        for place, median in enumerate(verdict.medians)
    )
    warm = (
        f'<rect x="{LEFT}" y="{TOP}" width="{max(x(verdict.warm_s) - LEFT, 0):.1f}" height="{HEIGHT - TOP - BOTTOM}" '
        'class="fail" opacity=".18"/>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{warm}'
        f'<text x="{LEFT}" y="14" class="name">{escape(name)} <tspan style="fill:var(--{colour})">{verdict.word}'
        f"</tspan></text>"
        f'<text x="{LEFT - 6}" y="{TOP + 8}" class="tick label">{highest:,.0f} {escape(unit)}</text>'
        f'<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" class="tick label">0</text>'
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" class="tick label">{length_s / 60:.1f} min</text>'
        f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}" class="axis"/>'
        f'<polyline points="{points}" class="line"/>{bars}</svg>'
    )
