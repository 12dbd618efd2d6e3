"""`--at` and `refold diff`: the past on the command line."""

import json

from cli_process import CommandLine


def lived(refold: CommandLine) -> list[dict[str, object]]:
    """One run that completed and one that failed; the log's events."""
    refold("run", "shop:checkout", "42", "--id", "order-42")
    refold("run", "shop:failing", "1", "--id", "order-1", code=1)
    said = refold("tail", "--no-follow", "--json").stdout
    return [json.loads(line) for line in said.splitlines()]


def test_a_run_and_a_list_are_shown_as_they_stood(refold: CommandLine) -> None:
    """Given two runs, as of a time, an offset or a position of the first, it is running and the second is not there."""
    events = lived(refold)
    started = next(event for event in events if event["kind"] == "workflow.started")
    for at in ("0", f"0:{started['offset']}", str(started["timestamp"])):
        shown = json.loads(refold("show", "order-42", "--at", at, "--json").stdout)
        assert (shown["status"], shown["events"]) == ("running", 1)
    listed = refold("list", "--at", f"0:{started['offset']}", "--json").stdout.splitlines()
    assert [json.loads(line)["workflow_id"] for line in listed] == ["order-42"]
    assert "1 run: 1 running" in refold("list", "--at", f"0:{started['offset']}").stdout
    assert "2 runs: 1 completed, 1 failed" in refold("list", "--at", "now").stdout
    assert "no workflow has the id" in refold("show", "order-1", "--at", "0:1", code=5).stderr
    assert "a position is one run's" in refold("list", "--at", "3", code=2).stderr


def test_what_changed_is_told_of_all_and_of_one(refold: CommandLine) -> None:
    """Given two runs, `diff` tells how they stood and stand, and what their steps came to."""
    lived(refold)
    refold("run", "shop:checkout", "7", "--id", "order-7")
    said = refold("diff", "--from", "0:0").stdout
    assert "order-7" in said
    assert "not there" in said
    whole = json.loads(refold("diff", "--from", "0:0", "--json").stdout)
    assert whole["after"] == {"completed": 2, "failed": 1}
    charged = next(step for step in whole["steps"] if step["name"] == "charge")
    assert (charged["step.completed"], charged["step.attempt_failed"]) == (2, 2)
    with refold.begin("worker", "shop") as worker:
        worker.until("owned=0")
        refold("resume", "order-1", "--reason", "the order is there now")
    orders = json.loads(refold("diff", "order-1", "--from", "2", "--json").stdout)["orders"]
    assert [(order["name"], order["why"]) for order in orders] == [
        ("reopen", "the order is there now")
    ]
    assert "the order is there now" in refold("diff", "--from", "0:0").stdout
    one = json.loads(refold("diff", "order-1", "--from", "0", "--to", "1", "--json").stdout)
    assert [event["kind"] for event in one["history"]] == ["step.completed"]
    assert "nothing was recorded" in refold("diff", "--from", "now").stdout
    assert "--from is after --to" in refold("diff", "--from", "now", "--to", "0:1", code=2).stderr
