"""What clients and other workflows are told of their commands: accepted, refused, or an answer."""

from refold.engine.active import Detail
from refold.engine.effects import Answer, Lookup
from refold.engine.failures import type_name
from refold.engine.ledger import Ledger
from refold.log.commands import Command, Reply
from refold.log.errors import RefoldError, WorkflowNotFound
from refold.log.events import CommandRefused


class Answers:
    """Answers of one owner, each held until the event that it follows from is confirmed.

    Args:
        ledger: Where refusals are recorded and answers are held.
        partition: The partition's number.
    """

    def __init__(self, ledger: Ledger, partition: int) -> None:
        self._ledger = ledger
        self._partition = partition

    def give(self, command: Command, sequence: int, reply: Reply) -> None:
        """Reply to a command once the event with this sequence number is confirmed."""
        if command.reply_to is not None:
            self._ledger.hold(sequence, Answer(command.reply_to, reply))

    def accept(self, command: Command, sequence: int) -> None:
        """Say that a command is accepted, likewise."""
        reply = Reply(
            command_id=command.command_id, workflow_id=command.workflow_id, status="accepted"
        )
        self.give(command, sequence, reply)

    def refuse(self, command: Command, error: RefoldError, now: int) -> None:
        """Record that a command is refused, and say so; an operation of another workflow hears of it as well."""
        sequence = self.refusal(
            command.workflow_id,
            command.kind,
            error,
            now,
            getattr(command, "parent_id", None),
            getattr(command, "parent_step", None),
        )
        self.give(command, sequence, refused_reply(command, error))

    def refusal(  # noqa: PLR0917 - each a column
        self,
        workflow_id: str | None,
        name: str,
        error: RefoldError,
        now: int,
        parent_id: str | None = None,
        parent_step: int | None = None,
    ) -> int:
        """Record that something is refused; returns the event's sequence number."""
        return self._ledger.record(
            CommandRefused(
                **self._ledger.header(workflow_id, None, now),
                partition=self._partition,
                name=name,
                error_type=type_name(type(error)),
                error_message=str(error),
                parent_id=parent_id,
                parent_step=parent_step,
            )
        )


def who(command: Command) -> Detail:
    """Who asks and why, for the audit."""
    reason: str | None = getattr(command, "reason", None)
    return {"requested_by": command.requested_by, "reason": reason}


def not_found(workflow_id: str) -> WorkflowNotFound:
    """The error for an id that no run has."""
    return WorkflowNotFound(
        f"no workflow has the id {workflow_id!r}: start it first, or check the id"
    )


def refused_reply(command: Command | Lookup, error: RefoldError) -> Reply:
    """The reply that tells of a refusal."""
    return Reply(
        command_id=command.command_id,
        workflow_id=command.workflow_id,
        status="refused",
        error_type=type_name(type(error)),
        error_message=str(error),
    )
