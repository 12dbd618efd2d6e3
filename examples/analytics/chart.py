"""Two panels as one SVG, with no library: how fast the steps went, and what they found out."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape
from itertools import accumulate
from typing import Final

WIDTH, HEIGHT, TOP, LEFT = 960, 420, 70, 56
PLOT_WIDTH, PLOT_HEIGHT = 440, 280
COLOURS: Final = (
    *("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951"),
    *("#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"),
)
BUCKET_S: Final = 0.25

Pace = Sequence[tuple[datetime, str, int]]
Countries = Sequence[tuple[str, int, int]]


def chart(pace: Pace, countries: Countries) -> str:
    """The picture.

    Args:
        pace: Steps that ended in each quarter of a second, by name.
        countries: Code, airports and those with an IATA code; the greatest first.
    """
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 30, "Steps recorded, each quarter of a second", size=15, bold=True),
        *_pace(pace),
        _text(
            LEFT + PLOT_WIDTH + 90,
            30,
            "Airports by country (dark: with IATA code)",
            size=15,
            bold=True,
        ),
        *_bars(countries, LEFT + PLOT_WIDTH + 120),
        "</svg>",
    ]
    return "\n".join(lines)


def _pace(pace: Pace) -> Iterator[str]:
    """Bars of which each is a quarter of a second, stacked by the steps' names."""
    if not pace:
        return
    names = sorted({name for _, name, _ in pace}, key=lambda name: (-_total(pace, name), name))
    began = min(bucket for bucket, _, _ in pace)
    bars: dict[int, dict[str, int]] = {}
    for bucket, name, steps in pace:
        number = round((bucket - began).total_seconds() / BUCKET_S)
        bars.setdefault(number, {})[name] = steps
    count = max(bars) + 1
    most = max(sum(bar.values()) for bar in bars.values())
    width = PLOT_WIDTH / count
    for number, bar in bars.items():
        heights = [bar.get(name, 0) * PLOT_HEIGHT / most for name in names]
        for colour, height, upto in zip(COLOURS, heights, accumulate(heights), strict=False):
            x, y = LEFT + number * width, TOP + PLOT_HEIGHT - upto
            if height:
                yield _rect(x, y, max(width - 1, 0.5), height, colour)
    bottom = TOP + PLOT_HEIGHT
    yield f'<path d="M{LEFT} {TOP}V{bottom}H{LEFT + PLOT_WIDTH}" fill="none" stroke="#999"/>'
    yield _text(LEFT - 6, TOP + 8, f"{most}", anchor="end")
    yield _text(LEFT - 6, bottom, "0", anchor="end")
    yield _text(LEFT, bottom + 16, "0 s", anchor="middle")
    yield _text(LEFT + PLOT_WIDTH, bottom + 16, f"{count * BUCKET_S:.0f} s", anchor="middle")
    for index, (name, colour) in enumerate(zip(names[:6], COLOURS, strict=False)):
        x, y = LEFT + 150 * (index % 3), bottom + 34 + 18 * (index // 3)
        yield _rect(x, y - 9, 10, 10, colour)
        yield _text(x + 15, y, f"{name} ({_total(pace, name):,})")


def _bars(countries: Countries, left: int) -> Iterator[str]:
    if not countries:
        return
    most, row = countries[0][1], PLOT_HEIGHT / len(countries)
    full = WIDTH - left - 70
    for index, (country, airports, with_iata) in enumerate(countries):
        y = TOP + index * row
        yield _rect(left, y + 2, airports * full / most, row - 5, "#97bbf5")
        yield _rect(left, y + 2, with_iata * full / most, row - 5, "#4269d0")
        yield _text(left - 6, y + row / 2 + 4, country, anchor="end")
        yield _text(left + airports * full / most + 5, y + row / 2 + 4, f"{airports:,}")


def _total(pace: Pace, wanted: str) -> int:
    return sum(steps for _, name, steps in pace if name == wanted)


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, bold: bool = False
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#333"{weight}>'
        f"{escape(text)}</text>"
    )
