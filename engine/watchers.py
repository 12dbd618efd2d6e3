"""Who waits for which run, and how recent runs ended."""

from collections import OrderedDict
from dataclasses import replace

from refold.engine.effects import Answer, Effect, Lookup
from refold.engine.fold import WorkflowState
from refold.log.commands import Reply
from refold.log.events import WorkflowCompleted, WorkflowFailed, WorkflowParked


class Watchers:
    """Clients that wait for runs of one partition, and a bounded memory of results.

    Args:
        max_result_bytes: Memory for results of ended runs; what is older is looked up in the log.
    """

    def __init__(self, max_result_bytes: int) -> None:
        self._max_result_bytes = max_result_bytes
        self._waiting: dict[str, dict[str, str]] = {}  # workflow id -> client id -> command id
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

    def keep(self, workflow_id: str, reply: Reply) -> None:
        """Remember how a run ended, and forget the oldest results that no longer fit."""
        self._results[workflow_id] = reply
        self._result_bytes += _size(reply)
        while self._result_bytes > self._max_result_bytes:
            _, oldest = self._results.popitem(last=False)
            self._result_bytes -= _size(oldest)

    def result(self, workflow_id: str, client_id: str, command_id: str) -> Effect:
        """How an ended run ended: from memory, else by a look into the log."""
        known = self._results.get(workflow_id)
        if known is None:
            return Lookup(workflow_id, client_id, command_id)
        return Answer(client_id, replace(known, command_id=command_id))

    def abandoned(self) -> list[Answer]:
        """What all who wait are told when the partition is lost: ask again."""
        answers = [
            Answer(client, Reply(command_id=command, workflow_id=workflow_id, status="unknown"))
            for workflow_id, waiting in self._waiting.items()
            for client, command in waiting.items()
        ]
        self._waiting.clear()
        return answers


def ended_reply(event: WorkflowCompleted | WorkflowFailed, command_id: str = "") -> Reply:
    """The reply that tells how a run ended."""
    workflow_id = event.workflow_id or ""
    if isinstance(event, WorkflowCompleted):
        return Reply(
            command_id=command_id,
            workflow_id=workflow_id,
            status="completed",
            payload=event.payload,
        )
    return Reply(
        command_id=command_id,
        workflow_id=workflow_id,
        status="failed",
        payload=event.payload,
        error_type=event.error_type,
        error_message=event.error_message,
        error_stack=event.error_stack,
    )


def parked_reply(workflow_id: str, state: WorkflowState, command_id: str = "") -> Reply:
    """The reply that tells why a run waits for a person."""
    return Reply(
        command_id=command_id,
        workflow_id=workflow_id,
        status="parked",
        error_type="refold.log.errors:WorkflowParked",
        error_message=why_parked(workflow_id, state.parked, state.broken),
    )


def why_parked(workflow_id: str, parked: WorkflowParked | None, broken: str | None) -> str:
    """Why a run waits for a person, and what that person can do."""
    if broken is not None:
        return (
            f"workflow {workflow_id!r} is parked, its history can't be followed: {broken}. "
            f"Look at it with `refold history {workflow_id}`; a newer release may be able to read it"
        )
    reason = parked.error_message if parked is not None else "no reason was recorded"
    return (
        f"workflow {workflow_id!r} is parked: {reason}. "
        f"Fix the cause, deploy, then `refold resume {workflow_id}`"
    )


def _size(reply: Reply) -> int:
    """Bytes that a kept reply takes, near enough: 300 for the objects around its text."""
    texts = (reply.payload, reply.error_message, reply.error_stack)
    return 300 + sum(len(text) for text in texts if text is not None)
