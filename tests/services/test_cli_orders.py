"""Orders to one run and to many: cancel, pause, resume, terminate, rewind, fork; and `refold versions`."""

import json
import os
import pty
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_process import PATIENCE_S, CommandLine, Running


@pytest.fixture
def worker(refold: CommandLine) -> Iterator[Running]:
    """A worker for the office."""
    with refold.begin("worker", "office") as worker:
        worker.until("owned=0")
        yield worker


def statuses(refold: CommandLine) -> dict[str, str]:
    """How each run stands."""
    lines = map(json.loads, refold("list", "--json", "--limit", "0").stdout.splitlines())
    return {line["workflow_id"]: line["status"] for line in lines}


def start_letters(refold: CommandLine, *ids: str) -> None:
    """Runs that each wait for a word after one step."""
    for id_ in ids:
        refold("start", "office:letters", id_, "--id", id_)


def answered_at_terminal(refold: CommandLine, answer: str, *words: str) -> tuple[int, str]:
    """Run a command at a terminal and answer its question; returns exit code and all that stood there."""
    person, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "refold", *words],
        cwd=refold.directory,
        env={**os.environ, "REFOLD_URL": refold.url, "COLUMNS": "100", "NO_COLOR": "1"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    seen = b""
    asked = False
    try:
        while chunk := _read(person):
            seen += chunk
            if b"[y/N]" in seen and not asked:
                asked = True
                os.write(person, f"{answer}\n".encode())
        return process.wait(PATIENCE_S), seen.decode()
    finally:
        process.kill()
        process.wait()
        os.close(person)


def _read(person: int) -> bytes:
    """What comes next; nothing when the process has gone."""
    try:
        return os.read(person, 10_000)
    except OSError:  # EIO: nobody holds the terminal any more
        return b""


@pytest.mark.usefixtures("worker")
def test_one_run_is_paused_resumed_cancelled_terminated(refold: CommandLine) -> None:
    """Given runs by their ids, each order is carried out, recorded with its reason, and refused where it can't be."""
    start_letters(refold, "a", "b")
    assert refold("pause", "a", "--reason", "lunch").stderr == "a paused\n"
    assert statuses(refold) == {"a": "paused", "b": "running"}
    assert "only a running or queued one can be paused" in refold("pause", "a", code=5).stderr
    assert refold("resume", "a").stderr == "a resumed\n"
    refold("cancel", "a", "--reason", "customer called")
    refold("terminate", "b", "--reason", "by mistake")
    said = refold("run", "office:letters", "a", "--id", "a", code=1).stderr
    assert "error: workflow 'a' was cancelled" in said
    assert "customer called" in said
    said = refold("run", "office:letters", "b", "--id", "b", code=1).stderr
    assert "was terminated" in said
    assert "by mistake" in said
    assert statuses(refold) == {"a": "cancelled", "b": "terminated"}
    assert "no workflow has the id 'c'" in refold("cancel", "c", code=5).stderr
    assert "lunch" in refold("show", "a").stdout
    refold("history", "a")


@pytest.mark.usefixtures("worker")
def test_a_run_is_rewound_and_copied(refold: CommandLine, shop: Path) -> None:
    """Given a run with a step done, rewind does it again in place, and fork replays it in a copy."""
    start_letters(refold, "a")
    refold("rewind", "a", "--step", "0", "--reason", "wrong ink")
    assert refold("fork", "a", "--id", "copy").stdout == "copy\n"
    for id_ in ("a", "copy"):
        refold("send", id_, "word", f'"{id_}"')
    for id_ in ("a", "copy"):
        done = refold("run", "office:letters", "a", "--id", id_)
        assert json.loads(done.stdout) == ["a begun", f"a {id_}"]
    journal = Counter((shop / "journal.txt").read_text().splitlines())
    assert journal == {"a begun": 2, "a a": 1, "a copy": 1}
    assert "Nothing was forked" in refold("fork", "a", "--step", "99", code=2).stderr
    assert "name the one run" in refold("fork", "--all", "--id", "x", code=2).stderr


@pytest.mark.usefixtures("worker")
def test_an_order_to_many_is_looked_at_first_and_needs_a_yes(refold: CommandLine) -> None:
    """Given a filter, --dry-run lists and does nothing; without a terminal only --yes does it."""
    start_letters(refold, "a", "b")
    refold("start", "office:desk", "--id", "d")
    dry = refold("pause", "--workflow", "letters", "--dry-run")
    assert [line.split()[0] for line in dry.stdout.splitlines()[1:]] == ["b", "a"]
    assert "would touch 2 runs, and has done nothing" in dry.stderr
    assert "give --yes. Nothing was done" in refold("pause", "--all", code=2).stderr
    assert set(statuses(refold).values()) == {"running"}

    assert "2 runs paused" in refold("pause", "--workflow", "letters", "--yes").stderr
    assert statuses(refold) == {"a": "paused", "b": "paused", "d": "running"}
    again = refold("pause", "--workflow", "letters", "--yes")
    assert "nothing to pause" in again.stderr

    mixed = refold("resume", "a", "b", "nobody", "d", code=5)
    assert "2 runs resumed; 2 failed" in mixed.stderr
    assert "no workflow has the id 'nobody'" in mixed.stderr
    copies = refold("fork", "--workflow", "letters", "--yes").stdout
    ids = dict(line.split("\t") for line in copies.splitlines())
    assert set(ids) == {"a", "b"}
    assert set(ids.values()) <= set(statuses(refold))


@pytest.mark.usefixtures("worker")
def test_a_person_is_asked_and_a_no_does_nothing(refold: CommandLine) -> None:
    """Given a terminal, the runs are shown and the question put; no leaves them, yes carries it out."""
    start_letters(refold, "a", "b")
    code, said = answered_at_terminal(refold, "n", "terminate", "--all")
    assert code == 5
    assert "terminate 2 runs? [y/N]" in said
    assert "nothing was done" in said
    assert set(statuses(refold).values()) == {"running"}
    code, said = answered_at_terminal(refold, "y", "terminate", "--all")
    assert code == 0
    assert "2 runs terminated" in said
    assert set(statuses(refold).values()) == {"terminated"}


@pytest.mark.usefixtures("worker")
def test_failed_runs_go_on_when_the_cause_is_mended(refold: CommandLine, shop: Path) -> None:
    """Given runs that failed, `resume --status failed` does what failed again, and they go on."""
    (shop / "broken").touch()
    start_letters(refold, "a", "b")
    for id_ in ("a", "b"):
        refold("run", "office:letters", id_, "--id", id_, code=1)
    (shop / "broken").unlink()
    assert "2 runs resumed" in refold("resume", "--status", "failed", "--yes").stderr
    for id_ in ("a", "b"):
        refold("send", id_, "word", '"mended"')
        done = refold("run", "office:letters", id_, "--id", id_)
        assert json.loads(done.stdout) == [f"{id_} begun", f"{id_} mended"]


def test_versions_says_what_code_is_still_needed(refold: CommandLine, shop: Path) -> None:
    """Given runs on two versions, versions counts them; code that lacks one is told, with exit code 5."""
    with refold.begin("worker", "office") as worker:
        worker.until("memo,memo@2")
        refold("start", "office:memo_1", "x", "--id", "old")
        refold("start", "office:memo_2", "x", "--id", "new")
        refold("pause", "new")
        refold("start", "office:desk", "--id", "d")
        refold("terminate", "d")
    rows = [json.loads(line) for line in refold("versions", "--json").stdout.splitlines()]
    assert [(row["workflow"], row["version"], row["running"], row["paused"]) for row in rows] == [
        ("memo", 1, 1, 0),
        ("memo", 2, 0, 1),
    ]
    assert rows[1]["patches"] == {"printed": 1}
    here = refold("versions", "office").stdout
    assert [line.split()[0:2] + line.split()[3:4] for line in here.splitlines()[1:]] == [
        ["desk", "1", "newest"],
        ["letters", "1", "newest"],
        ["memo", "1", "same"],
        ["memo", "2", "same"],
    ]
    assert "printed all 1" in here

    code = (shop / "office.py").read_text()
    start = code.index('@workflow(name="memo")')
    end = code.index('@workflow(name="memo", version=2)')
    later = code[end:].replace('"2 {how}', '"3 {how}').replace("version=2", "version=3")
    (shop / "next.py").write_text(code[:start] + code[end:] + "\n\n" + later)
    missing = refold("versions", "next", code=5)
    assert "1 open run waits for version 1 of workflow 'memo' (old)" in missing.stderr
    assert "memo" in missing.stdout
    refold("versions", "next:memo_2", "--json", code=5)

    with refold.begin("worker", "office") as worker:
        worker.until("owned=0")
        refold("terminate", "--all", "--yes")
    assert "can go" in refold("versions", "office").stdout
    assert refold("versions").stdout == "no run is open: no version of any code is needed\n"
