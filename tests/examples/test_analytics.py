"""The analytics example runs as a reader would run it, and its chart shows what the job did."""

import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chart import chart

FOLLOW = Path(__file__).parents[2] / "examples" / "analytics" / "follow.py"
LIMIT_S = 280


@pytest.mark.slow
def test_a_jobs_events_come_to_duckdb_live_and_into_a_chart(tmp_path: Path) -> None:
    """Given the demo's job and a sink that is killed, every event is in the file once, and the chart is drawn."""
    output = tmp_path / "output"
    done = subprocess.run(
        [sys.executable, str(FOLLOW), "--output", str(output)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the job has ended: True" in done.stdout
    texts = [element.text for element in ET.parse(output / "chart.svg").iter() if element.text]
    assert any("clean_country (" in text for text in texts)
    assert "US" in texts


def test_the_chart_draws_what_it_is_given() -> None:
    """Given steps and countries, each has a bar and its figure; names are written as text, never as markup."""
    at = datetime(2026, 11, 28, tzinfo=UTC)
    pace = [(at, "a<b", 3), (at + timedelta(seconds=0.5), "c", 1)]
    root = ET.fromstring(chart(pace, [("NO", 10, 4)]))
    texts = [element.text for element in root.iter() if element.text and element.text.strip()]
    assert {"a<b (3)", "c (1)", "NO", "10", "3"} <= set(texts)
    assert (
        len([element for element in root.iter() if element.tag.endswith("rect")]) == 1 + 2 + 2 + 2
    )
