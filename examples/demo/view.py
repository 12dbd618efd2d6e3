"""What the demo shows: the lives of the job while it runs, then the account, the checks and what was made."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from audit import Account, Check
from watch import Life

BAR_CELLS = 38
COUNTRIES_SHOWN = 8

LARGEST = """
SELECT country, airports, with_iata, highest, elevation_max_ft, loneliest, loneliest_km
FROM countries ORDER BY airports DESC LIMIT ?
"""

REPLAYED = "cyan"
RAN = "green"


@dataclass(frozen=True, slots=True)
class Heading:
    """What the demo says at its beginning.

    Args:
        data: The packages, their releases and licences.
        log: The log's URL.
        seed: What the moments of the kills were drawn from.
        kills: After how many recorded steps each kill comes.
        steps: How many steps the job has.
    """

    data: str
    log: str
    seed: int
    kills: Sequence[int]
    steps: int

    def __rich__(self) -> RenderableType:
        """As a panel."""
        facts = Table.grid(padding=(0, 2))
        moments = " and ".join(f"{kill:,}" for kill in self.kills)
        facts.add_row(
            "[dim]job[/]",
            f"an atlas of the world's airports: {self.steps:,} steps, files written in most",
        )
        facts.add_row("[dim]data[/]", self.data)
        facts.add_row("[dim]log[/]", self.log)
        facts.add_row(
            "[dim]kills[/]", f"SIGKILL once {moments} steps are recorded (seed {self.seed})"
        )
        return Panel(
            facts,
            title="[bold]refold demo[/]",
            title_align="left",
            border_style="blue",
            box=box.ROUNDED,
        )


def lives_view(lives: Sequence[Life], steps: int) -> RenderableType:
    """A bar for each life: what it replayed, what it ran, what is left."""
    table = Table.grid(padding=(0, 1))
    table.add_column()
    table.add_column()
    widest = len(f"{steps:,}")  # so that nothing moves as the numbers grow
    for words in (f"/{steps:,}", " replayed", " run"):
        table.add_column(justify="right", min_width=widest + len(words))
    table.add_column(min_width=len("● finished"))
    for life in lives:
        replayed = life.replayed.total() if life.replayed is not None else 0
        table.add_row(
            f"[bold]life {life.number}[/]",
            _bar(replayed, life.recorded, steps),
            f"{replayed + life.recorded:,}/{steps:,}",
            f"[{REPLAYED}]{replayed:,} replayed[/]",
            f"[{RAN}]{life.recorded:,} run[/]",
            _ending(life),
        )
    return table


def _bar(replayed: int, ran: int, steps: int) -> Text:
    """Two colours and the rest; a part that is not empty has at least a cell."""
    first = min(BAR_CELLS, -(-replayed * BAR_CELLS // steps))
    second = min(BAR_CELLS - first, round((replayed + ran) * BAR_CELLS / steps) - first)
    second = max(second, 0)
    rest = BAR_CELLS - first - second
    return Text.assemble(("━" * first, REPLAYED), ("━" * second, RAN), ("─" * rest, "bright_black"))


def _ending(life: Life) -> str:
    match life.ending:
        case "killed":
            return "[bold red]✗ SIGKILL[/]"
        case "finished":
            return "[bold green]✓ finished[/]"
        case "failed":
            return "[bold red]✗ failed[/]"
        case "running":
            return "[yellow]● runs[/]" if life.replayed is not None else "[yellow]● starts[/]"


def account_view(accounts: Sequence[Account], lives: Sequence[Life]) -> RenderableType:
    """How often each kind of step ran, what each life replayed, and what ran again."""
    columns = {"\nsteps": [one.steps for one in accounts]}
    for number in (life.number for life in lives):
        if number > 1:
            columns[f"life {number}\n[{REPLAYED}]replayed[/]"] = [
                one.replayed[number] for one in accounts
            ]
        columns[f"life {number}\n[{RAN}]ran[/]"] = [one.ran[number] for one in accounts]
    columns["\nretried"] = [one.retried for one in accounts]
    columns["cut by\na kill"] = [one.cut for one in accounts]
    columns["repeated\nin vain"] = [one.repeated for one in accounts]

    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_footer=True,
        footer_style="bold",
    )
    table.add_column("\nstep", footer="all", no_wrap=True)
    for title, counts in columns.items():
        table.add_column(title, justify="right", footer=_sum(counts), no_wrap=True)
    for row, one in enumerate(accounts):
        table.add_row(one.name, *(_count(counts[row]) for counts in columns.values()))
    return table


def _sum(counts: Sequence[int]) -> str:
    return f"{sum(counts):,}"


def _count(count: int) -> str:
    return f"{count:,}" if count else "[bright_black]0[/]"


def check_view(check: Check) -> RenderableType:
    """A check in a line, and what speaks against it."""
    if check.holds:
        return Text.assemble(("  ✓ ", "bold green"), check.claim)
    lines = [Text.assemble(("  ✗ ", "bold red"), ("it does not hold that ", "red"), check.claim)]
    lines += [Text(f"      {problem}", style="red") for problem in check.problems]
    return Group(*lines)


def section(title: str) -> RenderableType:
    """A heading."""
    return Text(f"\n{title}", style="bold")


def largest_view(catalogue: Path) -> RenderableType:
    """The largest countries, from the catalogue that the job wrote."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("country", "airports", "with IATA", "highest", "feet", "loneliest", "km to next"):
        is_text = title in {"country", "highest", "loneliest"}
        table.add_column(title, justify="left" if is_text else "right", no_wrap=True)
    with closing(sqlite3.connect(catalogue)) as connection:
        rows = connection.execute(LARGEST, (COUNTRIES_SHOWN,)).fetchall()
    for country, airports, with_iata, highest, feet, loneliest, km in rows:
        table.add_row(
            *(country, f"{airports:,}", f"{with_iata:,}"),
            *(_short(highest), _number(feet), _short(loneliest), _number(km)),
        )
    return table


def _short(name: str | None) -> str:
    name = (name or "").removesuffix(" Airport")
    return name if len(name) <= 24 else name[:23] + "…"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
