"""Violations planted into the history of a scene in which all went well, for the checks that must find them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from tests.simulation import exchange_checks as exchange
from tests.simulation import queue_checks as queue
from tests.simulation.corpus import SCENES
from tests.simulation.history import History, Problems
from tests.simulation.trials import lived

from refold.log.events import (
    AskAnswered,
    AskReceived,
    CancelSent,
    ChildCompleted,
    ChildRequested,
    DeliveryConfirmed,
    Event,
    MessageReceived,
    MessageSent,
    QueueSet,
    SlotGranted,
    SlotReleased,
    SlotRequested,
    StepCompleted,
    StreamWritten,
    ValuePublished,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowContinued,
    WorkflowStarted,
)

E = TypeVar("E")
Plant = Callable[[History], None]


def scene_history(name: str) -> History:
    """The history of that scene, undisturbed."""
    return lived(next(scene for scene in SCENES if scene.name == name))


def _find(history: History, kind: type[E], run: str = "") -> tuple[list[Event], E]:
    """The first event of that kind, in a run whose id begins so, and its stream."""
    for workflow_id, stream in sorted(history.audit.streams.items()):
        for event in stream:
            if workflow_id.startswith(run) and isinstance(event, kind):
                return stream, event
    raise AssertionError(f"the scene has no {kind}")


def dropped(kind: type[Any], run: str = "") -> Plant:
    """Such an event is missing."""

    def plant(history: History) -> None:
        stream, event = _find(history, kind, run)
        stream.remove(event)

    return plant


def doubled(kind: type[Any], run: str = "", **changes: object) -> Plant:
    """Such an event is there a second time, with changes."""

    def plant(history: History) -> None:
        stream, event = _find(history, kind, run)
        stream.insert(stream.index(event) + 1, replace(event, **changes))

    return plant


def changed(kind: type[Any], run: str = "", **changes: object) -> Plant:
    """Such an event says something else."""

    def plant(history: History) -> None:
        stream, event = _find(history, kind, run)
        stream[stream.index(event)] = replace(event, **changes)

    return plant


def together(*plants: Plant) -> Plant:
    """All of these."""

    def plant(history: History) -> None:
        for one in plants:
            one(history)

    return plant


def swapped(history: History) -> None:
    """Two messages of one sender have changed places."""
    stream, _ = _find(history, MessageReceived, "collecting")
    first, second = [
        at
        for at, event in enumerate(stream)
        if isinstance(event, MessageReceived) and (event.parent_id or "").startswith("one")
    ][:2]
    stream[first], stream[second] = stream[second], stream[first]


def never_posted(history: History) -> None:
    """Something that was wanted is in no commands."""
    want = history.journal.wanted[0]
    command = replace(want.command, command_id="never")
    history.journal.wanted.append(replace(want, number=99, command=command))


def posted_for_nobody(history: History) -> None:
    """A command was posted that follows from no event."""
    del history.journal.wanted[0]


def posted_too_early(history: History) -> None:
    """A command was posted before its event was in the log."""
    want = history.journal.wanted[0]
    history.journal.wanted[0] = replace(want, at_us=want.at_us + 1_000_000_000_000)


def counted_too_early(history: History) -> None:
    """An event counts more as posted than was."""
    for accepted in history.audit.accepted:
        record, event = accepted[0]
        accepted[0] = record, replace(event, posted=1)


def begun_early(history: History) -> None:
    """The last run of a queue began as early as the first, when it had another's turn."""
    granted = [
        (record.timestamp, partition, at)
        for partition, accepted in enumerate(history.audit.accepted)
        for at, (record, event) in enumerate(accepted)
        if isinstance(event, SlotGranted)
    ]
    _, partition, at = max(granted)
    record, event = history.audit.accepted[partition][at]
    early = record._replace(timestamp=min(granted)[0]), event
    history.audit.accepted[partition][at] = early


def without(kind: type[Any]) -> Plant:
    """The first such event of a partition's own is missing."""

    def plant(history: History) -> None:
        for accepted in history.audit.accepted:
            found = [one for one in accepted if isinstance(one[1], kind)]
            if found:
                accepted.remove(found[0])
                return
        raise AssertionError(f"the scene has no {kind}")

    return plant


def lower_limit(history: History) -> None:
    """The queue's limit was lower than what it gave away."""
    for accepted in history.audit.accepted:
        accepted[:] = [
            (record, replace(event, count=0) if isinstance(event, QueueSet) else event)
            for record, event in accepted
        ]


