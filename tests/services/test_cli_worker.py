"""`refold worker` and those who look at it: start, list, show, history, signals, SIGKILL, a corrupt log."""

import json
import os
import signal
import sqlite3
import time
import urllib.request
from contextlib import closing
from pathlib import Path

from cli_process import PATIENCE_S, CommandLine, Gate
from refold.services.exits import ExitCode


def executions(shop: Path, what: str) -> int:
    """How often the user's code noted `what`."""
    return (shop / "journal.txt").read_text().splitlines().count(what)


def test_a_worker_runs_what_clients_start_and_readers_see_it(refold: CommandLine) -> None:
    """Given a worker, a start from another process is accepted and run; list, show and history tell of it."""
    with refold.begin("worker", "shop") as worker:
        worker.until("workflows=checkout,gated,failing,parking")
        worker.until("owned=0")
        assert refold("start", "shop:checkout", "42", "--id", "order-42").stdout == "order-42\n"
        refold("start", "failing", "--input", '{"order": 1}', "--id", "bad")
        done = refold(
            "run", "shop:checkout", "42", "--id", "order-42"
        )  # attaches: the worker owns it
        assert json.loads(done.stdout)["payment"] == "payment-42"

        listed = refold("list").stdout
        assert [line.split()[:3] for line in listed.splitlines()[1:]] == [
            ["bad", "failing", "failed"],
            ["order-42", "checkout", "completed"],
        ]
        found = [
            json.loads(line)
            for line in refold("list", "--status", "failed", "--json").stdout.splitlines()
        ]
        assert [run["workflow_id"] for run in found] == ["bad"]

        shown = refold("show", "order-42").stdout
        for text in ("completed", "charge #0", "attempt 1 ConnectionError: gateway is away", "━"):
            assert text in shown
        events = [
            json.loads(line) for line in refold("history", "order-42", "--json").stdout.splitlines()
        ]
        assert [event["position"] for event in events] == list(range(len(events)))
        assert events[0]["kind"] == "workflow.started"
        assert events[-1]["kind"] == "workflow.completed"
        assert worker.stopped(signal.SIGTERM) == 0


RAISING = """
class Raising:
    name = "raising"
    version = 1

    def tables(self, dialect):
        return ["CREATE TABLE numbers (n BIGINT)"]

    def apply(self, transaction, logged):
        raise ValueError("no")
"""


def test_a_worker_keeps_projections_beside_its_workflows(refold: CommandLine, shop: Path) -> None:
    """Given --project, what it runs is in the read model; one that raises stops alone, which the exit code tells."""
    kept = shop / "shop.db.views" / "workflows.db"
    (shop / "raising.py").write_text(RAISING)
    with refold.begin(
        "worker", "shop", "--project", "workflows", "--project", "raising:Raising"
    ) as worker:
        worker.until("owned=0")
        refold("run", "shop:checkout", "42", "--id", "order-42")
        deadline = time.monotonic() + PATIENCE_S
        while not kept.exists() or refold("list").stderr:  # it says where it reads the log instead
            assert time.monotonic() < deadline
        worker.until("projection 'raising' HAS STOPPED")
        assert worker.stopped(signal.SIGTERM) == ExitCode.FAILED
    with closing(sqlite3.connect(kept)) as tables:
        assert tables.execute("SELECT workflow_id, status FROM runs").fetchall() == [
            ("order-42", "completed")
        ]


def test_a_worker_begins_nothing_where_its_projections_have_no_place(refold: CommandLine) -> None:
    """Given a place that can't be one, the worker ends at once, with what may be given."""
    refused = refold("worker", "shop", "--project", "workflows", "--project-to", "ftp://x", code=2)
    assert "no place for projections" in refused.stderr


