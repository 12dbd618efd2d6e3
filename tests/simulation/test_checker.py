"""The checker itself: each check is silent on a sound history, and speaks up about what was planted."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from tests.simulation import core_checks as core
from tests.simulation.attempts import SECOND_US
from tests.simulation.checker import CHECKS, problems
from tests.simulation.exchange_plants import PLANTS as EXCHANGE_PLANTS
from tests.simulation.exchange_plants import scene_history
from tests.simulation.history import History, Problems
from tests.simulation.journal import Begin, Digests, Given, Journal, Silence
from tests.simulation.shapes import returns

from refold.log.codec import GENESIS, encode_command, encode_event, link_claim
from refold.log.commands import Reply, StartWorkflow
from refold.log.events import (
    CommandRefused,
    Event,
    PartitionClaimed,
    StepCompleted,
    TimerFired,
    TimerStarted,
    WorkflowCompleted,
    WorkflowParked,
    WorkflowStarted,
)
from refold.log.memory import MemoryStore
from refold.log.protocol import Channel, Entry

START = StartWorkflow(
    command_id="c", workflow_id="w", reply_to="me", requested_at=0, workflow="one", payload="{}"
)
CLAIM = PartitionClaimed(
    workflow_id=None,
    position=None,
    recorded_at=1,
    claim=-1,
    command=-1,
    posted=0,
    worker="a",
    partition=0,
)
STARTED = WorkflowStarted(
    workflow_id="w",
    position=0,
    recorded_at=2,
    claim=0,
    command=0,
    posted=0,
    worker="a",
    workflow="one",
    payload="{}",
)
TIMER = TimerStarted(
    workflow_id="w",
    position=1,
    recorded_at=3,
    claim=0,
    command=0,
    posted=0,
    worker="a",
    step=0,
    name="sleep",
    due_at=5,
)
FIRED = TimerFired(
    workflow_id="w",
    position=2,
    recorded_at=5,
    claim=0,
    command=0,
    posted=0,
    worker="a",
    step=0,
    name="sleep",
)
STEP = StepCompleted(
    workflow_id="w",
    position=3,
    recorded_at=6,
    claim=0,
    command=0,
    posted=0,
    worker="a",
    step=1,
    name="work",
    payload="7",
    attempt=1,
    started_at=5,
)
ENDED = WorkflowCompleted(
    workflow_id="w",
    position=4,
    recorded_at=7,
    claim=0,
    command=0,
    posted=0,
    worker="a",
    payload="7",
)
BEGIN = Begin(
    worker="a",
    workflow_id="w",
    step=1,
    attempt=1,
    at_us=6 * SECOND_US,
    owned=True,
    failed=0,
    recorded_at_us=None,
    overlaps=False,
    early_us=0,
    missing=(),
)
ACCEPTED = Given("me", Reply(command_id="c", workflow_id="w", status="accepted"), 1)
RESULT = Given("me", Reply(command_id="c", workflow_id="w", status="completed", payload="7"), 5)


@dataclass
class Tale:
    """A history to be spoilt: one run of a timer and a step, in one claim. Event n comes at n seconds."""

    commands: list[Entry] = field(default_factory=lambda: [encode_command(START)])
    events: list[Event] = field(default_factory=lambda: [CLAIM, STARTED, TIMER, FIRED, STEP, ENDED])
    journal: Journal = field(
        default_factory=lambda: Journal(
            begins=[replace(BEGIN, at_us=4 * SECOND_US)],
            answers=[ACCEPTED, RESULT],
            owners=[("a", 0, 0)],
            digests=[Digests(0, 6, "a", "same", "same")],
            silences=[Silence(0, (CLAIM,), 0)],
        )
    )
    forged: int | None = None

    def history(self) -> History:
        """As the checker gets it."""
        clock = [0]
        store = MemoryStore(1, lambda: clock[0] * SECOND_US)
        store.append(Channel.COMMANDS, 0, self.commands)
        chain = GENESIS
        for clock[0], event in enumerate(self.events):
            entry, own = encode_event(event, chain)
            if clock[0] != self.forged:
                chain = link_claim(chain, own) if isinstance(event, PartitionClaimed) else own
            store.append(Channel.EVENTS, 0, [entry])
        return History(store, self.journal, {"w": returns(7)})


Plant = Callable[[Tale], None]


def acknowledged_and_lost(tale: Tale) -> None:
    """A client heard of a run that is not in the log."""
    tale.events = [CLAIM]


def acknowledged_too_early(tale: Tale) -> None:
    """A client heard of a run that was not in the log yet."""
    tale.journal.answers[0] = replace(ACCEPTED, stream=0)


def a_second_outcome(tale: Tale) -> None:
    """A step has two outcomes."""
    tale.events[5:] = [replace(STEP, position=4, payload="8"), replace(ENDED, position=5)]


def begun_after_its_outcome(tale: Tale) -> None:
    """The owner began a step that has its outcome."""
    tale.journal.begins.append(replace(BEGIN, recorded_at_us=6 * SECOND_US))


def begun_by_a_zombie_with_an_old_proof(tale: Tale) -> None:
    """Somebody who is the owner no more began a step long after its outcome was recorded."""
    tale.journal.begins.append(
        replace(BEGIN, owned=False, recorded_at_us=4 * SECOND_US, at_us=9 * SECOND_US)
    )


def an_outcome_from_nowhere(tale: Tale) -> None:
    """A step has an outcome and was never begun."""
    tale.journal.begins.clear()


def a_run_without_end(tale: Tale) -> None:
    """A run has not ended."""
    tale.events.pop()


def begun_before_what_it_follows_from(tale: Tale) -> None:
    """A step began while an outcome that its code knew was not in the log."""
    tale.journal.begins.append(replace(BEGIN, missing=(FIRED,)))


def an_attempt_too_early(tale: Tale) -> None:
    """A second attempt began with no failed one in the log."""
    tale.journal.begins.append(replace(BEGIN, attempt=2))


def an_attempt_again(tale: Tale) -> None:
    """The owner forgot that an attempt has failed."""
    tale.journal.begins.append(replace(BEGIN, failed=1))


def begun_twice_at_once(tale: Tale) -> None:
    """A worker began a step that it was still carrying out."""
    tale.journal.begins.append(replace(BEGIN, overlaps=True))


def tried_again_too_early(tale: Tale) -> None:
    """A step was tried again before it was due."""
    tale.journal.begins.append(replace(BEGIN, early_us=1))


def told_to_the_wrong_one(tale: Tale) -> None:
    """A client heard an answer to another one's command."""
    tale.journal.answers.append(replace(ACCEPTED, client_id="you"))


