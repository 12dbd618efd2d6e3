"""The sinks that tests write to, how they are filled in small steps, and what they have then."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import duckdb
import psycopg

from refold.log.protocol import Log
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
