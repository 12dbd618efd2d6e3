"""A durable job's events, live in a DuckDB file, and a chart of them: what a data engineer would copy.

    python examples/analytics/follow.py [--output DIRECTORY]

The job is that of examples/demo. Three processes know each other by their files alone:

    examples/demo/worker.py          runs the job; its log is DIRECTORY/refold.db
    refold sink duckdb ...           takes the log's events to DIRECTORY/events.duckdb, with typed columns
    this one                         asks DuckDB while they are at it, and draws DIRECTORY/chart.svg

The sink is killed with SIGKILL on the way and started again. The chart counts every event once all the same.
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import duckdb

from chart import chart

DEMO: Final = Path(__file__).resolve().parents[1] / "demo"
PATIENCE_S: Final = 120.0
LOOK_EVERY_S: Final = 0.5
KILL_AFTER_EVENTS: Final = 400

PACE: Final = """
SELECT time_bucket(INTERVAL 250 MILLISECONDS, recorded_at) AS bucket, name, count(*) AS steps
FROM events WHERE kind = 'step.completed' GROUP BY ALL ORDER BY bucket
"""
COUNTRIES: Final = """
SELECT payload_country, payload_airports, payload_with_iata
FROM events WHERE kind = 'step.completed' AND name = 'clean_country'
ORDER BY payload_airports DESC LIMIT 12
"""
ONCE: Final = (
    "SELECT count(*), count(DISTINCT event_id), count_if(kind = 'workflow.completed') FROM events"
)


def main() -> int:
    """Run the job with a sink beside it; returns 0 if every event is there once."""
    output = _output()
    url, file = f"sqlite:///{output / 'refold.db'}", output / "events.duckdb"
    release = {
        "directory": str(output / "atlas"),
        "journal": str(output / "executions.log"),
        "year": datetime.now(UTC).year,
        "parallel": 8,
    }
    with subprocess.Popen(
        [sys.executable, DEMO / "worker.py", url, "1", json.dumps(release)]
    ) as worker:
        _wait_for(output / "refold.db")
        sink = _sink(url, file)
        try:
            _watch_until(file, KILL_AFTER_EVENTS, worker)
            sink.kill()
            sink.wait()
            print("the sink was killed; it is started again and goes on where its file stands")
            sink = _sink(url, file)
            _watch_until(file, sys.maxsize, worker)
            worker.wait(PATIENCE_S)
        finally:
            sink.terminate()  # it writes what it has read, and ends
            sink.wait(PATIENCE_S)
            worker.kill()
    _export(url, file)  # what came between its last look and its end
    with closing(duckdb.connect(str(file), read_only=True)) as db:
        ((events, ids, ended),) = db.sql(ONCE).fetchall()
        (output / "chart.svg").write_text(
            chart(db.sql(PACE).fetchall(), db.sql(COUNTRIES).fetchall())
        )
    print(f"{events:,} events, {ids:,} different ones; the job has ended: {bool(ended)}")
    print(f"the chart: {output / 'chart.svg'}")
    return 0 if events == ids and ended == 1 else 1


def _refold(command: str, url: str, file: Path, *words: str) -> list[str]:
    refold = [sys.executable, "-m", "refold", command, "duckdb", str(file), "--url", url]
    return [*refold, "--types", "atlas.job", *words]


def _sink(url: str, file: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(_refold("sink", url, file, "--every-s", "0.5"), cwd=DEMO)


def _export(url: str, file: Path) -> None:
    subprocess.run(_refold("export", url, file), cwd=DEMO, check=True)


def _watch_until(file: Path, events: int, worker: subprocess.Popen[bytes]) -> None:
    """Ask what is there, again and again, until there are so many events or the job has ended."""
    seen, deadline = 0, time.monotonic() + PATIENCE_S
    while seen < events and worker.poll() is None and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)
        # While the sink has the file, DuckDB lets nobody else open it: a moment later it does.
        with suppress(duckdb.Error), closing(duckdb.connect(str(file), read_only=True)) as db:
            rows: list[tuple[Any, ...]] = db.sql(
                "SELECT name, count(*) FROM events WHERE kind = 'step.completed' GROUP BY ALL ORDER BY 2 DESC LIMIT 3"
            ).fetchall()
            before, ((seen,),) = seen, db.sql("SELECT count(*) FROM events").fetchall()
            if seen > before:
                print(
                    f"{seen:,} events; steps: {', '.join(f'{name} {count}' for name, count in rows)}"
                )


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def _output() -> Path:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("analytics-output"))
    output: Path = parser.parse_args().output.resolve()
    if output.exists():
        parser.error(f"{output} is there already: remove it, or name another with --output")
    (output / "atlas").mkdir(parents=True)
    return output


if __name__ == "__main__":
    sys.exit(main())
