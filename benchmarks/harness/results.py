"""What came out, as it is kept: figures with all their repetitions, and the machine."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from job import Measured
from plan import Backend, Benchmark, Figure, Level

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of one benchmark on one backend.

    Args:
        benchmark: Name of the benchmark.
        backend: What it ran on.
        size: The work, for people.
        figure: Name of the figure.
        unit: Of all the numbers.
        values: One a repetition.
        target: What is to be reached; None where nothing is, and for sizes other than the full ones.
        met: Whether the median reaches it.
    """

    benchmark: str
    backend: Backend
    size: str
    figure: str
    unit: str
    values: tuple[float, ...]
    target: float | None
    met: bool | None

    @property
    def median(self) -> float:
        """The figure that is quoted."""
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Curve:
    """Cost of a step in microseconds against the number of workflows; or seconds until a worker is ready against the
    number of events, or of open runs.
    """

    benchmark: str
    backend: Backend
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """All that was measured of a kind, in the unit of the benchmark's figures."""

    benchmark: str
    backend: Backend
    name: str
    values: tuple[float, ...]


def rows_of(
    benchmark: Benchmark, backend: Backend, level: Level, all_measured: Sequence[Measured]
) -> list[Row]:
    """The rows of all repetitions of a benchmark; figures that this backend does not have are left out."""
    return [
        _row(benchmark, backend, level, figure, values)
        for figure in benchmark.figures
        if (values := [m.figures[figure.name] for m in all_measured if figure.name in m.figures])
    ]


def _row(
    benchmark: Benchmark,
    backend: Backend,
    level: Level,
    figure: Figure,
    values: Sequence[float],
) -> Row:
    sizes = benchmark.sizes[level]
    targeted = level == "full"  # targets are for the full sizes
    return Row(
        benchmark=benchmark.name,
        backend=backend,
        size=" .. ".join(dict.fromkeys(str(size) for size in (sizes[0], sizes[-1]))),
        figure=figure.name,
        unit=figure.unit,
        values=tuple(values),
        target=figure.target.get(backend) if targeted else None,
        met=figure.met(backend, statistics.median(values)) if targeted else None,
    )


def write(
    path: Path,
    machine: dict[str, str | float | int],
    level: str,
    *,
    rows: Sequence[Row],
    curves: Sequence[Curve],
    samples: Sequence[Sample],
) -> None:
    """Keep everything as JSON."""
    document = {
        "format": FORMAT,
        "level": level,
        "machine": machine,
        "figures": [
            {**asdict(row), "median": row.median, "min": min(row.values), "max": max(row.values)}
            for row in rows
        ],
        "curves": [asdict(curve) for curve in curves],
        "samples": [asdict(sample) for sample in samples],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
