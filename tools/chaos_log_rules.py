"""What must hold of the log and of the journal after a fault run, whatever clients have seen.

The rules of `crash_audit` and `crash_exchange`, and those that need to know what was broken when. Each gives a sentence
for every violation, which names the workflow; the numbers are those of the design's invariants.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Final

from chaos_case import Case
from chaos_workflows import IN_ORDER
from crash_audit import Begun, Ended, early, unfounded
from crash_exchange import exchanged
from refold.log.codec import decode_event
from refold.log.events import (
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
    TimerStarted,
    Unreadable,
)
from refold.log.protocol import MIN_TAKEOVER_S

Problems = Iterator[str]

RESIDUE_US: Final = 100_000
"""A process that is stopped between its look at the proof of ownership and a step's first instruction begins that step
when it goes on, whoever owns the partition by then: no client of a log can close that gap (`engine/proof.py`). It is
microseconds wide: one attempt after a waking is let be, and counted; a second is a violation."""

CLOCK_US: Final = 2_000
"""Logs keep milliseconds."""

EXITS: Final = frozenset({0, 4, -9, -15, 143})
"""Drained; could not reach the log; killed; asked to end before it listened, or once more. Anything else is a crash."""


def the_log_is_sound(case: Case) -> Problems:
    """Positions without gap (9), one outcome an operation (2), nothing after the end (5), an unbroken chain; commands
    are consumed in order.
    """
    yield from case.audited.problems


def offsets_have_no_gap(case: Case) -> Problems:
    """Offsets of a partition count 0, 1, 2, ...: nothing that readers skip was written."""
    for partition, records in enumerate(case.events):
        for place, record in enumerate(records):
            if record.offset != place:
                yield f"partition {partition}: record {place} has the offset {record.offset}"
                break


def rule_02_no_attempt_begins_after_its_outcome(case: Case) -> Problems:
    """No attempt of a step begins once its outcome, or the attempt's own failure, is recorded."""
    for late in late_attempts(case):
        if not late.excused:
            yield str(late)


@dataclass(frozen=True, slots=True)
class Late:
    """An attempt that began after it was recorded what came of it.

    Args:
        begun: The attempt.
        recorded_us: When that was recorded.
        excused: Whether the design lets it be.
    """

    begun: Begun
    recorded_us: int
    excused: bool

    def __str__(self) -> str:
        line = self.begun
        return (
            f"{line.workflow_id}/{line.step}: attempt {line.attempt} began in process {line.pid} at {line.at_us}, "
            f"{line.at_us - self.recorded_us} µs after it was recorded what came of it"
        )


def late_attempts(case: Case) -> Iterator[Late]:
    """All attempts that began too late, also those that the design allows: the first after each waking."""
    outcomes: dict[tuple[str, int], int] = {}
    attempts: dict[tuple[str, int, int], int] = {}
    for workflow_id, stream in case.audited.streams.items():
        for event in stream:
            if isinstance(event, StepCompleted | StepFailed):
                outcomes[workflow_id, event.step] = event.recorded_at
            elif isinstance(event, StepAttemptFailed):
                attempts[workflow_id, event.step, event.attempt] = event.recorded_at
    woken: set[int] = set()
    for line in sorted(case.begun, key=lambda line: line.at_us):
        known = (
            outcomes.get((line.workflow_id, line.step)),
            attempts.get((line.workflow_id, line.step, line.attempt)),
        )
        recorded_us = min((at for at in known if at is not None), default=None)
        if recorded_us is not None and line.at_us > recorded_us:
            excuse = _just_woken(case, line, recorded_us)
            yield Late(line, recorded_us, excuse is not None and excuse not in woken)
            woken |= set() if excuse is None else {excuse}


def _just_woken(case: Case, line: Begun, recorded_us: int) -> int | None:
    """The fault by which the process had been stopped, for long enough to lose its partitions, until a moment ago."""
    for fault in case.recorded.faults:
        if (
            fault.pid == line.pid
            and fault.kind.startswith("worker.pause")
            and fault.ended_us is not None
            and fault.ended_us - fault.began_us > MIN_TAKEOVER_S * 1e6
            and fault.began_us < recorded_us < line.at_us < fault.ended_us + RESIDUE_US
        ):
            return fault.number
    return None


def rule_03_every_outcome_has_an_attempt(case: Case) -> Problems:
    """What is recorded of a step was begun."""
    yield from unfounded(case.audited, case.begun)


def rule_04_no_step_begins_before_the_one_before_is_recorded(case: Case) -> Problems:
    """In workflows that do one thing after the other."""
    for workflow in sorted(IN_ORDER):
        yield from early(case.audited, case.begun, workflow)


