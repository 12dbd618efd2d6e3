"""`make bench`: measure throughput, latency and recovery on every log, beside a peer.

    python benchmarks/run.py                            everything, some six minutes
    python benchmarks/run.py --quick                    small sizes, about a minute
    python benchmarks/run.py --only throughput,latency  --backends sqlite,dbos
    KAFKA_BOOTSTRAP=host:9092 python benchmarks/run.py  on a broker that is running already

README.md in this directory says how to read what comes out.
"""

import argparse
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tools"))

import machine
from children import ChildFailedError
from job import Measured
from kafka_broker import BrokerFailedError, BrokerUnavailableError, find_or_start
from plan import BACKENDS, BENCHMARKS, TITLES, Backend, Benchmark, Level, Size
from procedures import measure
from results import Curve, Row, rows_of, write
from storage import Storages
from table import number, table

RESULTS = HERE / "results"

TABLE_WIDTH = 110
"""Columns of the table where the output is no terminal."""

BUSY = 0.5
"""Load per core above which figures are doubtful."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    level: Level
    only: tuple[str, ...]
    backends: tuple[Backend, ...]
    repeat: int | None
    partitions: int
    json_path: Path
    directory: Path


@dataclass(slots=True)
class Outcome:
    """What has come out so far."""

    rows: list[Row] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def main() -> int:
    """Measure, show, keep. Returns the exit code: 1 where a measurement failed (a missed target is no failure)."""
    options = _options()
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
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
    write(options.json_path, facts, options.level, outcome.rows, outcome.curves)
    console.print(f"kept in {options.json_path}")
    _draw(console, options.json_path.with_suffix(".svg"), outcome.curves)
    return 1 if outcome.failures else 0


def _measure_all(console: Console, options: Options, directory: Path) -> Outcome:
    outcome = Outcome()
    with _broker(console, "kafka" in options.backends) as bootstrap:
        backends = _available(console, options.backends, bootstrap)
        chosen = [
            (benchmark, backend)
            for benchmark in BENCHMARKS
            if not options.only or benchmark.name in options.only
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
        if any(backend == "kafka" for _, backend in chosen):
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
            rows = rows_of(benchmark, backend, sizes, all_measured)
            outcome.rows += rows
            outcome.curves += [
                Curve(benchmark.name, backend, tuple(measured.points))
                for measured in all_measured
                if measured.points
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
    available = [backend for backend in backends if backend != "kafka" or bootstrap is not None]
    if "dbos" in available and importlib.util.find_spec("dbos") is None:
        console.print(
            "[bold red]DBOS is NOT measured[/]: it is not installed (pip install -e '.[bench]')"
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


def _draw(console: Console, path: Path, curves: Sequence[Curve]) -> None:
    if not curves:
        return
    if importlib.util.find_spec("matplotlib") is None:
        console.print("no picture: matplotlib is not installed (pip install -e '.[bench]')")
        return
    from plot import draw  # noqa: PLC0415 - an extra, and half a second

    draw(path, curves)
    console.print(f"drawn in {path}")


def _options() -> Options:
    parser = argparse.ArgumentParser(
        description="Measure refold on memory, SQLite and Kafka, beside DBOS on SQLite."
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="small sizes, about a minute")
    sizes.add_argument("--tiny", action="store_true", help="only that everything runs, for tests")
    parser.add_argument("--only", default="", metavar="NAMES", help=", ".join(_names()))
    parser.add_argument(
        "--backends", default=",".join(BACKENDS), metavar="NAMES", help="default: %(default)s"
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="repetitions of each measurement")
    parser.add_argument(
        "--partitions", type=int, default=1, metavar="N", help="of each log (default: 1)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="where results are kept (a new file in results/)"
    )
    parser.add_argument(
        "--dir", type=Path, default=RESULTS, metavar="PATH", help="on the disk to be measured"
    )
    said = parser.parse_args()
    stem = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    return Options(
        level="tiny" if said.tiny else "quick" if said.quick else "full",
        only=_known(parser, said.only, _names()),
        backends=cast("tuple[Backend, ...]", _known(parser, said.backends, BACKENDS)),
        repeat=said.repeat,
        partitions=said.partitions,
        json_path=said.json or RESULTS / f"{stem}.json",
        directory=said.dir.resolve(),
    )


def _names() -> tuple[str, ...]:
    return tuple(benchmark.name for benchmark in BENCHMARKS)


def _known(parser: argparse.ArgumentParser, text: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names in a list with commas, each of which there must be."""
    asked = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in asked:
        if name not in names:
            parser.error(f"there is no {name!r}; there are {', '.join(names)}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
