"""The history's files: what was written is read, by whomever and whenever its writer was killed."""

from dataclasses import replace
from pathlib import Path

from chaos_history import HISTORY, Fault, Life, Recorded, Scribe, load


def test_an_operation_whose_process_died_is_unknown(tmp_path: Path) -> None:
    """Given an operation that was asked for and never came to an end, it is read as one that nobody knows of."""
    with Scribe(tmp_path, "client-1.1") as scribe:
        operation = scribe.invoked(0, "send", "w", {"message_id": "m"})
    (read,) = load(tmp_path).operations
    assert read == operation
    assert (read.outcome, read.ended_us) == ("info", None)


def test_the_last_line_about_something_counts(tmp_path: Path) -> None:
    """Given an operation, a fault and a life with a beginning and an end, they are read as they ended."""
    fault = Fault(1, "broker.kill", "broker-1", 5, pid=9)
    life = Life("worker-1.1", 7, 5)
    with Scribe(tmp_path, "client-1.1") as scribe:
        operation = scribe.invoked(2, "ask", "w", {"token": "é\n"})
        scribe.write("begin", fault)
        scribe.write("begin", life)
        done = replace(operation, outcome="ok", answer=["é", None, {"a": 1.5}], ended_us=9)
        ended = (done, replace(fault, ended_us=8), replace(life, ended_us=8, exit_code=-9))
        for value in ended:
            scribe.write("end", value)
    assert load(tmp_path) == Recorded((ended[0],), (ended[1],), (ended[2],))


def test_a_line_cut_short_by_a_kill_counts_for_nothing(tmp_path: Path) -> None:
    """Given a file whose writer died within a line, what is whole is read."""
    with Scribe(tmp_path, "client-1.1") as scribe:
        operation = scribe.invoked(0, "value", "w", {})
    with (tmp_path / HISTORY / "client-1.1.jsonl").open("a") as file:
        file.write('{"is":"Operation","what":"o')
    assert load(tmp_path).operations == (operation,)
