"""The invariants of what runs have to do with others: messages, children, answers. See `checker.py` for all."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tests.simulation.history import History, Problems

from refold.engine.copied import read_copied
from refold.engine.state import Ended, Sent
from refold.log.commands import SendMessage, StartWorkflow
from refold.log.events import (
    AskAnswered,
    AskReceived,
    AttributesSet,
    CancelSent,
    ChildCompleted,
    ChildFailed,
    ChildRequested,
    DeliveryConfirmed,
    DeliveryRefused,
    Event,
    HistoryCopied,
    MessageReceived,
    MessageSent,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    StreamWritten,
    TimerFired,
    TimerStarted,
    Unreadable,
    ValuePublished,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowContinued,
    WorkflowReopened,
    WorkflowRewound,
    WorkflowStarted,
)

T = TypeVar("T")

CLIENT = "a client"


def _of(stream: Sequence[Event], kind: type[T]) -> Iterator[T]:
    return (event for event in stream if isinstance(event, kind))


def _from(stream: Sequence[Event], kind: type[T], workflow_id: str, step: int) -> list[T]:
    """Events of a kind in a receiver's stream that came from an operation of a workflow."""
    return [
        event
        for event in _of(stream, kind)
        if (getattr(event, "parent_id", None), getattr(event, "parent_step", None))
        == (workflow_id, step)
    ]


def _sent(history: History) -> Iterator[tuple[str, Sequence[Event], Sent]]:
    """All that was sent between runs whose streams can be read: sender, its stream, and the event."""
    audit = history.audit
    for workflow_id, stream in audit.streams.items():
        if workflow_id in audit.broken:
            continue
        for event in stream:
            if isinstance(event, Sent) and event.target_id not in audit.broken:
                yield workflow_id, stream, event


def _answer(stream: Sequence[Event], step: int) -> DeliveryConfirmed | DeliveryRefused | None:
    for event in stream:
        if isinstance(event, DeliveryConfirmed | DeliveryRefused) and event.step == step:
            return event
    return None


def _forgotten(stream: Sequence[Event], event: Event) -> bool:
    """Whether a run waits no more for what came of an operation: it has ended, or begun anew since."""
    if isinstance(stream[-1], Ended):
        return True
    later = [other for other in stream if (other.position or 0) > (event.position or 0)]
    return any(isinstance(other, WorkflowContinued | WorkflowRewound | Ended) for other in later)


def invariant_10_a_message_comes_once_and_is_never_dropped(history: History) -> Problems:
    """What a run sends stands in the receiver's stream exactly once where the sender has it confirmed, and never where
    it has it refused; a client's message stands there once, or was refused. None comes from nowhere.
    """
    audit = history.audit
    refused = {(event.parent_id, event.parent_step) for _, event in audit.refused}
    for sender, stream, event in _sent(history):
        if not isinstance(event, MessageSent):
            continue
        count = len(_from(audit.stream(event.target_id), MessageReceived, sender, event.step))
        answer = _answer(stream, event.step)
        where = f"{sender}/{event.step}: its message to {event.target_id}"
        if isinstance(answer, DeliveryConfirmed) and count != 1:
            yield f"{where} was confirmed and received {count} times"
        elif isinstance(answer, DeliveryRefused) and count:
            yield f"{where} was refused and received"
        elif answer is None and (count > 1 or not (count or (sender, event.step) in refused)):
            yield f"{where} was received {count} times, and not refused"
    yield from _clients_messages(history)
    sent = {(sender, event.step) for sender, _, event in _sent(history)}
    for workflow_id, stream in audit.streams.items():
        if workflow_id in audit.broken:
            continue
        for message in _of(stream, MessageReceived):
            parent = message.parent_id, message.parent_step
            if message.parent_id and message.parent_id not in audit.broken and parent not in sent:
                yield f"{workflow_id}: has a message from {parent} that was never sent"


