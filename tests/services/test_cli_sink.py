"""`refold sink` and `refold export`: events go elsewhere, as they come or once."""

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import polars as pl
import psycopg
import pytest

from cli_process import CommandLine
from event_receiver import Receiver, receiving
from refold.services.payload_columns import payload_columns

CODE = """
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel

from refold import step, workflow


class Line(BaseModel):
    sku: str
    count: int


class Order(BaseModel):
    id: str
    total: float
    at: datetime
    lines: list[Line]
    note: str | None = None


@dataclass
class Receipt:
    number: int
    paid: bool
    line: Line


@step
def charge(order: Order) -> Receipt:
    return Receipt(7, True, order.lines[0])


@workflow
def checkout(order: Order, express: bool = False) -> Receipt:
    return charge(order)
"""
PLAIN = """
from datetime import datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

from pydantic import BaseModel

from refold import step, workflow


class Card(BaseModel):
    number: int


class Transfer(BaseModel):
    iban: str


class Colour(Enum):
    RED = "red"


@step
def price(sku: str) -> Decimal: ...
@step
def sizes(sku: str) -> list[int]: ...
@step
def colour(sku: str) -> Colour | None: ...
@step
def paid_by(sku: str) -> Card | Transfer | datetime: ...
@step
def stock() -> dict[str, int]: ...
@step
def cards() -> list[Card]: ...
@step
def nothing() -> None: ...

@workflow
def order(id: UUID, amount: Decimal, tags: list[str], card: Card | Transfer, when: datetime | None = None) -> str: ...
"""
ORDER = '{"id":"x","total":12.5,"at":"2026-11-28T10:00:00Z","lines":[{"sku":"tea","count":2}]}'
KINDS = ["workflow.started", "step.completed", "workflow.completed"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a module with a workflow, and a log with one run of it."""
    directory = tmp_path_factory.mktemp("shop")
    (directory / "shop_.py").write_text(CODE)
    run(CommandLine(directory, "sqlite:///shop.db"), "a")
    return directory


@pytest.fixture
def refold(shop: Path, tmp_path: Path) -> CommandLine:
    """The command in a copy of that directory."""
    for path in shop.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    return CommandLine(tmp_path, "sqlite:///shop.db")


def run(refold: CommandLine, id_: str) -> None:
    refold("run", "shop_:checkout", "--input", f'{{"order":{ORDER}}}', "--id", id_, "--quiet")


def kinds(lines: str) -> list[str]:
    rows = [json.loads(line) for line in lines.splitlines()]
    return [row["kind"] for row in rows if row.get("workflow_id")]


def test_an_export_adds_what_has_come(refold: CommandLine) -> None:
    """Given an export, when it is made again, it has what came since, once."""
    for id_ in ("b", "c"):
        refold("export", "jsonl", "events.jsonl")
        assert "0 events written" in refold("export", "jsonl", "events.jsonl").stderr
        run(refold, id_)
    assert kinds((refold.directory / "events.jsonl").read_text()) == KINDS * 2


def test_exports_are_read_by_duckdb_and_polars(refold: CommandLine) -> None:
    """Given exports of each kind of file, DuckDB and polars read them with no code of ours, typed."""
    refold("export", "parquet", "events", "--compact", "--types", "shop_")
    refold("export", "jsonl", "events.jsonl", "--types", "shop_")
    refold("export", "duckdb", "events.duckdb", "--types", "shop_:checkout")
    here = refold.directory
    sources = {
        ":memory:": (
            f"read_parquet('{here}/events/*/*.parquet')",
            f"read_json('{here}/events.jsonl')",
        ),
        str(here / "events.duckdb"): ("events",),
    }
    by_duckdb: list[pl.DataFrame] = []
    for file, named in sources.items():
        with closing(duckdb.connect(file, read_only=file != ":memory:")) as db:
            by_duckdb += [
                db.sql(f"FROM {source} WHERE workflow_id = 'a' ORDER BY position").pl()
                for source in named
            ]
    parquet = pl.read_parquet(here / "events" / "*" / "*.parquet", hive_partitioning=True)
    assert parquet["payload_order_at"].dtype == pl.Datetime("us", "UTC")
    by_polars = [parquet, pl.read_ndjson(here / "events.jsonl")]
    for frame in (*by_duckdb, *by_polars):
        rows = [row for row in frame.to_dicts() if row["workflow_id"] == "a"]
        assert [row["kind"] for row in rows] == KINDS
        assert [row["payload_order_total"] for row in rows] == [12.5, None, None]
        assert [row["payload_number"] for row in rows] == [None, 7, 7]
        assert [row["payload_paid"] for row in rows] == [None, True, True]


def test_columns_follow_from_the_types(
    refold: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a module, its inputs' models and its results give columns, each by its type; what is deeper is text."""
    monkeypatch.chdir(refold.directory)
    found = {column.name: str(column.kind) for column in payload_columns(["shop_.py"])}
    assert found == {
        "payload_order_id": "text",
        "payload_order_total": "real",
        "payload_order_at": "time",
        "payload_order_lines": "text",
        "payload_order_note": "text",
        "payload_express": "boolean",
        "payload_number": "integer",
        "payload_paid": "boolean",
        "payload_line": "text",
    }


def test_results_that_are_no_models_have_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given results that are plain values, lists, options and unions, each kind has a column; others have none."""
    (tmp_path / "plain_.py").write_text(PLAIN)
    monkeypatch.chdir(tmp_path)
    found = {column.name: str(column.kind) for column in payload_columns(["plain_.py"])}
    assert found == {
        "payload_id": "text",
        "payload_amount": "decimal",
        "payload_tags": "texts",
        "payload_card_number": "integer",
        "payload_card_iban": "text",
        "payload_when": "time",
        "payload_number": "integer",
        "payload_iban": "text",
        **{f"payload_as_{kind}": kind for kind in ("decimal", "integers", "text", "time")},
    }


@pytest.mark.parametrize("kind", ["parquet", "duckdb", "jsonl"])
def test_a_sink_follows_and_drains(kind: str, refold: CommandLine) -> None:
    """Given a running sink, what comes is written; told to stop, it has written all that it read, and ends well."""
    with refold.begin("sink", kind, "events", "--every-s", "0") as sink:
        sink.until("caught up")
        run(refold, "b")
        refold("export", "jsonl", "all.jsonl")
        wait_for(refold, kind, count(refold.directory / "all.jsonl", "jsonl"))
        assert sink.stopped(signal.SIGTERM) == 0
        assert "stopped events=" in sink.said


def test_a_sink_into_postgresql(refold: CommandLine, postgres: str) -> None:
    """Given a database, an export puts its events and typed columns into a schema of its own."""
    schema = f"cli_{refold.directory.name.replace('-', '_')}"[:50].lower()
    refold("export", "postgres", postgres, "--schema", schema, "--types", "shop_")
    with psycopg.connect(postgres) as pg:
        query = f"SELECT kind, payload_number FROM {schema}.events WHERE workflow_id = 'a' ORDER BY position"
        assert pg.execute(query.encode()).fetchall() == list(zip(KINDS, (None, 7, 7), strict=True))
        pg.execute(f"DROP SCHEMA {schema} CASCADE".encode())


def wait_for(refold: CommandLine, kind: str, events: int) -> None:
    deadline = threading.Event()
    timer = threading.Timer(60, deadline.set)
    timer.start()
    while count(refold.directory / "events", kind) < events:
        assert not deadline.wait(0.05), "the sink did not write what came"
    timer.cancel()


def count(path: Path, kind: str) -> int:
    """How many rows a target of files has."""
    if kind == "duckdb":
        try:
            with closing(duckdb.connect(str(path), read_only=True)) as db:
                ((rows,),) = db.sql("SELECT count(*) FROM events").fetchall()
                return int(rows)
        except duckdb.Error:  # the sink has it just now
            return 0
    manifest = (
        path / "_manifest.json"
        if kind == "parquet"
        else path.with_name(f"{path.name}.manifest.json")
    )
    return sum(file["rows"] for file in json.loads(manifest.read_text())["files"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that listens."""
    with receiving() as receiver:
        yield receiver


@pytest.mark.parametrize(
    ("batch", "form"), [("1", "cloudevents+json"), ("3", "cloudevents-batch+json")]
)
def test_a_receiver_gets_cloudevents(
    batch: str, form: str, refold: CommandLine, receiver: Receiver
) -> None:
    """Given a receiver that is busy at first, it gets every event as a CloudEvent, in order, and never again."""
    receiver.answers = [503, 429]
    words = ("export", "http", receiver.url, "--state", "state", "--batch", batch)
    refold(*words)
    events = [event for event in receiver.taken if "subject" in event]
    assert [event["type"] for event in events] == [f"refold.{kind}" for kind in KINDS]
    assert [event["sequence"] for event in events] == ["0", "1", "2"]
    assert {event["specversion"] for event in events} == {"1.0"}
    assert events[1]["id"] == events[1]["data"]["event_id"] == "a/1/step.completed"
    assert json.loads(events[1]["data"]["payload"])["number"] == 7
    assert receiver.forms == {f"application/{form}"}
    before = len(receiver.taken)
    refold(*words)
    assert len(receiver.taken) == before


def test_a_receiver_that_refuses_stops_the_export(refold: CommandLine, receiver: Receiver) -> None:
    """Given a receiver that answers 400, nothing after that event is sent, and the next export goes on there."""
    receiver.answers = [204, 400]
    said = refold("export", "http", receiver.url, "--state", "state", code=4).stderr
    assert "refuses the event 'a/0/workflow.started'" in said
    receiver.answers = []
    refold("export", "http", receiver.url, "--state", "state")
    assert [event["id"] for event in receiver.taken if "subject" in event] == [
        f"a/{position}/{kind}" for position, kind in enumerate(KINDS)
    ]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("http", "http://127.0.0.1:1/"), 2, "--state FILE"),
        (("http", "ftp://host/", "--state", "s"), 2, "is no http:// or https:// address"),
        (("postgres", "mysql://host/db"), 2, "postgresql://user@host/database"),
        (("postgres", "postgresql://me:secret@host/db"), 2, "read by every user"),
        (("jsonl", "shop_.py"), 4, "name another file"),
        (("parquet", "shop_.py"), 4, "is a file, and Parquet needs a directory"),
        (("duckdb", "shop_.py"), 4, "is no DuckDB file"),
        (("jsonl", "e.jsonl", "--compact"), 2, "merges Parquet files"),
        (("parquet", "e", "--types", "nothing_here"), 2, "there is no module"),
        (("duckdb", "none/e.duckdb"), 4, "there is no directory"),
    ],
)
def test_wrong_words_are_one_clear_error(
    words: tuple[str, ...], code: int, says: str, refold: CommandLine
) -> None:
    """Given words that make no target, one error says what is wrong, and nothing is made."""
    before = sorted(path.name for path in refold.directory.iterdir())
    done = refold("export", *words, code=code)
    assert says in " ".join(done.stderr.replace("│", " ").split())
    kept = {"s", "__pycache__", "shop.db.locks"}
    after = sorted(path.name for path in refold.directory.iterdir())
    assert [name for name in after if name not in kept] == [
        name for name in before if name not in kept
    ]


def test_a_log_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Given no log, an export makes neither a log nor a target."""
    refold = CommandLine(tmp_path, "sqlite:///none.db")
    assert "there is no log file" in refold("export", "jsonl", "e.jsonl", code=4).stderr
    assert list(tmp_path.iterdir()) == []
