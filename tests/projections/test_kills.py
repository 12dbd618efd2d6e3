"""Exactly once, whatever is killed when: killed again and again, a projection has the rows of one left in peace."""

import asyncio
import os
import random
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from crash_projection import catch_up, killed, projections, rows_of
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


async def write(log: Log, runs: int) -> None:
    await log.open()
    await fill(log, runs, STEPS)
    await log.close()


def check(url: str, crashed: str, clean: str, kills: int, together: int = 1) -> None:
    """Kill, finish, and compare with a clean fold."""
    print(killed(url, crashed, kills, seed(), together))
    left = asyncio.run(catch_up(url, crashed))
    print(f"{left} events were left")
    assert left > 0, "the log was too short: the last kills met nobody at work"
    asyncio.run(catch_up(url, clean))
    assert rows_of(url, crashed) == rows_of(url, clean)


def test_a_projection_in_sqlite_killed_again_and_again_has_every_row_once(tmp_path: Path) -> None:
    """Given followers of which 50 are killed, the rows are those of a clean fold."""
    url = f"sqlite:///{tmp_path}/log.db?partitions=2"
    asyncio.run(write(open_log(url), 7_000))
    kills = int(os.environ.get("REFOLD_KILLS", "50"))
    check(url, str(tmp_path / "crashed"), str(tmp_path / "clean"), kills)


def test_two_processes_that_share_a_projection_and_are_killed_in_turn_have_every_row_once(
    tmp_path: Path,
) -> None:
    """Given two followers at any time, of which one after the other is killed, the same holds."""
    url = f"sqlite:///{tmp_path}/log.db?partitions=4"
    asyncio.run(write(open_log(url), 4_000))
    check(url, str(tmp_path / "crashed"), str(tmp_path / "clean"), 15, together=2)


def test_a_projection_in_postgresql_killed_again_and_again_has_every_row_once(
    tmp_path: Path, postgres: str
) -> None:
    """Given followers of which 15 are killed, the rows in PostgreSQL are those of a clean fold."""
    stem = f"t{uuid4().hex[:8]}"
    url = f"sqlite:///{tmp_path}/{stem}.db?partitions=2"
    asyncio.run(write(open_log(url), 2_000))
    try:
        print(killed(url, postgres, 15, seed()))
        assert asyncio.run(catch_up(url, postgres)) > 0
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
    """Given a consumer group of two, of which four are killed in turn while events come in, the rows are those of a
    clean fold.
    """
    monkeypatch.setenv("REFOLD_KAFKA_SESSION_TIMEOUT_MS", "3000")
    backend = KafkaBackend(kafka_bootstrap)
    url = f"kafka://{kafka_bootstrap}/{backend.namespace}"
    crashed, clean = str(tmp_path / "crashed"), str(tmp_path / "clean")

    async def kill_while_it_grows() -> str:
        log = backend.log()
        await log.open()
        killing = asyncio.create_task(asyncio.to_thread(killed, url, crashed, 4, seed(), 2))
        first = 0
        while not killing.done():
            await fill(log, RUNS_AT_ONCE, STEPS, first=first)
            first += RUNS_AT_ONCE
            await asyncio.wait([killing], timeout=0.2)  # a log that grows, not one that is full
        await log.close()
        return await killing

    print(asyncio.run(kill_while_it_grows()))
    assert asyncio.run(catch_up(url, crashed)) > 0
    asyncio.run(catch_up(url, clean))
    assert rows_of(url, crashed) == rows_of(url, clean)