def _clients_messages(history: History) -> Problems:
    audit = history.audit
    received = Counter(
        (workflow_id, message.message_id)
        for workflow_id, stream in audit.streams.items()
        for message in _of(stream, MessageReceived)
    )
    for (workflow_id, message_id), count in received.items():
        if count > 1:
            yield f"{workflow_id}: has the message {message_id} {count} times"
    refused = {(partition, event.command) for partition, event in audit.refused}
    for partition, commands in enumerate(history.commands):
        for record, command in commands:
            if not isinstance(command, SendMessage | StartWorkflow) or command.parent_id:
                continue
            if command.name is None or command.workflow_id in audit.broken:
                continue
            message_id = command.message_id or command.command_id
            came = received[command.workflow_id, message_id] > 0
            if not came and (partition, record.offset) not in refused:
                yield f"{command.workflow_id}: the message {message_id} was dropped"


def invariant_16_a_child_is_started_once_and_is_no_orphan(history: History) -> Problems:
    """A child's stream begins with its parent's request exactly where that is confirmed. When a parent has ended or
    was asked to cancel, a child that is to be cancelled with it has ended or been asked to, and no other was. While
    its parent is open, a child's end is recorded there, once, as it was.
    """
    audit = history.audit
    for parent, stream, event in _sent(history):
        if not isinstance(event, ChildRequested):
            continue
        child = audit.stream(event.target_id)
        count = len(_from(child, WorkflowStarted, parent, event.step))
        answer = _answer(stream, event.step)
        where = f"{parent}/{event.step}: its child {event.target_id}"
        if isinstance(answer, DeliveryConfirmed) and count != 1:
            yield f"{where} was started {count} times"
        elif isinstance(answer, DeliveryRefused) and count:
            yield f"{where} was refused and started"
        elif answer is None and not _forgotten(stream, event):
            yield f"{where} was neither started nor refused"
        if count == 1:
            yield from _orphaned(where, stream, event, child)
            yield from _end_of_child(where, stream, event, child)
    for workflow_id, stream in audit.streams.items():
        for started in _of(stream, WorkflowStarted):
            parent_id, step = started.parent_id, started.parent_step
            requests = _of(audit.stream(parent_id or ""), ChildRequested)
            known = any(r.step == step and r.target_id == workflow_id for r in requests)
            if parent_id is not None and parent_id not in audit.broken and not known:
                yield f"{workflow_id}: was started by {parent_id}/{step}, which never asked for it"


def _orphaned(
    where: str, stream: Sequence[Event], event: ChildRequested, child: Sequence[Event]
) -> Problems:
    asked = list(_of(child, WorkflowCancelRequested))
    if event.policy != "cancel":
        if any(request.name == "parent" for request in asked):
            yield f"{where} is {event.policy} and was cancelled with its parent"
        return
    ended_at: int | None = None
    for later in stream[(event.position or 0) + 1 :]:
        if isinstance(later, ChildCompleted | ChildFailed) and later.step == event.step:
            return  # it had ended, as far as its parent knew
        if isinstance(later, Ended | WorkflowCancelRequested):
            ended_at = later.position
            break
    if ended_at is not None and not asked and not isinstance(child[-1], Ended):
        yield f"{where} goes on, though its parent ended or was asked to cancel at {ended_at}"


def _end_of_child(
    where: str, stream: Sequence[Event], event: ChildRequested, child: Sequence[Event]
) -> Problems:
    ends = [
        end
        for end in stream
        if isinstance(end, ChildCompleted | ChildFailed) and end.step == event.step
    ]
    if event.policy == "detached":
        if ends:
            yield f"{where} is detached, and its end was told"
        return
    if len(ends) > 1:
        yield f"{where} ended {len(ends)} times"
    last = [end for end in child if isinstance(end, Ended)]
    forgot = any(
        isinstance(later, WorkflowRewound) and later.step <= event.step for later in stream
    ) or any(isinstance(later, Ended) for later in stream)
    if last and not ends and not forgot:
        yield f"{where} ended, and its parent was not told"
    for end in ends:
        told = _result(end)
        if told not in [_result(ended) for ended in last]:
            yield f"{where} ended with {last}, and its parent was told {end}"


