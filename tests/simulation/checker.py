"""The invariants of the engine, checked over a simulated world's log and journal once it has come to rest.

Each check gives a sentence for every violation that it finds. The numbers are those of the design, which has these:

 1. An acknowledged start is never lost.
 2. A recorded outcome is never changed, and its step never runs again.
 3. A step with no recorded outcome runs at least once.
 4. No effect precedes the durability of what it follows from.
 5. A result given to anyone is the result in the log, for ever.
 6. At most one accepted owner per partition and offset.
 7. All readers fold to the same digest.
 8. Replay is silent: to recover a partition on which all rests appends the claim alone.
 9. A position in a stream has no gap and no repeat.
10. A message is delivered at most once per receiver and never dropped: confirmed exactly when it stands there.
11. A timer, a retry, a deadline fires once, and not before it is due, however clocks are set.
12. A queue never runs more than its limit, and a slot is free again when its run has ended.
13. One bad workflow, event or command never stops another workflow.
16. A child is started exactly once per request, and none is orphaned: what is to end with its parent is asked to,
    and its end is told to an open parent once, as it was.
17. What one workflow sends to another has exactly one answer: recorded there, or refused.
18. All that events want of other workflows is posted, not before its event is safe; and no event counts more as posted
    than was.
19. Messages of one sender keep their order.
20. A question has one answer, and that is what the client hears; a value that a client hears was published.
21. The items of a stream count 0, 1, 2, ... over all who write to it.
22. A number names one operation of a stream for ever, whatever is continued as new, rewound or reopened.

(14 and 15 are about memory and back-pressure, which a simulated log does not show.)
"""

from collections.abc import Callable

from tests.simulation import core_checks as core
from tests.simulation import exchange_checks as exchange
from tests.simulation import queue_checks as queue
from tests.simulation.history import History, Problems

CHECKS: tuple[Callable[[History], Problems], ...] = (
    core.invariant_01_an_acknowledged_start_is_never_lost,
    core.invariant_02_a_recorded_outcome_is_never_changed,
    core.invariant_03_a_step_without_outcome_runs,
    core.invariant_04_no_effect_precedes_what_it_follows_from,
    core.invariant_05_a_result_that_was_given_is_the_result,
    core.invariant_06_every_offset_has_one_owner,
    core.invariant_07_all_readers_fold_to_the_same,
    core.invariant_08_replay_is_silent,
    core.invariant_09_positions_have_no_gap,
    exchange.invariant_10_a_message_comes_once_and_is_never_dropped,
    core.invariant_11_a_timer_fires_once_and_when_due,
    queue.invariant_12_a_queue_never_runs_more_than_its_limit,
    core.invariant_13_the_bad_stop_only_themselves,
    exchange.invariant_16_a_child_is_started_once_and_is_no_orphan,
    exchange.invariant_17_what_is_sent_is_answered_once,
    exchange.invariant_18_what_is_said_to_be_posted_is,
    exchange.invariant_19_a_sender_s_messages_keep_their_order,
    exchange.invariant_20_a_question_has_one_answer,
    exchange.invariant_21_a_stream_grows_without_gap,
    exchange.invariant_22_a_number_names_one_operation,
    core.commands_are_consumed_exactly_once,
    core.replies_answer_what_was_asked,
    core.the_chain_verifies,
    core.only_the_odd_are_parked,
)


def problems(history: History) -> list[str]:
    """All violations of all invariants."""
    return [f"{check.__name__}: {problem}" for check in CHECKS for problem in check(history)]
