"""The table at the end."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from plan import BENCHMARKS, TITLES, Backend, Benchmark, Figure
from results import Row

_Key = tuple[str, str, Backend]


def table(rows: Sequence[Row]) -> Table:
    """A line a figure and backend; targets with a mark, and how many times better than the peer."""
    shown = Table(expand=True)
    shown.add_column("what", overflow="fold", ratio=1)
    shown.add_column("log")
    shown.add_column("median", justify="right")
    shown.add_column("min - max", justify="right")
    shown.add_column("target", justify="right")
    shown.add_column("vs DBOS", justify="right")
    by_key: dict[_Key, Row] = {(row.benchmark, row.figure, row.backend): row for row in rows}
    for benchmark in BENCHMARKS:
        _add(shown, benchmark, by_key)
    return shown


def _add(shown: Table, benchmark: Benchmark, rows: Mapping[_Key, Row]) -> None:
    ours = [row for row in rows.values() if row.benchmark == benchmark.name]
    if not ours:
        return
    shown.add_section()
    size = "" if benchmark.kind == "import" else f", {ours[0].size}"
    shown.add_row(f"[bold]{benchmark.name}[/]: {escape(benchmark.title)}{size}")
    for figure in benchmark.figures:
        peer = rows.get((benchmark.name, figure.name, "dbos"))
        title = f"  {figure.title}"
        for backend, name in TITLES.items():
            row = rows.get((benchmark.name, figure.name, backend))
            if row is not None:
                shown.add_row(title, name, *_cells(figure, row, peer))
                title = ""


def _cells(figure: Figure, row: Row, peer: Row | None) -> tuple[str, str, str, str]:
    spread = ""
    if len(row.values) > 1:
        spread = f"{number(min(row.values))} - {number(max(row.values))}"
    ratio = ""
    if peer is not None and row is not peer:
        ratio = f"{number(figure.advantage(row.median, peer.median))} x"
    return f"{number(row.median)} {row.unit}", spread, _target(figure, row), ratio


def _target(figure: Figure, row: Row) -> str:
    if row.target is None:
        return ""
    sign = ">=" if figure.more_is_better else "<="
    mark = "[green]met[/]" if row.met else "[red]missed[/]"
    return f"{sign} {number(row.target)} {mark}"


def number(value: float) -> str:
    """Three significant digits, and no more than are true."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
