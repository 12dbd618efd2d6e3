"""What `make bench` is asked for on its command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from plan import BACKENDS, BENCHMARKS, Backend, Level

RESULTS = Path(__file__).resolve().parents[1] / "results"


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
    merge: tuple[Path, ...]


def parse() -> Options:
    """Read the command line; leaves with a message where it can't be followed."""
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
    parser.add_argument(
        "--merge",
        type=Path,
        nargs="+",
        default=(),
        metavar="PATH",
        help="measure nothing: make one file of several results, of which later ones count",
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
        merge=tuple(said.merge),
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
