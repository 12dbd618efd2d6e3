"""Who waits for which run, and how recent runs ended."""

from collections import OrderedDict
from collections.abc import Container
from dataclasses import replace

from refold.engine.effects import Answer, Effect, Lookup
from refold.engine.failures import type_name
from refold.engine.state import Closed, Ended, WorkflowState
from refold.log import errors
from refold.log.commands import Reply, ReplyStatus
from refold.log.events import (
    AskAnswered,
    ValuePublished,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowParked,
)


class Watchers:
    """Clients that wait for runs of one partition, and a bounded memory of results.

    Args:
        max_result_bytes: Memory for results of ended runs; what is older is looked up in the log.
    """

    def __init__(self, max_result_bytes: int) -> None:
        self._max_result_bytes = max_result_bytes
        self._waiting: dict[str, dict[str, str]] = {}  # workflow id -> client id -> command id
        self._for_values: dict[str, dict[str, dict[str, str]]] = {}  # the same for each key
        self._asking: dict[str, dict[str, str]] = {}  # workflow id -> question's id -> client id
        self._results: OrderedDict[str, Reply] = OrderedDict()
        self._result_bytes = 0

    def add(self, workflow_id: str, client_id: str, command_id: str) -> None:
        """Let a client hear how an open run ends. A client that asks again replaces its former question."""
        self._waiting.setdefault(workflow_id, {})[client_id] = command_id

    def told(self, workflow_id: str, reply: Reply) -> list[Answer]:
        """The answers for all who wait for a run that has ended or was parked; they wait no more."""
        waiting = self._waiting.pop(workflow_id, {})
        return [
            Answer(client, replace(reply, command_id=command))
            for client, command in waiting.items()
        ]

    def add_for_value(self, workflow_id: str, key: str, client_id: str, command_id: str) -> None:
        """Let a client hear what an open run publishes under `key`."""
        keys = self._for_values.setdefault(workflow_id, {})
        keys.setdefault(key, {})[client_id] = command_id

    def published(self, event: ValuePublished) -> list[Answer]:
        """The answers for all who wait for a value that was published; they wait no more."""
        waiting = self._for_values.get(event.workflow_id or "", {}).pop(event.name, {})
        return [Answer(client, value_reply(event, command)) for client, command in waiting.items()]

    def add_question(self, workflow_id: str, question: str, client_id: str) -> None:
        """Let a client hear the answer to its question, whose id is that of its command."""
        self._asking.setdefault(workflow_id, {})[question] = client_id

    def answered(self, event: AskAnswered) -> list[Answer]:
        """The answer for the client that asked."""
        client = self._asking.get(event.workflow_id or "", {}).pop(event.message_id, None)
        return [] if client is None else [Answer(client, answer_reply(event))]

    def disappointed(self, workflow_id: str, questions: set[str] | None = None) -> list[Answer]:
        """What those hear whose questions, or awaited values, no answer will come to.

        Args:
            workflow_id: A run that has ended or was continued as new.
            questions: The questions that may still be answered; None where the run has ended.
        """
        answers = [
            Answer(client, _never(workflow_id, question, "without an answer to this question"))
            for question, client in list(self._asking.get(workflow_id, {}).items())
            if questions is None or question not in questions
        ]
        for answer in answers:
            del self._asking[workflow_id][answer.reply.command_id]
        if questions is None:
            self._asking.pop(workflow_id, None)
            for key, waiting in self._for_values.pop(workflow_id, {}).items():
                answers.extend(
                    Answer(client, no_value_reply(workflow_id, key, command))
                    for client, command in waiting.items()
                )
        return answers

    def keep(self, workflow_id: str, reply: Reply) -> None:
        """Remember how a run ended, and forget the oldest results that no longer fit."""
        before = self._results.pop(workflow_id, None)  # of a run that was reopened
        self._results[workflow_id] = reply
        self._result_bytes += _size(reply) - (0 if before is None else _size(before))
        while self._result_bytes > self._max_result_bytes:
            _, oldest = self._results.popitem(last=False)
            self._result_bytes -= _size(oldest)

    def forget_all_but(self, known: Container[str]) -> None:
        """Let go of the results of runs that the partition has forgotten: nobody gets them from memory any more."""
        for workflow_id in [id_ for id_ in self._results if id_ not in known]:
            self._result_bytes -= _size(self._results.pop(workflow_id))

    def result(self, workflow_id: str, closed: Closed, client_id: str, command_id: str) -> Effect:
        """How an ended run ended: from memory, else by a look into the log."""
        known = self._results.get(workflow_id)
        if known is None:
            return Lookup(
                workflow_id, client_id, command_id, offset=closed.offset, claim=closed.claim
            )
        return Answer(client_id, replace(known, command_id=command_id))

    def abandoned(self) -> list[Answer]:
        """What all who wait are told when the partition is lost: ask again."""
        answers: list[Answer] = []
        for workflow_id, waiting in self._waiting.items():
            answers.extend(_unknown(workflow_id, waiting))
        for workflow_id, keys in self._for_values.items():
            for waiting in keys.values():
                answers.extend(_unknown(workflow_id, waiting))
        for workflow_id, asking in self._asking.items():
            answers.extend(_unknown(workflow_id, {c: question for question, c in asking.items()}))
        self._waiting.clear()
        self._for_values.clear()
        self._asking.clear()
        return answers


