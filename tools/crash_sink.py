"""Sinks that are killed by the dozen, and what is left of them afterwards.

A round is a process that opens the target, writes some batches and is killed at a moment that chance picks. The
process that starts them (`serve`) has imported everything and opened nothing, and forks: no imports in a round.

    python tools/crash_sink.py parquet DIRECTORY sqlite:///log.db --kills 50
"""

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import duckdb
import psycopg

from refold.log.protocol import Log
from refold.log.urls import open_log
from refold.projections.feed import Logged, Position, read_batches, start_of
from refold.projections.sink_duckdb import DuckDbTarget
from refold.projections.sink_jsonl import JsonLinesTarget
from refold.projections.sink_parquet import ParquetTarget
from refold.projections.sink_postgres import PostgresTarget
from refold.projections.sink_rows import Columns
from refold.projections.store import Identity
from refold.projections.target import Step, Target
from refold.services.sinks import Sink

BATCH_EVENTS = 25
WRITES = 3
"""Of one writer, at most: all of them together do not come to the log's end."""
WHOLE = 1_000
"""Events in a write of one that is left in peace."""
LIMIT_S = 240.0

Make = Callable[[str, Identity, Columns], Sink]


def postgres_schema(where: str, source: Identity, columns: Columns) -> PostgresTarget:
    """A target in the schema that stands after the # of the address."""
    address, _, schema = where.partition("#")
    return PostgresTarget(address, source, columns, schema)


TARGETS: dict[str, Make] = {
    "jsonl": lambda where, source, columns: JsonLinesTarget(Path(where), source, columns),
    "parquet": lambda where, source, columns: ParquetTarget(Path(where), source, columns),
    "duckdb": lambda where, source, columns: DuckDbTarget(Path(where), source, columns),
    "postgres": postgres_schema,
}


async def drain(
    log: Log,
    target: Target,
    batch: int = BATCH_EVENTS,
    *,
    most: int | None = None,
) -> int:
    """Write an open log's events into an open target, in small batches.

    Args:
        log: The log.
        target: The target.
        batch: Events in a write.
        most: Stop after so many writes; None for no limit.

    Returns:
        How many writes it took.
    """
    writes = 0
    for partition in range(log.partitions):
        before = target.positions().get(partition)
        start = before or await start_of(log, partition)
        async with aclosing(read_batches(log, partition, start)) as batches:
            async for one in batches:
                for part, after in _parts(one.logged, one.position, batch):
                    if most is not None and writes >= most:
                        return writes
                    target.write(part, {partition: Step(before, after)})
                    before = after
                    writes += 1
    return writes


def _parts(
    logged: Sequence[Logged], position: Position, size: int
) -> Iterator[tuple[Sequence[Logged], Position]]:
    """Pieces of a batch with the position after each; the claim of all but the last is that of their last event."""
    for first in range(0, len(logged), size):
        part = logged[first : first + size]
        last = part[-1]
        if first + size >= len(logged):
            yield part, position
            return
        claim = last.event.claim
        if claim is None or last.record.key is None:  # a stranger's, or a claim: go on in one piece
            yield logged[first:], position
            return
        yield part, Position(last.offset + 1, claim)
    if not logged:
        yield logged, position


async def _write(
    kind: str, where: str, url: str, batch: int = BATCH_EVENTS, most: int | None = None
) -> None:
    log = open_log(url)
    await log.open()
    target = TARGETS[kind](where, Identity.of(log), Columns())
    target.open()
    await drain(log, target, batch, most=most)
    target.close()
    await log.close()


def write_all(kind: str, where: str, url: str) -> None:
    """Write everything that is not there yet."""
    asyncio.run(_write(kind, where, url, WHOLE))


def killed(kind: str, where: str, url: str, kills: int, seed: int) -> str:
    """Kill so many writers in a process of its own; returns what it says of them.

    Raises:
        AssertionError: A writer failed by itself.
    """
    done = subprocess.run(
        [sys.executable, __file__, kind, where, url, "--kills", str(kills), "--seed", str(seed)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def serve(kind: str, where: str, url: str, kills: int, seed: int) -> None:
    """Fork writers and kill them; each has some batches to write, so that all together do not reach the end."""
    chance = random.Random(seed)
    took_s, ended = 0.0, 0
    for number in range(
        -2, kills
    ):  # the first two may end: the second's time is how long one takes
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os._exit(_life(kind, where, url))
        if number >= 0:
            # Not a wait for something: the moment is the point.
            time.sleep(chance.uniform(0.0, took_s))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code not in {0, -signal.SIGKILL}:
            raise SystemExit(f"writer {number} ended with {code}")
        if number < 0:
            took_s = time.monotonic() - began
        else:
            ended += code == 0
    print(f"{kills - ended} of {kills} writers were killed at work")


def _life(kind: str, where: str, url: str) -> int:
    try:
        asyncio.run(_write(kind, where, url, most=WRITES))
    except BaseException:  # noqa: BLE001 - the process ends here: its exit code and standard error tell
        traceback.print_exc()
        return 1
    return 0


def rows_of(kind: str, where: str) -> bytes:
    """All rows of a target by their keys, as bytes."""
    match kind:
        case "jsonl":
            return Path(where).read_bytes()
        case "postgres":
            address, _, schema = where.partition("#")
            query = (
                f"COPY (SELECT * FROM {schema}.events ORDER BY log_partition, log_offset) TO STDOUT"
            )
            with (
                psycopg.connect(address) as pg,
                pg.cursor() as cursor,
                cursor.copy(query.encode()) as copy,
            ):
                return b"".join(bytes(piece) for piece in copy)
        case "duckdb":
            with duckdb.connect(where, read_only=True) as db:
                return _rows(db, "events")
        case _:
            with duckdb.connect() as db:
                return _rows(db, f"read_parquet('{where}/day=*/*.parquet')")


def _rows(db: duckdb.DuckDBPyConnection, source: str) -> bytes:
    table = db.sql(f"SELECT * FROM {source} ORDER BY log_partition, log_offset").to_arrow_table()
    return "\n".join(map(repr, table.to_pylist())).encode()


def main() -> None:
    """The process that forks the writers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(TARGETS))
    parser.add_argument("where")
    parser.add_argument("url")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    serve(options.kind, options.where, options.url, options.kills, options.seed)


if __name__ == "__main__":
    main()
