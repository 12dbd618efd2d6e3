"""What must hold of what clients heard: it is in the log, was there when they heard it, and all heard the same."""

import json
from collections.abc import Iterator
from typing import Final, cast

from chaos_case import Case
from chaos_history import Json, Operation
from chaos_log_rules import CLOCK_US, Problems
from chaos_workflows import ADD, EXPECTED, TOTAL, guest, tally
from crash_audit import Ended
from refold.log.commands import SendMessage, StartWorkflow
from refold.log.events import (
    AskAnswered,
    AskReceived,
    Event,
    MessageReceived,
    StepCompleted,
    ValuePublished,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowStarted,
)

UNKNOWN: Final = frozenset(
    {"ResultTimeout", "AppendUnknown", "LogUnavailable", "EngineClosed", "LogError"}
)
"""Errors by which a client says that it does not know."""
REFUSED: Final = {
    "start": frozenset[str](),
    "send": frozenset({"WorkflowEnded", "WorkflowNotFound"}),
    "ask": frozenset({"WorkflowEnded", "WorkflowNotFound"}),
    "value": frozenset({"WorkflowNotFound"}),
    "cancel": frozenset({"WorkflowEnded", "WorkflowNotFound"}),
    "result": frozenset({"WorkflowNotFound"}),
}
"""Errors that an operation may come to for good."""


def _heard(case: Case, kind: str, outcome: str = "ok") -> Iterator[Operation]:
    return (op for op in case.recorded.operations if op.kind == kind and op.outcome == outcome)


def _error(operation: Operation) -> str:
    return (operation.error or "").partition(":")[0]


def _of(case: Case, run: str, kind: type[Event]) -> list[Event]:
    return [event for event in case.stream(run) if isinstance(event, kind)]


def _by(case: Case, event: Event, operation: Operation) -> bool:
    """Whether the log had an event when an operation came to its end."""
    return operation.ended_us is not None and case.logged_us(event) <= operation.ended_us + CLOCK_US


def rule_01_an_acknowledged_start_is_never_lost(case: Case) -> Problems:
    """A start that was acknowledged is in the log, and was when a worker is said to have accepted it."""
    for operation in _heard(case, "start"):
        stream = case.stream(operation.workflow_id)
        if not stream or not isinstance(stream[0], WorkflowStarted):
            yield f"{operation.workflow_id} is lost: its start was acknowledged: {operation}"
        elif operation.asked["confirm"] and not _by(case, stream[0], operation):
            yield (
                f"{operation.workflow_id} was acknowledged as accepted {operation}; the log took it at "
                f"{case.logged_us(stream[0])}"
            )


def rule_01_what_was_acknowledged_is_never_unknown(case: Case) -> Problems:
    """Nobody hears that there is no such run once its start has been acknowledged to anyone."""
    known_us: dict[str, int] = {}
    for operation in _heard(case, "start"):
        run, at_us = operation.workflow_id, operation.ended_us or 0
        known_us[run] = min(at_us, known_us.get(run, at_us))
    for operation in case.recorded.operations:
        if operation.outcome == "fail" and _error(operation) == "WorkflowNotFound":
            acked_us = known_us.get(operation.workflow_id)
            if acked_us is not None and acked_us < operation.began_us:
                yield f"{operation.workflow_id} was started at {acked_us}, and later not found: {operation}"


def rule_05_a_result_is_the_log_s(case: Case) -> Problems:
    """What a client heard of a run's end is what the log says, and was in the log when it was heard."""
    for operation in _heard(case, "result"):
        run = operation.workflow_id
        end = next((event for event in case.stream(run) if isinstance(event, Ended)), None)
        if end is None:
            yield f"{run} has no end in the log, and a client heard one: {operation}"
        elif _said(end) != _simple(operation.answer):
            yield f"{run} ended with {_said(end)}, and a client heard: {operation}"
        elif not _by(case, end, operation):
            yield f"{run}: its end was heard before the log had it at {case.logged_us(end)}: {operation}"


