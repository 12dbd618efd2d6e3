"""What must be found: each spoils the sound story so that exactly one rule is broken."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.chaos.story import (
    OTHER,
    PID,
    Story,
    answered,
    asked,
    at,
    base,
    begun,
    completed,
    did,
    mark,
    send_command,
    start_command,
    step,
)

import chaos_client_rules as clients
import chaos_log_rules as log
from chaos_checker import Rule
from chaos_history import Fault, Life
from refold.log.events import (
    Event,
    MessageReceived,
    StepCompleted,
    TimerFired,
    TimerStarted,
    WorkflowCancelRequested,
    WorkflowCompleted,
)


@dataclass(frozen=True, slots=True)
class Plant:
    """A violation that is planted.

    Args:
        rule: The rule that it breaks.
        about: What the violation must name.
        spoil: Changes the story.
    """

    rule: Rule
    about: str
    spoil: Callable[[Story], None]

    @property
    def name(self) -> str:
        """For the test's id."""
        return self.spoil.__name__


def _find(story: Story, run: str, kind: type[Event], nth: int = 0) -> int:
    """The place of a run's nth event of a kind."""
    found = [
        place
        for place, event in enumerate(story.events)
        if event.workflow_id == run and isinstance(event, kind)
    ]
    return found[nth]


def a_gap_in_the_positions(story: Story) -> None:
    """A stream goes from position 2 to 7."""
    story.positions[_find(story, "w", TimerFired)] = 7


def a_second_outcome(story: Story) -> None:
    """A step has two outcomes."""
    place = _find(story, "r", StepCompleted)
    story.events.insert(place + 1, step("r", 21, 0, mark(6), attempt=2))


def something_after_the_end(story: Story) -> None:
    """A run goes on after its end."""
    story.events.append(step("r", 23, 1, mark(7)))
    story.attempts.append(begun("r", 1, 22.5))


def a_forged_record(story: Story) -> None:
    """An event was slipped in, or changed: the chain says so."""
    story.forged = _find(story, "r", StepCompleted)


def a_skipped_offset(story: Story) -> None:
    """The log has a record less than its offsets say."""
    story.offsets[len(story.events) - 1] = len(story.events)


def a_lost_start(story: Story) -> None:
    """A start was acknowledged, and the log has no such run."""
    story.operations.append(did(11, "start", "lost", 23, 24, asked_for={"confirm": False}))


def accepted_before_it_was_written(story: Story) -> None:
    """A client heard that its run was accepted before that stood in the log."""
    story.operations[0] = replace(story.operation(1), ended_us=at(0.7))


def forgotten(story: Story) -> None:
    """A run is not found that was known before."""
    story.operations.append(
        did(11, "result", "w", 23, 24, outcome="fail", error="WorkflowNotFound: no run")
    )


def begun_again(story: Story) -> None:
    """A step was begun once more after its outcome had been recorded."""
    story.attempts.append(begun("t", 1, 16))


def begun_again_by_one_who_was_stopped_briefly(story: Story) -> None:
    """Being stopped excuses nobody who can't have lost the partition meanwhile."""
    story.attempts.append(begun("t", 1, 10.6))
    story.faults.append(Fault(1, "worker.pause", "worker-1.1", at(9.8), at(10.55), PID))


def begun_again_long_after_waking(story: Story) -> None:
    """Who goes on after having been stopped has to look before it begins anything else."""
    story.attempts.append(begun("t", 1, 16.4))
    story.faults.append(Fault(1, "worker.pause_past_session", "worker-1.1", at(9.8), at(16), PID))


def two_begun_again_at_waking(story: Story) -> None:
    """One step may have been about to begin when its process was stopped. Two are no accident."""
    story.attempts += [begun("t", 1, 16.05), begun("t", 1, 16.06)]
    story.faults.append(Fault(1, "worker.pause_past_session", "worker-1.1", at(9.8), at(16), PID))


def an_outcome_from_nowhere(story: Story) -> None:
    """A step has an outcome and was never begun."""
    story.attempts = [line for line in story.attempts if line.workflow_id != "t"]


def begun_too_soon(story: Story) -> None:
    """A step began before the outcome of the one before it was recorded."""
    timer = _find(story, "w", TimerStarted)
    story.events[timer : timer + 2] = [step("w", 4, 1, mark(3))]
    story.attempts[1] = begun("w", 2, 3.9)
    story.attempts.append(begun("w", 1, 3.5))


def another_result(story: Story) -> None:
    """A client heard a result that is not the log's."""
    story.operations = [op for op in story.operations if op.kind != "result"]
    answer = {"status": "failed", "message": "it broke"}
    story.operations.append(did(11, "result", "w", 7, 7.1, {**answer}, process=OTHER))


