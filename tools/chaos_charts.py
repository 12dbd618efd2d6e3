"""Charts of a fault run, as SVG text: what was broken when, and what became of the load meanwhile.

All share one axis of time, so that a dip stands below what caused it. Colours come from the page's style sheet.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Final

from chaos_figures import SECOND_US, Figures, quantile
from chaos_history import Fault

WIDTH: Final = 1180
LEFT: Final = 150
RIGHT: Final = 16
LETTER: Final = 6.5
"""A little more than a letter of the page's labels takes, in most fonts."""
ROW: Final = 20
PANEL: Final = 110
HEAD: Final = 26
OUTCOMES: Final = ("ok", "fail", "info")
TICKS_MOST: Final = 12

Scale = Callable[[float], float]


def timeline(figures: Figures, faults: Sequence[Fault]) -> str:
    """Faults as bands, a row for each process and broker; below them throughput, latency and the log's growth."""
    length_s = max(figures.length_s, 1.0)

    def x(at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(at_s, 0.0), length_s) / length_s

    rows = _rows(faults)
    top = HEAD
    below = top + ROW * len(rows) + 8
    height = below + 3 * (PANEL + HEAD) + 8
    parts = [
        *_grid(x, length_s, height),
        *_bands(figures, faults, rows, x, top),
        *_shadows(figures, faults, x, below, height),
        *_operations(figures, x, below + HEAD),
        *_latency(figures, x, below + 2 * HEAD + PANEL),
        *_events(figures, x, below + 3 * HEAD + 2 * PANEL),
    ]
    return _svg(height + 4, parts)


def _svg(height: float, parts: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def _grid(x: Scale, length_s: float, height: float) -> Iterable[str]:
    step = _step(length_s, TICKS_MOST)
    for number in range(int(length_s / step) + 1):
        at = x(number * step)
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{HEAD - 6}" y2="{height:.0f}" class="grid"/>'
        yield _text(at, 12, f"{number * step:g} s", "tick middle")


def _step(length: float, most: int) -> float:
    """A round distance of ticks."""
    raw = length / most
    size = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    return next((size * factor for factor in (1, 2, 5) if size * factor >= raw), 10 * size)


def _row_of(fault: Fault) -> str:
    near, link, _ = fault.target.partition(" - ")
    place = near.partition(".")[0]
    return f"links of {place}" if link else place


def _rows(faults: Sequence[Fault]) -> list[str]:
    order = {"broker": 0, "worker": 1, "client": 2, "links": 3}
    found = {_row_of(fault) for fault in faults}
    return sorted(found, key=lambda row: (order.get(row.split("-")[0].split(" ")[0], 9), row))


def _victim(fault: Fault) -> str:
    return fault.kind.partition(".")[0]


def _span(figures: Figures, fault: Fault) -> tuple[float, float]:
    begun = (fault.began_us - figures.origin_us) / SECOND_US
    ended = (fault.ended_us or fault.began_us) - figures.origin_us
    return begun, ended / SECOND_US


def _bands(
    figures: Figures, faults: Sequence[Fault], rows: Sequence[str], x: Scale, top: float
) -> Iterable[str]:
    for number, row in enumerate(rows):
        y = top + ROW * number
        yield _text(LEFT - 10, y + 14, row, "label")
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y + ROW}" y2="{y + ROW}" class="grid"/>'
    for fault in faults:
        begun, ended = _span(figures, fault)
        y = top + ROW * rows.index(_row_of(fault)) + 3
        width = max(x(ended) - x(begun), 3.0)
        name = fault.kind.partition(".")[2].replace("_", " ")
        yield (
            f'<rect x="{x(begun):.1f}" y="{y}" width="{width:.1f}" height="{ROW - 6}" rx="2" '
            f'class="{_victim(fault)}"><title>{escape(str(fault))}</title></rect>'
        )
        if width > 7 * len(name):
            yield _text(x(begun) + 4, y + 11, name, "inside")


def _shadows(
    figures: Figures, faults: Sequence[Fault], x: Scale, top: float, bottom: float
) -> Iterable[str]:
    """Where a broker or a worker was broken, shown through all that is below."""
    for fault in faults:
        if _victim(fault) in {"broker", "worker"}:
            begun, ended = _span(figures, fault)
            width = max(x(ended) - x(begun), 1.5)
            yield (
                f'<rect x="{x(begun):.1f}" y="{top}" width="{width:.1f}" height="{bottom - top:.0f}" '
                f'class="{_victim(fault)} shadow"/>'
            )


def _axis(top: float, name: str, highest: float, unit: str) -> Iterable[str]:
    """A panel's name, and what its top means."""
    yield _text(LEFT - 10, top + 12, f"{highest:,.4g} {unit}".strip(), "tick label")
    yield _text(LEFT - 10, top + PANEL, "0", "tick label")
    yield _text(LEFT + 4, top - 6, name, "name")
    yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{top + PANEL}" y2="{top + PANEL}" class="axis"/>'


