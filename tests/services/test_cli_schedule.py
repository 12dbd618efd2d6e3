"""Schedules from the command line."""

import json
from collections.abc import Iterator

import pytest

from cli_process import CommandLine, Running

pytestmark = pytest.mark.slow


@pytest.fixture
def worker(refold: CommandLine) -> Iterator[Running]:
    """A worker for the office."""
    with refold.begin("worker", "office") as worker:
        worker.until("owned=0")
        yield worker


@pytest.mark.usefixtures("worker")
def test_a_schedule_is_set_shown_and_ordered_about(refold: CommandLine) -> None:
    """Given a worker, a schedule is made, triggered, paused and deleted, each order is in the audit, and what it starts
    has its name.
    """
    when = ("--cron", "0 3 * * *", "--timezone", "Europe/Berlin", "--reason", "the board")
    assert "03:00:00" in refold("schedule", "set", "nightly", "office:letters", "a", *when).stderr
    run_id = refold("schedule", "trigger", "nightly", "--by", "anna").stdout.strip()
    assert run_id.startswith("nightly/20")
    refold("schedule", "pause", "nightly")
    (line,) = refold("schedule", "list", "--json").stdout.splitlines()
    told = json.loads(line)
    assert (told["name"], told["workflow"], told["input"]) == ("nightly", "letters", '{"what":"a"}')
    assert (told["paused"], told["next_due"], told["last_id"]) == (True, None, run_id)
    shown = refold("schedule", "show", "nightly").stdout
    assert "0 3 * * *  Europe/Berlin" in shown
    assert run_id in shown
    refold("schedule", "delete", "nightly", "--why", "enough")
    assert "there are no schedules" in refold("schedule", "list").stdout
    orders = map(json.loads, refold("audit", "log", "--json").stdout.splitlines())
    assert [(order["detail"], order["why"]) for order in orders] == [
        ("made: letters (0 3 * * *, Europe/Berlin)", "the board"),
        ("trigger", None),
        ("pause", None),
        ("delete", "enough"),
    ]


@pytest.mark.usefixtures("worker")
def test_what_can_not_be_scheduled_is_one_error(refold: CommandLine) -> None:
    """Given a workflow that nobody knows, a bad expression, or a schedule that is not there, one line says so."""
    hourly = ("--every", "1h")
    unknown = refold("schedule", "set", "odd", "nowhere", *hourly, code=5)
    assert "'nowhere' is not registered" in unknown.stderr
    assert (
        "five fields" in refold("schedule", "set", "x", "nowhere", "--cron", "0 3", code=2).stderr
    )
    assert "there is no schedule 'odd'" in refold("schedule", "pause", "odd", code=5).stderr
    assert refold("schedule", "list", "--json").stdout == ""
