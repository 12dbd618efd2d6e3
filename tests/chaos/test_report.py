"""The figures and the report of a fault run: gaps are measured where they begin, and violations are there to read."""

import json
from dataclasses import replace
from pathlib import Path

from tests.chaos.story import CLAIM, WORKER, Story, at, begun, completed, started, step

from chaos_checker import violations
from chaos_figures import Gap, figures_of, gaps
from chaos_history import Fault
from chaos_report import NUMBERS, PAGE, write_report

NEXT = "worker-2.1"


def handed_over() -> Story:
    """A partition that came from one worker to another at second 14; the first had last written at second 9."""
    claimed = replace(CLAIM, worker=NEXT, claim=0, recorded_at=at(14))
    return Story(
        events=[CLAIM, started("w", 1, "any"), step("w", 9, 0, "1"), claimed],
        operations=[],
        attempts=[begun("w", 0, 8)],
    )


def test_a_gap_begins_when_its_owner_was_killed() -> None:
    """Given an owner that was killed at second 10, the partition stood still for 4 seconds."""
    story = handed_over()
    story.faults.append(Fault(1, "worker.kill", WORKER, at(10), at(11), 17))
    assert gaps(story.told()) == [Gap(0, at(10), at(14), "killed", NEXT)]


def test_a_gap_begins_with_the_last_event_of_an_owner_who_lost_it_in_peace() -> None:
    """Given an owner that nothing had befallen, the gap is counted from its last event."""
    assert gaps(handed_over().told()) == [Gap(0, at(9), at(14), "its partitions moved", NEXT)]


def test_a_drained_owner_works_until_its_last_event() -> None:
    """Given an owner that was asked to drain and wrote on, the gap begins when it had written its last."""
    story = handed_over()
    story.faults.append(Fault(1, "worker.drain", WORKER, at(5), at(10), 17))
    (gap,) = gaps(story.told())
    assert (gap.cause, gap.length_s) == ("drained", 5.0)


def test_the_report_has_every_violation_with_its_evidence_and_the_way_to_run_it_again(
    tmp_path: Path,
) -> None:
    """Given a history with a violation and a fault, page and numbers have both, and what is shown can't be markup."""
    story = Story()
    story.events[-1] = completed("r", 22, '"<script>"')
    story.attempts.append(begun("t", 1, 16))
    story.faults.append(Fault(1, "broker.kill", "broker-1", at(15.5), at(15.9)))
    case = story.told()
    found = violations(case)
    write_report(tmp_path, "make chaos SEED=5", figures_of(case, 30.0), found, case)
    page = (tmp_path / PAGE).read_text()
    for text in ("make chaos SEED=5", "1 violations", found[0].rule, "offset 10", "broker.kill"):
        assert text in page
    assert "<script>" not in page
    numbers = json.loads((tmp_path / NUMBERS).read_text())
    assert numbers["violations"][0]["rule"] == found[0].rule
    assert numbers["faults"] == {"broker.kill": 1}
