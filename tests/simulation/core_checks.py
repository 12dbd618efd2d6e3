"""The invariants of the core: starts, steps, results, owners, timers. See `checker.py` for all of them."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, pairwise

from tests.simulation.history import History, Problems
from tests.simulation.journal import NUMBERED, Audit

from refold.engine.state import Ended
from refold.log.codec import GENESIS, link_claim, verify
from refold.log.commands import Command, StartWorkflow
from refold.log.events import (
    CommandRefused,
    Event,
    PartitionClaimed,
    SlotReleased,
    SlotRequested,
    SlotReturned,
    StepCompleted,
    StepFailed,
    TimerFired,
    TimerStarted,
    Unreadable,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowParked,
    WorkflowReopened,
    WorkflowStarted,
    WorkflowTerminated,
)

ALLOWED_TO_PARK = {
    "parking": "attempts_used_up",
    "parking_beside": "attempts_used_up",
    "changing": "diverged",
}
"""Workflows that may be parked, and why."""


def invariant_01_an_acknowledged_start_is_never_lost(history: History) -> Problems:
    """Once a client has heard that its run was accepted, the run's stream is in the log, from then on for ever."""
    audit = history.audit
    for given in history.journal.answers:
        workflow_id = given.reply.workflow_id
        if given.reply.status != "accepted" or workflow_id in audit.broken | history.queues:
            continue
        if given.stream == 0:
            yield f"{workflow_id}: acknowledged before its start was in the log"
        if not isinstance(next(iter(audit.stream(workflow_id)), None), WorkflowStarted):
            yield f"{workflow_id}: acknowledged, and its start is not in the log"


def invariant_02_a_recorded_outcome_is_never_changed(history: History) -> Problems:
    """An operation has at most one accepted outcome, and none of its attempts begins once that is in the log.

    Not in a worker either that was stopped and has not found out that it is no longer the owner (`engine/proof.py`).
    """
    audit = history.audit
    for workflow_id, stream in audit.streams.items():
        counts = Counter(event.step for event in stream if isinstance(event, NUMBERED))
        for step, count in counts.items():
            if count > 1:
                yield f"{workflow_id}/{step}: {count} outcomes"
    for begin in history.journal.begins:
        recorded_at_us = begin.recorded_at_us
        if recorded_at_us is not None:
            yield (
                f"{begin.workflow_id}/{begin.step}: attempt {begin.attempt} began in {begin.worker} "
                f"{begin.at_us - recorded_at_us} µs after the step's outcome was in the log"
            )


def invariant_03_a_step_without_outcome_runs(history: History) -> Problems:
    """Every accepted run has come to its end, and each outcome is of an attempt that was begun before it."""
    audit = history.audit
    began: dict[tuple[str, int, int], int] = {}
    for begin in history.journal.begins:
        began.setdefault((begin.workflow_id, begin.step, begin.attempt), begin.at_us)
    for record, event in chain.from_iterable(audit.accepted):
        if isinstance(event, StepCompleted | StepFailed):
            at_us = began.get((event.workflow_id or "", event.step, event.attempt))
            if at_us is None or at_us > record.timestamp:
                yield f"{event.workflow_id}/{event.step}: has an outcome and was never begun"
    for workflow_id in history.expected:
        if workflow_id not in audit.broken and audit.ended(workflow_id) is None:
            yield f"{workflow_id}: has not ended: {list(audit.stream(workflow_id))[-1:]}"


def invariant_04_no_effect_precedes_what_it_follows_from(history: History) -> Problems:
    """When a step begins, each outcome that its code had been told is in the log and accepted; and attempt n
    begins when n - 1 failed ones are.
    """
    for begin in history.journal.begins:
        where = f"{begin.workflow_id}/{begin.step}: attempt {begin.attempt} began in {begin.worker}"
        if begin.missing:
            yield f"{where} before the log had {begin.missing}"
        if begin.overlaps:
            yield f"{where} while one of that step was still under way there"
        if begin.attempt > begin.failed + 1 or (begin.owned and begin.attempt <= begin.failed):
            yield f"{where} with {begin.failed} failed attempts in the log"


