"""Exactly once, whatever is killed when: killed again and again, a projection has the rows of one left in peace."""

import asyncio
import os
import random
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from crash_target import Keep, catch_up, killed, projections, rows_of
from kafka_backend import KafkaBackend
from projection_samples import fill
from refold.log.protocol import Log
from refold.log.urls import open_log
from refold.projections.postgres_store import schema_of

STEPS = 10
RUNS_AT_ONCE = 40

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def seed() -> int:
    chosen = int(os.environ.get("REFOLD_SEED", random.SystemRandom().getrandbits(32)))
    print(f"REFOLD_SEED={chosen} brings the same moments back")  # as near as two processes allow
    return chosen


def kill(
    log: Log,
    runs: int,
    url: str,
    to: str,
    kills: int,
    together: int = 1,
    keep: Keep = "tables",
) -> None:
    """Kill followers of a log that begins with so many runs and grows meanwhile, then finish what they left."""

    async def kill_while_it_grows() -> str:
        await log.open()
        await fill(log, runs, STEPS)
        killing = asyncio.create_task(
            asyncio.to_thread(killed, url, to, kills, seed(), together, keep=keep)
        )
        first = runs
        more = RUNS_AT_ONCE if keep == "tables" else RUNS_AT_ONCE // 4
        while not killing.done():
            await fill(log, more, STEPS, first=first)
            first += more
            await asyncio.wait([killing], timeout=0.1)  # a log that grows, not one that is full
        await log.close()
        return await killing

    print(asyncio.run(kill_while_it_grows()))
    print(f"{asyncio.run(catch_up(url, to, keep))} events were left")


def test_a_projection_in_sqlite_killed_again_and_again_has_every_row_once(tmp_path: Path) -> None:
    """Given followers of which 50 are killed, the rows are those of a clean fold."""
    url = f"sqlite:///{tmp_path}/log.db?partitions=2"
    crashed, clean = str(tmp_path / "crashed"), str(tmp_path / "clean")
    kill(open_log(url), 5_000, url, crashed, int(os.environ.get("REFOLD_KILLS", "50")))
    asyncio.run(catch_up(url, clean))
    assert rows_of(url, crashed) == rows_of(url, clean)


def test_metrics_killed_again_and_again_count_every_event_once(tmp_path: Path) -> None:
    """Given followers of which 50 are killed, the cells of metrics are those of a clean fold, to the byte."""
    url = f"sqlite:///{tmp_path}/log.db?partitions=2"
    crashed, clean = str(tmp_path / "crashed"), str(tmp_path / "clean")
    kills = int(os.environ.get("REFOLD_KILLS", "50"))
    kill(open_log(url), 500, url, crashed, kills, keep="metrics")
    asyncio.run(catch_up(url, clean, "metrics"))
    assert rows_of(url, crashed, "metrics") == rows_of(url, clean, "metrics")


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "duckdb", "postgres"])
def test_a_sink_killed_again_and_again_has_every_row_once(
    kind: Keep, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Given a sink of whose writers 50 are killed, its rows are those of a clean export, to the byte."""
    url = f"sqlite:///{tmp_path}/log.db?partitions=2"

    def place(name: str) -> str:
        if kind == "postgres":
            return f"{request.getfixturevalue('postgres')}#{name}_{uuid4().hex[:12]}"
        return str(tmp_path / f"{name}.{kind}")

    crashed, clean = place("crashed"), place("clean")
    kills = int(os.environ.get("REFOLD_KILLS", "50"))
    kill(open_log(url), 500, url, crashed, kills, keep=kind)
    asyncio.run(catch_up(url, clean, kind))
    assert rows_of(url, crashed, kind) == rows_of(url, clean, kind)


def test_two_processes_that_share_a_projection_and_are_killed_in_turn_have_every_row_once(
    tmp_path: Path,
) -> None:
    """Given two followers at any time, of which one after the other is killed, the same holds."""
    url = f"sqlite:///{tmp_path}/log.db?partitions=4"
    crashed, clean = str(tmp_path / "crashed"), str(tmp_path / "clean")
    kill(open_log(url), 3_000, url, crashed, 15, together=2)
    asyncio.run(catch_up(url, clean))
    assert rows_of(url, crashed) == rows_of(url, clean)


def test_a_projection_in_postgresql_killed_again_and_again_has_every_row_once(
    tmp_path: Path, postgres: str
) -> None:
    """Given followers of which 15 are killed, the rows in PostgreSQL are those of a clean fold."""
    stem = f"t{uuid4().hex[:8]}"
    url = f"sqlite:///{tmp_path}/{stem}.db?partitions=2"
    try:
        kill(open_log(url), 2_000, url, postgres, 15)
        crashed = rows_of(url, postgres)
        _drop(postgres, stem)
        asyncio.run(catch_up(url, postgres))
        assert rows_of(url, postgres) == crashed
    finally:
        _drop(postgres, stem)


def _drop(url: str, stem: str) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        for projection in projections():
            schema = sql.Identifier(schema_of(stem, projection.name))
            db.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))


def test_processes_that_share_a_projection_of_kafka_and_are_killed_have_every_row_once(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a consumer group of two, of which four are killed in turn, the rows are those of a clean fold."""
    monkeypatch.setenv("REFOLD_KAFKA_SESSION_TIMEOUT_MS", "3000")
    backend = KafkaBackend(kafka_bootstrap)
    url = f"kafka://{kafka_bootstrap}/{backend.namespace}"
    crashed, clean = str(tmp_path / "crashed"), str(tmp_path / "clean")
    kill(backend.log(), 100, url, crashed, 4, together=2)
    asyncio.run(catch_up(url, clean))
    assert rows_of(url, crashed) == rows_of(url, clean)
