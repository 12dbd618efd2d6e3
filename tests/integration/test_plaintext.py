"""Every byte that is kept of a log, or was made of it after an erasure, is searched for what was erased.

Beside Bob, who was encrypted and erased, there is a run that was not: in every place its payloads have to be found, or
the search would prove nothing. What is compressed is searched as it reads.
"""

import json
import os
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import fastavro
import polars as pl
import psycopg
import pytest
from kafka import KafkaAdminClient
from psycopg import sql

from engine_trial import records, with_log
from event_receiver import receiving
from kafka_backend import KafkaBackend
from log_backend import PATIENCE_S, SqliteBackend
from private_office import PLAIN, Office, everything, fail_with, greet, run_everything
from refold import MetricContext, WorkflowParked, metric, receive, workflow
from refold.engine.checkpoints import CheckpointSettings
from refold.log.archive_writer import ArchiveSettings
from refold.log.event_columns import Kind
from refold.log.events import Event
from refold.log.protocol import Log
from refold.projections.audit_page import page_of
from refold.projections.audit_report import make_report
from refold.projections.metric_fold import MetricFold
from refold.projections.metric_tables import MetricTables
from refold.projections.postgres_store import PostgresStore
from refold.projections.projection import Projection
from refold.projections.sink_http import HttpTarget
from refold.projections.sink_rows import Columns, PayloadColumn
from refold.projections.sqlite_store import SqliteStore
from refold.projections.store import Identity
from refold.projections.target import Target
from refold.projections.workflows import Workflows
from refold.services.archiving import Order, archive_log
from sink_targets import TARGETS, drain

OPEN = "carol-0815@example.com"
COLUMNS = Columns([PayloadColumn("payload_email", ("email",), Kind.TEXT)])


@workflow
async def failing(email: str) -> None:
    await fail_with(email)


@workflow
async def waiting(email: str) -> str:
    return f"{email} {await receive('news', str)}"


@metric(by=("workflow", "error", "attribute:email"))
def ends(event: Event, context: MetricContext) -> int:
    """One for each event, told apart by an attribute."""
    return 1


def lived(office: Office) -> None:
    """Runs of Bob and Carol, ended, failed and open; then Bob is erased."""
    often = CheckpointSettings(min_bytes=2_000)
    code = (everything, greet, failing, waiting)
    with office.engine(*code, checkpoints=often) as engine:
        for who, email, subject in (("bob", PLAIN, "bob"), ("carol", OPEN, None)):
            engine.start(waiting, email, id=f"{who}-open", subject=subject)
            run_everything(engine, email, f"{who}-1", subject)
            with pytest.raises(LookupError, match=email):
                engine.start(failing, email, id=f"{who}-2", subject=subject).result(PATIENCE_S)
        marked = {"email": OPEN}
        engine.start(greet, OPEN, id="carol-3", attributes=marked).result(PATIENCE_S)
        engine.erase("bob", why="request", force=True)
        with pytest.raises(WorkflowParked):
            engine.handle("bob-open").result(PATIENCE_S)


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    """A log in a file, from which Bob was erased."""
    place = tmp_path_factory.mktemp("office")
    made = Office(SqliteBackend(place), place)
    lived(made)
    return made


def found_in(data: bytes) -> tuple[bool, bool]:
    """Whether Carol's address is there, as it has to be, and whether Bob's is."""
    return OPEN.encode() in data, PLAIN.encode() in data


def kept_in(directory: Path) -> bytes:
    """The bytes of all files, and what those that are compressed read as."""
    found: list[bytes] = []
    for path in directory.rglob("*"):
        if not path.is_file():
            continue
        found.append(path.read_bytes())
        if path.suffix == ".avro":
            with path.open("rb") as file:
                found.append(repr(list(fastavro.reader(file))).encode())
        elif path.suffix == ".parquet":
            found.append(repr(pl.read_parquet(path).to_dicts()).encode())
        elif path.suffix == ".duckdb":
            with duckdb.connect(str(path), read_only=True) as db:
                found.append(repr(db.sql("FROM events").fetchall()).encode())
    return b"\0".join(found)


# Places -------------------------------------------------------------------------------------------------------

Make = Callable[[Log, Path], Coroutine[Any, Any, None]]


def archived(kind: str) -> Make:
    async def make(log: Log, made: Path) -> None:
        await archive_log(log, Order(str(made / "archive"), ArchiveSettings(format=kind)))

    return make


async def drained(log: Log, target: Target) -> None:
    target.open()
    await drain(log, target, 1_000)
    target.close()


def sink(kind: str) -> Make:
    async def make(log: Log, made: Path) -> None:
        name = "events" if kind == "parquet" else f"events.{kind}"
        await drained(log, TARGETS[kind](str(made / name), Identity.of(log), COLUMNS))

    return make


