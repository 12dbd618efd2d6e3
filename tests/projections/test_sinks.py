"""Sinks: what they write of each event, that they go on where they stand, and what they refuse."""

import asyncio
import functools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import polars as pl
import psycopg
import pytest
from psycopg.rows import dict_row

from refold.log.archive_disk import Disk
from refold.log.errors import UsageError
from refold.log.event_columns import EVENT_COLUMNS, Kind
from refold.log.events import StepCompleted
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Log, Record
from refold.projections.feed import Logged, Position
from refold.projections.sink_http import HttpSettings, HttpTarget
from refold.projections.sink_parquet import ParquetTarget
from refold.projections.sink_rows import Columns, PayloadColumn
from refold.projections.store import Identity
from refold.projections.target import (
    PositionMoved,
    Step,
    TargetMismatch,
    TargetUnavailable,
)
from refold.services.sinks import Sink
from sink_story import HARD, write_story
from sink_targets import TARGETS, drain, rows_of

WORKFLOWS, STEPS = 12, 6
FILES = ["jsonl", "parquet", "duckdb"]
KINDS = [*FILES, "postgres"]

Place = Callable[[str], str]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where a target of a kind is; another place in each test."""

    def placed(kind: str) -> str:
        if kind != "postgres":
            return str(tmp_path / f"events.{kind}")
        schema = f"sink_{uuid4().hex[:12]}"
        return f"{request.getfixturevalue('postgres')}#{schema}"

    return placed


def target(kind: str, where: str, log: Log, columns: Columns | None = None) -> Sink:
    return TARGETS[kind](where, Identity.of(log), columns or Columns())


async def story(partitions: int = 2, namespace: str = "shop") -> tuple[MemoryLog, list[str]]:
    """A log in memory with the events that are hard to write, the same for all, and the ids of those that count."""
    store, ids = told(partitions)
    log = MemoryLog(namespace, store=store)
    await log.open()
    return log, ids


@functools.cache
def told(partitions: int) -> tuple[MemoryStore, list[str]]:
    store = MemoryStore(partitions)

    async def write() -> list[str]:
        log = MemoryLog(store=store)
        await log.open()
        return await write_story(log, WORKFLOWS, STEPS)

    with ThreadPoolExecutor(1) as elsewhere:  # a loop runs here already
        return store, elsewhere.submit(lambda: asyncio.run(write())).result()


async def written(kind: str, where: str, columns: Columns | None = None) -> list[str]:
    """Write the story to a new target; returns the ids of the events that count."""
    log, ids = await story()
    sink = target(kind, where, log, columns)
    sink.open()
    await drain(log, sink)
    sink.close()
    return ids


def table(kind: str, where: str) -> list[dict[str, Any]]:
    """The rows as a stranger reads them, with columns that are null or missing left out."""
    match kind:
        case "jsonl":
            rows = [json.loads(line) for line in Path(where).read_text().split("\n") if line]
        case "parquet":
            files = [pl.read_parquet(path) for path in parquet_files(Path(where))]
            rows = pl.concat(files, how="diagonal").to_dicts()
        case "duckdb":
            with duckdb.connect(where, read_only=True) as db:
                rows = db.sql("SELECT * FROM events").to_arrow_table().to_pylist()
        case _:
            address, _, schema = where.partition("#")
            with psycopg.connect(address) as pg, pg.cursor(row_factory=dict_row) as cursor:
                rows = cursor.execute(f"SELECT * FROM {schema}.events".encode()).fetchall()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_that_counts_is_there_once(kind: str, place: Place) -> None:
    """Given a log with a zombie's and a stranger's record, rows are the events that count, and the stranger's."""
    where = place(kind)
    ids = asyncio.run(written(kind, where))
    rows = table(kind, where)
    assert sorted(row["event_id"] for row in rows if "event_id" in row) == sorted(ids)
    (strange,) = [row for row in rows if "event_id" not in row]
    assert strange["workflow_id"] == "order-0"
    assert "schema" in strange["unreadable"]
    assert len({(row["log_partition"], row["log_offset"]) for row in rows}) == len(ids) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_columns_have_their_types(kind: str, place: Place) -> None:
    """Given hard texts, times, maps and bytes, each column holds what the event has, in the target's own type."""
    where = place(kind)
    asyncio.run(written(kind, where))
    rows = {row.get("event_id"): row for row in table(kind, where)}
    started, failed = rows["order-3/0/workflow.started"], rows["order-3/7/workflow.failed"]
    hard = HARD.replace("\0", "\u2400") if kind == "postgres" else HARD
    assert failed["error_message"] == hard
    assert started["position"] == 0
    assert isinstance(started["payload"], str)
    attributes = started["attributes"]
    if not isinstance(attributes, dict):  # polars and Arrow show a map as pairs
        attributes = {
            pair["key"] if isinstance(pair, dict) else pair[0]: pair["value"]
            if isinstance(pair, dict)
            else pair[1]
            for pair in attributes
        }
    assert attributes == {"customer": hard, "": "empty"}
    if kind == "jsonl":
        assert started["recorded_at"].startswith("2026-11-2")
        assert started["recorded_at"].endswith("Z")
        assert len(bytes.fromhex(started["chain"])) == 32
    else:
        assert started["recorded_at"].utcoffset().total_seconds() == 0
        assert len(started["chain"]) == 32


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_goes_on_where_it_stands(kind: str, place: Place) -> None:
    """Given a target that was closed on the way, when it is opened again, the rest follows and nothing comes twice."""
    whole, cut = place(kind), f"{place(kind)}2"
    asyncio.run(written(kind, whole))

    async def twice() -> None:
        log, _ = await story()
        for most in (2, None):
            sink = target(kind, cut, log)
            sink.open()
            await drain(log, sink, most=most)
            sink.close()

    asyncio.run(twice())
    assert rows_of(kind, cut) == rows_of(kind, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_write_that_does_not_follow_on_is_refused(kind: str, place: Place) -> None:
    """Given positions that somebody else has moved, a write says so and changes nothing."""
    where = place(kind)

    async def scenario() -> None:
        log, _ = await story(partitions=1)
        sink = target(kind, where, log)
        sink.open()
        with pytest.raises(PositionMoved):
            sink.write([], {0: Step(Position(5, 0), Position(9, 0))})
        sink.write([], {0: Step(None, Position(5, 0))})
        with pytest.raises(PositionMoved):
            sink.write([], {0: Step(None, Position(9, 0))})
        assert sink.positions() == {0: Position(5, 0)}
        sink.write([], {0: Step(Position(5, 0), Position(7, 3))})
        assert sink.positions() == {0: Position(7, 3)}
        sink.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", KINDS)
def test_another_namespace_is_refused(kind: str, place: Place) -> None:
    """Given a target of one log, when another log's events are to go there, it is refused, and stays as it was."""
    where = place(kind)
    asyncio.run(written(kind, where))
    before = rows_of(kind, where)

    async def other() -> None:
        log, _ = await story(namespace="bank")
        with pytest.raises(TargetMismatch, match=r"'shop'.*not of 'bank'"):
            target(kind, where, log).open()

    asyncio.run(other())
    assert rows_of(kind, where) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_newer_format_is_refused(kind: str, place: Place) -> None:
    """Given a target that a newer release has written, this one leaves it alone and says what to do."""
    where = place(kind)
    asyncio.run(written(kind, where))
    change_note(kind, where, '"format": 1', '"format": 2')

    async def again() -> None:
        log, _ = await story()
        with pytest.raises(TargetMismatch, match=r"newer release.*upgrade refold"):
            target(kind, where, log).open()

    asyncio.run(again())


def change_note(kind: str, where: str, old: str, new: str) -> None:
    """Change what a target says of itself."""
    match kind:
        case "duckdb":
            with duckdb.connect(where) as db:
                db.execute("UPDATE refold_sink SET note = replace(note, ?, ?)", [old, new])
        case "postgres":
            address, _, schema = where.partition("#")
            with psycopg.connect(address) as pg:
                pg.execute(
                    f"UPDATE {schema}.refold_sink SET note = replace(note, %s, %s)".encode(),
                    [old, new],
                )
        case _:
            path = Path(f"{where}.manifest.json" if kind == "jsonl" else f"{where}/_manifest.json")
            path.write_text(path.read_text().replace(old, new))


TOTAL = PayloadColumn("payload_order_total", ("order", "total"), Kind.REAL)
PAID = PayloadColumn("payload_order_paid", ("order", "paid"), Kind.BOOLEAN)
AT = PayloadColumn("payload_order_at", ("order", "at"), Kind.TIME)
CENTS = PayloadColumn("payload_cents", ("cents",), Kind.INTEGER)
ORDER = PayloadColumn("payload_order", ("order",), Kind.TEXT)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_from_payloads_are_typed(kind: str, place: Place) -> None:
    """Given columns from payloads, each holds its member in its type, and null where none is or it does not fit."""
    where = place(kind)
    wrong = PayloadColumn("payload_note", ("note",), Kind.INTEGER)
    asyncio.run(written(kind, where, Columns([TOTAL, PAID, AT, CENTS, ORDER, wrong])))
    rows = {row.get("event_id"): row for row in table(kind, where)}
    started, step = rows["order-5/0/workflow.started"], rows["order-5/3/step.completed"]
    assert (started["payload_order_total"], started["payload_order_paid"]) == (12.5, True)
    at = started["payload_order_at"]
    assert (at if isinstance(at, str) else at.isoformat())[:19] == "2026-11-28T12:00:00"
    assert json.loads(started["payload_order"])["items"] == 3
    assert step["payload_cents"] == 2
    assert "payload_cents" not in started
    assert not any("payload_note" in row for row in rows.values())


@pytest.mark.parametrize("kind", KINDS)
def test_payloads_that_are_plain_values_have_columns_of_their_types(
    kind: str, place: Place
) -> None:
    """Given payloads that are no objects, a column of their kind has them; others are null, nothing is rounded."""
    where = place(kind)
    plain: dict[Kind, tuple[str, Any]] = {
        Kind.INTEGER: ("7", 7),
        Kind.TEXT: ('"tea"', "tea"),
        Kind.BOOLEAN: ("true", True),
        Kind.REAL: ("1.5", 1.5),
        Kind.TIME: ('"2026-11-28T12:00:00Z"', datetime(2026, 11, 28, 12, tzinfo=UTC)),
        Kind.DECIMAL: ('"9007199254740993.05"', Decimal("9007199254740993.05")),
        Kind.INTEGERS: ("[1,null,3]", [1, None, 3]),
        Kind.TEXTS: ('["a","b"]', ["a", "b"]),
        Kind.DECIMALS: ('["0.1","12"]', [Decimal("0.1"), Decimal(12)]),
    }
    read: dict[Kind, Callable[[Any], object]] = {  # what JSON has as texts
        Kind.TIME: datetime.fromisoformat,
        Kind.DECIMAL: Decimal,
        Kind.DECIMALS: lambda texts: [*map(Decimal, texts)],
    }
    columns = [PayloadColumn(f"payload_as_{name}", (), name) for name in plain]

    async def scenario() -> None:
        log, _ = await story(partitions=1)
        sink = target(kind, where, log, Columns(columns))
        sink.open()
        payloads = [text for text, _ in plain.values()] + ['{"a":1}', '"1e99"', "[1,[]]"]
        payloads.append("1" + "0" * 400)  # an integer that no column can hold
        events = [
            StepCompleted(
                workflow_id="w",
                position=n,
                recorded_at=0,
                claim=0,
                command=0,
                posted=0,
                worker="w",
                chain=bytes(32),
                step=n,
                name="charge",
                payload=payload,
                attempt=1,
                started_at=0,
            )
            for n, payload in enumerate(payloads)
        ]
        record = Record(0, 0, None, b"", ())
        sink.write(
            [Logged(0, n, 0, event, record) for n, event in enumerate(events)],
            {0: Step(None, Position(len(events), 0))},
        )
        sink.close()

    asyncio.run(scenario())
    rows = sorted(table(kind, where), key=lambda row: row["log_offset"])
    for row, (name, (_, value)) in zip(rows, plain.items(), strict=False):
        found = row[f"payload_as_{name}"]
        reads = read.get(name) if kind == "jsonl" else None
        assert (reads(found) if reads else found) == value
    assert not any(name.startswith("payload_") for name in rows[len(plain)])
    assert [*filter(lambda name: name.startswith("payload_"), rows[len(plain) + 1])] == [
        "payload_as_text"
    ]
    for row in rows[len(plain) + 2 :]:
        assert not any(name.startswith("payload_") for name in row)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_may_be_added_and_not_changed(kind: str, place: Place) -> None:
    """Given a target, more columns are added to it for what comes; others than it has are refused."""
    where = place(kind)

    async def scenario() -> None:
        log, _ = await story(partitions=1)
        for columns, most in ((Columns([CENTS]), 1), (Columns([CENTS, TOTAL]), None)):
            sink = target(kind, where, log, columns)
            sink.open()
            await drain(log, sink, most=most)
            sink.close()
        for columns in (Columns([TOTAL]), Columns([CENTS._replace(kind=Kind.TEXT), TOTAL])):
            with pytest.raises(TargetMismatch, match="'payload_cents' of kind integer"):
                target(kind, where, log, columns).open()

    asyncio.run(scenario())
    rows = {row.get("event_id"): row for row in table(kind, where)}
    assert "payload_order_total" not in rows["order-0/0/workflow.started"]
    assert rows["order-11/0/workflow.started"]["payload_order_total"] == 12.5
    assert rows["order-0/1/step.completed"]["payload_cents"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_two_that_have_a_target_open_write_in_turn(kind: str, place: Place) -> None:
    """Given a target that two have open, they are one group's, each goes on where the other came to, or is told."""
    where, whole = place(kind), f"{place(kind)}2"
    asyncio.run(written(kind, whole))

    async def scenario() -> None:
        log, _ = await story()
        first, second = target(kind, where, log), target(kind, where, log)
        first.open()
        second.open()
        assert first.group == second.group
        for sink in (first, second, first):
            await drain(log, sink, most=1)
        at = second.positions()[0]
        with pytest.raises(PositionMoved):
            second.write([], {0: Step(Position(at.offset - 1, at.claim), at)})
        await drain(log, second)
        first.close()
        second.close()
        other = target(kind, f"{whole}3", log)
        other.open()
        assert other.group != first.group
        other.close()

    asyncio.run(scenario())
    assert rows_of(kind, where) == rows_of(kind, whole)


def test_what_a_writer_that_died_left_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    """Given a writer of Parquet that dies with a file saved and not named yet, another's next write names it."""

    class Dying(Disk):
        dying = False

        def rename(self, path: Path, name: Path) -> None:
            if self.dying and name.suffix == ".parquet":
                raise OSError("died")
            super().rename(path, name)

    where, whole = tmp_path / "events", str(tmp_path / "whole")
    asyncio.run(written("parquet", whole))

    async def scenario() -> None:
        log, _ = await story()
        disk = Dying()
        dead = ParquetTarget(where, Identity.of(log), Columns(), disk)
        dead.open()
        lives = target("parquet", str(where), log)
        lives.open()
        disk.dying = True
        with pytest.raises(TargetUnavailable, match="died"):
            await drain(log, dead, most=1)
        assert not list(where.glob("day=*/part-*"))
        await drain(log, lives)

    asyncio.run(scenario())
    assert rows_of("parquet", str(where)) == rows_of("parquet", whole)


@pytest.mark.parametrize("kind", FILES)
def test_somebody_elses_files_are_left_alone(kind: str, place: Place) -> None:
    """Given a file or table of that name that no refold made, it is refused, and stays as it was."""
    where = place(kind)
    match kind:
        case "jsonl":
            Path(where).write_text("mine")
        case "parquet":
            Path(where).mkdir()
            (Path(where) / "thesis.txt").write_text("mine")
        case _:
            with duckdb.connect(where) as db:
                db.execute("CREATE TABLE events AS SELECT 'mine' AS whose")

    async def scenario() -> None:
        log, _ = await story()
        with pytest.raises(TargetMismatch, match="name another"):
            target(kind, where, log).open()

    asyncio.run(scenario())
    assert "mine" in (
        Path(where).read_text()
        if kind == "jsonl"
        else (Path(where) / "thesis.txt").read_text()
        if kind == "parquet"
        else str(duckdb.connect(where).sql("FROM events").fetchall())
    )


@pytest.mark.parametrize("kind", FILES)
def test_a_place_that_cant_be_written_is_told(kind: str, tmp_path: Path) -> None:
    """Given a place below a file, where nothing can be made, one error says so."""
    (tmp_path / "file").write_text("")
    where = str(tmp_path / "file" / f"events.{kind}")

    async def scenario() -> None:
        log, _ = await story()
        with pytest.raises(TargetUnavailable, match="file"):
            target(kind, where, log).open()

    asyncio.run(scenario())


def test_a_database_that_is_not_there_is_told() -> None:
    """Given an address where nobody listens, the error says what PostgreSQL's client said."""

    async def scenario() -> None:
        log, _ = await story()
        with pytest.raises(TargetUnavailable, match="refused"):
            target("postgres", "postgresql://nobody@127.0.0.1:1/none#refold", log).open()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "address", ["http://host:port/", "http://[::1/", "http://h:99999/", "ftp://h/"]
)
def test_an_address_that_is_none_is_refused(address: str, tmp_path: Path) -> None:
    """Given a port or a host that can't be, when a receiver is named by it, then the address is refused."""
    with pytest.raises(UsageError, match="is no http:// or https:// address"):
        HttpTarget(address, tmp_path / "state", Identity("n", "", 1), Columns())


def test_a_receiver_that_is_away_is_told(tmp_path: Path) -> None:
    """Given an address where nobody listens, the event is named after the last attempt, and nothing is noted."""
    pauses: list[float] = []

    async def scenario() -> None:
        log, _ = await story(partitions=1)
        settings = HttpSettings(pauses_s=(0.5, 2.0))
        sink = HttpTarget(
            "http://127.0.0.1:1/",
            tmp_path / "state",
            Identity.of(log),
            Columns(),
            settings,
            pauses.append,
        )
        sink.open()
        with pytest.raises(TargetUnavailable, match=r"'partition/0/-1/partition.claimed'.*3 times"):
            await drain(log, sink)
        assert sink.positions() == {}
        sink.close()

    asyncio.run(scenario())
    assert pauses == [0.5, 2.0]


def test_a_lost_connection_is_made_again(postgres: str) -> None:
    """Given a server that ends our session, the write fails as a whole, and the next one goes on."""
    where = f"{postgres}#sink_{uuid4().hex[:12]}"

    async def scenario() -> list[str]:
        log, ids = await story(partitions=1)
        sink = target("postgres", where, log)
        sink.open()
        await drain(log, sink, most=1)
        with psycopg.connect(postgres, autocommit=True) as pg:
            pg.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'refold sink' AND pid <> pg_backend_pid()"
            )
        with pytest.raises(TargetUnavailable):
            sink.write([], {0: Step(None, Position(1, 1))})
        await drain(log, sink)
        sink.close()
        return ids

    ids = asyncio.run(scenario())
    found = [row["event_id"] for row in table("postgres", where) if "event_id" in row]
    assert sorted(found) == sorted(ids)