def invariant_05_a_result_that_was_given_is_the_result(history: History) -> Problems:
    """What a client was told of a run's end was in the log at that moment, and is what the log says for ever."""
    audit = history.audit
    for given in history.journal.answers:
        reply = given.reply
        if reply.status not in ("completed", "failed", "cancelled", "terminated"):
            continue
        told = (reply.status, reply.payload, reply.error_type, reply.error_message)
        stream = audit.stream(reply.workflow_id)
        then = [event for event in stream[: given.stream] if isinstance(event, Ended)]
        reopened = any(isinstance(event, WorkflowReopened) for event in stream)
        if told not in map(_said_of, then):
            yield f"{reply.workflow_id}: {given.client_id} heard {reply}; the log had {then} then"
        if not reopened and told != _said_of(audit.ended(reply.workflow_id)):
            yield f"{reply.workflow_id}: {given.client_id} heard {reply}; the log has {stream[-1:]}"


def _said_of(ended: Ended | None) -> tuple[str, str | None, str | None, str | None]:
    """What a client must have heard of an end: status, payload, error's type and message."""
    match ended:
        case WorkflowCompleted():
            return "completed", ended.payload, None, None
        case WorkflowFailed():
            return "failed", ended.payload, ended.error_type, ended.error_message
        case WorkflowCancelled():
            return "cancelled", None, ended.error_type, ended.error_message
        case WorkflowTerminated():
            return "terminated", None, ended.error_type, ended.error_message
        case None:
            return "open", None, None, None


def invariant_06_every_offset_has_one_owner(history: History) -> Problems:
    """Each claim that was accepted made one worker the owner at most: the one that wrote it. Who took itself for
    the owner otherwise had lost a race without seeing it.
    """
    accepted = {(partition, at): claim.worker for partition, at, claim in history.audit.claimed}
    owners = history.journal.owners
    for worker, partition, claim in owners:
        found = accepted.get((partition, claim))
        if found != worker:
            yield f"{worker} took itself for the owner of {partition} by {claim}, which is {found}'s"
    for (partition, claim), count in Counter((p, claim) for _, p, claim in owners).items():
        if count > 1:
            yield f"{count} owners of {partition} by the claim {claim}"


def invariant_07_all_readers_fold_to_the_same(history: History) -> Problems:
    """Owners that have all confirmed, readers that go along and readers that begin anew have the same digest."""
    if not history.journal.digests:
        yield "no two readers were compared"
    for digests in history.journal.digests:
        if digests.found != digests.reader:
            yield f"{digests.who} has another state than a reader before offset {digests.offset}"


def invariant_08_replay_is_silent(history: History) -> Problems:
    """To recover a partition on which all rests appends the claim alone, and begins no step.

    What is not known to have been posted is posted again; where the receiver has ended meanwhile, that is refused, and
    a slot of a queue that was asked for again is given back.
    """
    if not history.journal.silences:
        yield "no recovery of a log at rest was looked at"
    for silence in history.journal.silences:
        kinds = [
            getattr(event, "kind", "?") for event in silence.appended if not _repeated_post(event)
        ]
        if kinds != ["partition.claimed"] or silence.begun:
            yield (
                f"recovery of partition {silence.partition} appended {silence.appended} "
                f"and began {silence.begun} steps"
            )


def _repeated_post(event: Event | Unreadable) -> bool:
    if isinstance(event, CommandRefused):
        return event.parent_step is not None
    return isinstance(event, SlotRequested | SlotReturned | SlotReleased)


def invariant_09_positions_have_no_gap(history: History) -> Problems:
    """Within a stream the accepted events count 0, 1, 2, ..., their times never go back, and the end is the last."""
    audit = history.audit
    for workflow_id, stream in audit.streams.items():
        if workflow_id in audit.broken:
            continue
        positions = [event.position for event in stream]
        if positions != list(range(len(stream))):
            yield f"{workflow_id}: positions {positions}"
        times = [event.recorded_at for event in stream]
        if times != sorted(times):
            yield f"{workflow_id}: times {times} go back"
        for event, following in pairwise(stream):
            if isinstance(event, Ended) and not isinstance(following, WorkflowReopened):
                yield f"{workflow_id}: goes on after {event}"


def invariant_11_a_timer_fires_once_and_when_due(history: History) -> Problems:
    """A timer fires after it was started, not before it is due, and once; so does the wait before a retry, and a
    deadline.
    """
    for workflow_id, stream in history.audit.streams.items():
        due: dict[int, int] = {}
        for event in stream:
            if isinstance(event, WorkflowReopened):
                due.clear()  # what had not fired is started anew
            elif isinstance(event, TimerStarted):
                if event.step in due:
                    yield f"{workflow_id}/{event.step}: timer started twice"
                due[event.step] = event.due_at
            elif isinstance(event, TimerFired):
                due_at = due.get(event.step)
                if due_at is None:
                    yield f"{workflow_id}/{event.step}: a timer fired that was not running"
                elif event.recorded_at < due_at:
                    yield f"{workflow_id}/{event.step}: timer fired {due_at - event.recorded_at} µs early"
                due.pop(event.step, None)
        yield from _deadlines(workflow_id, stream)
    for begin in history.journal.begins:
        if begin.early_us > 0:
            yield f"{begin.workflow_id}/{begin.step}: was tried again {begin.early_us} µs early"