async def cloud_events(log: Log, made: Path) -> None:
    with receiving() as receiver:
        await drained(log, HttpTarget(receiver.url, made / "state", Identity.of(log), COLUMNS))
    (made / "received.json").write_text(json.dumps(receiver.taken))


def tables(projection: Callable[[], Projection]) -> Make:
    async def make(log: Log, made: Path) -> None:
        await drained(log, SqliteStore(projection(), Identity.of(log), made))

    return make


async def reports(log: Log, made: Path) -> None:
    for id_ in ("bob-1", "carol-1", "bob-2", "carol-2"):
        report = await make_report(log, id_, 1)
        (made / f"{id_}.json").write_text(report.to_json())
        (made / f"{id_}.html").write_text(page_of(report))
        values = b"".join(event.value for event in report.events)  # base64 in the files
        (made / f"{id_}.events").write_bytes(values)


PLACES: dict[str, Make] = {
    "archive in Avro": archived("avro"),
    "archive in Parquet": archived("parquet"),
    "read model": tables(Workflows),
    "metrics": tables(lambda: MetricTables(MetricFold([ends], 3_600_000_000))),
    "JSON Lines": sink("jsonl"),
    "Parquet": sink("parquet"),
    "DuckDB": sink("duckdb"),
    "CloudEvents": cloud_events,
    "audit reports": reports,
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_made_of_a_log_after_an_erasure_holds_nothing_of_what_was_erased(
    office: Office, place: str, tmp_path: Path
) -> None:
    """Given something made of the log afterwards, Carol's payloads are in it and Bob's are not."""
    with_log(office.backend, lambda log: PLACES[place](log, tmp_path))
    assert found_in(kept_in(tmp_path)) == (True, False)


def test_postgresql_holds_nothing_of_what_was_erased(office: Office, postgres: str) -> None:
    """Given a read model and a sink in PostgreSQL, its own files have Carol's payloads, and Bob's are in none."""
    schema = f"plain_{uuid4().hex[:12]}"

    async def make(log: Log) -> None:
        await drained(log, PostgresStore(Workflows(), Identity.of(log), postgres, schema=schema))
        place = f"{postgres}#{schema}_sink"
        await drained(log, TARGETS["postgres"](place, Identity.of(log), COLUMNS))

    with_log(office.backend, make)
    with psycopg.connect(postgres, autocommit=True) as db:
        db.execute("CHECKPOINT")
        row = db.execute("SHOW data_directory").fetchone()
        names = "SELECT schemaname, tablename FROM pg_tables WHERE starts_with(schemaname, %s)"
        found = [sql.Identifier(*name) for name in db.execute(names, (schema,)).fetchall()]
        rows = [db.execute(sql.SQL("TABLE {}").format(name)).fetchall() for name in found]
        for name in (schema, f"{schema}_sink"):
            db.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
    assert found_in(repr(rows).encode()) == (True, False)
    data = Path(row[0]) if row else Path()
    if os.access(data, os.R_OK):  # a server that the tests have started
        kept = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
        assert found_in(kept) == (True, False)


def test_the_files_of_a_log_hold_nothing_of_what_was_erased(tmp_path: Path) -> None:
    """Given a log in a file, with its journal, its blobs, its checkpoints, its commands and replies, Carol's payloads
    are in each of them and Bob's are in none."""
    office = Office(SqliteBackend(tmp_path), tmp_path)
    with office.engine(worker=False):  # as long as it is open, the journal stays
        lived(office)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        journal = b"".join(path.read_bytes() for path in files if path.name.endswith("-wal"))
        blobs = b"".join(path.read_bytes() for path in files if "blobs" in str(path))
        assert found_in(b"".join(path.read_bytes() for path in files)) == (True, False)
    for kept in (journal, blobs):
        assert found_in(kept) == (True, False)
    parts = [r.value for r in records(office.backend) if ("kind", b"checkpoint.part") in r.headers]
    assert found_in(b"".join(parts)) == (True, False)


@pytest.mark.kafka
def test_the_segments_of_kafka_hold_nothing_of_what_was_erased(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    """Given a log on Kafka, the broker's own files have Carol's payloads, and Bob's are in none."""
    backend = KafkaBackend(kafka_bootstrap)
    lived(Office(backend, tmp_path))
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    described = str(admin.describe_log_dirs())
    admin.close()
    places = {Path(found) for found in re.findall(r"'log_dir': '([^']+)'", described)}
    segments = [path for place in places for path in place.glob(f"{backend.namespace}.*/*.log")]
    if not segments:
        pytest.skip("the broker's files are on another machine")
    kept = b"".join(path.read_bytes() for path in segments)
    assert found_in(kept) == (True, False)