def _said(end: Event) -> tuple[str, Json]:
    if isinstance(end, WorkflowCompleted):
        return "completed", cast("Json", json.loads(end.payload))
    if isinstance(end, WorkflowCancelled):
        return "cancelled", end.error_message
    return "failed", getattr(end, "error_message", "")


def _simple(answer: Json) -> tuple[str, Json]:
    heard = cast("dict[str, Json]", answer)
    status = str(heard["status"])
    return status, heard["value"] if status == "completed" else heard["message"]


def rule_05_all_clients_hear_the_same(case: Case) -> Problems:
    """Of a run's end, whoever asks and whenever."""
    first: dict[str, Operation] = {}
    for operation in _heard(case, "result"):
        known = first.setdefault(operation.workflow_id, operation)
        if known.answer != operation.answer:
            yield f"{operation.workflow_id} has two results: {known}; and {operation}"


def rule_05_a_result_is_made_of_what_was_recorded(case: Case) -> Problems:
    """A run returns what its workflow gives for its input, out of recorded outcomes of its steps."""
    for run, stream in case.audited.streams.items():
        start, end = stream[0], stream[-1]
        if not isinstance(start, WorkflowStarted) or not isinstance(end, WorkflowCompleted):
            continue
        value = json.loads(end.payload)
        if start.workflow == tally.name:
            yield from _tallied(case, run, value)
        elif start.workflow in EXPECTED:
            yield from _marked(case, start, value)


def _tallied(case: Case, run: str, taken: Json) -> Problems:
    """A tally returns what came, in the order of the log, up to the empty message that ended it."""
    messages = [event for event in case.stream(run) if isinstance(event, MessageReceived)]
    texts = [json.loads(message.payload) for message in messages if message.name == ADD]
    if "" not in texts or texts[: texts.index("")] != taken:
        yield f"{run} returned {taken}; the log has these messages to it: {texts}"


def _marked(case: Case, start: WorkflowStarted, marks: Json) -> Problems:
    run = start.workflow_id or ""
    given = cast("list[dict[str, Json]]", marks)
    n = _input(start)
    expected = EXPECTED[start.workflow](n)
    values = [mark["value"] for mark in given]
    if expected is not None and values != list(expected):
        yield f"{run} returned {values}, and {start.workflow}({n}) gives {expected}"
    recorded = "".join(
        event.payload for event in case.stream(run) if isinstance(event, StepCompleted)
    )
    for mark in given:
        if f'"{mark["token"]}"' not in recorded:
            yield f"{run} returned {mark}, which no recorded step of it gave"


def _input(start: WorkflowStarted) -> int:
    given = cast("list[int] | dict[str, int]", json.loads(start.payload))
    return given["n"] if isinstance(given, dict) else given[0]


def rule_10_what_was_not_written_is_not_there(case: Case) -> Problems:
    """An operation that failed because the log could not be reached has left nothing in it."""
    messages = {command.message_id for command in case.asked if isinstance(command, SendMessage)}
    starts = {command.workflow_id for command in case.asked if isinstance(command, StartWorkflow)}
    tries: dict[str, list[Operation]] = {}
    for operation in case.recorded.operations:
        if operation.kind == "send":
            tries.setdefault(str(operation.asked["message_id"]), []).append(operation)
        elif operation.kind == "start":
            tries.setdefault(operation.workflow_id, []).append(operation)
    for what, operations in tries.items():
        if what in messages | starts and all(
            operation.outcome == "fail" and _error(operation) == "LogUnavailable"
            for operation in operations
        ):
            run = operations[0].workflow_id
            yield f"{run}: {what} was said not to be written, and stands in the log: {operations[0]}"


def rule_10_who_is_told_that_a_run_has_ended_is_told_the_truth(case: Case) -> Problems:
    """What is refused because a run has ended is refused after its end."""
    for operation in case.recorded.operations:
        if operation.outcome == "fail" and _error(operation) == "WorkflowEnded":
            stream = case.stream(operation.workflow_id)
            ends = [event for event in stream if isinstance(event, Ended)]
            if not ends or not _by(case, ends[0], operation):
                yield f"{operation.workflow_id} had not ended when a client was told so: {operation}"


