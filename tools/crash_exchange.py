"""What must hold of messages, children and cancels after any number of crashes, checked without the fold.

As `crash_audit`, from the log alone and with rules written down again from the design: what a run wants of another
is an event of its own, what came of it is one in the other's stream, and each has at most one of the other.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from crash_audit import Audited, Ended
from refold.log.codec import decode_command
from refold.log.commands import ConfirmDelivery, ReportChild
from refold.log.events import (
    CancelSent,
    ChildCompleted,
    ChildFailed,
    ChildRequested,
    DeliveryConfirmed,
    DeliveryRefused,
    Event,
    MessageReceived,
    MessageSent,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowStarted,
)
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Log, Record

Sent = MessageSent | ChildRequested | CancelSent
Received = MessageReceived | WorkflowStarted | WorkflowCancelRequested
Problems = Iterator[str]

RECEIPTS: Mapping[type[Sent], type[Received]] = {
    MessageSent: MessageReceived,
    ChildRequested: WorkflowStarted,
    CancelSent: WorkflowCancelRequested,
}


class Operation(NamedTuple):
    """What was done by which run: its number names it for ever."""

    workflow_id: str
    step: int


@dataclass(frozen=True, slots=True)
class News:
    """What owners have told each other: the offset of its first command, in the partition of the operation's run.

    Args:
        answers: Whether what an operation sent was recorded.
        ends: How the child that an operation started ended.
    """

    answers: dict[Operation, int] = field(default_factory=dict[Operation, int])
    ends: dict[Operation, int] = field(default_factory=dict[Operation, int])


async def news_in(log: Log) -> News:
    """All news in a log's commands."""
    news = News()
    for partition in range(log.partitions):
        async for batch in log.read(Channel.COMMANDS, partition, 0):
            add_news(batch, news)
    return news


def add_news(commands: Sequence[Record], news: News) -> None:
    """Add the news in some commands of a partition, which come in their order."""
    for record in commands:
        command = decode_command(record)
        if isinstance(command, ConfirmDelivery | ReportChild):
            found = news.ends if isinstance(command, ReportChild) else news.answers
            operation = Operation(command.workflow_id, command.step)
            found.setdefault(operation, record.offset)


def exchanged(audited: Audited, news: News, acknowledged: Mapping[str, Sequence[str]]) -> Problems:
    """All that is wrong between the runs of a log in which every run has ended, in words.

    Args:
        audited: What the log says.
        news: What its commands say.
        acknowledged: Ids of the messages to each run that a client knows to be recorded.
    """
    received = _received(audited)
    sent: set[Operation] = set()
    for sender, stream in audited.streams.items():
        answers = _answers(stream)
        for event in stream:
            if not isinstance(event, Sent):
                continue
            operation = Operation(sender, event.step)
            if operation in sent:
                yield f"{operation} was recorded twice: {event}"
            sent.add(operation)
            arrived = received.get(operation, [])
            answer = answers.pop(event.step, [])
            yield from _delivered(operation, event, arrived, answer)
            if not answer and _consumed(news.answers.get(operation), stream):
                yield f"{operation}: the answer to {event} was lost"
            if isinstance(event, ChildRequested):
                yield from _child(operation, event, audited, news)
        yield from (f"{sender}/{step} was answered and never sent" for step in answers)
    yield from (f"{where} arrived and was never sent" for where in received if where not in sent)
    for receiver, stream in audited.streams.items():
        yield from _messages(receiver, stream, acknowledged.get(receiver, ()))


def between_partitions(audited: Audited, partitions: int) -> Counter[str]:
    """How many of each kind were sent from one partition to another."""
    return Counter(
        event.kind
        for sender, stream in audited.streams.items()
        for event in stream
        if isinstance(event, Sent)
        and partition_of(sender, partitions) != partition_of(event.target_id, partitions)
    )


