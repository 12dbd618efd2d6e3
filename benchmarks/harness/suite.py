"""The whole of `make bench`: measure what was asked for, show it, keep it."""

import importlib.util
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import machine
from children import ChildFailedError
from job import Measured
from kafka_broker import BrokerFailedError, BrokerUnavailableError, find_or_start
from merged import merge
from options import Options, parse
from plan import BENCHMARKS, TITLES, Backend, Benchmark, Size
from procedures import measure
from results import Curve, Row, Sample, rows_of, write
from storage import Storages
from table import number, table

TABLE_WIDTH = 120
"""Columns of the table where the output is no terminal."""

BUSY = 0.5
"""Load per core above which figures are doubtful."""


@dataclass(slots=True)
class Outcome:
    """What has come out so far."""

    rows: list[Row] = field(default_factory=list[Row])
    curves: list[Curve] = field(default_factory=list[Curve])
    samples: list[Sample] = field(default_factory=list[Sample])
    failures: list[str] = field(default_factory=list[str])


def main() -> int:
    """Measure, show, keep. Returns the exit code: 1 where a measurement failed (a missed target is no failure)."""
    options = parse()
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    if options.merge:
        curves, samples = merge(options.merge, options.json_path)
        console.print(f"kept in {options.json_path}")
        _draw(console, options.json_path, curves, samples)
        return 0
    options.directory.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=options.directory, prefix="work-"))
    try:
        facts = machine.facts(directory)
        _show_machine(console, facts)
        outcome = _measure_all(console, options, directory)
    finally:
        shutil.rmtree(directory)
    console.print(table(outcome.rows))
    for failure in outcome.failures:
        console.print(f"[red]failed[/]: {escape(failure)}")
    write(
        options.json_path,
        facts,
        options.level,
        rows=outcome.rows,
        curves=outcome.curves,
        samples=outcome.samples,
    )
    console.print(f"kept in {options.json_path}")
    _draw(console, options.json_path, outcome.curves, outcome.samples)
    return 1 if outcome.failures else 0


def _measure_all(console: Console, options: Options, directory: Path) -> Outcome:
    outcome = Outcome()
    with _broker(console, "kafka" in options.backends) as bootstrap:
        backends = _available(console, options.backends, bootstrap)
        chosen: list[tuple[Benchmark, Backend]] = [
            (benchmark, backend)
            for benchmark in BENCHMARKS
            if (benchmark.name in options.only if options.only else not benchmark.when_named)
            for backend in backends
            if backend in benchmark.backends
        ]
        storages = Storages(directory, bootstrap, options.partitions)
        try:
            _measure_chosen(console, options, chosen, storages, outcome)
        finally:
            storages.close()
    return outcome


def _measure_chosen(
    console: Console,
    options: Options,
    chosen: Sequence[tuple[Benchmark, Backend]],
    storages: Storages,
    outcome: Outcome,
) -> None:
    turns = sum(options.repeat or b.repeats_on(backend) for b, backend in chosen)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("", total=turns)
        if options.level != "tiny" and any(backend == "kafka" for _, backend in chosen):
            progress.update(task, description="warming the broker up")
            measure(BENCHMARKS[0], "kafka", [Size(200, 10)], storages)  # its first work is slow
        for benchmark, backend in chosen:
            sizes = benchmark.sizes[options.level]
            progress.update(task, description=f"{benchmark.name} on {TITLES[backend]}")
            all_measured: list[Measured] = []
            try:
                for _ in range(options.repeat or benchmark.repeats_on(backend)):
                    all_measured.append(measure(benchmark, backend, sizes, storages))
                    progress.advance(task)
            except (ChildFailedError, TimeoutError) as error:
                outcome.failures.append(f"{benchmark.name} on {TITLES[backend]}: {error}")
                continue
            rows = rows_of(benchmark, backend, options.level, all_measured)
            outcome.rows += rows
            outcome.curves += [
                Curve(benchmark.name, backend, tuple(measured.points))
                for measured in all_measured
                if measured.points
            ]
            outcome.samples += [
                Sample(benchmark.name, backend, name, tuple(values))
                for measured in all_measured
                for name, values in measured.samples.items()
            ]
            progress.console.print(
                f"{benchmark.name:>13}  {TITLES[backend]:<11}  {_summary(rows)}", highlight=False
            )


def _summary(rows: Sequence[Row]) -> str:
    return ", ".join(f"{row.figure} {number(row.median)}" for row in rows)


@contextmanager
def _broker(console: Console, wanted: bool) -> Generator[str | None, None, None]:
    """The address of a broker; None where none is wanted or can be had."""
    if not wanted:
        yield None
        return
    try:
        broker = find_or_start()
        bootstrap = broker.__enter__()
    except (BrokerUnavailableError, BrokerFailedError) as error:
        console.print(f"[bold red]Kafka is NOT measured[/]: {escape(str(error))}")
        yield None
        return
    try:
        yield bootstrap
    finally:
        broker.__exit__(None, None, None)


def _available(
    console: Console, backends: Sequence[Backend], bootstrap: str | None
) -> list[Backend]:
    available: list[Backend] = [
        backend for backend in backends if backend != "kafka" or bootstrap is not None
    ]
    if "dbos" in available and importlib.util.find_spec("dbos") is None:
        console.print(
            r"[bold red]DBOS is NOT measured[/]: it is not installed (pip install -e '.\[bench]')"
        )
        available.remove("dbos")
    return available


def _show_machine(console: Console, facts: dict[str, str | float | int]) -> None:
    console.print(
        f"{facts['cores']} cores ({facts['processor']}), Python {facts['python']}, {facts['system']}, "
        f"{facts['filesystem']}, fsync of 4 KiB {facts['fsync_p50_ms']} ms (p99 {facts['fsync_p99_ms']} ms)",
        highlight=False,
    )
    load, cores = float(facts["load_before"]), int(facts["cores"])
    if load > BUSY * cores:
        console.print(
            f"[yellow]the machine is busy (load {load} on {cores} cores): expect worse figures[/]"
        )


def _draw(
    console: Console, json_path: Path, curves: Sequence[Curve], samples: Sequence[Sample]
) -> None:
    if not curves and not samples:
        return
    if importlib.util.find_spec("matplotlib") is None:
        console.print(r"no picture: matplotlib is not installed (pip install -e '.\[bench]')")
        return
    from plot import draw_all  # noqa: PLC0415 - an extra, and half a second

    for path in draw_all(json_path, curves, samples):
        console.print(f"drawn in {path}")
