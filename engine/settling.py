"""What became of a command whose reply did not come: found in the log, where the truth is.

A command is durable and is consumed once, so it need not be given twice, and an order that is not idempotent must not
be. The event that it caused carries its offset; where it was refused, that is an event too.
"""

from collections.abc import AsyncIterator
from typing import Final

from refold.engine.answers import refused_reply
from refold.engine.copied import read_copied
from refold.engine.reader import trimmed_away
from refold.engine.state import Ended
from refold.engine.watchers import answer_reply, no_value_reply, value_reply
from refold.log.accepted import Accepted
from refold.log.chain_walk import beginning
from refold.log.commands import (
    AskWorkflow,
    CancelWorkflow,
    Command,
    CopyHistory,
    EraseSubject,
    ForkWorkflow,
    LookAtQueue,
    PauseWorkflow,
    ReopenWorkflow,
    Reply,
    ResumeWorkflow,
    RewindWorkflow,
    SendMessage,
    SetQueue,
    StartWorkflow,
    TerminateWorkflow,
    WatchValue,
    WatchWorkflow,
)
from refold.log.events import (
    AskAnswered,
    CommandRefused,
    Event,
    HistoryCopied,
    MessageReceived,
    QueueSet,
    SubjectErased,
    Unreadable,
    ValuePublished,
    WorkflowCancelRequested,
    WorkflowPaused,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowRewound,
    WorkflowStarted,
    WorkflowTerminated,
)
from refold.log.protocol import Channel, Log

Repeatable = StartWorkflow | SendMessage | AskWorkflow | WatchWorkflow | WatchValue | LookAtQueue
"""Commands that change nothing when they come twice: their client sends them again."""

_CAUSES: Final[dict[type[Command], type[Event]]] = {
    CancelWorkflow: WorkflowCancelRequested,
    TerminateWorkflow: WorkflowTerminated,
    PauseWorkflow: WorkflowPaused,
    ResumeWorkflow: WorkflowResumed,
    RewindWorkflow: WorkflowRewound,
    ReopenWorkflow: WorkflowReopened,
    ForkWorkflow: WorkflowStarted,
    CopyHistory: HistoryCopied,
    EraseSubject: SubjectErased,
    SetQueue: QueueSet,
}


async def order_reply(log: Log, command: Command, offset: int) -> Reply | None:
    """The reply to the order at `offset` of its partition's commands; None where it has not been consumed."""
    async for event in _events(log, command.workflow_id):
        if isinstance(event, Unreadable) or event.command != offset:
            continue
        if isinstance(event, CommandRefused) and event.name == command.kind:
            return _reply(command, event)
        if isinstance(event, _CAUSES[type(command)]) and not _by_deadline(event):
            return _reply(command)
    start = await beginning(log, log.layout.place(command.workflow_id))
    if offset <= start.command:
        told = f"what became of the order {command.kind} to workflow {command.workflow_id!r} was trimmed"
        return refused_reply(command, trimmed_away(told, start))
    return None


async def message_reply(log: Log, command: SendMessage | StartWorkflow) -> Reply | None:
    """The reply to a message that is there, whatever has become of its receiver; None where it is not."""
    message_id = command.message_id or command.command_id
    async for event in _events(log, command.workflow_id):
        if isinstance(event, MessageReceived) and event.message_id == message_id:
            return _reply(command)
    return None


async def question_reply(log: Log, command: AskWorkflow) -> Reply | None:
    """The answer to a question, whatever has become of the workflow since; None where there is none."""
    async for event in _events(log, command.workflow_id):
        if isinstance(event, AskAnswered) and event.message_id == command.command_id:
            return answer_reply(event)
    return None


async def known_value(log: Log, command: WatchValue) -> Reply | None:
    """What the log alone says of a published value; None where it is still to come."""
    published: ValuePublished | None = None
    ended = False
    async for event in _events(log, command.workflow_id):
        match event:
            case ValuePublished(name=command.name):
                published = event
            case HistoryCopied():
                copied = read_copied(event.payload).values
                if command.name in copied:
                    published = copied[command.name]
            case WorkflowReopened():
                ended = False
            case WorkflowStarted():  # perhaps of an id that was used before
                published, ended = None, False
            case _:
                ended = ended or isinstance(event, Ended)
    if published is not None:
        return value_reply(published, command.command_id)
    if ended:
        return no_value_reply(command.workflow_id, command.name, command.command_id)
    return None


async def _events(log: Log, workflow_id: str) -> AsyncIterator[Event | Unreadable]:
    """What counts of a stream, with the refusals of commands to it."""
    partition = log.layout.place(workflow_id)
    start = await beginning(log, partition)
    accepted = Accepted(start.claim)
    async for batch in log.read(Channel.EVENTS, partition, start.offset, key=workflow_id):
        for record in batch:
            event = accepted.take(record)
            if event is not None:
                yield event


def _by_deadline(event: Event) -> bool:
    """Whether a run was cancelled by its deadline: such an event carries the last command's offset as well."""
    return isinstance(event, WorkflowCancelRequested) and event.name == "deadline"


def _reply(command: Command, refused: CommandRefused | None = None) -> Reply:
    return Reply(
        command_id=command.command_id,
        workflow_id=command.workflow_id,
        status="accepted" if refused is None else "refused",
        error_type=None if refused is None else refused.error_type,
        error_message=None if refused is None else refused.error_message,
    )
