"""`refold start` with all its options, `send`, `ask`, `value` and `stream`, beside a worker."""

import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from cli_process import CommandLine, Running


@pytest.fixture
def worker(refold: CommandLine) -> Iterator[Running]:
    """A worker for the office."""
    with refold.begin("worker", "office") as worker:
        worker.until("owned=0")
        yield worker


def listed(refold: CommandLine, *words: str) -> list[dict[str, object]]:
    """What `refold list --json` says, by run."""
    lines = refold("list", "--json", *words).stdout.splitlines()
    found: list[dict[str, object]] = [json.loads(line) for line in lines]
    return found


@pytest.mark.usefixtures("worker")
def test_a_run_is_asked_told_and_heard(refold: CommandLine) -> None:
    """Given a run that answers, publishes and streams, each has its command, during the run and after its end."""
    refold("start", "office:desk", "reception", "--id", "d")
    assert json.loads(refold("value", "d", "name").stdout) == "reception"
    assert json.loads(refold("ask", "d", "number", "5").stdout) == 5

    invalid = refold("ask", "d", "number", "--", "-5", code=5)
    assert "a number is not negative" in invalid.stderr
    assert "too much" in refold("ask", "d", "number", "500", code=5).stderr
    assert json.loads(refold("ask", "d", "number", "6", "--timeout", "60").stdout) == 11

    done = refold("send", "d", "close", '"bye"', "--message-id", "m")
    assert "sent to d, topic close" in done.stderr
    assert done.stdout == ""
    followed = refold("stream", "d", "heard").stdout
    assert followed == 'open\n\n{"heard": 5}\n{"heard": 6}\nclosed\n'
    assert refold("stream", "d", "heard", "--start", "1", "--json").stdout.splitlines() == [
        '{"heard": 5}',
        '{"heard": 6}',
        '"closed"',
    ]
    assert refold("stream", "d", "heard", "--raw").stdout.startswith('open\n{"heard": 5}{')
    assert json.loads(refold("run", "office:desk", "reception", "--id", "d").stdout) == [5, 6]
    assert json.loads(refold("value", "d", "name").stdout) == "reception"
    assert "has ended" in refold("send", "d", "close", "1", code=5).stderr


@pytest.mark.usefixtures("worker")
def test_a_stream_is_followed_live_until_ctrl_c(refold: CommandLine) -> None:
    """Given a run that goes on, its stream is printed as it is written, and Ctrl-C ends that with 130."""
    refold("start", "office:desk", "--id", "d")
    with refold.begin("stream", "d", "heard", "--json") as reader:
        assert reader.process.stdout is not None
        assert reader.process.stdout.readline() == '"open\\n"\n'
        refold("ask", "d", "number", "7")
        assert reader.process.stdout.readline() == '{"heard": 7}\n'
        assert reader.stopped(signal.SIGINT) == 130
        assert "Traceback" not in reader.said


@pytest.mark.usefixtures("worker")
def test_what_is_waited_for_in_vain_times_out_with_6(refold: CommandLine) -> None:
    """Given a run that publishes no such key and answers no such topic, --timeout ends the wait."""
    refold("start", "office:desk", "--id", "d")
    assert "within 0.2 s" in refold("value", "d", "other", "--timeout", "0.2", code=6).stderr
    refold("ask", "d", "other", "1", "--timeout", "0.2", code=6)


@pytest.mark.usefixtures("worker")
def test_start_records_attributes_deadline_and_version(refold: CommandLine) -> None:
    """Given attributes, a deadline and a message, the run has them; list finds it by them."""
    before = datetime.now(UTC)
    refold(
        "start", "office:memo_2", "hello", "--id", "m", "--deadline", "2h",
        "--attribute", "floor=3", "--attribute", 'code="12"', "--message", 'go="now"',
    )  # fmt: skip
    refold("start", "memo", "--input", '{"text": "old"}', "--version", "1", "--id", "by-name")
    refold("start", "office:memo_1", "old", "--id", "by-code")
    assert json.loads(refold("run", "office:memo_2", "hello", "--id", "m").stdout).endswith("now")

    (found,) = listed(refold, "--attribute", "floor=3", "--attribute", 'code="12"')
    assert found["workflow_id"] == "m"
    assert found["attributes"] == {"floor": 3, "code": "12"}
    assert listed(refold, "--attribute", "code=12") == []
    assert {run["workflow_id"] for run in listed(refold, "--version", "1")} == {
        "by-name",
        "by-code",
    }
    assert listed(refold, "--before", before.isoformat()) == []
    assert len(listed(refold, "--since", before.isoformat())) == 3

    refold("start", "office:desk", "--id", "d", "--deadline", "2h")
    (desk,) = listed(refold, "--status", "running", "--workflow", "desk")
    due = datetime.fromisoformat(str(desk["deadline"]))
    assert before + timedelta(hours=2) <= due <= datetime.now(UTC) + timedelta(hours=2)
    header = refold("list").stdout.splitlines()[0]
    assert header.split()[-2:] == ["VERSION", "ATTRIBUTES"]
