"""`refold worker --metrics-port`: a worker's numbers for Prometheus."""

import re
import signal
import urllib.request
from pathlib import Path

import pytest

from cli_process import CommandLine
from refold.services.exits import ExitCode

pytest.importorskip("prometheus_client")


def scraped(url: str) -> dict[str, float]:
    """The metrics, by name and labels."""
    with urllib.request.urlopen(url) as answer:
        text: str = answer.read().decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(number) for name, _, number in lines}


def test_open_runs_partitions_and_events_are_served(refold: CommandLine) -> None:
    """Given runs under way, the numbers tell of them when somebody asks."""
    with refold.begin("worker", "office", "--metrics-port", "0") as worker:
        found = re.search(r"http://127\.0\.0\.1:\d+/metrics", worker.until("metrics url="))
        assert found is not None
        worker.until("owned=0")
        refold("start", "office:letters", "a", "--id", "a")
        refold("start", "office:letters", "b", "--id", "b")
        refold("start", "office:desk", "--id", "d")
        refold("pause", "a", "b")
        numbers = scraped(found.group())
        assert numbers['refold_open_runs{status="paused",workflow="letters"}'] == 2
        assert numbers['refold_open_runs{status="running",workflow="desk"}'] == 1
        assert numbers["refold_owned_partitions"] == 1
        assert numbers["refold_longest_history"] >= 1
        assert numbers["refold_history_warnings_total"] == 0
        assert numbers["refold_events_total"] >= 8  # three starts, two steps, two pauses, a value
        assert worker.stopped(signal.SIGTERM) == 0


def test_without_the_extra_the_error_names_it(refold: CommandLine, shop: Path) -> None:
    """Given no prometheus-client, the worker does not start and says what to install."""
    (shop / "prometheus_client.py").write_text("raise ImportError('not installed')\n")
    done = refold("worker", "office", "--metrics-port", "0", code=ExitCode.USAGE)
    assert "pip install 'refold[metrics]'" in done.stderr


def test_a_port_that_is_taken_is_one_error(refold: CommandLine) -> None:
    """Given two workers with one port, the second says so and does not start."""
    with refold.begin("worker", "office", "--metrics-port", "0") as worker:
        port = re.search(r":(\d+)/metrics", worker.until("metrics url="))
        assert port is not None
        done = refold("worker", "office", "--metrics-port", port[1], code=ExitCode.USAGE)
        assert f"metrics can't be served at 127.0.0.1:{port[1]}" in done.stderr
