"""What the figures were measured on: without it they mean nothing."""

import importlib.metadata
import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter

PACKAGES = ("refold", "dbos", "kafka-python", "fastavro", "pydantic")

FSYNCS = 200
FSYNC_BYTES = 4096


def facts(directory: Path) -> dict[str, str | float | int]:
    """Processor, disk and versions.

    Args:
        directory: Where files are written: the disk that is measured.
    """
    fsync_ms = _fsync_ms(directory)
    return {
        "cores": _cores(),
        "processor": _processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "filesystem": _filesystem(directory),
        "fsync_p50_ms": round(statistics.median(fsync_ms), 3),
        "fsync_p99_ms": round(sorted(fsync_ms)[int(len(fsync_ms) * 0.99)], 3),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def _fsync_ms(directory: Path) -> list[float]:
    """How long the disk takes to make 4 KiB durable: the floor of every sequential durable step."""
    took_ms: list[float] = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(FSYNCS):
            file.write(bytes(FSYNC_BYTES))
            began = perf_counter()
            os.fsync(file.fileno())
            took_ms.append((perf_counter() - began) * 1e3)
    return took_ms


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _filesystem(directory: Path) -> str:
    """Type of the file system: on tmpfs, fsync costs nothing and proves nothing."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "unknown"
    best, found = "", "unknown"
    for line in mounts.read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if directory.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, found = mount, kind
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
