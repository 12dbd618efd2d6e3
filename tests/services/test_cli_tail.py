"""`refold tail`: lines and JSON, to the end or as events come, and going on from a file."""

import json
import signal

from cli_process import CommandLine


def kinds(said: str) -> list[str]:
    """The kinds of the events that were printed with --json."""
    return [json.loads(line)["kind"] for line in said.splitlines()]


def test_a_log_is_printed_to_its_end_in_lines_or_json(refold: CommandLine) -> None:
    """Given a run, --no-follow prints a line for each of its events, from the start, with what it was about."""
    refold("run", "shop:checkout", "42", "--id", "order-42")
    lines = refold("tail", "--no-follow").stdout.splitlines()
    assert any("order-42" in line and "charge #0 attempt 2" in line for line in lines)
    events = [
        json.loads(line) for line in refold("tail", "--no-follow", "--json").stdout.splitlines()
    ]
    assert len(events) == len(lines)
    assert [event["offset"] for event in events] == list(range(len(events)))
    assert {event["partition"] for event in events} == {0}
    failed = refold("tail", "order-42", "--no-follow", "--kind", "step.attempt_failed", "--json")
    assert kinds(failed.stdout) == ["step.attempt_failed"]
    since = refold("tail", "--since", f"0:{len(events) - 1}", "--no-follow", "--json")
    assert kinds(since.stdout) == kinds(refold("tail", "--no-follow", "--json").stdout)[-1:]


def test_a_file_keeps_how_far_it_went(refold: CommandLine) -> None:
    """Given --cursor, a second run prints nothing twice and what has come since."""
    tailed = ("tail", "--no-follow", "--cursor", "c.txt", "--kind", "workflow", "--json")
    refold("run", "shop:checkout", "1", "--id", "one")
    assert kinds(refold(*tailed).stdout) == ["workflow.started", "workflow.completed"]
    assert refold(*tailed).stdout == ""
    refold("run", "shop:failing", "1", "--id", "two", code=1)
    assert kinds(refold(*tailed).stdout) == ["workflow.started", "workflow.failed"]
    (refold.directory / "c.txt").write_text("nonsense")
    assert "no cursor" in refold(*tailed, code=2).stderr


def test_what_comes_is_printed_until_it_is_interrupted(refold: CommandLine) -> None:
    """Given a tail that follows, a run that is started later is printed as it goes on; Ctrl-C ends it."""
    refold("run", "shop:checkout", "1", "--id", "one")
    with refold.begin("tail", "--since", "start", "--workflow", "failing", "--json") as tail:
        refold("run", "shop:failing", "1", "--id", "two", code=1)
        assert tail.process.stdout is not None
        said = [json.loads(tail.process.stdout.readline()) for _ in range(3)]
        assert [event["workflow_id"] for event in said] == ["two"] * 3
        assert tail.stopped(signal.SIGINT) == 130


def test_what_can_not_be_is_refused(refold: CommandLine) -> None:
    """Given a kind, a beginning or a log that is not there, the error says so and nothing is printed."""
    refold("run", "shop:checkout", "1", "--id", "one")
    assert "no kind of event 'steps'" in refold("tail", "--kind", "steps", code=2).stderr
    assert "no partition 7" in refold("tail", "--since", "7:0", code=2).stderr
    assert "is no time" in refold("tail", "--since", "yesterday", code=2).stderr
    assert "no log file" in refold("tail", "--url", "sqlite:///none.db", code=4).stderr
    assert "no workflow has the id 'two'" in refold("tail", "two", "--no-follow", code=5).stderr
    assert "no event matched" in refold("tail", "one", "--no-follow", "--since", "now").stderr
