"""The benchmarks run: smallest sizes, one turn each, every one gives its figures. No time is asserted."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ON_EVERY_LOG = {
    *("throughput", "sequential", "latency", "threads", "fold", "tail", "burst"),
    *("round-trip", "fan-out"),
}
OF_LONG_LIVES = {"history", "whole-history", "open-work", "checkpoint-cost", "hand-over", "workers"}
ON_DURABLE_LOGS = {
    *(
        "recovery",
        "resume",
        "long-history",
        "many-open",
        "check",
        "projection",
        "verify",
        "export",
        "growth",
        "stream",
        "import",
    ),
    *OF_LONG_LIVES,
}
NOT_ON_KAFKA_HERE = {
    "hand-over",  # a worker that is killed is missed after six seconds; tests/processes kill them on Kafka as well
    *("whole-history", "open-work"),  # as history, but for the sizes
    "export",  # the sinks are fed as projections are
}
ON_SQLITE = {"sleepers", "read-model"}
OF_THE_PEER = {"throughput", "sequential", "latency", "threads", "recovery", "resume", "import"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def bench(directory: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks at their smallest."""
    return subprocess.run(
        [
            *(sys.executable, str(ROOT / "benchmarks" / "run.py"), "--tiny", "--repeat", "1"),
            *("--json", str(directory / "out.json"), "--dir", str(directory), *args),
        ],
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )


def measured(
    directory: Path, backends: Sequence[str], only: Iterable[str] = ()
) -> dict[str, set[str]]:
    """Which benchmarks gave figures, all of them above zero, for each backend."""
    done = bench(directory, "--backends", ",".join(backends), "--only", ",".join(only))
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((directory / "out.json").read_text())
    assert document["machine"]["cores"] > 0
    assert all(figure["median"] > 0 for figure in document["figures"])
    found: dict[str, set[str]] = {backend: set() for backend in backends}
    for figure in document["figures"]:
        found[figure["backend"]].add(figure["benchmark"])
    return found


def test_every_benchmark_gives_figures_in_memory_and_on_sqlite(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the smallest sizes, when all benchmarks run on the embedded logs, each gives figures and leaves nothing."""
    monkeypatch.setenv("POSTGRES_URL", postgres)
    found = measured(tmp_path, ["memory", "sqlite"])
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".svg"}
    assert found == {"memory": ON_EVERY_LOG, "sqlite": ON_EVERY_LOG | ON_DURABLE_LOGS | ON_SQLITE}


def test_every_benchmark_gives_figures_on_kafka(
    tmp_path: Path, kafka_bootstrap: str, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a real broker, when the benchmarks run on it, then each gives its figures."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP", kafka_bootstrap)
    monkeypatch.setenv("POSTGRES_URL", postgres)
    wanted = (ON_EVERY_LOG | ON_DURABLE_LOGS) - NOT_ON_KAFKA_HERE
    assert measured(tmp_path, ["kafka"], wanted) == {"kafka": wanted}


def test_what_takes_very_long_is_measured_where_it_is_named(tmp_path: Path) -> None:
    """Given the name of a benchmark that is left out of all others, when it is asked for, then it gives its figures."""
    assert measured(tmp_path, ["sqlite"], ["ten-million"]) == {"sqlite": {"ten-million"}}


@pytest.mark.skipif(
    importlib.util.find_spec("dbos") is None, reason="the peer is installed by `make bench` only"
)
def test_every_benchmark_of_the_peer_gives_figures(tmp_path: Path) -> None:
    """Given DBOS, when its benchmarks run, then each gives its figures."""
    assert measured(tmp_path, ["dbos"]) == {"dbos": OF_THE_PEER}


def test_a_name_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    """Given a misspelt benchmark, when it is asked for, then the error lists the right names."""
    done = bench(tmp_path, "--only", "throughputs")
    assert done.returncode == 2
    assert "throughput, sequential, latency" in done.stderr
