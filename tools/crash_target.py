"""Projections and sinks that are killed by the dozen, and what is left of them afterwards.

A life is a process that follows a log into some of them, and is killed at a moment that chance picks while there is
still something to take in. The process that starts them has imported everything and opened nothing, and forks: no
imports in a life.

    python tools/crash_target.py sqlite:///log.db DIRECTORY --kills 50
    python tools/crash_target.py kafka://host:9092/ns postgresql://... --kills 5 --together 2
    python tools/crash_target.py sqlite:///log.db events.jsonl --keep jsonl --kills 50
"""

import argparse
import asyncio
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, get_args

import psycopg
from psycopg import sql

from projection_samples import Tale
from refold.log.protocol import Log
from refold.log.urls import open_log
from refold.projections.metric_fold import MetricFold
from refold.projections.metric_tables import MetricTables
from refold.projections.metrics_ready import READY
from refold.projections.places import POSTGRESQL, store_for
from refold.projections.postgres_store import schema_of
from refold.projections.projection import Projection
from refold.projections.runner import Runner, RunnerSettings
from refold.projections.sink_rows import Columns
from refold.projections.sqlite_store import ViewFiles, open_for_reading
from refold.projections.store import Identity
from refold.projections.workflows import Workflows
from refold.services.sinks import Sink
from sink_targets import TARGETS
from sink_targets import rows_of as sink_rows

BATCH_EVENTS = 1
READY_S = 60.0
LIFE_S = 0.05
"""A life takes in some thousand events at most; one of two is killed before it has taken in any."""
LIMIT_S = 280.0
HOUR_US = 3_600_000_000


Keep = Literal["tables", "metrics", "jsonl", "parquet", "duckdb", "postgres"]


def projections(keep: Keep = "tables") -> list[Projection]:
    """What is kept: one whose rows add up, and the workflows read model; or metrics, whose cells add up."""
    if keep == "metrics":
        return [MetricTables(MetricFold(READY, HOUR_US))]
    return [Tale(), Workflows()]


def targets(log: Log, to: str, keep: Keep) -> list[tuple[Sink, Callable[[], None] | None]]:
    """Where events of an open log go, and what is done once one has caught up."""
    if keep in TARGETS:
        return [(TARGETS[keep](to, Identity.of(log), Columns()), None)]
    stores = [store_for(projection, log, to) for projection in projections(keep)]
    return [(store, store.switch) for store in stores]


async def follow(url: str, to: str, keep: Keep, ready: int) -> None:
    """Follow for ever; a byte into `ready` says when it begins to."""
    log = open_log(url)
    await log.open()
    runners: list[Runner] = []
    for target, caught_up in targets(log, to, keep):
        settings = RunnerSettings(
            group=lambda target=target: target.group,  # type: ignore[misc]  # this very one
            batch_events=BATCH_EVENTS,
        )
        runners.append(Runner(log, target, settings, caught_up=caught_up))
    following = [asyncio.create_task(runner.follow(asyncio.Event())) for runner in runners]
    while not all([await runner.standing() for runner in runners]):  # partitions were assigned
        await asyncio.wait(following, timeout=0.005)
        for task in following:
            if task.done():
                task.result()
    os.write(ready, b"!")
    await asyncio.gather(*following)


async def catch_up(url: str, to: str, keep: Keep = "tables") -> int:
    """Take in whatever is missing; returns how many events that was, of all projections."""
    log = open_log(url)
    await log.open()
    taken = 0
    for target, caught_up in targets(log, to, keep):
        runner = Runner(log, target, caught_up=caught_up)
        await runner.catch_up()
        taken += runner.events
    await log.close()
    return taken


def killed(
    url: str, to: str, kills: int, seed: int, together: int = 1, *, keep: Keep = "tables"
) -> str:
    """Kill so many followers in a process of its own; returns what it says of them.

    Raises:
        AssertionError: A follower ended by itself.
    """
    done = subprocess.run(
        [
            *(sys.executable, __file__, url, to, "--kills", str(kills)),
            *("--seed", str(seed), "--together", str(together), "--keep", keep),
        ],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def serve(url: str, to: str, kills: int, seed: int, together: int, *, keep: Keep) -> None:
    """Keep so many followers alive; kill one of them after the other."""
    chance = random.Random(seed)
    living: list[tuple[int, int]] = []
    for _ in range(kills):
        while len(living) < together:
            living.append(_born(url, to, keep))
        for _, ready in living:
            assert select.select([ready], [], [], READY_S)[0], "a follower does not begin"
        # Not a wait for something: the moment is the point.
        time.sleep(chance.uniform(0.0, LIFE_S))
        pid, ready = living.pop(chance.randrange(len(living)))
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "a follower ended by itself"
    for pid, _ in living:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print(f"{kills} followers were killed")


def _born(url: str, to: str, keep: Keep) -> tuple[int, int]:
    ready, begun = os.pipe()
    pid = os.fork()
    if pid:
        os.close(begun)
        return pid, ready
    os.close(ready)
    try:
        asyncio.run(follow(url, to, keep, begun))
    except BaseException:  # noqa: BLE001 - the process ends here: its exit code and standard error tell
        traceback.print_exc()
    os._exit(1)


def rows_of(url: str, to: str, keep: Keep = "tables") -> object:
    """Every row of every table, in one order, but for the names that tables got when they were made."""
    if keep in TARGETS:
        return sorted(sink_rows(keep, to).splitlines())
    namespace = url.split("://", 1)[1].split("?", maxsplit=1)[0]
    found: dict[str, list[tuple[Any, ...]]] = {}
    for projection in projections(keep):
        tables = (
            _postgres_rows(to, schema_of(namespace, projection.name))
            if to.startswith(POSTGRESQL)
            else _sqlite_rows(Path(to), projection.name)
        )
        for table, rows in tables:
            if table != "refold_projection":
                found[f"{projection.name}.{table}"] = sorted(rows, key=repr)
    return found


def _sqlite_rows(directory: Path, name: str) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    with closing(open_for_reading(ViewFiles(directory, name).link)) as db:
        names = (
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'run_errors%'"
        )
        for (table,) in db.execute(names).fetchall():
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            kept = ", ".join(column for column in columns if column != "row_id")
            yield table, db.execute(f"SELECT {kept} FROM {table}").fetchall()
        _check_search(db)


def _check_search(db: sqlite3.Connection) -> None:
    """The search index finds what the rows say; SQLite compares the two."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'run_errors'").fetchone():
        found = db.execute("SELECT count(*) FROM run_errors WHERE run_errors MATCH '\"err\"'")
        wanted = db.execute("SELECT count(*) FROM runs WHERE error LIKE '%err%'")
        assert found.fetchone() == wanted.fetchone()


def _postgres_rows(url: str, schema: str) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    with psycopg.connect(url) as db:
        names = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
        for (table,) in db.execute(names, (schema,)).fetchall():
            query = sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table))
            yield table, db.execute(query).fetchall()


def main() -> None:
    """The process that forks the followers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("to")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--together", type=int, default=1)
    parser.add_argument("--keep", choices=get_args(Keep), default="tables")
    options = parser.parse_args()
    serve(options.url, options.to, options.kills, options.seed, options.together, keep=options.keep)


if __name__ == "__main__":
    main()
