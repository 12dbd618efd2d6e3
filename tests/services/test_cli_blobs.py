"""`refold blobs`: what nothing names is deleted, what is missing is told; and large payloads through other commands."""

import json
import os
import time
from pathlib import Path

import pytest

from cli_process import CommandLine
from refold import Engine, workflow

LARGE = "large " * 50_000

LARGE_PY = """
from refold import workflow

@workflow
async def echo(text: str) -> str:
    return text
"""


@workflow
async def echo(text: str) -> str:
    return text


@pytest.fixture
def blobs(shop: Path) -> Path:
    """The directory of blobs of a log with one run that was given a large input and returned it."""
    log = shop / "shop.db"
    with Engine(f"sqlite:///{log}", workflows=[echo]) as engine:
        engine.start(echo, LARGE, id="run").result()
    return Path(f"{log}.blobs")


def test_garbage_is_collected_and_the_rest_is_whole(blobs: Path, refold: CommandLine) -> None:
    """Given an old blob that nothing names, a dry run tells of it, gc deletes it, and all others verify."""
    garbage = blobs / "00" / f"00{'0' * 62}"
    garbage.parent.mkdir(exist_ok=True)
    garbage.write_text("x" * 50)
    assert "0 of 3 blobs deleted" in refold("blobs", "gc").stdout  # too young
    old = time.time() - 30 * 3600
    os.utime(garbage, (old, old))
    assert "1 of 3 blobs would be deleted (50 bytes)" in refold("blobs", "gc", "--dry-run").stdout
    assert garbage.exists()
    done = refold("blobs", "gc", "--older-than", "25h").stdout
    assert "1 of 3 blobs deleted (50 bytes); 2 are named by the log" in done
    assert not garbage.exists()
    assert "2 blobs are named (600,013 bytes), all whole" in refold("blobs", "verify").stdout


def test_a_missing_blob_is_told_with_its_run(blobs: Path, refold: CommandLine) -> None:
    """Given a blob that is gone and one that was damaged, verify names the runs and ends with 4."""
    one, other = sorted(blobs.glob("*/*"))
    one.unlink()
    other.write_text("damaged")
    told = refold("blobs", "verify", code=4)
    assert "2 of them missing or damaged" in told.stdout
    assert one.name in told.stderr
    assert other.name in told.stderr
    assert "workflow 'run'" in told.stderr


@pytest.mark.usefixtures("blobs")
def test_what_can_not_be_asked_for_is_told(refold: CommandLine) -> None:
    """Given too short an age, or what is no age, the command says what to write."""
    assert "older than 1 h" in refold("blobs", "gc", "--older-than", "5m", code=2).stderr
    assert "2h, 30m" in refold("blobs", "gc", "--older-than", "soon", code=2).stderr


@pytest.mark.usefixtures("blobs")
def test_the_history_has_the_reference(refold: CommandLine) -> None:
    """Given a large input and result, the events as they stand in the log name the blobs."""
    lines = refold("history", "run", "--json").stdout.splitlines()
    events: list[dict[str, str]] = [json.loads(line) for line in lines]
    assert [event["encoding"] for event in events] == ["json+blob", "json+blob"]
    assert all(event["payload"].startswith("blob:sha256:") for event in events)
    assert "blob:sha256:" in refold("show", "run", "--results").stdout


def test_a_run_is_started_with_a_large_input_and_prints_its_result(
    shop: Path, refold: CommandLine
) -> None:
    """Given a large input, `refold run` prints the large result, and so once more for the run that has ended."""
    (shop / "large.py").write_text(LARGE_PY)
    text = json.dumps("x" * 300_000)
    first = refold("run", "large:echo", "--input", "-", "--id", "r", stdin=text)
    assert json.loads(first.stdout) == "x" * 300_000
    again = refold("run", "large:echo", "--input", "-", "--id", "r", stdin=text)
    assert again.stdout == first.stdout
    refold("start", "large:echo", "--input", "-", "--id", "r", "--no-wait", stdin=text)