def _unknown(workflow_id: str, waiting: dict[str, str]) -> list[Answer]:
    return [
        Answer(client, Reply(command_id=command, workflow_id=workflow_id, status="unknown"))
        for client, command in waiting.items()
    ]


def _never(workflow_id: str, command_id: str, what: str) -> Reply:
    return Reply(
        command_id=command_id,
        workflow_id=workflow_id,
        status="refused",
        error_type=type_name(errors.WorkflowEnded),
        error_message=f"workflow {workflow_id!r} has ended, or begun anew, {what}",
    )


def no_value_reply(workflow_id: str, key: str, command_id: str) -> Reply:
    """The reply that tells that a run has ended and a value will never come."""
    return _never(workflow_id, command_id, f"and has published nothing under the key {key!r}")


def value_reply(event: ValuePublished, command_id: str) -> Reply:
    """The reply that tells a published value."""
    return Reply(
        command_id=command_id,
        workflow_id=event.workflow_id or "",
        status="value",
        payload=event.payload,
    )


def answer_reply(event: AskAnswered) -> Reply:
    """The reply that tells the code's answer to a question."""
    return Reply(
        command_id=event.message_id,
        workflow_id=event.workflow_id or "",
        status="answered",
        payload=event.payload,
        error_type=event.error_type,
        error_message=event.error_message,
    )


def ended_reply(event: Ended, command_id: str = "") -> Reply:
    """The reply that tells how a run ended."""
    workflow_id = event.workflow_id or ""
    if isinstance(event, WorkflowCompleted):
        return Reply(
            command_id=command_id,
            workflow_id=workflow_id,
            status="completed",
            payload=event.payload,
        )
    if isinstance(event, WorkflowFailed):
        return Reply(
            command_id=command_id,
            workflow_id=workflow_id,
            status="failed",
            payload=event.payload,
            error_type=event.error_type,
            error_message=event.error_message,
            error_stack=event.error_stack,
        )
    status: ReplyStatus = "cancelled" if isinstance(event, WorkflowCancelled) else "terminated"
    return Reply(
        command_id=command_id,
        workflow_id=workflow_id,
        status=status,
        error_type=event.error_type,
        error_message=event.error_message,
    )


def parked_reply(workflow_id: str, state: WorkflowState, command_id: str = "") -> Reply:
    """The reply that tells why a run waits for a person."""
    return Reply(
        command_id=command_id,
        workflow_id=workflow_id,
        status="parked",
        error_type=type_name(errors.WorkflowParked),
        error_message=why_parked(workflow_id, reason_of(state.parked), state.broken),
    )


def reason_of(parked: WorkflowParked | None) -> str | None:
    """What was recorded of why a run is parked."""
    return None if parked is None else parked.error_message


def why_parked(workflow_id: str, reason: str | None, broken: str | None) -> str:
    """Why a run waits for a person, and what that person can do.

    Args:
        workflow_id: The run.
        reason: What was recorded of it.
        broken: Why its history can't be followed; None where it can.
    """
    if broken is not None:
        return (
            f"workflow {workflow_id!r} is parked, its history can't be followed: {broken}. "
            f"Look at it with `refold history {workflow_id}`; a newer release may be able to read it"
        )
    return (
        f"workflow {workflow_id!r} is parked: {reason or 'no reason was recorded'}. "
        f"Fix the cause, deploy, then `refold resume {workflow_id}`"
    )


def _size(reply: Reply) -> int:
    """Bytes that a kept reply takes, near enough: 300 for the objects around its text."""
    texts = (reply.payload, reply.error_message, reply.error_stack)
    return 300 + sum(len(text) for text in texts if text is not None)
