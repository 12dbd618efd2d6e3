"""`refold metrics`: tables, JSON, what is kept, and what Prometheus reads."""

import json
import signal
import time
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli_process import PATIENCE_S, CommandLine
from refold import MetricContext, metric
from refold.log.events import Event
from refold.projections.histogram import Cell
from refold.projections.metric_fold import MONDAY
from refold.services.metric_exposition import families_of
from refold.services.metric_view import Period, Series, sparkline

FIGURES = '''
from refold import metric

@metric(unit="EUR", by=("workflow", "step"), kinds="step.completed", aggregate="sum")
def orders(event, context):
    """Something to count."""
    return 2.5 if context.value.startswith("payment") else None
'''


def test_ready_metrics_are_shown_and_told_as_json(refold: CommandLine) -> None:
    """Given two runs, the metrics that come with refold have their numbers, as a table and as lines."""
    refold("run", "shop:checkout", "42", "--id", "order-42")
    refold("run", "shop:failing", "1", "--id", "order-1", code=1)
    said = refold("metrics").stdout
    assert "step_duration" in said
    assert "a bar is 1 d 0 h" in said
    lines = [json.loads(line) for line in refold("metrics", "--json").stdout.splitlines()]
    failures = {e["workflow"]: e["rate"] for e in lines if e["metric"] == "run_failures"}
    assert failures == {"checkout": 0, "failing": 1}
    attempts = [e for e in lines if e["metric"] == "failed_attempts"]
    assert [(e["step"], e["count"]) for e in attempts] == [("charge", 1)]
    assert refold("metrics", "--since", "2999-01-01T00:00Z", "--json").stdout == ""


def test_a_period_in_which_no_window_begins_is_refused_with_advice(refold: CommandLine) -> None:
    """Given an hour and windows of a day, the answer is not that nothing was measured, but what to ask for."""
    hour = ("--since", "2026-01-01T10:00Z", "--until", "2026-01-01T11:00Z")
    assert "give a shorter one" in refold("metrics", *hour, code=2).stderr
    refold("run", "shop:checkout", "42", "--id", "order-42")
    assert "nothing was measured" in refold("metrics", *hour, "--every", "5m").stdout


def test_metrics_of_a_module_are_kept_and_gone_on_with(refold: CommandLine) -> None:
    """Given a module of one's own, its metric has values for what was before it; what is kept is gone on with."""
    refold("run", "shop:checkout", "42", "--id", "order-42")
    (refold.directory / "figures.py").write_text(FIGURES)
    asked = ("metrics", "figures:orders", "--keep", "kept", "--json")
    assert [json.loads(line)["sum"] for line in refold(*asked).stdout.splitlines()] == [2.5]
    refold("run", "shop:checkout", "43", "--id", "order-43")
    again = [json.loads(line)["sum"] for line in refold(*asked).stdout.splitlines()]
    assert again == [5.0]
    assert "figures:order is no metric" in refold("metrics", "figures:order", code=2).stderr
    assert "'shop' has no metrics" in refold("metrics", "shop", code=2).stderr


def test_prometheus_reads_what_comes(refold: CommandLine) -> None:
    """Given --port, what the log adds up to is served, and grows with it."""
    refold("run", "shop:checkout", "42", "--id", "order-42")
    with refold.begin("metrics", "--port", "0", "--keep", "kept") as server:
        address = server.until("metrics at http").split()[2].rstrip(";")
        assert _completed(address, 2) == 2
        refold("run", "shop:checkout", "43", "--id", "order-43")
        assert _completed(address, 4) == 4
        assert server.stopped(signal.SIGTERM) == 0


def _completed(address: str, wanted: int) -> float:
    """How many steps have a duration, as soon as there are so many."""
    text = ""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with urlopen(address, timeout=PATIENCE_S) as page:
            text = page.read().decode()
        samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
        counts = [s.value for s in samples if s.name == "refold_step_duration_seconds_count"]
        if sum(counts) >= wanted:
            return sum(counts)
    pytest.fail(f"not {wanted} steps: {text}")


def test_each_aggregate_has_its_form_in_prometheus() -> None:
    """Given one metric of each sort, histograms, counters and gauges come of them."""

    def one(event: Event, context: MetricContext) -> int:
        """A number."""
        return 1

    def told(aggregate: str, *values: float) -> dict[str, float]:
        cell = Cell()
        for value in values:
            cell.add(value, spread=True)
        made = metric(name="m", unit="EUR", by=("attribute:shop",), aggregate=aggregate)(one)  # type: ignore[arg-type]
        series = [Series(("a",), {}, cell)]
        found: dict[str, float] = {}
        for family in families_of(made, series):
            for sample in family.samples:
                assert sample.labels["attribute_shop"] == "a"
                if sample.labels.get("le", "10") == "10":
                    found[sample.name] = sample.value
        return found

    assert told("sum", 2.0, 3.0) == {"refold_m_EUR_total": 5.0}
    assert told("sum", 2.0, -3.0) == {"refold_m_EUR": -1.0}
    assert told("count", 2.0, 3.0) == {"refold_m_EUR_total": 2.0}
    assert told("rate", 1.0, 0.0) == {"refold_m_total": 2.0, "refold_m_hits_total": 1.0}
    spread = told("percentiles", 2.0, 30.0)
    assert spread == {
        "refold_m_EUR_bucket": 1.0,
        "refold_m_EUR_count": 2.0,
        "refold_m_EUR_sum": 32.0,
    }


def test_a_picture_has_a_bar_for_each_window() -> None:
    """Given counts in windows, bars are as high as they are, on one scale; nothing is a space."""
    counting = metric(name="m", aggregate="count")(lambda event, context: 1)
    windows = {MONDAY + n: Cell(count=count) for n, count in ((0, 1), (2, 8), (3, 4))}
    series = Series((), windows, Cell())
    assert sparkline(series, counting, Period(MONDAY, MONDAY + 5, 1)) == "▂ █▅ "
    assert sparkline(series, counting, Period(MONDAY, MONDAY + 60, 1)).rstrip() == "▁█"
