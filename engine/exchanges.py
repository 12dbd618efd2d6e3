"""What reaches an open run from clients and from other workflows: messages, questions, answers, ends of children.

What comes from another workflow's operation comes at least once and counts once: a message by its id, an answer because
the operation has none yet, the end of a child because it is open still. A refusal is told to the operation.
"""

from refold.engine.active import Active
from refold.engine.answers import Answers, not_found, refused_reply, who
from refold.engine.open_runs import OpenRuns
from refold.engine.state import PartitionState
from refold.engine.watchers import Watchers, answer_reply
from refold.log.commands import (
    AskWorkflow,
    CancelWorkflow,
    Command,
    ConfirmDelivery,
    ReportChild,
    SendMessage,
)
from refold.log.errors import AskRefused, RefoldError, WorkflowEnded
from refold.log.errors import CommandRefused as RefusedError
from refold.log.events import (
    AskReceived,
    ChildCompleted,
    ChildFailed,
    DeliveryConfirmed,
    DeliveryRefused,
    MessageReceived,
)


class Exchanges:
    """What comes in for the open runs of one owner.

    Args:
        state: The partition's fold.
        open_runs: The runs.
        watchers: Which clients wait for answers.
        answers: How commands are answered.
    """

    def __init__(
        self, state: PartitionState, open_runs: OpenRuns, watchers: Watchers, answers: Answers
    ) -> None:
        self._state = state
        self._open = open_runs
        self._watchers = watchers
        self._answers = answers

    def send(self, command: SendMessage, now: int) -> None:
        """A message."""
        active = self._open.find(command.workflow_id)
        if active is not None and command.message_id in active.state.exchange.seen:
            self._answers.accept(command, active.last_sequence)  # an operation has been answered
            return
        if active is None or active.state.broken is not None:
            self._answers.refuse(command, self._why_closed(command, active), now)
            return
        event = MessageReceived(
            **self._open.header(active, now),
            name=command.name,
            payload=command.payload,
            encoding=command.encoding,
            message_id=command.message_id,
            parent_id=command.parent_id,
            parent_step=command.parent_step,
        )
        self._answers.accept(command, self._open.tell(active, event, now))

    def ask(self, command: AskWorkflow, now: int) -> None:
        """A question: it is validated first, and nothing is recorded where that refuses it."""
        workflow_id, question = command.workflow_id, command.command_id
        active = self._open.find(workflow_id)
        if active is None or active.state.broken is not None:
            self._answers.refuse(command, self._why_closed(command, active), now)
            return
        exchange = active.state.exchange
        answer = exchange.answers.get(question)
        if answer is not None:
            self._answers.give(command, active.last_sequence, answer_reply(answer))
            return
        if question in exchange.seen and question not in exchange.asked:
            error = WorkflowEnded(
                f"workflow {workflow_id!r} has begun anew without an answer to this question"
            )
            self._answers.give(command, active.last_sequence, refused_reply(command, error))
            return
        if question not in exchange.seen:
            reason = self._open.refusal(active, command.name, command.payload, now)
            if reason is not None:
                reason = self._open.note(active, reason)
                refused = AskRefused(
                    f"workflow {workflow_id!r} refuses the question on {command.name!r}: {reason}"
                )
                # Nothing is recorded: a refused question changes nothing, and may be asked again.
                self._answers.give(command, active.last_sequence, refused_reply(command, refused))
                return
        self._answers.accept(command, active.last_sequence)
        if command.reply_to is not None:
            self._watchers.add_question(workflow_id, question, command.reply_to)
        if question not in exchange.seen:
            event = AskReceived(
                **self._open.header(active, now),
                name=command.name,
                payload=command.payload,
                encoding=command.encoding,
                message_id=question,
            )
            self._open.tell(active, event, now)

    def confirm(self, command: ConfirmDelivery, now: int) -> None:
        """The answer to what an operation of a run has sent."""
        active = self._open.find(command.workflow_id)
        if active is None:
            return
        sent = active.state.exchange.requests.get(command.step)
        if sent is None or active.state.broken is not None:
            return  # a repeat
        header = self._open.header(active, now)
        if command.error_type is None:
            confirmed = DeliveryConfirmed(**header, step=command.step, name=sent.name)
            self._open.tell(active, confirmed, now)
            return
        refused = DeliveryRefused(
            **header,
            step=command.step,
            name=sent.name,
            error_type=command.error_type,
            error_message=command.error_message or "",
        )
        self._open.tell(active, refused, now)

    def child_ended(self, command: ReportChild, now: int) -> None:
        """How a child has ended."""
        active = self._open.find(command.workflow_id)
        if active is None or active.state.broken is not None:
            return
        child = active.state.exchange.children.get(command.step)
        if child is None:
            return  # a repeat
        header = self._open.header(active, now)
        if command.error_type is None:
            completed = ChildCompleted(
                **header, step=command.step, name=child.name, payload=command.payload or "null"
            )
            self._open.tell(active, completed, now)
            return
        failed = ChildFailed(
            **header,
            step=command.step,
            name=child.name,
            error_type=command.error_type,
            error_message=command.error_message or "",
            error_stack=command.error_stack,
            payload=command.payload,
            encoding=command.encoding,
        )
        self._open.tell(active, failed, now)

    def cancel(self, command: CancelWorkflow, now: int) -> None:
        """A request to cancel."""
        active = self._open.find(command.workflow_id)
        if active is None or active.state.broken is not None:
            if command.name != "parent":  # to a parent it is all one
                self._answers.refuse(command, self._why_closed(command, active), now)
            return
        exchange = active.state.exchange
        again = (
            exchange.cancel is not None
            if command.name == "parent"
            else f"{command.parent_id}/{command.parent_step}" in exchange.seen
        )
        if again:
            return  # a repeat
        detail = who(command)
        sequence = self._open.cancel(
            active,
            detail,
            name=command.name,
            now=now,
            parent_id=command.parent_id,
            parent_step=command.parent_step,
        )
        self._answers.accept(command, sequence)

    def _why_closed(self, command: Command, active: Active | None) -> RefoldError:
        workflow_id = command.workflow_id
        if active is not None:
            return RefusedError(
                f"workflow {workflow_id!r} takes nothing any more, its history can't be followed: "
                f"{active.state.broken}"
            )
        closed = self._state.closed.get(workflow_id)
        if closed is None:
            return not_found(workflow_id)
        return WorkflowEnded(
            f"workflow {workflow_id!r} has ended ({closed.status}): it takes nothing any more"
        )
