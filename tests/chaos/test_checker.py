"""The checker of fault runs: silent on a sound history, and clear about each thing that was planted."""

import pytest
from tests.chaos.plants import PLANTS, Plant
from tests.chaos.story import PID, Story, at, begun

from chaos_checker import RULES, violations
from chaos_figures import figures_of
from chaos_history import Fault
from chaos_log_rules import late_attempts


def test_a_sound_history_has_no_violation() -> None:
    """Given a history in which all is well, nothing is found."""
    assert [str(found) for found in violations(Story().told())] == []


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_what_was_planted_is_found_and_nothing_else(plant: Plant) -> None:
    """Given a history in which one thing is wrong, exactly that rule speaks up and names what it is about."""
    story = Story()
    plant.spoil(story)
    found = violations(story.told())
    assert {violation.rule for violation in found} == {plant.rule.__name__}, "\n".join(
        map(str, found)
    )
    assert any(plant.about in violation.text for violation in found)


def test_every_rule_has_a_plant() -> None:
    """A rule that nothing was planted for might find nothing, ever."""
    assert {plant.rule for plant in PLANTS} == set(RULES)


def test_a_violation_shows_the_log_the_attempts_and_the_operations_of_the_workflow() -> None:
    """Given a step that began again, the evidence has offsets, times, the fault beside it, in the order of time."""
    story = Story()
    story.attempts.append(begun("t", 1, 16))
    story.faults.append(Fault(1, "broker.kill", "broker-1", at(15.5), at(15.9)))
    (found,) = violations(story.told())
    assert f"attempt 1 began in process {PID} at {at(16)}" in found.text
    lines = "\n".join(found.evidence)
    assert "partition 0 offset 10 position 3 step.completed" in lines
    assert f"{at(16)} attempt   1 of t/1 in process {PID}" in lines
    assert "client-1.1/0 #5 send t" in lines
    assert "broker.kill of broker-1" in lines
    times = [int(line.split()[0]) for line in found.evidence]
    assert times == sorted(times)


def test_an_attempt_of_a_worker_that_was_just_woken_is_counted_and_is_no_violation() -> None:
    """Given a worker stopped past its session with a step about to begin, the design lets that begin when it wakes."""
    story = Story()
    story.attempts.append(begun("t", 1, 16.05))
    story.faults.append(Fault(1, "worker.pause_past_session", "worker-1.1", at(9.8), at(16), PID))
    assert violations(story.told()) == []
    assert [late.excused for late in late_attempts(story.told())] == [True]


def test_figures_count_operations_by_kind_and_outcome() -> None:
    """Given the sound story, its figures are those of what was done."""
    figures = figures_of(Story().told(), 30.0)
    assert figures.operations["start"] == {"ok": 4}
    assert figures.operations_in_all == 10
    assert (
        sum(second.events for second in figures.seconds) == 19
    )  # from its first operation to its last
    assert figures.counts["runs in the log"] == 4