def _deadlines(workflow_id: str, stream: Sequence[Event]) -> Problems:
    due_at: int | None = None
    for event in stream:
        if isinstance(event, WorkflowStarted | WorkflowReopened):
            due_at = event.due_at
        elif isinstance(event, WorkflowCancelRequested) and event.name == "deadline":
            if due_at is None:
                yield f"{workflow_id}: a deadline passed that it has not, or has passed already"
            elif event.recorded_at < due_at:
                yield f"{workflow_id}: deadline passed {due_at - event.recorded_at} µs early"
            due_at = None


def invariant_13_the_bad_stop_only_themselves(history: History) -> Problems:
    """Every run has ended as its code says. So those beside a poison command, a poison event or a run that no
    longer fits its code have; and what is poisoned is parked, not failed and not lost.
    """
    audit = history.audit
    for workflow_id, expectation in history.expected.items():
        stream = audit.stream(workflow_id)
        if workflow_id in audit.broken:
            told = [
                given.reply
                for given in history.journal.answers
                if given.reply.workflow_id == workflow_id
            ]
            if not told or told[-1].status != "parked":
                yield f"{workflow_id}: is poisoned, and its client heard {told[-1:]}"
        elif not stream:
            yield f"{workflow_id}: was never started"
        elif (problem := expectation(stream)) is not None:
            yield f"{workflow_id}: {problem}"


def commands_are_consumed_exactly_once(history: History) -> Problems:
    """A start that conflicts with the first one, and what can't be read, is refused once; nothing is refused twice,
    or without having been asked for.
    """
    audit = history.audit
    refused = Counter((partition, event.command) for partition, event in audit.refused)
    for partition, commands in enumerate(history.commands):
        for record, command in commands:
            times = refused.pop((partition, record.offset), 0)
            wanted = _refusals(audit, command)
            if times > 1 or (wanted is not None and times != wanted):
                yield f"the command at {record.offset} was refused {times} times, not {wanted}: {command}"
    if refused:
        yield f"commands were refused that nobody made: {refused}"


def _refusals(audit: Audit, command: Command | Unreadable) -> int | None:
    """How often a command must have been refused; None where that depends on when it came."""
    if isinstance(command, Unreadable):
        return 1
    if not isinstance(command, StartWorkflow):
        return None
    if command.workflow_id in audit.broken:
        return None
    first = next(iter(audit.stream(command.workflow_id)), None)
    if not isinstance(first, WorkflowStarted):
        return 1
    if command.parent_step is not None:
        return int((first.parent_id, first.parent_step) != (command.parent_id, command.parent_step))
    if first.workflow == command.workflow and command.name is not None:
        return None
    return int((first.workflow, first.payload) != (command.workflow, command.payload))


def replies_answer_what_was_asked(history: History) -> Problems:
    """A reply goes to the client that asked, by the name of its command and about the run that it named."""
    asked = {
        (command.reply_to, command.command_id, command.workflow_id)
        for _, command in chain.from_iterable(history.commands)
        if not isinstance(command, Unreadable)
    }
    for given in history.journal.answers:
        if (given.client_id, given.reply.command_id, given.reply.workflow_id) not in asked:
            yield f"{given.client_id} heard what it had not asked: {given.reply}"


def the_chain_verifies(history: History) -> Problems:
    """Each accepted event vouches for all before it."""
    for accepted in history.audit.accepted:
        head = GENESIS
        for record, event in accepted:
            if not verify(record, head):
                yield f"the chain breaks at offset {record.offset}: {event}"
            head = (
                link_claim(head, event.chain)
                if isinstance(event, PartitionClaimed)
                else event.chain
            )


def only_the_odd_are_parked(history: History) -> Problems:
    """No run is parked but those that ask for it, and those whose code was changed."""
    for workflow_id, stream in history.audit.streams.items():
        started = stream[0]
        name = started.workflow if isinstance(started, WorkflowStarted) else "?"
        allowed = ALLOWED_TO_PARK.get(name)
        for event in stream:
            if isinstance(event, WorkflowParked) and event.name != allowed:
                yield f"{workflow_id}: parked: {event.error_message}"