def rule_06_each_claim_has_one_owner(case: Case) -> Problems:
    """All accepted events were written by the worker whose claim they carry, and while that lived."""
    lives = {life.name: life for life in case.recorded.lives}
    owners = {
        (place.partition, place.offset): claim.worker
        for place, claim in zip(case.audited.claimed, case.audited.claims, strict=True)
    }
    for workflow_id, stream in case.audited.streams.items():
        for event in stream:
            place = case.audited.places[workflow_id, event.position or 0]
            owner = owners.get((place.partition, event.claim))
            if owner != event.worker:
                yield (
                    f"{workflow_id}: {event.kind} at offset {place.offset} of partition {place.partition} was written "
                    f"by {event.worker} under the claim {event.claim}, which is {owner}'s"
                )
            life = lives.get(event.worker)
            if life is not None and event.recorded_at < life.began_us - CLOCK_US:
                yield f"{workflow_id}: {event.kind} was recorded by {event.worker} before that was born"


def rule_07_all_readers_fold_to_the_same(case: Case) -> Problems:
    """Whoever folds a partition has the same digest of it."""
    if len(case.digests) < 2:
        yield "no two folds were compared"
    for (one, first), (other, second) in pairwise(case.digests.items()):
        for partition, (a, b) in enumerate(zip_longest(first, second)):
            if a != b:
                yield f"partition {partition}: {one} folds to {a}, {other} to {b}"


def rule_09_times_never_go_back(case: Case) -> Problems:
    """Within a stream."""
    for workflow_id, stream in case.audited.streams.items():
        for event, after in pairwise(stream):
            if after.recorded_at < event.recorded_at:
                yield (
                    f"{workflow_id}: {after.kind} at position {after.position} has the time {after.recorded_at}, "
                    f"which is before {event.recorded_at} of the event before it"
                )


def rule_10_what_runs_send_each_other_arrives_once(case: Case) -> Problems:
    """Messages, starts of children, cancels, answers (10, 16, 17, 19); and what clients know to be recorded is."""
    acknowledged: dict[str, list[str]] = {}
    for operation in case.recorded.operations:
        if operation.kind == "send" and operation.outcome == "ok":
            message_id = str(operation.asked["message_id"])
            acknowledged.setdefault(operation.workflow_id, []).append(message_id)
    yield from exchanged(case.audited, case.news, acknowledged)
    for workflow_id, ids in acknowledged.items():
        if workflow_id not in case.audited.streams:
            yield f"{workflow_id} has no stream, and {ids} to it were acknowledged"


def rule_11_nothing_is_done_before_its_time(case: Case) -> Problems:
    """A timer fires once it was started, and neither it nor another attempt comes before it is due."""
    tried: dict[tuple[str, int, int], int] = {}
    for line in case.begun:
        tried.setdefault((line.workflow_id, line.step, line.attempt), line.at_us)
    for workflow_id, stream in case.audited.streams.items():
        due: dict[int, int] = {}
        for event in stream:
            if isinstance(event, TimerStarted):
                due[event.step] = event.due_at
            elif isinstance(event, TimerFired):
                due_at = due.get(event.step)
                if due_at is None:
                    yield f"{workflow_id}/{event.step}: a timer fired that was never started"
                elif event.recorded_at < due_at:
                    yield f"{workflow_id}/{event.step}: a timer fired {due_at - event.recorded_at} µs early"
            elif isinstance(event, StepAttemptFailed) and event.due_at is not None:
                at_us = tried.get((workflow_id, event.step, event.attempt + 1))
                if at_us is not None and at_us < event.due_at:
                    yield f"{workflow_id}/{event.step}: was tried again {event.due_at - at_us} µs early"


def rule_13_every_run_ends(case: Case) -> Problems:
    """Once nothing is broken any more: also children and whoever was called by others."""
    for workflow_id, stream in case.audited.streams.items():
        if not any(isinstance(event, Ended) for event in stream):
            yield f"{workflow_id} never ended; its last event is {stream[-1].kind}"


def no_worker_crashes(case: Case) -> Problems:
    """A worker ends when it is told to, is killed, or can't reach its log; and by itself in no other way."""
    for life in case.recorded.lives:
        if life.exit_code is not None and life.exit_code not in EXITS:
            yield f"{life.name} (process {life.pid}) ended with the exit code {life.exit_code}: see its log"


def no_record_is_unreadable(case: Case) -> Problems:
    """Also among those that do not count."""
    for partition, records in enumerate(case.events):
        for record in records:
            event = decode_event(record)
            if isinstance(event, Unreadable):
                yield f"partition {partition}, offset {record.offset}: {event.reason}"