def rule_17_an_acknowledged_cancel_is_recorded(case: Case) -> Problems:
    """With the run that it is for."""
    for operation in _heard(case, "cancel"):
        asked = _of(case, operation.workflow_id, WorkflowCancelRequested)
        if not any(_by(case, event, operation) for event in asked):
            yield f"{operation.workflow_id}: its cancel was acknowledged, and is not recorded: {operation}"
    for run, stream in case.audited.streams.items():
        start, returned = stream[0], isinstance(stream[-1], WorkflowCompleted)
        if isinstance(start, WorkflowStarted) and start.workflow == guest.name and returned:
            yield f"{run} returned, and only a cancel ends it"


def rule_20_an_answer_is_the_log_s(case: Case) -> Problems:
    """What a client heard as an answer is the recorded answer to its question."""
    for operation in _heard(case, "ask"):
        run, token = operation.workflow_id, operation.asked["token"]
        asked = [
            event.message_id
            for event in case.stream(run)
            if isinstance(event, AskReceived) and json.loads(event.payload) == token
        ]
        answers = [
            event
            for event in case.stream(run)
            if isinstance(event, AskAnswered) and event.message_id in asked
        ]
        payloads = [json.loads(event.payload or "null") for event in answers]
        if operation.answer not in payloads:
            yield f"{run}: the log has the answers {payloads}, and a client heard: {operation}"
        elif len(answers) > 1:
            yield f"{run}: the question {token} was answered {len(answers)} times"
        elif not _by(case, answers[0], operation):
            yield f"{run}: an answer was heard before the log had it: {operation}"


def rule_20_answers_never_go_back(case: Case) -> Problems:
    """A count that a client is told is at least what anyone was told before that client asked."""
    answered: dict[str, list[Operation]] = {}
    for operation in _heard(case, "ask"):
        answered.setdefault(operation.workflow_id, []).append(operation)
    for run, operations in answered.items():
        told = sorted(operations, key=lambda operation: operation.ended_us or 0)
        for later in operations:
            for earlier in told:
                if (earlier.ended_us or 0) >= later.began_us:
                    break
                if _count(earlier) > _count(later):
                    yield f"{run}: a count went back: {earlier}; and then {later}"
                    break


def _count(operation: Operation) -> int:
    return int(cast("list[int]", operation.answer)[1])


def rule_20_a_value_was_published(case: Case) -> Problems:
    """What a client read was published by then."""
    for operation in _heard(case, "value"):
        values = [
            event
            for event in case.stream(operation.workflow_id)
            if isinstance(event, ValuePublished) and event.name == TOTAL
        ]
        if not any(
            json.loads(event.payload) == operation.answer and _by(case, event, operation)
            for event in values
        ):
            yield f"{operation.workflow_id}: was read, and not published by then: {operation}"


def values_that_went_back(case: Case) -> list[str]:
    """Reads of a published value that gave an older one than some read before them.

    No violation: a value is what some owner last published, and readers are not put in order. It is counted.
    """
    newest: dict[str, list[Operation]] = {}
    for operation in _heard(case, "value"):
        newest.setdefault(operation.workflow_id, []).append(operation)
    return [
        f"{run}: {earlier}; and then {later}"
        for run, operations in newest.items()
        for later in operations
        for earlier in operations
        if (earlier.ended_us or 0) < later.began_us
        and cast("int", earlier.answer) > cast("int", later.answer)
    ]


def only_expected_errors(case: Case) -> Problems:
    """An operation comes to an answer, to a refusal that is its own, or nobody knows to what."""
    for operation in case.recorded.operations:
        error = _error(operation)
        if operation.error is not None and error not in UNKNOWN | REFUSED[operation.kind]:
            yield f"{operation.workflow_id}: an operation came to an unexpected error: {operation}"
