"""`refold archive`, and the commands that read what it has archived."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from refold import CheckpointSettings, Engine, workflow
from refold.log.sqlite import SqliteLog
from refold.services.cli import app
from refold.services.exits import ExitCode

RUNS = 40
PATIENCE_S = 60.0


@workflow
async def echo(text: str) -> str:
    return text * 30


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with a log of runs that have ended, with checkpoints between them."""
    monkeypatch.chdir(tmp_path)
    for variable in ("REFOLD_URL", "REFOLD_ARCHIVE"):
        monkeypatch.delenv(variable, raising=False)
    often = CheckpointSettings(min_bytes=2_000)
    with Engine(SqliteLog("refold.db"), workflows=[echo], checkpoints=often) as engine:
        for n in range(RUNS):
            engine.start(echo, f"{n}", id=f"run-{n}").result(PATIENCE_S)


def refold(*words: str, code: ExitCode = ExitCode.OK, **environment: str) -> Result:
    """Run a command in this process."""
    env = {"COLUMNS": "200", "NO_COLOR": "1", **environment}
    done = CliRunner(env=env).invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done


def test_history_is_archived_trimmed_and_still_shown() -> None:
    """Given runs that ended, they are archived and trimmed; who asks is told to name the archive, and then shown."""
    measured = refold("metrics", "--json").stdout
    foreseen = refold("archive", "--to", "old", "--trim", "--dry-run")
    assert "nothing was archived, and nothing was deleted" in foreseen.stderr
    assert not Path("old").exists()
    done = refold("archive", "sqlite:///refold.db", "--to", "old", "--trim")
    assert done.stdout == foreseen.stdout
    assert "a whole checkpoint begins there" in " ".join(done.stdout.split())
    assert list(Path("old/events/partition=0").glob("*.parquet"))

    assert refold("metrics", "--json", "--archive", "old").stdout == measured != ""
    assert "--archive DIR" in refold("metrics", code=ExitCode.LOG).stderr

    for command in ("show", "history"):
        refused = refold(command, "run-1", code=ExitCode.LOG)
        assert "trimmed" in refused.stderr
        assert "--archive DIR" in refused.stderr
        by_option = refold(command, "run-1", "--archive", "old", "--json")
        assert refold(command, "run-1", "--json", REFOLD_ARCHIVE="old").stdout == by_option.stdout
        by_url = refold(command, "run-1", "--url", "sqlite:///refold.db?archive=old", "--json")
        assert by_url.stdout == by_option.stdout
    listed = refold("list", "--archive", "old", "--limit", "0", "--json").stdout.splitlines()
    assert len(listed) == RUNS
    dry = refold("fork", "run-1", "--dry-run", "--archive", "old")
    assert "run-1" in dry.stdout


def test_a_second_time_there_is_nothing_to_do() -> None:
    """Given a log that was archived whole, the next time archives nothing."""
    refold("archive", "--to", "old", "--format", "avro")
    again = refold("archive", "--to", "old", "--format", "avro")
    assert "none" in again.stdout.splitlines()[-1]
    manifest = json.loads(Path("old/manifest.json").read_text())
    assert len(manifest["files"]) == 1


def test_what_is_young_stays() -> None:
    """Given a span that nothing is older than, nothing is archived."""
    done = refold("archive", "--to", "old", "--older-than", "1d", "--trim")
    assert done.stdout.splitlines()[1].split()[:4] == ["0", "none", "none", "none"]


def test_without_a_place_it_is_refused() -> None:
    """Given neither --to nor REFOLD_ARCHIVE, it is wrong usage."""
    refold("archive", code=ExitCode.USAGE)
    refold("archive", REFOLD_ARCHIVE="old")
    assert Path("old/manifest.json").exists()


def test_runs_whose_beginning_is_archived_are_checked_with_it() -> None:
    """Given a log that was trimmed, `check` draws ended runs from the archive as well, and replays them from there."""
    refold("archive", "--to", "old", "--trim")
    Path("repeats.py").write_text(
        "from refold import workflow\n\n@workflow\nasync def echo(text: str) -> str:\n    return text * 30\n"
    )
    code = ("repeats", "--closed", str(RUNS), "--processes", "1", "--json")
    alone = json.loads(refold("check", *code).stdout)
    whole = json.loads(refold("check", *code, "--archive", "old").stdout)
    assert alone["closed"] < RUNS
    assert (whole["closed"], whole["checked"], whole["broken"]) == (RUNS, RUNS, 0)


def test_a_file_is_no_place_for_an_archive() -> None:
    """Given a file where the archive should be, the error says that it is one, and leaves it alone."""
    Path("notes.txt").write_text("mine")
    assert "is a file" in refold("archive", "--to", "notes.txt", code=ExitCode.USAGE).stderr
    assert Path("notes.txt").read_text() == "mine"