def test_a_start_need_not_find_a_worker(refold: CommandLine) -> None:
    """Given no worker, --no-wait writes the command; the next worker carries it out."""
    run_id = refold("start", "checkout", "--input", '{"order":9}', "--no-wait").stdout.strip()
    assert run_id.startswith("checkout-")
    with refold.begin("worker", "shop:checkout") as worker:
        worker.until("owned=0")
        done = refold("run", "shop:checkout", "--input", '{"order":9}', "--id", run_id)
        assert "payment-9" in done.stdout  # by name alone too: the worker fills the defaults in
        assert refold("show", run_id).stdout


def test_a_worker_takes_up_no_run_while_memory_is_short(refold: CommandLine, shop: Path) -> None:
    """Given a step that fills the memory, a run that is started waits, which is said and counted; once the memory is
    free it goes on, with others still there, and nothing is lost."""
    light, full = Gate(shop / "light"), Gate(shop / "full")
    limits = ("--max-memory-mb", "300", "--metrics-port", "0")
    with refold.begin("worker", "shop", *limits) as worker:
        url = worker.until("metrics url=").rpartition("url=")[2]
        refold("start", "shop:gated", str(light.path), "--id", "light")
        held_light = light.reached()
        refold("start", "shop:heavy", str(full.path), "--id", "full")
        held_full = full.reached()
        orders = 0
        while "memory is short" not in worker.said:  # it is looked at once a second
            refold("start", "shop:checkout", str(orders), "--id", f"order-{orders}")
            orders += 1
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            numbers = answer.read().decode()
        assert "refold_runs_waiting 1.0" in numbers
        os.close(held_full)
        assert refold("run", "shop:heavy", str(full.path), "--id", "full").stdout == "300000000\n"
        worker.until("memory is free again")
        for number in range(orders):
            done = refold("run", "shop:checkout", str(number), "--id", f"order-{number}")
            assert json.loads(done.stdout)["payment"] == f"payment-{number}"
        os.close(held_light)
        done = refold("run", "shop:gated", str(light.path), "--id", "light")
        assert json.loads(done.stdout) == "through"
        assert worker.stopped(signal.SIGTERM) == 0
    assert [executions(shop, step) for step in ("wait_at", "reserve")] == [1, orders]


def test_sigterm_lets_steps_finish_and_hands_over(refold: CommandLine, shop: Path) -> None:
    """Given a step under way, SIGTERM waits for its outcome; the next worker goes on without running it again."""
    gate = Gate(shop / "gate")
    with refold.begin("worker", "shop") as worker:
        refold("start", "shop:gated", str(gate.path), "--id", "g")
        held = gate.reached()
        worker.process.send_signal(signal.SIGTERM)
        worker.until("draining")
        os.close(held)
        assert worker.ended() == 0
        assert "stopped" in worker.said
    assert json.loads(refold("run", "shop:gated", str(gate.path), "--id", "g").stdout) == "through"
    assert executions(shop, "wait_at") == 1


def test_a_step_that_outlasts_the_drain_does_not_hold_the_process(
    refold: CommandLine, shop: Path
) -> None:
    """Given a step that never ends, the worker leaves after --drain-s with exit code 0; the step runs again later."""
    gate = Gate(shop / "gate")
    with refold.begin("worker", "shop", "--drain-s", "0.1") as worker:
        refold("start", "shop:gated", str(gate.path), "--id", "g")
        held = gate.reached()
        assert worker.stopped(signal.SIGTERM) == 0
        os.close(held)
        assert "will run again" in worker.said
    with refold.begin("worker", "shop") as worker:
        gate.open()
        done = refold("run", "shop:gated", str(gate.path), "--id", "g")
        assert json.loads(done.stdout) == "through"
    assert executions(shop, "wait_at") == 2


def test_a_second_signal_ends_it_at_once(refold: CommandLine, shop: Path) -> None:
    """Given a worker that drains, a second signal ends it, with the signal's exit code."""
    gate = Gate(shop / "gate")
    with refold.begin("worker", "shop", "--drain-s", "600") as worker:
        refold("start", "shop:gated", str(gate.path), "--id", "g")
        held = gate.reached()
        worker.process.send_signal(signal.SIGINT)
        worker.until("draining")
        assert worker.told_until_ended(signal.SIGTERM) == 128 + signal.SIGTERM
        os.close(held)