def test_a_damaged_duckdb_file_is_written_anew(place: Place) -> None:
    """Given a DuckDB file with a wrong checksum, as a kill in a checkpoint leaves, it is set aside and made anew."""
    where = place("duckdb")
    asyncio.run(written("duckdb", where))
    before = rows_of("duckdb", where)
    with Path(where).open("r+b") as file:
        file.seek(12_288 + 5_000)  # in the first block, which has the catalogue
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    asyncio.run(written("duckdb", where))
    assert rows_of("duckdb", where) == before
    assert Path(f"{where}.damaged").exists()


def test_queries_come_in_between_writes(place: Place) -> None:
    """Given an open DuckDB target, another process may read the file; a write waits while it does."""
    where = place("duckdb")

    async def scenario() -> None:
        log, _ = await story(partitions=1)
        sink = target("duckdb", where, log)
        sink.open()
        await drain(log, sink, most=1)
        with duckdb.connect(where, read_only=True) as reader:
            assert reader.sql("SELECT count(*) FROM events").fetchall() == [(25,)]
        await drain(log, sink)
        sink.close()

    asyncio.run(scenario())


def test_files_by_day_are_merged(tmp_path: Path) -> None:
    """Given many small writes, a day has few files, with the rows of one write, and the manifest names them all."""

    async def scenario(name: str, batch: int) -> None:
        log, _ = await story(partitions=1)
        sink = target("parquet", str(tmp_path / name), log)
        sink.open()
        await drain(log, sink, batch)
        sink.close()

    asyncio.run(scenario("small", 1))
    asyncio.run(scenario("whole", 10_000))
    files = sorted(
        str(path.relative_to(tmp_path / "small")) for path in parquet_files(tmp_path / "small")
    )
    named = json.loads((tmp_path / "small" / "_manifest.json").read_text())["files"]
    assert files == sorted(file["path"] for file in named)
    assert {file.partition("/")[0] for file in files} == {"day=2026-11-28", "day=2026-11-29"}
    assert 2 <= len(files) < 20
    assert rows_of("parquet", str(tmp_path / "small")) == rows_of(
        "parquet", str(tmp_path / "whole")
    )