def _received(audited: Audited) -> dict[Operation, list[tuple[str, Received]]]:
    """What came of each operation: in whose stream, and the event."""
    found: dict[Operation, list[tuple[str, Received]]] = {}
    for receiver, stream in audited.streams.items():
        for event in stream:
            if not isinstance(event, Received):
                continue
            if event.parent_id is not None and event.parent_step is not None:
                operation = Operation(event.parent_id, event.parent_step)
                found.setdefault(operation, []).append((receiver, event))
    return found


def _answers(stream: Sequence[Event]) -> dict[int, list[DeliveryConfirmed | DeliveryRefused]]:
    answers: dict[int, list[DeliveryConfirmed | DeliveryRefused]] = {}
    for event in stream:
        if isinstance(event, DeliveryConfirmed | DeliveryRefused):
            answers.setdefault(event.step, []).append(event)
    return answers


def _delivered(
    operation: Operation,
    event: Sent,
    arrived: Sequence[tuple[str, Received]],
    answers: Sequence[DeliveryConfirmed | DeliveryRefused],
) -> Problems:
    """What was confirmed arrived once and where it should, what was refused did not, and it was said once which."""
    if len(answers) > 1:
        yield f"{operation} was answered {len(answers)} times"
    confirmed = any(isinstance(answer, DeliveryConfirmed) for answer in answers)
    if (confirmed and len(arrived) != 1) or (not confirmed and answers and arrived):
        yield f"{operation}: {event} was answered by {answers}, and arrived {len(arrived)} times"
    if len(arrived) > 1:
        yield f"{operation}: {event} arrived {len(arrived)} times"
    for receiver, receipt in arrived:
        as_sent = isinstance(receipt, RECEIPTS[type(event)]) and (
            not isinstance(receipt, MessageReceived | WorkflowStarted)
            or (
                isinstance(event, MessageSent | ChildRequested) and receipt.payload == event.payload
            )
        )
        if receiver != event.target_id or not as_sent:
            yield f"{operation}: {event} arrived in {receiver} as {receipt}"


def _consumed(offset: int | None, stream: Sequence[Event]) -> bool:
    """Whether a run was still open when its owner took up the command at an offset."""
    return offset is not None and offset <= stream[-1].command


def _child(operation: Operation, event: ChildRequested, audited: Audited, news: News) -> Problems:
    """A parent that was open when it heard how its child ended has recorded it, once, as it was."""
    stream = audited.streams[operation.workflow_id]
    child = audited.streams.get(event.target_id, [])
    ends = [end for end in stream if isinstance(end, ChildCompleted | ChildFailed)]
    told = [end for end in ends if end.step == event.step]
    if len(told) > 1:
        yield f"{operation}: the end of its child was told {len(told)} times"
    if event.policy == "detached":
        if told or operation in news.ends:
            yield f"{operation}: its child is detached, and its end was told"
        return
    if not told and _consumed(news.ends.get(operation), stream):
        yield f"{operation}: the end of its child was lost"
    for end in told:
        if not child or not isinstance(child[-1], Ended) or _end(end) != _end(child[-1]):
            yield f"{operation}: its child ended with {child[-1:]}, and it was told {end}"


def _end(event: Ended | ChildCompleted | ChildFailed) -> tuple[bool, str | None]:
    if isinstance(event, WorkflowCompleted | ChildCompleted):
        return True, event.payload
    return False, event.error_message


def _messages(receiver: str, stream: Sequence[Event], acknowledged: Sequence[str]) -> Problems:
    """A message id stands once in a stream, what a client knows to be there is, and each sender's keep their order."""
    messages = [event for event in stream if isinstance(event, MessageReceived)]
    counts = Counter(message.message_id for message in messages)
    yield from (f"{receiver} received {id} {n} times" for id, n in counts.items() if n > 1)
    yield from (f"{receiver} never received {id}" for id in acknowledged if not counts[id])
    last: dict[str, int] = {}
    for message in messages:
        if message.parent_id is None or message.parent_step is None:
            continue
        if message.parent_step < last.get(message.parent_id, -1):
            yield f"{receiver} received {message} after one that was sent later"
        last[message.parent_id] = message.parent_step