def another_result(tale: Tale) -> None:
    """A client heard another result than the log's."""
    tale.journal.answers.append(replace(RESULT, reply=replace(RESULT.reply, payload="8")))


def a_result_too_early(tale: Tale) -> None:
    """A client heard the result before it was in the log."""
    tale.journal.answers.append(replace(RESULT, stream=4))


def an_owner_without_claim(tale: Tale) -> None:
    """A worker took itself for the owner by a claim that was not accepted."""
    tale.journal.owners.append(("b", 0, 1))


def two_owners_by_one_claim(tale: Tale) -> None:
    """One claim made two owners."""
    tale.journal.owners.append(("a", 0, 0))


def no_two_readers_agree(tale: Tale) -> None:
    """Two readers have different states."""
    tale.journal.digests.append(Digests(0, 6, "b", "same", "other"))


def no_two_readers_were_compared(tale: Tale) -> None:
    """Nobody has looked."""
    tale.journal.digests.clear()


def a_recovery_that_writes(tale: Tale) -> None:
    """A recovery of the finished log appended an event."""
    tale.journal.silences.append(Silence(0, (CLAIM, TIMER), 0))


def a_recovery_that_acts(tale: Tale) -> None:
    """A recovery of the finished log began a step."""
    tale.journal.silences.append(Silence(0, (CLAIM,), 1))


def a_gap_in_the_stream(tale: Tale) -> None:
    """A position is missing."""
    tale.events[5] = replace(ENDED, position=5)


def time_goes_back(tale: Tale) -> None:
    """An event is older than the one before."""
    tale.events[5] = replace(ENDED, recorded_at=4)


def an_event_after_the_end(tale: Tale) -> None:
    """A stream goes on after its end."""
    tale.events.append(replace(ENDED, position=5))


def a_timer_too_early(tale: Tale) -> None:
    """A timer fired before it was due."""
    tale.events[3] = replace(FIRED, recorded_at=4)


def a_timer_twice(tale: Tale) -> None:
    """A timer fired twice."""
    tale.events[4] = replace(FIRED, position=3)


def a_timer_started_twice(tale: Tale) -> None:
    """A timer was started twice."""
    tale.events[3] = replace(TIMER, position=2)


def a_wrong_result(tale: Tale) -> None:
    """A run ended otherwise than its code says."""
    tale.events[5] = replace(ENDED, payload="8")


def refused_for_nothing(tale: Tale) -> None:
    """A start was refused that conflicts with nothing."""
    tale.events.append(refusal(0))


def a_conflict_that_was_taken(tale: Tale) -> None:
    """A start with another input was not refused."""
    tale.commands.append(encode_command(replace(START, payload='{"x":1}')))


def refused_twice(tale: Tale) -> None:
    """A command was refused by two owners."""
    a_conflict_that_was_taken(tale)
    tale.events.extend((refusal(1), refusal(1)))


def garbage_that_was_passed_over(tale: Tale) -> None:
    """A command that can't be read was refused by nobody."""
    tale.commands.append(Entry("w", b"garbage"))


def a_forged_event(tale: Tale) -> None:
    """An event's chain does not follow from the one before."""
    tale.forged = 2