def heard_wrong(status: str) -> Plant:
    """A client heard something that the code did not say."""

    def plant(history: History) -> None:
        answers = history.journal.answers
        at = next(at for at, given in enumerate(answers) if given.reply.status == status)
        reply = replace(answers[at].reply, payload='"something else"')
        answers[at] = replace(answers[at], reply=reply)

    return plant


def reused_after_continue(history: History) -> None:
    """After it was continued as new, a run uses a number from before."""
    stream, event = _find(history, WorkflowContinued)
    after = stream.index(event)
    at = next(at for at, e in enumerate(stream) if at > after and isinstance(e, StepCompleted))
    step = stream[at]
    assert isinstance(step, StepCompleted)
    stream[at] = replace(step, step=event.next_step - 1)


_MESSAGES: list[tuple[str, Plant]] = [
    ("many to one", dropped(MessageReceived)),
    ("many to one", doubled(MessageReceived)),
    ("many to one", changed(MessageReceived, parent_id="nobody", parent_step=7)),
    ("many to one", dropped(MessageSent)),
    ("impatient", dropped(MessageReceived)),
    ("impatient", doubled(MessageReceived)),
]
_CHILDREN: list[tuple[str, Plant]] = [
    ("parent of one", doubled(WorkflowStarted, "child")),
    ("parent of one", changed(WorkflowStarted, "child", parent_id=None, parent_step=None)),
    ("parent of one", dropped(ChildRequested)),
    ("parent of one", doubled(ChildCompleted)),
    ("parent of one", changed(ChildCompleted, payload="9")),
    (
        "leaving",
        together(dropped(WorkflowCancelRequested, "kept"), dropped(WorkflowCancelled, "kept")),
    ),
    ("leaving", changed(ChildRequested, policy="abandon")),
]
_ANSWERS: list[tuple[str, Plant]] = [
    ("ping-pong", doubled(DeliveryConfirmed)),
    ("ping-pong", dropped(MessageSent)),
    ("unlucky", dropped(CancelSent)),
    ("unlucky", dropped(WorkflowCancelRequested)),
]
_POSTS: list[tuple[str, Plant]] = [
    ("ping-pong", never_posted),
    ("ping-pong", posted_for_nobody),
    ("ping-pong", posted_too_early),
    ("ping-pong", counted_too_early),
]
_QUESTIONS: list[tuple[str, Plant]] = [
    ("answering", doubled(AskReceived)),
    ("answering", doubled(AskAnswered)),
    ("answering", dropped(AskAnswered)),
    ("answering", heard_wrong("answered")),
    ("showing", heard_wrong("value")),
]
_STREAMS: list[tuple[str, Plant]] = [
    ("showing", dropped(StreamWritten)),
    ("showing", changed(StreamWritten, index=7)),
    ("showing", doubled(StreamWritten)),
]
_NUMBERS: list[tuple[str, Plant]] = [
    ("showing", doubled(ValuePublished)),
    ("ping-pong", doubled(MessageSent)),
    ("many to one", doubled(MessageSent, name="other")),
    ("generations", reused_after_continue),
]

_QUEUES: list[tuple[str, Plant]] = [
    ("one by one", begun_early),
    ("one by one", without(SlotRequested)),
    ("one by one", without(SlotGranted)),
    ("one by one", without(QueueSet)),
    ("one by one", lower_limit),
    ("one by one", together(*[without(SlotReleased)] * 3)),
]

PLANTS: list[tuple[Callable[[History], Problems], str, Plant]] = [
    (check, scene, plant)
    for check, plants in (
        (exchange.invariant_10_a_message_comes_once_and_is_never_dropped, _MESSAGES),
        (queue.invariant_12_a_queue_never_runs_more_than_its_limit, _QUEUES),
        (exchange.invariant_16_a_child_is_started_once_and_is_no_orphan, _CHILDREN),
        (exchange.invariant_17_what_is_sent_is_answered_once, _ANSWERS),
        (exchange.invariant_18_what_is_said_to_be_posted_is, _POSTS),
        (exchange.invariant_19_a_sender_s_messages_keep_their_order, [("many to one", swapped)]),
        (exchange.invariant_20_a_question_has_one_answer, _QUESTIONS),
        (exchange.invariant_21_a_stream_grows_without_gap, _STREAMS),
        (exchange.invariant_22_a_number_names_one_operation, _NUMBERS),
    )
    for scene, plant in plants
]
