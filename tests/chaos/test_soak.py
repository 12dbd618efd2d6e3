"""The soak in short: real workers under load, measured, judged and reported; whether it is flat takes longer to say."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from chaos_flatness import Sample
from chaos_samples import held_by
from chaos_soak import Load, Soaked, report, soak

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(200),
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="measures by Linux's /proc"),
]


def test_a_soak_measures_every_process_while_runs_come_to_their_ends(tmp_path: Path) -> None:
    """Given some seconds of load on SQLite, every run ends, and there are samples of all that is watched."""
    load = Load("sqlite", seconds=5, rate=8, workers=2, sample_s=0.2)
    soaked = asyncio.run(soak(load, tmp_path, Console(quiet=True)))
    assert (soaked.started, dict(soaked.failed)) == (40, {})
    assert soaked.ended == 40
    who = ("worker-1", "worker-2", "client")
    expected = {f"{process}.{what}" for process in who for what in ("memory", "files", "threads")}
    assert soaked.series.keys() == expected | {"log.lag", "log.backlog"}
    assert all(sample.value > 1 for sample in soaked.series["worker-1.memory"])
    assert soaked.series["log.backlog"][-1].value <= 40
    report(soaked, tmp_path, Console(quiet=True))
    numbers = cast("Mapping[str, object]", json.loads((tmp_path / "report.json").read_text()))
    assert numbers["ended"] == 40
    assert "worker-2.threads" in (tmp_path / "report.html").read_text()


def test_growth_in_memory_is_said_for_each_run_that_ended(tmp_path: Path) -> None:
    """Given a worker that keeps 10 kB of each run that ended, the report says that it grows, and by how much."""
    soaked = Soaked(Load("sqlite", 600, 10, 1, 5))
    for place in range(120):
        soaked.ended_at.append(Sample(5.0 * place, 50.0 * place))
        soaked.series["worker-1.memory"].append(Sample(5.0 * place, 60 + 0.5 * place))
    verdicts = soaked.verdicts()
    assert verdicts["worker-1.memory"].flat is False
    each = soaked.bytes_a_run("worker-1.memory", verdicts["worker-1.memory"])
    assert each == pytest.approx(10_000)
    assert report(soaked, tmp_path, Console(quiet=True)) is False
    assert "grow" in (tmp_path / "report.html").read_text()


def test_what_a_process_holds_is_nothing_when_it_has_ended() -> None:
    """Given the pid of nobody, there is nothing to measure, and no error."""
    assert held_by(2**22 + 1) == {}
