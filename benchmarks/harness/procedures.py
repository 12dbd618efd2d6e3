"""How each kind of benchmark is carried out, once: which processes run on a fresh log, and which are killed."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import children
from job import Job, Measured
from plan import Backend, Benchmark, Kind, Size
from storage import Storage, Storages

Procedure = Callable[[Benchmark, Backend, Sequence[Size], Storages], Measured]

_IMPORT = (
    "import time; t = time.perf_counter(); {work}; t = time.perf_counter() - t; "
    'print(\'{{"figures": {{"import_ms": %f}}, "points": []}}\' % (t * 1e3))'
)


def measure(
    benchmark: Benchmark, backend: Backend, sizes: Sequence[Size], storages: Storages
) -> Measured:
    """Carry a benchmark out once.

    Raises:
        ChildFailedError: A child process failed.
    """
    return _PROCEDURES[benchmark.kind](benchmark, backend, sizes, storages)


def _live(
    benchmark: Benchmark, backend: Backend, sizes: Sequence[Size], storages: Storages
) -> Measured:
    """One process that works."""
    (size,) = sizes
    with storages.fresh(backend, benchmark.partitions) as storage:
        job = _job(storage, size, benchmark.case)
        measured = children.run(backend, job, benchmark.time_limit_s)
        disk_bytes = storage.disk_bytes()
    if disk_bytes is not None and size.steps:
        measured.figures["bytes_per_step"] = disk_bytes / (size.workflows * size.steps)
    return measured


def _killed(
    _benchmark: Benchmark, backend: Backend, sizes: Sequence[Size], storages: Storages
) -> Measured:
    """One process that works until it is killed, and one that recovers."""
    (size,) = sizes
    with storages.fresh(backend) as storage:
        children.run_until_killed(backend, _job(storage, size, "fill"))
        storage.wait_until_free()
        return children.run(backend, _job(storage, size, "recover"))


def _built(
    benchmark: Benchmark, backend: Backend, sizes: Sequence[Size], storages: Storages
) -> Measured:
    """One process that builds a log, and one that measures on it; in memory one process must do both."""
    (size,) = sizes
    with storages.fresh(backend) as storage:
        if backend == "memory":
            return children.run(backend, _job(storage, size, benchmark.build, benchmark.case))
        build = replace(_job(storage, size, benchmark.build), checkpoints=benchmark.checkpoints)
        built = children.run(backend, build, benchmark.time_limit_s)
        measured = children.run(
            backend, _job(storage, size, benchmark.case), benchmark.time_limit_s
        )
    return Measured({**built.figures, **measured.figures}, measured.points, measured.samples)


def _series(
    benchmark: Benchmark, backend: Backend, sizes: Sequence[Size], storages: Storages
) -> Measured:
    """A built log a size: a point each, by the number that differs."""
    measured = Measured()
    by_events = len({size.events for size in sizes}) > 1
    for size in sizes:
        once = _built(benchmark, backend, [size], storages).figures
        x = round(once["events"]) if by_events else size.workflows
        measured.points.append((x, once["ready_s"]))
        measured.figures["peak_mb"] = once["peak_mb"]
    first_s, last_s = measured.points[0][1], measured.points[-1][1]
    measured.figures |= {"first_s": first_s, "last_s": last_s, "ratio": last_s / first_s}
    return measured


def _paired(
    benchmark: Benchmark, backend: Backend, sizes: Sequence[Size], storages: Storages
) -> Measured:
    """One process that works on two logs in turn."""
    (size,) = sizes
    with storages.fresh(backend) as storage, storages.fresh(backend) as beside:
        job = replace(_job(storage, size, benchmark.case), beside=beside.url)
        return children.run(backend, job, benchmark.time_limit_s)


def _burst(
    benchmark: Benchmark, backend: Backend, sizes: Sequence[Size], storages: Storages
) -> Measured:
    """One process and log a size: a point each."""
    measured = Measured()
    for size in sizes:
        once = _live(benchmark, backend, [size], storages)
        measured.points.append((size.workflows, once.figures["us_per_step"]))
        measured.figures["peak_mb"] = once.figures["peak_mb"]
    first_us, last_us = measured.points[0][1], measured.points[-1][1]
    measured.figures |= {"first_us": first_us, "last_us": last_us, "ratio": last_us / first_us}
    return measured


def _import(
    _benchmark: Benchmark, backend: Backend, _sizes: Sequence[Size], _storages: Storages
) -> Measured:
    """A fresh interpreter that imports what a program on this log imports."""
    match backend:
        case "dbos":
            work = "from dbos import DBOS"
        case "kafka":
            work = "import refold, refold.log.kafka"
        case _:
            work = "import refold"
    return children.run_code(_IMPORT.format(work=work))


def _job(storage: Storage, size: Size, *cases: str) -> Job:
    return Job(cases, storage.url, size.workflows, size.steps, size.events)


_PROCEDURES: dict[Kind, Procedure] = {
    "live": _live,
    "killed": _killed,
    "built": _built,
    "burst": _burst,
    "import": _import,
    "series": _series,
    "paired": _paired,
}
