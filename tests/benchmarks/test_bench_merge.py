"""Results of several runs are put together by the harness, and by no hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from merged import merge


def kept(path: Path, commit: str, load: float, medians: dict[str, float], **other: Any) -> Path:
    """A file of results: a figure of each benchmark, named as in "tail on kafka"."""
    machine = {
        "cores": 2,
        "processor": "p",
        "memory_gb": 8.0,
        "commit": commit,
        "load_before": load,
        **other,
    }
    figures: list[dict[str, Any]] = []
    for name, median in medians.items():
        benchmark, _, backend = name.split()
        figures.append({"benchmark": benchmark, "backend": backend, "median": median})
    document = {"format": 1, "level": "full", "machine": machine, "figures": figures}
    path.write_text(json.dumps({**document, "curves": [], "samples": []}))
    return path


def medians(path: Path) -> list[tuple[str, float]]:
    figures = json.loads(path.read_text())["figures"]
    return [(f"{one['benchmark']} on {one['backend']}", one["median"]) for one in figures]


def test_of_each_benchmark_the_last_run_counts(tmp_path: Path) -> None:
    """Given two runs, each figure is the last that there is, in the plan's order, and says from which run it came."""
    first = kept(tmp_path / "a", "c1", 0.1, {"verify on sqlite": 1, "tail on sqlite": 2})
    second = kept(tmp_path / "b", "c2", 0.9, {"verify on sqlite": 3, "tail on kafka": 4})
    merge([first, second], tmp_path / "out")
    assert medians(tmp_path / "out") == [
        ("tail on sqlite", 2),
        ("tail on kafka", 4),
        ("verify on sqlite", 3),
    ]
    document = json.loads((tmp_path / "out").read_text())
    assert document["machine"]["load_before"] == 0.9
    assert document["runs"] == [
        {"commit": "c1", "load_before": 0.1, "measured": ["tail on sqlite"]},
        {"commit": "c2", "load_before": 0.9, "measured": ["tail on kafka", "verify on sqlite"]},
    ]


def test_what_was_merged_can_be_merged_again(tmp_path: Path) -> None:
    """Given a merged file and a newer run, the figures that stay keep the runs that they are from."""
    out = tmp_path / "out"
    merge(
        [
            kept(tmp_path / "a", "c1", 0.1, {"tail on sqlite": 1, "fold on sqlite": 2}),
            kept(tmp_path / "b", "c2", 0.2, {"verify on sqlite": 3}),
        ],
        out,
    )
    merge([out, kept(tmp_path / "c", "c3", 0.3, {"tail on sqlite": 4})], out)
    assert medians(out) == [("fold on sqlite", 2), ("tail on sqlite", 4), ("verify on sqlite", 3)]
    runs = json.loads(out.read_text())["runs"]
    assert [(run["commit"], run["measured"]) for run in runs] == [
        ("c1", ["fold on sqlite"]),
        ("c2", ["verify on sqlite"]),
        ("c3", ["tail on sqlite"]),
    ]


def test_what_was_measured_elsewhere_is_not_merged(tmp_path: Path) -> None:
    """Given a run on another machine, it is refused, and nothing is written."""
    first = kept(tmp_path / "a", "c1", 0.1, {"tail on sqlite": 1})
    other = kept(tmp_path / "b", "c1", 0.1, {"tail on sqlite": 1}, cores=64)
    with pytest.raises(SystemExit, match="differ in cores"):
        merge([first, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()