def parquet_files(directory: Path) -> Iterator[Path]:
    return directory.glob("day=*/*")


def test_compaction_leaves_one_file_a_day(tmp_path: Path) -> None:
    """Given a target with several files a day, compacting leaves one, with the same rows."""
    where = str(tmp_path / "events")

    async def scenario() -> bytes:
        log, _ = await story(partitions=1)
        sink = ParquetTarget(Path(where), Identity.of(log), Columns())
        sink.open()
        await drain(log, sink, 20)
        before = rows_of("parquet", where)
        sink.compact()
        sink.close()
        return before

    assert asyncio.run(scenario()) == rows_of("parquet", where)
    assert len(list(parquet_files(Path(where)))) == 2


def test_a_lost_file_is_told(tmp_path: Path) -> None:
    """Given a Parquet file that somebody removed, opening says which, and goes no further."""
    where = str(tmp_path / "events")
    asyncio.run(written("parquet", where))
    lost = next(parquet_files(tmp_path / "events"))
    lost.unlink()
    with pytest.raises(TargetMismatch, match=f"{lost.name} is missing"):
        asyncio.run(written("parquet", where))


def test_a_cut_file_is_told(tmp_path: Path) -> None:
    """Given a JSON Lines file that somebody cut, opening says so, and goes no further."""
    where = str(tmp_path / "events.jsonl")
    asyncio.run(written("jsonl", where))
    with Path(where).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(TargetMismatch, match="somebody cut it"):
        asyncio.run(written("jsonl", where))


def test_the_columns_are_those_of_the_event() -> None:
    """The table has every column of the event's schema, in its order, whatever is added later."""
    names = list(Columns([TOTAL]).kinds)
    assert names[3 : 3 + len(EVENT_COLUMNS)] == list(EVENT_COLUMNS)
    assert names[-1] == TOTAL.name


def test_the_published_rule_finds_the_same_events() -> None:
    """Given the raw records, the rule of docs/event-contract.md, by headers alone, takes what the sinks write."""

    async def scenario() -> tuple[list[str], list[str]]:
        log, ids = await story()
        taken: list[str] = []
        for partition in range(log.partitions):
            current = "-1"
            async for batch in log.read(Channel.EVENTS, partition, 0):
                for record in batch:
                    headers = {name: value.decode() for name, value in record.headers}
                    if headers.get("claim") != current:
                        continue
                    if headers["kind"] == "partition.claimed":
                        current = str(record.offset)
                    taken.append(headers["event_id"])
        return taken, ids

    taken, ids = asyncio.run(scenario())
    assert taken == ids