def test_after_sigkill_the_next_worker_finishes(refold: CommandLine, shop: Path) -> None:
    """Given a worker killed in a step and another that waits, the other takes over and completes the run."""
    gate = Gate(shop / "gate")
    with refold.begin("worker", "shop", "--name", "first") as first:
        first.until("owned=0")
        refold("start", "shop:gated", str(gate.path), "--id", "g")
        held = gate.reached()
        with refold.begin("worker", "shop", "--name", "second") as second:
            second.until("joined")
            first.process.kill()
            first.ended()
            os.close(held)
            second.until("claimed=0")
            gate.open()
            refold("run", "shop:gated", str(gate.path), "--id", "g")
    shown = refold("show", "g").stdout
    assert "started by worker first" in shown
    assert "taken over by worker second" in shown


def test_changed_code_parks_the_run_and_show_says_what_differs(
    refold: CommandLine, shop: Path
) -> None:
    """Given code that asks for another step than the one recorded, show has the diff and the way out."""
    gate, second = Gate(shop / "gate"), Gate(shop / "gate2")
    code = (shop / "shop.py").read_text()
    two = code.replace("    wait_at(gate)\n", '    wait_at(gate)\n    wait_at(f"{gate}2")\n', 1)
    (shop / "shop.py").write_text(two)
    with refold.begin("worker", "shop", "--drain-s", "0.1") as worker:
        refold("start", "shop:gated", str(gate.path), "--id", "g")
        gate.open()
        held = second.reached()  # the second step: the first is recorded
        assert worker.stopped(signal.SIGTERM) == 0
        os.close(held)
    (shop / "shop.py").write_text(
        two.replace("def wait_at", "def linger_at").replace(" wait_at(", " linger_at(")
    )
    done = refold("run", "shop:gated", str(gate.path), "--id", "g", code=3)
    assert "no longer matches the history" in done.stderr
    shown = refold("show", "g").stdout
    for text in (
        "recorded",
        "step 'wait_at'",
        "code asks",
        "step 'linger_at'",
        "shop.py:",
        "refold resume g",
    ):
        assert text in shown


def test_a_corrupt_log_halts_the_worker_loudly(refold: CommandLine, shop: Path) -> None:
    """Given a record that only a newer release could read, the worker says so and exits with 4."""
    refold("run", "shop:checkout", "1", "--id", "a")
    with closing(sqlite3.connect(shop / "shop.db")) as database:
        database.execute("UPDATE events SET value = x'0000000000' WHERE key IS NULL")
        database.commit()
    with refold.begin("worker", "shop") as worker:
        assert worker.ended() == 4
        assert "PARTITION HALTED" in worker.said
        assert "no partition can be worked on" in worker.said


def test_log_lines_can_be_json(refold: CommandLine) -> None:
    """Given --log-json, every line on standard error is a JSON object."""
    refold("run", "shop:checkout", "1", "--id", "a")
    with refold.begin("worker", "shop", "--log-json", "--name", "w") as worker:
        worker.until('"owned": "0"')
        assert worker.stopped(signal.SIGTERM) == 0
        lines = [json.loads(line) for line in worker.said.splitlines()]
    assert lines[0]["message"] == "starting"
    assert lines[0]["worker"] == "w"
    assert {line["logger"] for line in lines} == {"refold.service"}


def test_a_reader_that_goes_away_is_no_error(refold: CommandLine, shop: Path) -> None:
    """Given `refold history | head -1`, the command ends without a traceback."""
    refold("run", "shop:checkout", "1", "--id", "a")
    with refold.begin("history", "a", "--json") as reader:
        assert reader.process.stdout is not None
        reader.process.stdout.close()
        assert reader.ended() == 128 + signal.SIGPIPE
        assert "Traceback" not in reader.said