def _result(event: Event) -> tuple[str | None, str | None]:
    if isinstance(event, WorkflowCompleted | ChildCompleted):
        return event.payload, None
    return None, getattr(event, "error_message", None)


def invariant_17_what_is_sent_is_answered_once(history: History) -> Problems:
    """Each request to another workflow has exactly one answer, confirmed or refused, unless its run ends or begins anew
    before it comes; nothing else is answered. A confirmed cancel was recorded there once.
    """
    audit = history.audit
    for workflow_id, stream in audit.streams.items():
        if workflow_id in audit.broken:
            continue
        sent: set[int] = set()
        answered: set[int] = set()
        for event in stream:
            if isinstance(event, Sent):
                sent.add(event.step)
            elif isinstance(event, DeliveryConfirmed | DeliveryRefused):
                if event.step not in sent or event.step in answered:
                    yield f"{workflow_id}/{event.step}: has an answer and waited for none: {event}"
                answered.add(event.step)
    for sender, own, request in _sent(history):
        answer = _answer(own, request.step)
        if answer is None and not _forgotten(own, request):
            yield f"{sender}/{request.step}: has no answer: {request}"
        if isinstance(request, CancelSent) and isinstance(answer, DeliveryConfirmed):
            target = audit.stream(request.target_id)
            count = len(_from(target, WorkflowCancelRequested, sender, request.step))
            if count != 1:
                yield f"{sender}/{request.step}: its cancel was recorded {count} times"


def invariant_18_what_is_said_to_be_posted_is(history: History) -> Problems:
    """All that events want of other workflows has been posted in the end, none before its event was in the log, and
    nothing else; and no event counts more of it as posted than stood in the log by then.
    """
    posted: dict[str, int] = {}
    wanted = {want.command.command_id: want.at_us for want in reversed(history.journal.wanted)}
    for record, command in (pair for commands in history.commands for pair in commands):
        if isinstance(command, Unreadable) or not (command.requested_by or "").startswith(
            ("workflow ", "queue ")
        ):
            continue
        posted.setdefault(command.command_id, record.timestamp)
        if record.timestamp < wanted.get(command.command_id, record.timestamp + 1):
            yield f"posted by nobody, or before it was sure: {command}"
    numbers: list[dict[int, int]] = [{} for _ in history.commands]
    for want in history.journal.wanted:
        at_us = posted.get(want.command.command_id)
        if at_us is None:
            yield f"was never posted: {want.command}"
        else:
            numbers[want.partition][want.number] = at_us
    for partition, accepted in enumerate(history.audit.accepted):
        done = 0
        for record, event in accepted:
            while done < event.posted:
                done += 1
                if numbers[partition].get(done, record.timestamp + 1) > record.timestamp:
                    yield f"partition {partition} has {done} as posted too early: {event}"


def invariant_19_a_sender_s_messages_keep_their_order(history: History) -> Problems:
    """One run's messages come to a receiver in the order in which they were sent; so do clients' in the order in which
    they stand in the log.
    """
    for workflow_id, stream in history.audit.streams.items():
        last: dict[str, int] = {}
        for message in _of(stream, MessageReceived):
            by = message.parent_id or CLIENT
            number = message.command if message.parent_step is None else message.parent_step
            if number <= last.get(by, -1):
                yield f"{workflow_id}: {message} came after {last[by]}"
            last[by] = number


