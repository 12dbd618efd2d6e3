"""The schedules of the workflows read model: a row for each, as its own run says that it stands."""

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from tests.projections.conftest import of
from tests.projections.test_workflows import take_in
from typer.testing import CliRunner

from refold import Engine, Projected, ReadModel, workflow
from refold.engine.worker import wall_clock
from refold.log.memory import MemoryLog, MemoryStore
from refold.projections.sqlite_store import SqliteStore
from refold.projections.workflows import Workflows
from refold.services import cli_schedule
from refold.services.cli import app


@workflow
def report(region: str) -> str:
    return region


def test_schedules_have_a_row_each(tmp_path: Path) -> None:
    """Given schedules that were triggered, paused, changed, deleted and terminated, their rows say how each stands and
    what it starts, and nothing of the input.
    """
    store = MemoryStore(partitions=2)
    with Engine(MemoryLog(store=store), workflows=[report]) as engine:
        nightly = engine.schedule("nightly", report, "bob", cron="0 3 * * *", timezone="Asia/Tokyo")
        run = nightly.trigger()
        nightly.pause()
        for name in ("deleted", "ended"):
            engine.schedule(name, report, "bob", cron="0 4 * * *", overlap="skip")
        engine.get_schedule("deleted").delete()
        engine.handle("schedule:ended").terminate()
    log = MemoryLog(store=store)
    asyncio.run(log.open())
    take_in(log, SqliteStore(Workflows(), of(log), tmp_path), Random(7))
    with sqlite3.connect(tmp_path / "workflows.db") as db:
        rows = db.execute(
            "SELECT name, status, workflow, cron, timezone, overlap, paused, next_due, last_id, started, problem"
            " FROM schedules ORDER BY name"
        ).fetchall()
        texts = [str(row) for row in db.execute("SELECT * FROM schedules")]
    db.close()
    due_next = rows[1][7]
    assert rows == [
        ("deleted", "completed", "report", "0 4 * * *", "UTC", "skip", 0, None, None, 0, None),
        ("ended", "terminated", "report", "0 4 * * *", "UTC", "skip", 0, due_next, None, 0, None),
        (
            "nightly",
            "running",
            "report",
            "0 3 * * *",
            "Asia/Tokyo",
            "allow",
            1,
            None,
            run.id,
            1,
            None,
        ),
    ]
    assert due_next % 86_400_000_000 == 4 * 3_600_000_000
    assert not any("bob" in text for text in texts)


def test_the_list_comes_from_the_read_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given schedules by cron, by interval, paused, triggered and deleted, and a read model that has them, the list is
    what the log says, and the log is not folded for it; with --json it is, for the inputs.
    """
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    with Engine(url, workflows=[report]) as engine:
        engine.schedule("nightly", report, "bob", cron="0 3 * * *", timezone="Asia/Tokyo").trigger()
        engine.schedule("often", report, "bob", every=timedelta(minutes=90), overlap="skip").pause()
        engine.schedule("deleted", report, "bob", cron="0 4 * * *").delete()
    now = wall_clock()
    monkeypatch.setattr(cli_schedule, "wall_clock", lambda: now)

    def listed(*words: str) -> str:
        return CliRunner().invoke(app, ["schedule", "list", "--url", url, *words]).stdout

    from_log, as_json = listed(), listed("--json")
    Projected(Workflows()).catch_up(url)
    with ReadModel(url) as model:
        assert [(one.name, one.every, one.started) for one in model.schedules()] == [
            ("nightly", None, 1),
            ("often", timedelta(minutes=90), 0),
        ]
    assert (listed("--from-log"), listed("--json")) == (from_log, as_json)
    monkeypatch.delattr(cli_schedule, "read_schedules")
    assert listed() == from_log
    assert [line.split()[0] for line in from_log.splitlines()] == ["NAME", "nightly", "often"]
