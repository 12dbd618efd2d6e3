"""What is measured: each benchmark with its sizes, figures and targets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Backend = Literal["memory", "sqlite", "kafka", "dbos"]
Level = Literal["full", "quick", "tiny"]
Kind = Literal["live", "killed", "built", "burst", "import", "series", "paired"]

BACKENDS: tuple[Backend, ...] = ("memory", "sqlite", "kafka", "dbos")
TITLES: Mapping[Backend, str] = {
    "memory": "memory",
    "sqlite": "SQLite",
    "kafka": "Kafka",
    "dbos": "DBOS/SQLite",
}


class Size(NamedTuple):
    """How much work: runs, and steps of each; and how many events the log has that they are found in."""

    workflows: int
    steps: int
    events: int = 0

    def __str__(self) -> str:
        if self.events:
            return f"{self.workflows:,} open, {self.events:,} events"
        return f"{self.workflows:,} x {self.steps:,}" if self.steps else f"{self.workflows:,}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that comes out.

    Args:
        name: As the children answer it.
        title: What a reader is told.
        unit: Of the number.
        target: What is to be reached, by backend.
        more_is_better: Otherwise less is.
    """

    name: str
    title: str
    unit: str
    target: Mapping[Backend, float] = field(default_factory=dict[Backend, float])
    more_is_better: bool = False

    def met(self, backend: Backend, value: float) -> bool | None:
        """Whether the target is reached; None where there is none."""
        target = self.target.get(backend)
        if target is None:
            return None
        return value >= target if self.more_is_better else value <= target

    def advantage(self, ours: float, peers: float) -> float:
        """How many times better ours is."""
        return ours / peers if self.more_is_better else peers / ours


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A workload and the figures that it gives.

    Args:
        name: For `--only`.
        title: What a reader is told.
        kind: How it is carried out (procedures.py).
        case: What the children measure; not used by kinds that have cases of their own.
        sizes: One a level; a burst has several.
        figures: Those that are shown; children may answer more.
        backends: Where it makes sense.
        repeats: Fresh processes on fresh logs, of which the median is quoted.
        build: What builds the log, for kinds `built` and `series`.
        partitions: Of the log; None for as many as are asked for.
        checkpoints: Whether a log that is built has checkpoints.
        when_named: Left out unless `--only` names it: it takes very long.
        time_limit_s: For each process.
    """

    name: str
    title: str
    kind: Kind
    sizes: Mapping[Level, tuple[Size, ...]]
    figures: tuple[Figure, ...]
    case: str = ""
    backends: tuple[Backend, ...] = BACKENDS
    repeats: int = 3
    build: str = "build"
    partitions: int | None = None
    checkpoints: bool = True
    when_named: bool = False
    time_limit_s: float = 300.0

    def repeats_on(self, backend: Backend) -> int:
        """One turn where one takes long: for the peer; and on Kafka for histories, which it takes in slowly."""
        slow = backend == "dbos" or (backend == "kafka" and self.kind in {"killed", "built"})
        return 1 if slow and self.kind != "import" else self.repeats


DURABLE: tuple[Backend, ...] = ("sqlite", "kafka", "dbos")
OURS: tuple[Backend, ...] = ("memory", "sqlite", "kafka")
OURS_DURABLE: tuple[Backend, ...] = ("sqlite", "kafka")

PEAK = Figure("peak_mb", "peak memory", "MB")

ASSIGNED = Figure("assigned_s", "of it, joining the group", "s")

SESSION_MS = 6_000
"""After which a Kafka group drops a member that says nothing: the default of `KafkaSettings`, which is used here."""

KAFKA_READ = 20_000
"""Events a second: kafka-python takes in some 45,000 records a second a process that does nothing else."""

FLAT = 1.25
"""Costs count as flat up to this ratio: two runs of one measurement on a shared machine differ by as much."""


def _steps_per_s(target: Mapping[Backend, float]) -> Figure:
    return Figure("steps_per_s", "steps", "/s", target, more_is_better=True)


def _recovered(seconds: float) -> Figure:
    return Figure("recover_s", "all back after", "s", {"sqlite": seconds, "kafka": seconds})


def _answers(prefix: str, database: str) -> tuple[Figure, ...]:
    """What is told of the read model in a database."""
    slowest = f"{prefix}slowest_ms"
    titles = {
        "error_text_ms": "text in errors, of three letters or more",
        "error_text_short_ms": "of one or two",
        "by_duration_ms": "by duration",
        "count_ms": "count",
        "group_workflow_ms": "grouped by workflow",
        "group_attribute_many_ms": "grouped by an attribute of many values",
        "page_far_back_ms": "a page far back",
    }
    return (
        Figure(slowest, f"slowest answer ({database})", "ms", {"sqlite": 100.0}),
        *(Figure(f"{prefix}{name}", f"{titles[name]} ({database})", "ms") for name in titles),
        Figure(f"{prefix}build_s", f"tables filled in ({database})", "s"),
    )


def _sizes(
    full: tuple[int, int], quick: tuple[int, int], tiny: tuple[int, int]
) -> dict[Level, tuple[Size, ...]]:
    return {"full": (Size(*full),), "quick": (Size(*quick),), "tiny": (Size(*tiny),)}


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        "throughput",
        "all at once",
        "live",
        _sizes((1_000, 10), (200, 10), (3, 2)),
        (
            _steps_per_s({"sqlite": 20_000, "kafka": 8_000}),
            Figure("bytes_per_step", "on disk, a step", "B"),
            PEAK,
        ),
        case="throughput",
    ),
    Benchmark(
        "sequential",
        "one after the other",
        "live",
        _sizes((1, 1_000), (1, 200), (1, 5)),
        (_steps_per_s({"sqlite": 2_000, "kafka": 400}),),
        case="throughput",
    ),
    Benchmark(
        "latency",
        "start to result, one at a time",
        "live",
        _sizes((300, 1), (50, 1), (3, 1)),
        (
            Figure("p50_ms", "p50", "ms", {"sqlite": 2, "kafka": 10}),
            Figure("p95_ms", "p95", "ms"),
            Figure("p99_ms", "p99", "ms"),
            Figure("first_ms", "open to first result", "ms"),
        ),
        case="latency",
    ),
    Benchmark(
        "threads",
        "`def` workflows and steps",
        "live",
        _sizes((200, 20), (50, 10), (2, 2)),
        (_steps_per_s({"sqlite": 6_000, "kafka": 6_000}), PEAK),
        case="threads",
    ),
    Benchmark(
        "recovery",
        "runs killed (SIGKILL) and recovered",
        "killed",
        _sizes((200, 50), (50, 20), (2, 2)),
        (_recovered(1.0), ASSIGNED, PEAK),
        backends=DURABLE,
    ),
    Benchmark(
        "resume",
        "one long run killed and resumed",
        "killed",
        _sizes((1, 5_000), (1, 500), (1, 5)),
        (_recovered(0.3), ASSIGNED, PEAK),
        backends=DURABLE,
    ),
    Benchmark(
        "long-history",
        "one very long run (built log) resumed",
        "built",
        _sizes((1, 50_000), (1, 5_000), (1, 10)),
        (_recovered(2.0), ASSIGNED, PEAK),
        case="recover",
        backends=OURS_DURABLE,
    ),
    Benchmark(
        "many-open",
        "many open runs (built log) recovered",
        "built",
        _sizes((10_000, 50), (500, 50), (5, 3)),
        (_recovered(15.0), ASSIGNED, PEAK),
        case="recover",
        backends=OURS_DURABLE,
        repeats=1,
    ),
    Benchmark(
        "fold",
        "a built log folded, its runs replayed",
        "built",
        _sizes((1_000, 50), (200, 50), (2, 3)),
        (
            Figure("fold_events_per_s", "read and fold, events", "/s", more_is_better=True),
            Figure("replay_steps_per_s", "replay, steps", "/s", more_is_better=True),
        ),
        case="fold",
        backends=OURS,
    ),
    Benchmark(
        "tail",
        "a built log read in order by `tail`: whole, by workflow and kind, starts alone",
        "built",
        _sizes((2_000, 100), (200, 50), (2, 3)),
        (
            Figure(
                "tail_events_per_s",
                "all events",
                "/s",
                {"sqlite": 50_000, "kafka": KAFKA_READ},
                more_is_better=True,
            ),
            Figure(
                "filtered_events_per_s",
                "filtered by workflow and kind, events read",
                "/s",
                {"sqlite": 50_000, "kafka": KAFKA_READ},
                more_is_better=True,
            ),
            Figure("skipped_events_per_s", "few wanted, events read", "/s", more_is_better=True),
        ),
        case="tail",
        backends=OURS,
        partitions=2,
    ),
    Benchmark(
        "check",
        "all runs of a built log checked against the code",
        "built",
        _sizes((10_000, 50), (500, 50), (5, 3)),
        (
            Figure("check_s", "all checked after", "s", dict.fromkeys(OURS_DURABLE, 30.0)),
            Figure("checked_steps_per_s", "steps", "/s", more_is_better=True),
        ),
        case="check",
        backends=OURS_DURABLE,
        repeats=1,
    ),
    Benchmark(
        "projection",
        "a built log into the workflows read model",
        "built",
        _sizes((1_000, 100), (200, 50), (3, 3)),
        (
            Figure(
                "sqlite_events_per_s",
                "into SQLite, events",
                "/s",
                dict.fromkeys(OURS_DURABLE, 20_000),
                more_is_better=True,
            ),
            Figure(
                "sqlite_tagged_events_per_s",
                "... of runs with two attributes each",
                "/s",
                more_is_better=True,
            ),
            Figure(
                "postgresql_events_per_s",
                "into PostgreSQL, events",
                "/s",
                dict.fromkeys(OURS_DURABLE, 10_000),
                more_is_better=True,
            ),
        ),
        case="projection",
        backends=OURS_DURABLE,
    ),
    Benchmark(
        "read-model",
        "questions to the workflows read model of so many runs",
        "live",
        _sizes((1_000_000, 0), (20_000, 0), (200, 0)),
        (
            *_answers("", "SQLite"),
            *_answers("postgresql_", "PostgreSQL"),
        ),
        case="read_model",
        backends=("sqlite",),
        repeats=1,
        time_limit_s=1_200.0,
    ),
    Benchmark(
        "verify",
        "the chain of a built log walked, then walked for a seal",
        "built",
        _sizes((4_000, 50), (1_000, 50), (2, 3)),
        (
            Figure(
                "verified_events_per_s",
                "events verified",
                "/s",
                {"sqlite": 100_000, "kafka": KAFKA_READ},
                more_is_better=True,
            ),
            Figure("sealed_events_per_s", "events sealed", "/s", more_is_better=True),
        ),
        case="verify",
        backends=OURS_DURABLE,
    ),
    Benchmark(
        "export",
        "a built log into each kind of sink",
        "built",
        _sizes((1_000, 100), (200, 50), (3, 3)),
        tuple(
            Figure(f"{kind}_events_per_s", f"{title}, events", "/s", more_is_better=True)
            for kind, title in (
                ("jsonl", "JSON Lines"),
                ("parquet", "Parquet"),
                ("duckdb", "DuckDB"),
                ("postgres", "PostgreSQL"),
                ("http", "CloudEvents, 100 a request"),
            )
        ),
        case="export",
        backends=OURS_DURABLE,
        repeats=1,
    ),
    Benchmark(
        "growth",
        "one step each, 1,000 at a time, the log grows",
        "live",
        _sizes((100_000, 1), (5_000, 1), (10, 1)),
        (
            Figure("first_us", "a step, at the beginning", "us"),
            Figure("last_us", "a step, at the end", "us"),
            Figure("ratio", "end / beginning", "x", dict.fromkeys(OURS_DURABLE, FLAT)),
            PEAK,
        ),
        case="growth",
        backends=OURS_DURABLE,
        repeats=1,
    ),
    Benchmark(
        "burst",
        "one step each, all at once",
        "burst",
        {
            "full": tuple(Size(n, 1) for n in (1_000, 3_000, 10_000)),
            "quick": (Size(500, 1), Size(2_000, 1)),
            "tiny": (Size(2, 1), Size(5, 1)),
        },
        (
            Figure("first_us", "a step, fewest at once", "us"),
            Figure("last_us", "a step, most at once", "us"),
            Figure("ratio", "most / fewest", "x", dict.fromkeys(OURS, FLAT)),
            PEAK,
        ),
        case="throughput",
        backends=OURS,
        repeats=1,
    ),
    Benchmark(
        "round-trip",
        "a message to a workflow on another partition, and back",
        "live",
        _sizes((1, 500), (1, 100), (1, 5)),
        (Figure("round_trip_ms", "there and back", "ms", {"sqlite": 2, "kafka": 10}),),
        case="round_trip",
        backends=OURS,
        partitions=2,
    ),
    Benchmark(
        "fan-out",
        "one workflow starts children and waits for all",
        "live",
        _sizes((1, 1_000), (1, 200), (1, 5)),
        (
            Figure("fan_out_s", "all", "s"),
            Figure("children_per_s", "children", "/s", more_is_better=True),
        ),
        case="fan_out",
        backends=OURS,
        partitions=2,
    ),
    Benchmark(
        "stream",
        "small items from one workflow to a reader elsewhere",
        "live",
        _sizes((1, 20_000), (1, 2_000), (1, 20)),
        (
            Figure(
                "items_per_s",
                "items",
                "/s",
                dict.fromkeys(OURS_DURABLE, 5_000),
                more_is_better=True,
            ),
            Figure("p50_ms", "written to read, p50", "ms", dict.fromkeys(OURS_DURABLE, 20)),
            Figure("p99_ms", "p99", "ms"),
        ),
        case="streaming",
        backends=OURS_DURABLE,
    ),
    Benchmark(
        "sleepers",
        "runs that sleep for a month (built log) taken up",
        "built",
        _sizes((1_000_000, 1), (20_000, 1), (10, 1)),
        (
            Figure("recover_s", "taken up after", "s"),
            Figure("peak_mb", "peak memory", "MB", {"sqlite": 2_000}),
            Figure("late_p50_ms", "woken late by, p50", "ms"),
            Figure("late_p99_ms", "p99", "ms"),
        ),
        case="sleepers",
        build="build_sleepers",
        backends=("sqlite",),
        repeats=1,
    ),
    Benchmark(
        "history",
        "a worker is ready, whatever the length of the history (built log)",
        "series",
        {
            "full": tuple(Size(1_000, 10, n) for n in (100_000, 300_000, 1_000_000, 3_000_000)),
            "quick": tuple(Size(200, 10, n) for n in (30_000, 100_000)),
            "tiny": (Size(5, 3, 15_000),),
        },
        (
            Figure("first_s", "ready after, shortest", "s"),
            Figure("last_s", "ready after, longest", "s"),
            Figure("ratio", "longest / shortest", "x", dict.fromkeys(OURS_DURABLE, FLAT)),
            PEAK,
        ),
        case="ready",
        build="build_long",
        backends=OURS_DURABLE,
        repeats=1,
        time_limit_s=900.0,
    ),
    Benchmark(
        "whole-history",
        "the same without checkpoints",
        "series",
        {
            "full": tuple(Size(1_000, 10, n) for n in (100_000, 300_000, 1_000_000)),
            "quick": tuple(Size(200, 10, n) for n in (30_000, 100_000)),
            "tiny": tuple(Size(5, 3, n) for n in (50, 100)),
        },
        (
            Figure("first_s", "ready after, shortest", "s"),
            Figure("last_s", "ready after, longest", "s"),
            Figure("ratio", "longest / shortest", "x"),
        ),
        case="ready",
        build="build_long",
        backends=OURS_DURABLE,
        repeats=1,
        checkpoints=False,
        time_limit_s=900.0,
    ),
    Benchmark(
        "open-work",
        "a worker is ready, by the number of open runs (built log)",
        "series",
        {
            "full": tuple(Size(n, 10, 500_000) for n in (1_000, 5_000, 20_000)),
            "quick": tuple(Size(n, 10, 30_000) for n in (200, 1_000)),
            "tiny": (Size(2, 3, 15_000),),
        },
        (
            Figure("first_s", "ready after, fewest", "s"),
            Figure("last_s", "ready after, most", "s"),
            PEAK,
        ),
        case="ready",
        build="build_long",
        backends=OURS_DURABLE,
        repeats=1,
        time_limit_s=900.0,
    ),
    Benchmark(
        "ten-million",
        "a worker is ready on a log of ten million events (built log)",
        "built",
        {
            "full": (Size(10_000, 10, 10_000_000),),
            "quick": (Size(1_000, 10, 300_000),),
            "tiny": (Size(5, 3, 15_000),),
        },
        (
            Figure("ready_s", "ready after", "s", dict.fromkeys(OURS_DURABLE, 10.0)),
            ASSIGNED,
            Figure("events", "events", ""),
            Figure("checkpoints", "checkpoints", ""),
            PEAK,
        ),
        case="ready",
        build="build_long",
        backends=OURS_DURABLE,
        repeats=1,
        when_named=True,
        time_limit_s=3_600.0,
    ),
    Benchmark(
        "checkpoint-cost",
        "a steady load with checkpoints and without, in turn",
        "paired",
        _sizes((10_000, 10), (2_000, 10), (60, 5)),
        (
            _steps_per_s({}),
            Figure("bare_steps_per_s", "steps without", "/s", more_is_better=True),
            Figure("ratio", "time with / without", "x"),
            Figure(
                "share", "checkpoints' share of the log", "x", dict.fromkeys(OURS_DURABLE, 1 / 3)
            ),
        ),
        case="checkpoint_cost",
        backends=OURS_DURABLE,
        repeats=1,
    ),
    Benchmark(
        "hand-over",
        "how long partitions stand still when workers come and go; rounds",
        "live",
        _sizes((8, 0), (2, 0), (1, 0)),
        (
            Figure("stopped_p50_ms", "a worker is stopped, p50", "ms"),
            Figure("stopped_p95_ms", "p95", "ms"),
            Figure("stopped_max_ms", "longest", "ms", dict.fromkeys(OURS_DURABLE, 1_000)),
            Figure("joined_p50_ms", "a worker comes, p50", "ms"),
            Figure("joined_p95_ms", "p95", "ms"),
            Figure("joined_max_ms", "longest", "ms", dict.fromkeys(OURS_DURABLE, 1_000)),
            Figure("killed_p50_ms", "a worker is killed, p50", "ms"),
            Figure("killed_p95_ms", "p95", "ms"),
            Figure(
                "killed_max_ms", "longest", "ms", {"sqlite": 1_000, "kafka": SESSION_MS + 1_000}
            ),
            Figure("stayed_max_ms", "partitions that stay, when one comes", "ms"),
            Figure("calm_max_ms", "all, while nothing happens", "ms"),
        ),
        case="hand_over",
        backends=OURS_DURABLE,
        repeats=1,
        partitions=8,
        time_limit_s=900.0,
    ),
    Benchmark(
        "workers",
        "all at once, on one worker process and on two",
        "live",
        _sizes((2_000, 10), (500, 10), (4, 2)),
        (
            Figure("one_steps_per_s", "steps, one worker", "/s", more_is_better=True),
            Figure("two_steps_per_s", "steps, two workers", "/s", more_is_better=True),
            Figure("ratio", "two / one", "x", more_is_better=True),
        ),
        case="workers",
        backends=OURS_DURABLE,
        repeats=1,
        partitions=8,
    ),
    Benchmark(
        "import",
        "import what this log needs",
        "import",
        _sizes((1, 1), (1, 1), (1, 1)),
        (Figure("import_ms", "import", "ms"),),
        backends=DURABLE,
        repeats=3,
    ),
)
