"""`refold sql`: the log as tables."""

import json
import shutil
from pathlib import Path

import pytest

from cli_process import CommandLine

CODE = """
from refold import Retry, step, workflow

@step(retry=Retry(attempts=2, initial_s=0.001))
def fetch(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number

@workflow
def sums(numbers: list[int]) -> int:
    return sum(fetch(number) for number in numbers)
"""


@pytest.fixture(scope="module")
def refold(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command, and a log with a run that completed and one that failed."""
    directory = tmp_path_factory.mktemp("sql")
    (directory / "sums_.py").write_text(CODE)
    refold = CommandLine(directory, "sqlite:///sums.db")
    refold("run", "sums_:sums", "[1, 2]", "--id", "good", "--quiet")
    refold("run", "sums_:sums", "[1, 3]", "--id", "bad", "--quiet", code=1)
    return refold


def rows(refold: CommandLine, query: str, *words: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in refold("sql", query, "--json", *words).stdout.splitlines()]


def test_the_views_tell_how_runs_steps_and_attempts_went(refold: CommandLine) -> None:
    """Given two runs, each table has a row for what it is about, and they join."""
    assert rows(refold, "SELECT workflow_id, status, events FROM workflows ORDER BY 1") == [
        {"workflow_id": "bad", "status": "failed", "events": 5},
        {"workflow_id": "good", "status": "completed", "events": 4},
    ]
    steps = "SELECT step, s.status, attempts, result, counts FROM steps s JOIN workflows USING (workflow_id) "
    assert rows(refold, f"{steps} WHERE workflow_id = 'bad' ORDER BY step") == [
        {"step": 0, "status": "completed", "attempts": 1, "result": "1", "counts": True},
        {"step": 1, "status": "failed", "attempts": 2, "result": None, "counts": True},
    ]
    attempts = (
        "SELECT attempt, status, error_message, took >= INTERVAL 0 SECONDS AS took FROM attempts "
    )
    assert rows(refold, f"{attempts} WHERE workflow_id = 'bad' AND step = 1 ORDER BY attempt") == [
        {"attempt": 1, "status": "failed", "error_message": "three", "took": True},
        {"attempt": 2, "status": "failed", "error_message": "three", "took": True},
    ]
    assert rows(refold, "SELECT count(*) AS n FROM events WHERE kind = 'step.completed'") == [
        {"n": 3}
    ]


def test_the_archive_is_read_with_the_log(refold: CommandLine) -> None:
    """Given an archive, a query over both has what the log alone has."""
    query = "SELECT log_offset, event_id, chain FROM events ORDER BY 1"
    refold("archive", "--to", "archive")
    assert rows(refold, query, "--archive", "archive") == rows(refold, query)


def test_the_archive_is_read_without_the_log(refold: CommandLine, tmp_path: Path) -> None:
    """Given an archive alone, each table is what it was in the log; nothing can be written to it."""
    refold("archive", "--to", "whole")
    archive = f"archive:///{refold.directory / 'whole'}"
    elsewhere = CommandLine(tmp_path, archive)
    for query in (
        "SELECT * EXCLUDE (chain) FROM events ORDER BY log_partition, log_offset",
        "FROM workflows ORDER BY 1",
        "FROM steps ORDER BY ALL",
    ):
        assert rows(elsewhere, query) == rows(refold, query) != []
    elsewhere("export", "jsonl", "events.jsonl")
    assert "sums" in elsewhere("list").stdout
    gone = elsewhere("sql", "FROM events", "--url", "archive:///nowhere", code=4).stderr
    assert "there is no archive" in gone
    there = ("--url", "sqlite:///gone.db", "--archive", "whole")
    assert "--url archive:///DIR" in elsewhere("sql", "FROM events", *there, code=4).stderr


def test_what_is_kept_goes_on_where_it_stands(refold: CommandLine, tmp_path: Path) -> None:
    """Given --keep, what comes later is there too, other columns have files of their own, and none reach out."""
    copy = tmp_path / "copy"
    shutil.copytree(refold.directory, copy, ignore=shutil.ignore_patterns("*.locks"))
    refold = CommandLine(copy, refold.url)
    keep = ("--keep", "kept")
    queries = ("SELECT event_id, chain FROM events ORDER BY 1", "FROM workflows ORDER BY 1")
    for number in range(2):
        for query in queries:
            assert rows(refold, query, *keep) == rows(refold, query)
        refold("run", "sums_:sums", "[1]", "--id", f"kept-{number}", "--quiet")
    query = "SELECT sum(payload_as_integer) n FROM events WHERE kind = 'step.completed'"
    assert rows(refold, query, *keep, "--types", "sums_") == [{"n": 6}]
    refused = refold("sql", "COPY events TO 'out.csv'", *keep, code=2).stderr
    assert "disabled by configuration" in refused


def test_a_table_that_does_not_fit_becomes_blocks(refold: CommandLine) -> None:
    """Given narrow rows they are a table; wide ones are a block each; CSV has a header."""
    narrow = refold("sql", "SELECT workflow_id, status FROM workflows ORDER BY 1").stdout.split()
    assert narrow == ["workflow_id", "status", "bad", "failed", "good", "completed"]
    wide = refold("sql", "FROM events LIMIT 1").stdout
    assert wide.startswith("row 1")
    assert ["event_id", "partition/0/-1/partition.claimed"] in map(str.split, wide.splitlines())
    csv = refold(
        "sql", "SELECT workflow_id, attributes, 1 > 0 AS yes FROM workflows ORDER BY 1", "--csv"
    ).stdout
    assert csv.splitlines() == ["workflow_id,attributes,yes", "bad,{},true", "good,{},true"]


def test_a_query_comes_from_standard_input(refold: CommandLine) -> None:
    """Given - as the query, it is read; a rewound step does not count."""
    assert refold("sql", "-", "--csv", stdin="SELECT 1 AS one").stdout == "one\n1\n"


def test_a_rewound_step_does_not_count(tmp_path: Path) -> None:
    """Given a run that was reopened before a step, the old outcome is shown as one that does not count."""
    (tmp_path / "sums_.py").write_text(CODE)
    refold = CommandLine(tmp_path, "sqlite:///sums.db")
    refold("run", "sums_:sums", "[1, 3]", "--id", "bad", "--quiet", code=1)
    with refold.begin("worker", "sums_") as worker:
        worker.until("claimed=")
        refold("rewind", "bad", "--step", "1", "--reason", "again")
        refold("run", "sums_:sums", "[1, 2]", "--id", "next", "--quiet")
    counts = rows(
        refold, "SELECT step, counts FROM steps WHERE workflow_id = 'bad' ORDER BY position"
    )
    assert counts[:2] == [{"step": 0, "counts": True}, {"step": 1, "counts": False}]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELEC 1", "syntax error"),
        ("/* nothing */", "no statement"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled by configuration"),
        ("SET enable_external_access = true", "locked"),
        ("COPY events TO 'out.csv'", "disabled by configuration"),
    ],
)
def test_a_query_that_cant_be_is_one_clear_error(
    refold: CommandLine, query: str, says: str
) -> None:
    """Given bad SQL, or SQL that would reach out, the error is DuckDB's, with the tables that there are."""
    done = refold("sql", query, code=2)
    assert says in done.stderr
    assert "The tables are events, workflows, steps and attempts" in done.stderr
    assert not (refold.directory / "out.csv").exists()


@pytest.mark.parametrize(
    "query", ["SELECT nothing FROM steps", "FROM step", "SELECT workflow.status FROM workflows"]
)
def test_a_name_that_is_not_there_is_told_with_those_that_are(
    refold: CommandLine, query: str
) -> None:
    """Given a table or column that there is none of, the error has the tables with their columns, and no guesses."""
    told = refold("sql", query, code=2).stderr
    assert "workflows: workflow_id, workflow, version, status" in told
    assert "steps: workflow_id, step, name, status, attempts" in told
    assert "attempts: workflow_id, step, name, attempt, status" in told
    assert "events: log_partition, log_offset, log_timestamp, chain, kind" in told
    assert "Did you mean" not in told


def test_files_are_open_where_that_is_asked_for(refold: CommandLine) -> None:
    """Given --files, a query may write what it found."""
    refold("sql", "COPY (SELECT count(*) AS n FROM events) TO 'n.csv'", "--files")
    assert (refold.directory / "n.csv").read_text().startswith("n\n")
