"""Where events can go, by the words of the command line, and how they get there."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from refold.log.errors import UsageError
from refold.log.protocol import Log
from refold.projections.runner import Runner, RunnerSettings
from refold.projections.sink_http import HttpSettings, HttpTarget
from refold.projections.sink_jsonl import JsonLinesTarget
from refold.projections.sink_rows import Columns
from refold.projections.store import Identity
from refold.projections.target import Target


class SinkKind(StrEnum):
    """Kinds of targets."""

    PARQUET = "parquet"
    DUCKDB = "duckdb"
    POSTGRES = "postgres"
    JSONL = "jsonl"
    HTTP = "http"


AUTHORIZATION: Final = "REFOLD_SINK_AUTHORIZATION"
"""Environment variable: the header of that name for a receiver. Others can read a command line."""

BATCH_EVENTS: Final[Mapping[SinkKind, int]] = {
    SinkKind.PARQUET: 50_000,  # a write is a file or more, which should be none too small
    SinkKind.DUCKDB: 20_000,  # a write opens and closes the file
    SinkKind.POSTGRES: 5_000,
    SinkKind.JSONL: 5_000,
    SinkKind.HTTP: 500,
}
"""Events in one write, at most and near enough."""


@dataclass(frozen=True, slots=True)
class SinkOrder:
    """What was asked for.

    Args:
        kind: Which kind of target.
        where: Which one: a file, a directory, an address.
        columns: The table's columns.
        schema: The schema of the tables, in PostgreSQL.
        state: The file that keeps the positions for a receiver over HTTP; None where that is not given.
        batch: Events in a request to a receiver.
    """

    kind: SinkKind
    where: str
    columns: Columns = field(default_factory=Columns)
    schema: str = "refold"
    state: Path | None = None
    batch: int = 1


class Sink(Target, Protocol):
    """A target that processes may share the work for."""

    @property
    def group(self) -> str:
        """The group of those that share the partitions for this very target; known once it is open."""
        ...


def target_of(order: SinkOrder, log: Log) -> Sink:
    """The target, not open yet.

    Raises:
        UsageError: The words make no target, or the extra that it needs is missing.
    """
    identity = Identity.of(log)
    match order.kind:
        case SinkKind.JSONL:
            return JsonLinesTarget(Path(order.where), identity, order.columns)
        case SinkKind.HTTP:
            if order.state is None:
                raise UsageError(
                    "a receiver over HTTP can't keep how far it has come: name a file for that, --state FILE"
                )
            settings = HttpSettings(order.batch, os.environ.get(AUTHORIZATION))
            return HttpTarget(order.where, order.state, identity, order.columns, settings)
        case SinkKind.POSTGRES:
            return _postgres(order, identity)
        case _:
            return _of_arrow(order, identity)


# Imported when asked for: each needs packages that others can do without.


def _postgres(order: SinkOrder, identity: Identity) -> Sink:
    if urlsplit(order.where).scheme not in {"postgresql", "postgres"}:
        raise UsageError(
            "a database is named as in postgresql://user@host/database; a password comes from PGPASSWORD or PGPASSFILE"
        )
    try:
        from refold.projections.sink_postgres import PostgresTarget  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("PostgreSQL needs psycopg: pip install 'refold[postgres]'") from error
    return PostgresTarget(order.where, identity, order.columns, order.schema)


def _of_arrow(order: SinkOrder, identity: Identity) -> Sink:
    path = Path(order.where)
    try:
        if order.kind is SinkKind.DUCKDB:
            from refold.projections.sink_duckdb import DuckDbTarget  # noqa: PLC0415

            return DuckDbTarget(path, identity, order.columns)
        from refold.projections.sink_parquet import ParquetTarget  # noqa: PLC0415
    except ImportError as error:
        missing = "DuckDB needs duckdb and pyarrow: pip install 'refold[sql]'"
        if order.kind is SinkKind.PARQUET:
            missing = "Parquet needs pyarrow: pip install 'refold[parquet]'"
        raise UsageError(f"{missing}, or choose jsonl, which needs nothing more") from error
    return ParquetTarget(path, identity, order.columns)


def runner_of(
    order: SinkOrder,
    log: Log,
    linger_s: float = 1.0,
    caught_up: Callable[[], None] | None = None,
    group: str | None = None,
) -> Runner:
    """What takes an open log's events to the target; one that follows shares the partitions with others that do.

    Args:
        order: Where to.
        log: The log.
        linger_s: How long a write waits for more events, in seconds.
        caught_up: Called when what was there at first is written.
        group: Name of the group that shares the partitions; the target has one of its own where not given.
    """
    target = target_of(order, log)
    settings = RunnerSettings(
        group=group or (lambda: target.group),
        member=f"{socket.gethostname()}-{os.getpid()}",
        batch_events=BATCH_EVENTS[order.kind],
        linger_s=linger_s,
    )
    return Runner(log, target, settings, caught_up=caught_up)


def compact(order: SinkOrder, log: Log) -> None:
    """Merge the files of a directory of Parquet, each day's into one. Blocks.

    Raises:
        TargetError: They can't be read or written.
    """
    from refold.projections.sink_parquet import ParquetTarget  # noqa: PLC0415

    target = ParquetTarget(Path(order.where), Identity.of(log), order.columns)
    target.open()
    try:
        target.compact()
    finally:
        target.close()
