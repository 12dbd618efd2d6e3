"""`refold queue`: set from the command line, looked at, and told where runs are listed."""

import json
from collections.abc import Iterator

import pytest

from cli_process import CommandLine, Running


@pytest.fixture
def worker(refold: CommandLine) -> Iterator[Running]:
    """A worker for the office."""
    with refold.begin("worker", "office") as worker:
        worker.until("owned=0")
        yield worker


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
def test_a_queue_is_set_and_seen(refold: CommandLine) -> None:
    """Given a queue of one with two runs, lists and pages tell whose turn it is, and the audit who set it."""
    refold("queue", "set", "post", "--concurrency", "1", "--by", "anna", "--why", "one clerk")
    for id_ in ("a", "b"):
        refold("start", "office:letters", id_, "--id", id_, "--queue", "post")
    found = json.loads(refold("queue", "list", "--json").stdout)
    assert found == {"queue": "post", "concurrency": 1, "running": 1, "waiting": 1}
    shown = refold("queue", "show", "post").stdout
    assert shown.index("running") < shown.index("queued")
    (line,) = refold("list", "--queue", "post", "--status", "queued", "--json").stdout.splitlines()
    waits = json.loads(line)
    assert (waits["workflow_id"], waits["queue"]) == ("b", "post")
    assert "refold queue show post" in refold("show", "b").stdout
    (told,) = refold("audit", "log", "--action", "queue", "--json").stdout.splitlines()
    assert {"anna", "one clerk"} <= set(map(str, json.loads(told).values()))


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
def test_what_can_t_be_is_one_clear_error(refold: CommandLine) -> None:
    """Given a queue that nobody has set, or a limit that is none, the command says so and nothing is recorded."""
    start = refold("start", "office:letters", "a", "--queue", "male", code=5)
    assert "nobody has set a queue 'male'" in start.stderr
    assert (
        "no limit of a queue" in refold("queue", "set", "post", "--concurrency", "0", code=2).stderr
    )
    assert "nobody has set a queue 'post'" in refold("queue", "show", "post", code=5).stderr
    assert "there are no queues yet" in refold("queue", "list").stdout
    assert "there are no runs yet" in refold("list").stdout
