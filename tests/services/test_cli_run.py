"""`refold run`: a workflow in one process, its result, its progress, and going on after any end of that process."""

import json
import os
import signal
from pathlib import Path

from cli_process import CommandLine, Gate


def journal(shop: Path) -> list[str]:
    """What was executed, as the user's code noted it."""
    return (shop / "journal.txt").read_text().splitlines()


def test_a_result_is_json_on_standard_output_and_progress_goes_to_standard_error(
    refold: CommandLine,
) -> None:
    """Given a workflow, `run` prints its result and nothing else on stdout."""
    done = refold("run", "shop:checkout", "42", "express", "--id", "order-42")
    assert json.loads(done.stdout) == {
        "payment": "payment-42",
        "stock": "stock-42",
        "how": "express",
    }
    assert "↻ charge #0, attempt 1: ConnectionError: gateway is away" in done.stderr
    assert "✓ charge #0, attempt 2" in done.stderr
    assert "✓ reserve #1" in done.stderr
    assert "completed: 2 steps" in done.stderr


def test_quiet_says_nothing_but_the_result(refold: CommandLine) -> None:
    """Given --quiet on a log that exists, standard error stays empty."""
    refold("run", "shop:checkout", "1", "--id", "a")
    done = refold("run", "shop:checkout", "2", "--id", "b", "--quiet")
    assert done.stderr == ""


def test_input_is_read_from_standard_input_and_from_a_file(refold: CommandLine) -> None:
    """Given --input - or @FILE, the JSON is read from there."""
    done = refold("run", "shop:checkout", "--input", "-", stdin='{"order": 7}')
    assert json.loads(done.stdout)["payment"] == "payment-7"
    (refold.directory / "input.json").write_text('{"order": 8, "how": "slow"}')
    done = refold("run", "shop.py:checkout", "--input", "@input.json")
    assert json.loads(done.stdout) == {"payment": "payment-8", "stock": "stock-8", "how": "slow"}


def test_the_id_of_a_run_that_has_ended_gives_its_result_again(
    refold: CommandLine, shop: Path
) -> None:
    """Given a run that has completed, the same command prints the same and executes nothing."""
    first = refold("run", "shop:checkout", "42", "--id", "order-42")
    executed = journal(shop)
    again = refold("run", "shop:checkout", "42", "--id", "order-42")
    assert again.stdout == first.stdout
    assert journal(shop) == executed


def test_another_input_for_the_same_id_is_refused(refold: CommandLine) -> None:
    """Given a run, its id with another input is a conflict: exit code 5."""
    refold("run", "shop:checkout", "42", "--id", "order-42")
    done = refold("run", "shop:checkout", "43", "--id", "order-42", code=5)
    assert "error: workflow id 'order-42' belongs to a run of 'checkout'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failed_workflow_shows_its_error_and_exits_with_1(refold: CommandLine) -> None:
    """Given a workflow that raises, the recorded error is told, now and when asked again."""
    for _ in range(2):
        done = refold("run", "shop:failing", "42", "--id", "bad", code=1)
        assert done.stdout == ""
        assert "error: workflow 'bad' failed: ValueError: there is no such order" in done.stderr
        assert "shop.py" in done.stderr  # the stack says where


def test_a_parked_workflow_exits_with_3_and_goes_on_after_resume(refold: CommandLine) -> None:
    """Given attempts used up, `run` ends with 3; mended and resumed, the same command gives the result."""
    done = refold("run", "shop:parking", "--id", "p", code=3)
    assert "has used up its attempts" in done.stderr
    assert "refold resume p" in done.stderr
    (refold.directory / "mended").touch()
    with refold.begin("worker", "shop") as worker:
        worker.until("owned=0")
        refold("resume", "p", "--reason", "gateway is back")
        assert worker.stopped(signal.SIGTERM) == 0
    assert json.loads(refold("run", "shop:parking", "--id", "p").stdout) == "mended"
    assert "gateway is back" in refold("show", "p").stdout


def test_killed_in_the_middle_the_same_command_goes_on(refold: CommandLine, shop: Path) -> None:
    """Given SIGKILL while the first step runs, the same command runs that step again and completes."""
    gate = Gate(shop / "gate")
    command = ("run", "shop:gated", str(gate.path), "--id", "g")
    with refold.begin(*command) as first:
        held = gate.reached()
        assert first.stopped(signal.SIGKILL) == -signal.SIGKILL
        os.close(held)
    with refold.begin(*command) as second:
        gate.open()
        assert second.ended() == 0
        assert json.loads(second.result()) == "through"
    assert journal(shop).count("wait_at") == 2
    refold(*command)
    assert journal(shop).count("wait_at") == 2


def test_ctrl_c_lets_the_step_under_way_finish_and_says_how_to_go_on(
    refold: CommandLine, shop: Path
) -> None:
    """Given SIGINT while a step runs, its outcome is recorded, the exit code is 130, and it never runs again."""
    gate = Gate(shop / "gate")
    command = ("run", "shop:gated", str(gate.path), "--id", "g")
    with refold.begin(*command) as first:
        held = gate.reached()
        first.process.send_signal(signal.SIGINT)
        os.close(held)
        assert first.ended() == 130
        assert "the same command with --id g goes on" in first.said
    assert json.loads(refold(*command).stdout) == "through"
    assert journal(shop).count("wait_at") == 1


def test_a_log_of_another_kind_is_refused_and_left_alone(refold: CommandLine, shop: Path) -> None:
    """Given a file that is no log, every command says so with exit code 4 and does not touch it."""
    (shop / "shop.db").write_text("not a database")
    for words in (("run", "shop:checkout", "1"), ("worker", "shop"), ("list",), ("show", "x")):
        assert "is not a refold log" in refold(*words, code=4).stderr
    assert (shop / "shop.db").read_text() == "not a database"
