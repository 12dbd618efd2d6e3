"""Results of several runs as one: of each benchmark on each log, those of the last file that has it.

    run.py --merge results/morning.json results/kafka.json --json results/reference.json

So what is measured alone, or again, takes its place beside the rest with no hand at the figures. Under `runs` stands
what came from which run, and how busy the machine was.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from plan import BENCHMARKS
from results import FORMAT, Curve, Sample

SAME: Final = ("format", "level")
SAME_MACHINE: Final = ("cores", "processor", "memory_gb")
MEASURED: Final = ("figures", "curves", "samples")

Key = tuple[str, str]
"""Benchmark and backend."""


def merge(paths: Sequence[Path], to: Path) -> tuple[list[Curve], list[Sample]]:
    """Make one file of several.

    Args:
        paths: The files, of which later ones count.
        to: The file to write; it may be one of them.

    Returns:
        What is to be drawn.
    """
    documents = [_read(path) for path in paths]
    _check_alike(paths, documents)
    last: dict[Key, int] = {}
    for number, document in enumerate(documents):
        last.update(dict.fromkeys(map(_key, document["figures"]), number))
    merged: dict[str, Any] = {
        "format": FORMAT,
        "level": documents[-1]["level"],
        "machine": {**documents[-1]["machine"], "load_before": _busiest(documents)},
        "runs": _runs(documents, last),
    }
    for part in MEASURED:
        merged[part] = [
            entry
            for number, document in enumerate(documents)
            for entry in document.get(part, [])
            if last.get(_key(entry)) == number
        ]
        merged[part].sort(key=_place)
    to.write_text(json.dumps(merged, indent=1) + "\n")
    curves = [
        Curve(one["benchmark"], one["backend"], tuple((x, y) for x, y in one["points"]))
        for one in merged["curves"]
    ]
    samples = [
        Sample(one["benchmark"], one["backend"], one["name"], tuple(one["values"]))
        for one in merged["samples"]
    ]
    return curves, samples


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"{path} can't be merged: {error}")
    if document.get("format") != FORMAT:
        sys.exit(f"{path} can't be merged: it is no file that this release keeps")
    return document


def _check_alike(paths: Sequence[Path], documents: Sequence[Mapping[str, Any]]) -> None:
    first = documents[0]
    for path, document in zip(paths, documents, strict=True):
        other = {name for name in SAME if document[name] != first[name]}
        other |= {n for n in SAME_MACHINE if document["machine"][n] != first["machine"][n]}
        if other:
            sys.exit(
                f"{path} can't be merged with {paths[0]}: they differ in {', '.join(sorted(other))}"
            )


def _runs(documents: Sequence[Mapping[str, Any]], last: Mapping[Key, int]) -> list[dict[str, Any]]:
    """Which figures came from which run; what was merged before keeps its runs, less what was replaced."""
    runs: list[dict[str, Any]] = []
    for number, document in enumerate(documents):
        own = [f"{name} on {log}" for (name, log), of in last.items() if of == number]
        machine = document["machine"]
        before = document.get("runs") or [
            {"commit": machine["commit"], "load_before": machine["load_before"], "measured": own}
        ]
        for run in before:
            kept = sorted(set(run["measured"]) & set(own))
            if kept:
                runs.append({**run, "measured": kept})
    return runs


def _busiest(documents: Sequence[Mapping[str, Any]]) -> float:
    return max(float(document["machine"]["load_before"]) for document in documents)


def _key(entry: Mapping[str, Any]) -> Key:
    return entry["benchmark"], entry["backend"]


def _place(entry: Mapping[str, Any]) -> int:
    """In the order of the plan; the sort keeps that of figures and logs."""
    names = [benchmark.name for benchmark in BENCHMARKS]
    name = entry["benchmark"]
    return names.index(name) if name in names else len(names)