def parked_without_reason(tale: Tale) -> None:
    """A run was parked that did not ask for it."""
    parked = WorkflowParked(
        workflow_id="w",
        position=4,
        recorded_at=7,
        claim=0,
        command=0,
        posted=0,
        worker="a",
        name="stuck",
        error_message="it waits",
    )
    tale.events.insert(5, parked)
    tale.events[6] = replace(ENDED, position=5)


def refusal(command: int) -> CommandRefused:
    """The refusal of the command at that offset."""
    return CommandRefused(
        workflow_id="w",
        position=None,
        recorded_at=8,
        claim=0,
        command=command,
        posted=0,
        worker="a",
        partition=0,
        name="workflow.start",
        error_type="x:Y",
        error_message="no",
    )


PLANTS: list[tuple[Callable[[History], Problems], Plant]] = [
    (core.invariant_01_an_acknowledged_start_is_never_lost, acknowledged_and_lost),
    (core.invariant_01_an_acknowledged_start_is_never_lost, acknowledged_too_early),
    (core.invariant_02_a_recorded_outcome_is_never_changed, a_second_outcome),
    (core.invariant_02_a_recorded_outcome_is_never_changed, begun_after_its_outcome),
    (core.invariant_02_a_recorded_outcome_is_never_changed, begun_by_a_zombie_with_an_old_proof),
    (core.invariant_03_a_step_without_outcome_runs, an_outcome_from_nowhere),
    (core.invariant_03_a_step_without_outcome_runs, a_run_without_end),
    (
        core.invariant_04_no_effect_precedes_what_it_follows_from,
        begun_before_what_it_follows_from,
    ),
    (core.invariant_04_no_effect_precedes_what_it_follows_from, an_attempt_too_early),
    (core.invariant_04_no_effect_precedes_what_it_follows_from, an_attempt_again),
    (core.invariant_04_no_effect_precedes_what_it_follows_from, begun_twice_at_once),
    (core.invariant_05_a_result_that_was_given_is_the_result, another_result),
    (core.invariant_05_a_result_that_was_given_is_the_result, a_result_too_early),
    (core.invariant_05_a_result_that_was_given_is_the_result, a_wrong_result),
    (core.invariant_06_every_offset_has_one_owner, an_owner_without_claim),
    (core.invariant_06_every_offset_has_one_owner, two_owners_by_one_claim),
    (core.invariant_07_all_readers_fold_to_the_same, no_two_readers_agree),
    (core.invariant_07_all_readers_fold_to_the_same, no_two_readers_were_compared),
    (core.invariant_08_replay_is_silent, a_recovery_that_writes),
    (core.invariant_08_replay_is_silent, a_recovery_that_acts),
    (core.invariant_09_positions_have_no_gap, a_gap_in_the_stream),
    (core.invariant_09_positions_have_no_gap, time_goes_back),
    (core.invariant_09_positions_have_no_gap, an_event_after_the_end),
    (core.invariant_11_a_timer_fires_once_and_when_due, a_timer_too_early),
    (core.invariant_11_a_timer_fires_once_and_when_due, a_timer_twice),
    (core.invariant_11_a_timer_fires_once_and_when_due, a_timer_started_twice),
    (core.invariant_11_a_timer_fires_once_and_when_due, tried_again_too_early),
    (core.invariant_13_the_bad_stop_only_themselves, a_wrong_result),
    (core.invariant_13_the_bad_stop_only_themselves, acknowledged_and_lost),
    (core.commands_are_consumed_exactly_once, refused_for_nothing),
    (core.commands_are_consumed_exactly_once, a_conflict_that_was_taken),
    (core.commands_are_consumed_exactly_once, refused_twice),
    (core.commands_are_consumed_exactly_once, garbage_that_was_passed_over),
    (core.replies_answer_what_was_asked, told_to_the_wrong_one),
    (core.the_chain_verifies, a_forged_event),
    (core.only_the_odd_are_parked, parked_without_reason),
]


def test_a_sound_history_has_no_problem() -> None:
    """Given a history in which all went well, no check finds anything."""
    assert problems(Tale().history()) == []


@pytest.mark.parametrize(("check", "plant"), PLANTS)
def test_a_planted_violation_is_found(check: Callable[[History], Problems], plant: Plant) -> None:
    """Given a history with one thing wrong, the check that is about it says so."""
    tale = Tale()
    plant(tale)
    assert list(check(tale.history()))


@pytest.mark.parametrize(("check", "scene", "plant"), EXCHANGE_PLANTS)
def test_a_violation_planted_into_a_scene_is_found(
    check: Callable[[History], Problems], scene: str, plant: Callable[[History], None]
) -> None:
    """Given a scene's history with one thing wrong between its runs, the check that is about it says so."""
    history = scene_history(scene)
    assert not list(check(history))
    plant(history)
    assert list(check(history))


def test_every_check_has_been_seen_to_fail() -> None:
    """Given the plants, no check is left without one."""
    planted = {check for check, *_ in PLANTS} | {check for check, *_ in EXCHANGE_PLANTS}
    assert planted == set(CHECKS)
