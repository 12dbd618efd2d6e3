"""What a child process is asked to measure, and what it answers: a line of JSON each."""

import json
import os
import resource
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

BYTES_PER_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Job:
    """One child's work.

    Args:
        cases: Names of what to measure, in this order, in one process.
        url: The log, or the peer's database.
        workflows: How many runs.
        steps: Steps of each run.
        events: How long a history is to be built, in events.
        checkpoints: Whether it has checkpoints.
        beside: A second log, for what is measured on two in turn.
    """

    cases: tuple[str, ...]
    url: str
    workflows: int
    steps: int
    events: int = 0
    checkpoints: bool = True
    beside: str = ""

    def to_json(self) -> str:
        """The job as an argument of the child's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """The job that `to_json` wrote."""
        values = json.loads(text)
        values["cases"] = tuple(values["cases"])
        return cls(**values)


@dataclass(slots=True)
class Measured:
    """What was measured.

    Args:
        figures: By name; the name says the unit.
        points: A number (of workflows, of events) and what was measured there; for the plot.
        samples: All that was measured of a kind, where its distribution is what matters; for the plot.
    """

    figures: dict[str, float] = field(default_factory=dict[str, float])
    points: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    samples: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, other: "Measured") -> None:
        """Take in what another case, or another process, has measured."""
        self.figures.update(other.figures)
        self.points.extend(other.points)
        self.samples.update(other.samples)

    @classmethod
    def from_json(cls, text: str) -> "Measured":
        """What `tell` wrote."""
        values = json.loads(text)
        points = [(int(x), float(y)) for x, y in values["points"]]
        return cls(dict(values["figures"]), points, dict(values.get("samples", {})))


def tell(
    figures: dict[str, float],
    points: list[tuple[int, float]] | None = None,
    samples: dict[str, list[float]] | None = None,
) -> None:
    """Answer the parent now: it may kill this process when it has read the line."""
    values = {
        "figures": {**figures, "peak_mb": peak_mb()},
        "points": points or [],
        "samples": samples or {},
    }
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def leave() -> None:
    """End at once, without closing what is open: runs that wait for ever must not be waited for."""
    sys.stdout.flush()
    os._exit(0)


def peak_mb() -> float:
    """Most memory that this process has had resident, in megabytes.

    Linux hands `ru_maxrss` down through fork and exec: a small child of a large parent shows its parent's peak. VmHWM
    belongs to the process's own address space.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / BYTES_PER_MB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / BYTES_PER_MB