def invariant_20_a_question_has_one_answer(history: History) -> Problems:
    """A question stands in a stream once and has one answer at most, until it is rewound; its client heard one of its
    answers. A value that a client heard was published.
    """
    audit = history.audit
    answered: dict[str, list[AskAnswered]] = {}
    for workflow_id, stream in audit.streams.items():
        known: set[str] = set()
        waiting: set[str] = set()
        for event in stream:
            if isinstance(event, AskReceived):
                if event.message_id in known:
                    yield f"{workflow_id}: the question {event.message_id} came twice"
                known.add(event.message_id)
                waiting.add(event.message_id)
            elif isinstance(event, HistoryCopied):
                copied = read_copied(event.payload).outcomes
                waiting |= {ask.message_id for ask in copied if isinstance(ask, AskReceived)}
            elif isinstance(event, WorkflowRewound | WorkflowReopened):
                waiting |= known
            elif isinstance(event, AskAnswered):
                if event.message_id not in waiting and workflow_id not in audit.broken:
                    yield f"{workflow_id}: nobody waits for the answer {event}"
                waiting.discard(event.message_id)
                answered.setdefault(event.message_id, []).append(event)
    for given in history.journal.answers:
        reply = given.reply
        if reply.status == "answered":
            events = answered.get(reply.command_id, [])
            if (reply.payload, reply.error_message) not in [
                (event.payload, event.error_message) for event in events
            ]:
                yield f"{given.client_id} heard {reply}; the log has {events}"
        elif reply.status == "value" and given.reply.workflow_id not in history.queues:
            values = _values(audit.stream(reply.workflow_id)[: given.stream])
            if reply.payload not in values:
                yield f"{given.client_id} heard {reply}, and {values} were published"


def _values(stream: Sequence[Event]) -> set[str]:
    published = {value.payload for value in _of(stream, ValuePublished)}
    for event in _of(stream, HistoryCopied):
        published |= {value.payload for value in read_copied(event.payload).values.values()}
    return published


def invariant_21_a_stream_grows_without_gap(history: History) -> Problems:
    """The items of a stream count 0, 1, 2, ... over all who write to it; a fork's go on from its source's."""
    for workflow_id, stream in history.audit.streams.items():
        ends: dict[str, int] = {}
        for event in stream:
            if isinstance(event, HistoryCopied):
                ends |= read_copied(event.payload).streams
            if not isinstance(event, StreamWritten):
                continue
            if event.index != ends.get(event.name, 0) or event.count < 1:
                yield f"{workflow_id}: {event} does not follow {ends.get(event.name, 0)}"
            ends[event.name] = event.index + event.count


def invariant_22_a_number_names_one_operation(history: History) -> Problems:
    """Within a stream a number stands for one operation for ever, also after it was continued as new or rewound; and
    what an operation asks for is recorded once.
    """
    for workflow_id, stream in history.audit.streams.items():
        if workflow_id in history.audit.broken:
            continue
        known: dict[int, tuple[str, str]] = {}
        floor: tuple[int, int] = (0, 0)  # none of these numbers is used any more
        for event in stream:
            if isinstance(event, WorkflowContinued):
                floor = 0, event.next_step
            elif isinstance(event, WorkflowRewound):
                floor = event.step, event.next_step
            elif (operation := _operation(event)) is not None:
                step, what, name, begins = operation
                if known.setdefault(step, (what, name)) != (what, name):
                    yield f"{workflow_id}/{step}: was {known[step]} and is {(what, name)}"
                if begins and (floor[0] <= step < floor[1]):
                    yield f"{workflow_id}/{step}: was left behind, and comes again: {event}"
        asked: set[int] = set()
        for event in stream:
            if isinstance(event, WorkflowReopened):
                asked.clear()  # what had no answer yet is asked for anew
            elif isinstance(event, Sent | ValuePublished | AskAnswered | AttributesSet):
                if event.step in asked:
                    yield f"{workflow_id}/{event.step}: was asked for twice"
                asked.add(event.step)


def _operation(event: Event) -> tuple[int, str, str, bool] | None:
    """Number, kind and name of the operation that an event belongs to, and whether it is of one that still counts."""
    match event:
        case StepCompleted() | StepFailed() | StepAttemptFailed():
            return event.step, "step", event.name, True
        case TimerStarted() | TimerFired():
            return event.step, "timer", "", True
        case MessageSent() | ChildRequested() | CancelSent():
            return event.step, "call", event.name, True
        case DeliveryConfirmed() | DeliveryRefused():
            return event.step, "call", event.name, True
        case ChildCompleted() | ChildFailed():
            return event.step, "call", event.name, False
        case ValuePublished() | AskAnswered() | AttributesSet():
            return event.step, event.kind, event.name, True
        case StreamWritten() if event.attempt is None:
            return event.step, event.kind, event.name, True
        case _:
            return None