def _operations(figures: Figures, x: Scale, top: float) -> Iterable[str]:
    highest = max((sum(second.outcomes.values()) for second in figures.seconds), default=1) or 1
    yield from _axis(top, "operations a second: ok, fail, info (nobody knows)", highest, "/s")
    for second in figures.seconds:
        y = top + PANEL
        width = max(x(second.at_s + 1) - x(second.at_s) - 0.5, 0.5)
        for outcome in OUTCOMES:
            height = PANEL * second.outcomes.get(outcome, 0) / highest
            y -= height
            if height:
                yield (
                    f'<rect x="{x(second.at_s):.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
                    f'class="{outcome}"><title>second {second.at_s}: {second.outcomes}</title></rect>'
                )


LATENCY_MS: Final = (1.0, 30_000.0)


def _latency(figures: Figures, x: Scale, top: float) -> Iterable[str]:
    low, high = map(math.log10, LATENCY_MS)

    def y(latency_ms: float) -> float:
        share = (math.log10(max(latency_ms, LATENCY_MS[0])) - low) / (high - low)
        return top + PANEL * (1 - min(share, 1.0))

    yield _text(LEFT + 4, top - 6, "time to an answer: median and slowest of each second", "name")
    for latency_ms in (1, 10, 100, 1_000, 10_000):
        at = y(latency_ms)
        name = f"{latency_ms} ms" if latency_ms < 1_000 else f"{latency_ms // 1_000} s"
        yield _text(LEFT - 10, at + 4, name, "tick label")
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>'
    known = [second for second in figures.seconds if second.latencies_ms]
    for second in known:
        slowest = second.latencies_ms[-1]
        yield (
            f'<circle cx="{x(second.at_s + 0.5):.1f}" cy="{y(slowest):.1f}" r="2" class="slowest">'
            f"<title>second {second.at_s}: slowest {slowest:,.0f} ms</title></circle>"
        )
    points = " ".join(
        f"{x(second.at_s + 0.5):.1f},{y(quantile(second.latencies_ms, 0.5)):.1f}"
        for second in known
    )
    yield f'<polyline points="{points}" class="median"/>'


def _events(figures: Figures, x: Scale, top: float) -> Iterable[str]:
    highest = max((second.events for second in figures.seconds), default=1) or 1
    yield from _axis(
        top, "events a second that the log took; a mark for each accepted claim", highest, "/s"
    )
    points = " ".join(
        f"{x(second.at_s + 0.5):.1f},{top + PANEL * (1 - second.events / highest):.1f}"
        for second in figures.seconds
    )
    yield f'<polyline points="{points}" class="events"/>'
    for gap in figures.gaps:
        at = x((gap.ended_us - figures.origin_us) / SECOND_US)
        title = (
            f"partition {gap.partition} came to {gap.owner} after {gap.length_s:.2f} s: {gap.cause}"
        )
        yield (
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top + PANEL - 12}" y2="{top + PANEL}" class="claim">'
            f"<title>{escape(title)}</title></line>"
        )


def hand_overs(figures: Figures) -> str:
    """How long partitions stood without an owner: a dot for each hand-over, a row for each cause."""
    by_cause = figures.gaps_by_cause()
    longest = max((lengths[-1] for lengths in by_cause.values()), default=1.0)
    low, high = math.log10(0.01), math.log10(max(longest, 10.0))
    left = max((LETTER * len(cause) for cause in by_cause), default=0.0) + 30

    def x(length_s: float) -> float:
        share = (math.log10(max(length_s, 0.01)) - low) / (high - low)
        return left + (WIDTH - left - RIGHT) * share

    height = HEAD + 34 * len(by_cause)
    parts: list[str] = []
    for length_s in (0.01, 0.1, 1, 10, 100):
        if length_s <= max(longest, 10.0):
            parts.append(
                f'<line x1="{x(length_s):.1f}" x2="{x(length_s):.1f}" y1="18" y2="{height}" class="grid"/>'
            )
            parts.append(_text(x(length_s), 12, f"{length_s:g} s", "tick middle"))
    for number, (cause, lengths) in enumerate(by_cause.items()):
        y = HEAD + 34 * number + 14
        parts.append(_text(left - 16, y + 4, cause, "label"))
        parts += [
            f'<circle cx="{x(length_s):.1f}" cy="{y + 9 * (place % 3 - 1)}" r="3" class="dot">'
            f"<title>{length_s:.3f} s</title></circle>"
            for place, length_s in enumerate(lengths)
        ]
        middle = x(quantile(lengths, 0.5))
        parts.append(
            f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{y - 15}" y2="{y + 15}" class="middle-line"/>'
        )
    return _svg(height + 4, parts)
