"""`refold audit`: what people did, whether history is what was written, and seals that say so."""

import json
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli_process import CommandLine
from refold import Engine, receive, step, workflow
from refold.log.sqlite import SqliteLog
from refold.services.cli import app
from refold.services.exits import ExitCode

PATIENCE_S = 60.0


@step
async def charge(amount: int) -> int:
    return amount


@workflow
async def order(amount: int) -> int:
    await charge(amount)
    return amount + await receive("extra", int)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a log in which people have given orders."""
    monkeypatch.chdir(tmp_path)
    for variable in ("REFOLD_URL", "REFOLD_ARCHIVE"):
        monkeypatch.delenv(variable, raising=False)
    with Engine(SqliteLog("refold.db"), workflows=[order], requested_by="anna@desk") as engine:
        one = engine.start(order, 5, id="order-1")
        one.pause("gateway is down")
        one.resume("it is up again")
        one.send("extra", 2)
        one.result(PATIENCE_S)
        one.fork(0, id="order-1b", reason="once more")
        two = engine.start(order, 5, id="order-2")
        two.cancel("customer called")
        engine.start(order, 5, id="order-3").terminate("started by mistake")
        one.rewind(0, "charged the wrong card")
    return tmp_path


def refold(*words: str, code: ExitCode = ExitCode.OK) -> Result:
    """Run a command in this process."""
    env = {"COLUMNS": "200", "NO_COLOR": "1"}
    done = CliRunner(env=env).invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done


def told(*words: str) -> list[tuple[str, str, str, str]]:
    """The orders that `audit log` lists: which, to which run, by whom, why."""
    lines = map(json.loads, refold("audit", "log", "--json", *words).stdout.splitlines())
    return [(one["name"], one["workflow_id"], one["by"], one["why"]) for one in lines]


def test_every_order_says_who_gave_it_and_why() -> None:
    """Given orders of each kind, each is told with who, why and when, in the order in which they were given."""
    assert told() == [
        ("pause", "order-1", "anna@desk", "gateway is down"),
        ("resume", "order-1", "anna@desk", "it is up again"),
        ("fork", "order-1b", "anna@desk", "once more"),
        ("cancel", "order-2", "anna@desk", "customer called"),
        ("terminate", "order-3", "anna@desk", "started by mistake"),
        ("reopen", "order-1", "anna@desk", "charged the wrong card"),
    ]
    shown = refold("audit", "log").stdout
    assert "fork of order-1, up to before step 0" in shown
    assert "charged the wrong card" in shown


def test_orders_are_found_by_run_kind_person_and_time() -> None:
    """Given a filter, just the orders that fit are told."""
    assert [one[0] for one in told("--run", "order-1")] == ["pause", "resume", "reopen"]
    assert [one[1] for one in told("--action", "cancel", "--action", "fork")] == [
        "order-1b",
        "order-2",
    ]
    assert told("--by", "bert") == []
    assert told("--before", "1h") == []
    assert len(told("--since", "1h", "--by", "anna")) == 6
    assert "nobody ordered" in refold("audit", "log", "--by", "bert").stdout


def test_a_history_is_verified_and_sealed() -> None:
    """Given a key, a seal is made, verified, and followed by another."""
    assert "without seals" in refold("audit", "verify").stderr.lower()
    key_id = refold("audit", "keygen", "seal.key").stdout.strip()
    assert Path("seal.key").stat().st_mode & 0o077 == 0
    for number in (1, 2):
        done = refold("audit", "seal", "--key", "seal.key", "--to", "seals.jsonl")
        assert f"as seal {number} of seals.jsonl" in done.stderr
    words = ("audit", "verify", "--seals", "seals.jsonl", "--public-key", "seal.key.pub")
    assert "all 2 seals" in refold(*words).stderr
    found = json.loads(refold(*words, "--json").stdout)
    assert (found["ok"], found["key"], found["seals"]) == (True, key_id, 2)
    assert found["partitions"][0]["sealed"] == found["partitions"][0]["end"]
    refold("audit", "keygen", "other.key")
    both = ("--key", "other.key", "--public-key", "seal.key.pub")
    refold("audit", "seal", "--to", "seals.jsonl", *both)
    denied = refold(*words, code=ExitCode.LOG)
    assert "seal 3 of seals.jsonl is signed by the key" in denied.stderr
    assert "Only the 2 seals" in denied.stderr
    found = json.loads(refold(*words, "--json", code=ExitCode.LOG).stdout)
    assert (found["ok"], found["seals"], "is signed by" in found["wrong_seal"]) == (False, 2, True)


def test_seals_are_made_again_and_again_until_told_to_stop(here: Path) -> None:
    """Given a time between seals, one follows the other, nobody else adds to the file, and SIGTERM ends it in peace."""
    refold("audit", "keygen", "seal.key")
    words = ("audit", "seal", "--key", "seal.key", "--to", "seals.jsonl")
    with CommandLine(here, "sqlite:///refold.db").begin(*words, "--every", "0.2s") as sealing:
        sealing.until("as seal 2 of")
        assert "another process seals" in refold(*words, code=ExitCode.LOG).stderr
        assert sealing.stopped(signal.SIGTERM) == 0
    assert len(Path("seals.jsonl").read_text().splitlines()) >= 2
    verify = ("audit", "verify", "--seals", "seals.jsonl", "--public-key", "seal.key.pub")
    assert json.loads(refold(*verify, "--json").stdout)["ok"]


def test_an_auditor_needs_no_more_than_a_copy_of_the_archive(here: Path) -> None:
    """Given the archive, the seals and the public key alone, every command of an audit works, and nothing is written;
    what was sealed and not archived is told."""
    refold("audit", "keygen", "seal.key")
    sealing = ("audit", "seal", "--key", "seal.key", "--to", "seals.jsonl")
    refold(*sealing)
    refold("archive", "--to", "archive", "--format", "avro")
    with Engine(SqliteLog("refold.db"), workflows=[order]) as engine:
        engine.start(order, 5, id="order-9").pause("not archived")
    refold(*sealing)
    refold(*sealing[:-1], "later.jsonl")
    for path in [*here.glob("refold.db*"), Path("seal.key")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    url = f"archive:///{here}/archive"
    trusted = ("--seals", "seals.jsonl", "--public-key", "seal.key.pub")
    assert "1 of 2 seals is in it" in refold("audit", "verify", url, *trusted).stderr
    (found,) = json.loads(refold("audit", "verify", url, *trusted, "--json").stdout)["partitions"]
    assert (found["findings"], found["sealed"]) == ([], found["end"])
    assert len(told("archive:///archive")) == 6
    refold("audit", "report", "order-1", "--url", url, "-o", "order-1.html", *trusted)
    assert "order-1: verified" in refold("audit", "check", "order-1.html", *trusted[2:]).stdout
    late = ("--seals", "later.jsonl", *trusted[2:])
    words = ("audit", "report", "order-1", "--url", url, "-o", "x.html", *late)
    assert "every seal goes beyond" in refold(*words, code=ExitCode.USAGE).stderr
    assert "order-2" in refold("list", "--url", url).stdout
    denied = refold("cancel", "order-2", "--url", url, code=ExitCode.USAGE)
    assert "can be read, and nothing can be written" in denied.stderr
    assert "no archive" in refold("audit", "verify", "archive:///other", code=ExitCode.LOG).stderr


def test_a_changed_event_is_named() -> None:
    """Given one event that was changed in the file, it is named, with what was expected, and the exit code says so."""
    with sqlite3.connect("refold.db") as file:
        (value,) = file.execute("SELECT value FROM events WHERE id = 3").fetchone()
        file.execute("UPDATE events SET value = ? WHERE id = 3", (value[:-1] + b"\x55",))
    file.close()
    done = refold("audit", "verify", code=ExitCode.LOG)
    assert "partition 0, offset 3 (order-1/" in done.stderr
    assert "expected  chain" in done.stderr
    finding = json.loads(refold("audit", "verify", "--json", code=ExitCode.LOG).stdout)
    assert finding["partitions"][0]["findings"][0]["offset"] == 3


def test_a_key_is_never_overwritten_and_a_wrong_one_is_told() -> None:
    """Given a key that is there, and a file that is none, both are clear errors."""
    refold("audit", "keygen", "seal.key")
    kept = Path("seal.key").read_text()
    assert "never overwritten" in refold("audit", "keygen", "seal.key", code=ExitCode.USAGE).stderr
    assert Path("seal.key").read_text() == kept
    words = ("audit", "seal", "--to", "s", "--key")
    assert "is not a private key" in refold(*words, "refold.db", code=ExitCode.USAGE).stderr
    assert "can't be read" in refold(*words, "missing", code=ExitCode.USAGE).stderr
    assert "go together" in refold("audit", "verify", "--seals", "s", code=ExitCode.USAGE).stderr


def test_a_report_is_written_and_checked() -> None:
    """Given a sealed log, a run's report is checked by the public key alone, as a page and as JSON."""
    refold("audit", "keygen", "seal.key")
    refold("audit", "seal", "--key", "seal.key", "--to", "seals.jsonl")
    trusted = ("--public-key", "seal.key.pub")
    for file in ("order-1.html", "order-1.json"):
        refold("audit", "report", "order-1", "-o", file, "--seals", "seals.jsonl", *trusted)
        assert "order-1: verified" in refold("audit", "check", file, *trusted).stdout
        assert "public-key" in refold("audit", "check", file).stderr
    found = json.loads(refold("audit", "check", "order-1.html", "--json", *trusted).stdout)
    assert (found["verdict"], found["genuine_page"]) == ("verified", True)
    assert found["events"] == found["sealed"] > 5


def test_a_report_that_was_changed_is_told() -> None:
    """Given a page with another script, or with other data, the check says so."""
    refold("audit", "report", "order-1", "-o", "order-1.html")
    page = Path("order-1.html").read_text(encoding="utf-8")
    Path("a.html").write_text(page.replace("use strict", "use nothing"), encoding="utf-8")
    assert "not the one that this release makes" in refold("audit", "check", "a.html").stderr
    Path("b.html").write_text(page.replace('"before": "', '"before": "00', 1), encoding="utf-8")
    done = refold("audit", "check", "b.html", code=ExitCode.LOG)
    assert "order-1: altered" in done.stdout
    assert "is not a report" in refold("audit", "check", "refold.db", code=ExitCode.USAGE).stderr
    refold("audit", "report", "order-9", "-o", "x.html", code=ExitCode.REFUSED)
    assert not Path("x.html").exists()