def a_result_too_soon(story: Story) -> None:
    """A client heard a result before the log had it."""
    story.operations[1] = replace(story.operation(2), ended_us=at(5.9))


def two_results(story: Story) -> None:
    """Two clients heard different ends, of a run that the log says both of."""
    story.operations.append(
        did(11, "result", "g", 18.1, 18.2, {"status": "cancelled", "message": "it was asked to"})
    )
    story.operations.append(
        did(
            12,
            "result",
            "g",
            18.3,
            18.4,
            {"status": "cancelled", "message": "it was asked to", "value": 1},
        )
    )


def made_up(story: Story) -> None:
    """A run returned what none of its steps gave."""
    place = _find(story, "w", WorkflowCompleted)
    payload = f"[{mark(10)}, {mark(11).replace('token-11', 'token-12')}]"
    story.events[place] = completed("w", 6, payload)
    story.operations = [op for op in story.operations if op.kind != "result"]


def miscounted(story: Story) -> None:
    """A tally returned a message more than it was sent."""
    story.events[_find(story, "t", WorkflowCompleted)] = completed("t", 15, '["m1", "m1"]')


def written_by_another(story: Story) -> None:
    """Two workers wrote under one claim."""
    place = _find(story, "r", StepCompleted)
    story.events[place] = replace(story.events[place], worker="worker-2.1")


def folds_differ(story: Story) -> None:
    """Two readers have different states."""
    story.digests["another"] = ["other"]


def time_goes_back(story: Story) -> None:
    """An event's time is before that of the one before it."""
    place = _find(story, "g", WorkflowCancelRequested)
    story.events[place] = replace(story.events[place], recorded_at=at(15.9))


def lost_message(story: Story) -> None:
    """A message was acknowledged, and the receiver's stream has it not."""
    story.operations.append(did(11, "send", "t", 13.2, 13.9, asked_for={"message_id": "m2"}))


def delivered_twice(story: Story) -> None:
    """A message stands twice in its receiver's stream."""
    place = _find(story, "t", MessageReceived, 1)
    again = replace(story.events[_find(story, "t", MessageReceived)], recorded_at=at(14.5))
    story.events.insert(place + 1, again)


def never_sent(story: Story) -> None:
    """A run received a message that the run which is named as its sender never sent."""
    place = _find(story, "t", WorkflowCompleted)
    story.events.insert(
        place,
        MessageReceived(
            **base("t", 14.5),
            name="other",
            payload="1",
            message_id="w/9",
            parent_id="w",
            parent_step=9,
        ),
    )


def written_though_it_was_said_not_to_be(story: Story) -> None:
    """The log was said to be out of reach and to have nothing of it, and has it."""
    story.commands.append(send_command("t", "m3"))
    story.operations.append(
        did(
            11,
            "send",
            "t",
            13.2,
            13.9,
            asked_for={"message_id": "m3"},
            outcome="fail",
            error="LogUnavailable: away",
        )
    )


def started_though_it_was_said_not_to_be(story: Story) -> None:
    """The same with a start."""
    story.commands.append(start_command("x"))
    story.operations.append(
        did(
            11,
            "start",
            "x",
            1,
            2,
            asked_for={"confirm": True},
            outcome="fail",
            error="LogUnavailable: away",
        )
    )


def said_to_have_ended(story: Story) -> None:
    """A client was told that a run had ended which had not."""
    story.operations.append(
        did(
            11,
            "send",
            "t",
            13.2,
            13.9,
            asked_for={"message_id": "m4"},
            outcome="fail",
            error="WorkflowEnded: t has ended",
        )
    )


def an_early_timer(story: Story) -> None:
    """A timer fired before it was due."""
    place = _find(story, "w", TimerFired)
    story.events[place] = replace(story.events[place], recorded_at=at(3.9))


def an_early_retry(story: Story) -> None:
    """A step was tried again before it was due."""
    story.attempts[-1] = begun("r", 0, 20.4, attempt=2)


def without_end(story: Story) -> None:
    """A run never ended."""
    story.events.pop()


def an_unrecorded_cancel(story: Story) -> None:
    """A cancel was acknowledged, and the run was never asked to."""
    story.operations.append(did(11, "cancel", "r", 21.1, 21.5))


def another_answer(story: Story) -> None:
    """A client heard an answer that is not the recorded one."""
    story.operations[6] = replace(story.operation(7), answer=["q1", 3])


def a_count_that_goes_back(story: Story) -> None:
    """A client was told of fewer messages than another one before it."""
    place = _find(story, "t", MessageReceived, 1)
    story.events[place:place] = [asked(13.3, "q2"), answered(13.6, 4, "q2", 0)]
    story.operations.append(did(11, "ask", "t", 13.2, 13.9, ["q2", 0], {"token": "q2"}, OTHER))


