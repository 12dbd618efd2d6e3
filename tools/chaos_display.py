"""What a fault run says while it runs: a table that is drawn anew on a terminal, a line now and then elsewhere."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from chaos_checker import Violation
from chaos_figures import Figures, quantile
from chaos_history import HISTORY
from chaos_nemesis import Nemesis

EVERY_S: Final = 0.5
LINE_EVERY_S: Final = 10.0
OUTCOMES: Final = ("ok", "fail", "info")
SHOWN: Final = 5
"""Violations that are shown in full; the report has all."""


class Display:
    """Shows how far a run is."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = sys.stderr.isatty()
        self._begun = time.monotonic()
        self._seconds = 0.0
        self._planned = 0
        self._nemesis: Nemesis | None = None
        self._directory = Path()
        self._counts = dict.fromkeys(OUTCOMES, 0)
        self._read: dict[Path, int] = {}

    def says(self, text: str) -> None:
        """Say what is done now."""
        self._console.print(f"[dim]{time.monotonic() - self._begun:6.1f} s[/] {text}")

    def begins(self, seconds: float, planned: int, nemesis: Nemesis, directory: Path) -> None:
        """The load begins now."""
        self._seconds, self._planned = seconds, planned
        self._nemesis, self._directory = nemesis, directory
        self._read.clear()
        self._counts = dict.fromkeys(OUTCOMES, 0)
        self.says(f"load begins; then things are broken for {seconds:g} s, {planned} faults in all")

    async def watch(self) -> None:
        """Show how far it is, until cancelled."""
        loop = asyncio.get_running_loop()
        began = said = loop.time()
        if self._live:
            bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            task = bar.add_task("chaos", total=self._seconds)
            with Live(console=self._console, refresh_per_second=4, transient=True) as live:
                while True:
                    bar.update(task, completed=loop.time() - began)
                    self._look()
                    live.update(Group(bar, self._table()))
                    await asyncio.sleep(EVERY_S)
        while True:
            await asyncio.sleep(EVERY_S)
            if loop.time() - said >= LINE_EVERY_S:
                said = loop.time()
                self._look()
                self.says(self._line())

    async def until_ok(self, count: int, patience_s: float) -> None:
        """Wait until so many operations have come to an answer, as long as there is patience."""
        until = time.monotonic() + patience_s
        self._look()
        while self._counts["ok"] < count and time.monotonic() < until:
            await asyncio.sleep(EVERY_S)
            self._look()

    def _look(self) -> None:
        """Count what clients have written down since the last look."""
        for path in (self._directory / HISTORY).glob("client-*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read[path] = self._read.get(path, 0) + len(whole) + len(newline)
            for outcome in OUTCOMES:
                self._counts[outcome] += whole.count(f'"what":"{outcome}"'.encode())

    def _line(self) -> str:
        faults = self._nemesis.done if self._nemesis is not None else 0
        counts = " ".join(f"{outcome} {count:,}" for outcome, count in self._counts.items())
        return f"operations: {counts}; faults: {faults} of {self._planned}"

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_row("operations", *(f"{name} {n:,}" for name, n in self._counts.items()))
        if self._nemesis is not None:
            table.add_row("faults", f"{self._nemesis.done} of {self._planned} healed")
            for fault in self._nemesis.active.values():
                table.add_row("", Text(f"{fault.kind} {fault.target}", style="red"))
        return table

    def shows(self, figures: Figures, found: list[Violation], directory: Path) -> None:
        """Say what came of it."""
        for name, counts in (("operations", figures.operations), ("faults", figures.faults)):
            self.says(f"{name}: {counts}")
        for cause, lengths in figures.gaps_by_cause().items():
            self.says(
                f"hand-over, {cause}: {len(lengths)} times, median {quantile(lengths, 0.5):.2f} s, "
                f"p95 {quantile(lengths, 0.95):.2f} s, longest {lengths[-1]:.2f} s"
            )
        for what, count in figures.counts.items():
            self.says(f"{what}: {count:,}")
        for violation in found[:SHOWN]:
            self._console.print(Text(str(violation), style="red"))
        style = "bold red" if found else "bold green"
        self._console.print(Text(f"{len(found)} violations", style=style))
        self._console.print(f"report: {directory / 'report.html'}")