def a_value_from_nowhere(story: Story) -> None:
    """A client read what was not published yet."""
    story.operations[5] = replace(story.operation(6), ended_us=at(10.9), began_us=at(10.8))


def an_unexpected_error(story: Story) -> None:
    """A client got an error that its operation can't come to."""
    story.operations.append(
        did(11, "value", "t", 23, 24, outcome="info", error="KeyError: 'total'")
    )


def a_crash(story: Story) -> None:
    """A worker ended by itself."""
    story.lives.append(Life("worker-2.1", 18, at(0), at(9), 1))


def an_unreadable_record(story: Story) -> None:
    """Somebody else wrote into the log: what is there is no event."""
    story.garbage = b"not an event"


PLANTS = (
    Plant(log.the_log_is_sound, "w", a_gap_in_the_positions),
    Plant(log.the_log_is_sound, "r", a_second_outcome),
    Plant(log.the_log_is_sound, "r", something_after_the_end),
    Plant(log.the_log_is_sound, "offset 22", a_forged_record),
    Plant(log.no_record_is_unreadable, "offset 23", an_unreadable_record),
    Plant(log.offsets_have_no_gap, "offset 23", a_skipped_offset),
    Plant(clients.rule_01_an_acknowledged_start_is_never_lost, "lost", a_lost_start),
    Plant(clients.rule_01_an_acknowledged_start_is_never_lost, "w", accepted_before_it_was_written),
    Plant(clients.rule_01_what_was_acknowledged_is_never_unknown, "w", forgotten),
    Plant(log.rule_02_no_attempt_begins_after_its_outcome, "t/1", begun_again),
    Plant(
        log.rule_02_no_attempt_begins_after_its_outcome,
        "t/1",
        begun_again_by_one_who_was_stopped_briefly,
    ),
    Plant(log.rule_02_no_attempt_begins_after_its_outcome, "t/1", begun_again_long_after_waking),
    Plant(log.rule_02_no_attempt_begins_after_its_outcome, "t/1", two_begun_again_at_waking),
    Plant(log.rule_03_every_outcome_has_an_attempt, "step 1 of t", an_outcome_from_nowhere),
    Plant(log.rule_04_no_step_begins_before_the_one_before_is_recorded, "'w', 2", begun_too_soon),
    Plant(clients.rule_05_a_result_is_the_log_s, "w", another_result),
    Plant(clients.rule_05_a_result_is_the_log_s, "w", a_result_too_soon),
    Plant(clients.rule_05_all_clients_hear_the_same, "g", two_results),
    Plant(clients.rule_05_a_result_is_made_of_what_was_recorded, "w", made_up),
    Plant(clients.rule_05_a_result_is_made_of_what_was_recorded, "t", miscounted),
    Plant(log.rule_06_each_claim_has_one_owner, "r", written_by_another),
    Plant(log.rule_07_all_readers_fold_to_the_same, "partition 0", folds_differ),
    Plant(log.rule_09_times_never_go_back, "g", time_goes_back),
    Plant(log.rule_10_what_runs_send_each_other_arrives_once, "m2", lost_message),
    Plant(log.rule_10_what_runs_send_each_other_arrives_once, "m1", delivered_twice),
    Plant(log.rule_10_what_runs_send_each_other_arrives_once, "'w'", never_sent),
    Plant(
        clients.rule_10_what_was_not_written_is_not_there,
        "m3",
        written_though_it_was_said_not_to_be,
    ),
    Plant(
        clients.rule_10_what_was_not_written_is_not_there, "x", started_though_it_was_said_not_to_be
    ),
    Plant(
        clients.rule_10_who_is_told_that_a_run_has_ended_is_told_the_truth, "t", said_to_have_ended
    ),
    Plant(log.rule_11_nothing_is_done_before_its_time, "w/1", an_early_timer),
    Plant(log.rule_11_nothing_is_done_before_its_time, "r/0", an_early_retry),
    Plant(log.rule_13_every_run_ends, "r", without_end),
    Plant(clients.rule_17_an_acknowledged_cancel_is_recorded, "r", an_unrecorded_cancel),
    Plant(clients.rule_20_an_answer_is_the_log_s, "t", another_answer),
    Plant(clients.rule_20_answers_never_go_back, "t", a_count_that_goes_back),
    Plant(clients.rule_20_a_value_was_published, "t", a_value_from_nowhere),
    Plant(clients.only_expected_errors, "t", an_unexpected_error),
    Plant(log.no_worker_crashes, "worker-2.1", a_crash),
)
