"""What came to a run, what it told of itself, and what was done to it, as rows and as pictures."""

import dataclasses
import json
from collections.abc import Sequence
from typing import TypedDict, get_args

import pytest
from rich.console import Console
from tests.golden.make import sample

from refold.log.events import (
    EVENT_CLASSES,
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
    OwnEvent,
    PatchApplied,
    StepCompleted,
    StreamWritten,
    TimerStarted,
    ValuePublished,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowContinued,
    WorkflowFailed,
    WorkflowPaused,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowRewound,
    WorkflowStarted,
    WorkflowTerminated,
    WorkflowWarned,
)
from refold.services.timeline import timeline_of
from refold.services.timeline_json import timeline_json
from refold.services.timeline_rows import Milestone, Operation, State, Stream, Timeline
from refold.services.timeline_view import (
    _MILESTONE_SIGNS,  # pyright: ignore[reportPrivateUsage]
    View,
    draw,
)

S = 1_000_000
T0 = 1_700_000_000 * S
WHY = '{"requested_by":"ada","reason":"too late"}'


class Header(TypedDict):
    """What every event carries."""

    workflow_id: str
    position: int
    recorded_at: int
    claim: int
    command: int
    posted: int
    worker: str


def h(position: int, at_s: float | None = None) -> Header:
    """An event's place, as many seconds after the start as its position says."""
    return Header(
        workflow_id="order-1",
        position=position,
        recorded_at=T0 + round((position if at_s is None else at_s) * S),
        claim=0,
        command=0,
        posted=0,
        worker="w1",
    )


STARTED = WorkflowStarted(**h(0), workflow="checkout", payload="[1]")


def step(position: int, number: int) -> StepCompleted:
    """A step of one second."""
    return StepCompleted(
        **h(position),
        step=number,
        name="charge",
        payload="1",
        attempt=1,
        started_at=T0 + (position - 1) * S,
    )


def child(policy: str) -> ChildRequested:
    """The request for a child as operation 0."""
    return ChildRequested(
        **h(1), step=0, name="ship", target_id="order-1/0", payload="[]", policy=policy
    )


def told(history: Sequence[Event]) -> Timeline:
    return timeline_of("order-1", history)


def only(history: Sequence[Event]) -> Operation:
    """The one operation of a history."""
    (operation,) = told(history).operations
    return operation


def milestones(history: Sequence[Event]) -> list[tuple[str, str]]:
    """What happened to the run as a whole, in words."""
    return [(row.what, row.text) for row in told(history).rows if isinstance(row, Milestone)]


def drawn(history: Sequence[Event], status: str, *, now_s: float = 20) -> str:
    """The picture as text, 110 columns wide."""
    console = Console(width=110, force_terminal=False)
    with console.capture() as capture:
        console.print(draw(told(history), status, None, View(T0 + round(now_s * S), 110)))
    return capture.get()


# Other workflows -------------------------------------------------------------------------------------------------


def test_a_message_is_on_its_way_until_its_receiver_has_it() -> None:
    """Given a message that is sent, then recorded or refused there, its row says how it stands."""
    sent = MessageSent(**h(1), step=0, name="note", target_id="order-2", payload="1")
    confirmed = DeliveryConfirmed(**h(2), step=0, name="note")
    refused = DeliveryRefused(
        **h(2), step=0, name="note", error_type="a:WorkflowNotFound", error_message="no run"
    )
    assert only([STARTED, sent]).state is State.WAITING
    assert only([STARTED, sent, confirmed]).state is State.DONE
    assert only([STARTED, sent, refused]).error == "WorkflowNotFound: no run"
    assert "sent note to order-2 #0  on its way" in drawn([STARTED, sent], "running")
    assert "WorkflowNotFound: no run" in drawn([STARTED, sent, refused], "running")


def test_a_child_goes_on_until_its_end_is_told() -> None:
    """Given a child, its row lasts from the request to its end, with the error where it failed."""
    begun = DeliveryConfirmed(**h(2), step=0, name="ship")
    done = ChildCompleted(**h(5), step=0, name="ship", payload='"sent"')
    failed = ChildFailed(
        **h(5), step=0, name="ship", error_type="app:NoStock", error_message="none left"
    )
    history: list[Event] = [STARTED, child("cancel"), begun]
    assert only(history).state is State.RUNNING
    assert "child ship order-1/0 #0  goes on" in drawn(history, "running")
    ended = only([*history, done])
    assert (ended.state, ended.payload) == (State.DONE, '"sent"')
    assert ended.ended_at == T0 + 5 * S
    assert only([*history, failed]).error == "NoStock: none left"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("cancel", "was cancelled with its parent"),
        ("abandon", "goes on by itself"),
        ("detached", "started, goes on by itself"),
    ],
)
def test_a_child_that_outlives_its_parent_says_what_becomes_of_it(policy: str, words: str) -> None:
    """Given a parent that ends before its child, the child's policy is told."""
    begun = DeliveryConfirmed(**h(2), step=0, name="ship")
    end = WorkflowCompleted(**h(3), payload="null")
    assert words in drawn([STARTED, child(policy), begun, end], "completed")


def test_a_run_says_whose_child_and_which_version_it_is() -> None:
    """Given a child of version 3 with tags and a deadline, its head says all of that."""
    started = WorkflowStarted(
        **h(0),
        workflow="ship",
        payload="[]",
        version=3,
        parent_id="order-9",
        parent_step=4,
        attributes={"customer": "Zoë"},
        due_at=T0 + 80 * S,
    )
    picture = drawn([started], "running")
    for text in (
        "workflow ship version 3",
        "child of order-9 #4",
        "attributes customer=Zoë",
        "deadline in 1 min 00 s",
    ):
        assert text in picture


# Messages and questions ------------------------------------------------------------------------------------------


def test_a_message_that_came_shows_its_sender_and_value() -> None:
    """Given messages from a client and from a workflow, each is a row with what it says."""
    picture = drawn(
        [
            STARTED,
            MessageReceived(**h(1), name="note", payload='"hello"', message_id="m1"),
            MessageReceived(
                **h(2), name="parcel", payload="7", message_id="m2", parent_id="o-2", parent_step=5
            ),
        ],
        "running",
    )
    assert 'received note "hello"' in picture
    assert "received parcel from o-2 #5 7" in picture


def test_a_question_lasts_until_its_answer() -> None:
    """Given questions that are open, answered and refused, their rows say so; two at once are not confused."""
    first = AskReceived(**h(1), name="change", payload="1", message_id="q1")
    second = AskReceived(**h(2), name="change", payload="2", message_id="q2")
    refused = AskAnswered(
        **h(3),
        step=0,
        name="change",
        message_id="q2",
        error_type="a:AskRefused",
        error_message="no",
    )
    answered = AskAnswered(**h(4), step=1, name="change", message_id="q1", payload="true")
    assert "asked change  waits for the answer" in drawn([STARTED, first], "running")
    one, other = told([STARTED, first, second, refused, answered]).operations
    assert (one.state, one.step, one.payload) == (State.DONE, 1, "true")
    assert (other.state, other.step, other.error) == (State.FAILED, 0, "AskRefused: no")
    end = WorkflowCompleted(**h(5), payload="null")
    assert "asked change  not answered" in drawn([STARTED, first, end], "completed")


def test_a_run_that_waits_for_what_no_event_tells_says_where_to_look() -> None:
    """Given a run that asks for nothing, it may wait for a message, which `refold debug` shows."""
    assert "refold debug order-1 --app MODULE" in drawn([STARTED], "running")


# What the run tells of itself ------------------------------------------------------------------------------------


def test_a_stream_is_one_row_however_much_is_written() -> None:
    """Given thousands of writes to two streams, each stream is a row that counts its items."""
    writes = [
        StreamWritten(
            **h(n), step=n, name="tokens" if n % 2 else "log", index=n, count=3, payload="[]"
        )
        for n in range(1, 5_001)
    ]
    timeline = told([STARTED, *writes])
    streams = [row for row in timeline.rows if isinstance(row, Stream)]
    assert [(row.name, row.items) for row in streams] == [("tokens", 7_500), ("log", 7_500)]
    assert len(timeline.rows) == 3
    assert "stream tokens  7,500 items" in drawn([STARTED, *writes], "running")


def test_values_tags_and_patches_are_rows_and_tags_stand_in_the_head() -> None:
    """Given what the code says of its run, each is a row, and the tags are those that hold now."""
    started = WorkflowStarted(**h(0), workflow="w", payload="[]", attributes={"a": "1", "b": "x"})
    history: list[Event] = [
        started,
        PatchApplied(**h(1), name="fees"),
        ValuePublished(**h(2), step=0, name="status", payload='"paid"'),
        AttributesSet(**h(3), step=1, name="attributes", attributes={"b": "true"}),
    ]
    picture = drawn(history, "running")
    assert "patched fees: takes the new path" in picture
    assert 'published status = "paid"' in picture
    assert "attributes a=1 b=true" in picture
    story = timeline_json(told(history), "running", None)
    assert story["attributes"] == {"a": 1, "b": True}


# What is done to a run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parent", "words"),
    [
        ("request", None, "by ada (too late)"),
        ("request", "order-9", "by order-9 #4 (too late)"),
        ("deadline", None, "by its deadline (too late)"),
        ("parent", "order-9", "with its parent (too late)"),
    ],
)
def test_a_request_to_cancel_says_who_and_why(name: str, parent: str | None, words: str) -> None:
    """Given requests of a person, a workflow, the deadline and the parent, each is told as such."""
    request = WorkflowCancelRequested(
        **h(1),
        name=name,
        payload=WHY,
        parent_id=parent,
        parent_step=None if parent is None else 4,
    )
    assert milestones([STARTED, request])[1] == ("cancel requested", words)
    assert "it was asked to cancel" in " ".join(drawn([STARTED, request], "running").split())


def test_a_pause_is_told_with_the_way_out() -> None:
    """Given a paused run, who and why stand in a box with the command; once resumed, in its row."""
    paused = WorkflowPaused(**h(1), payload=WHY)
    picture = drawn([STARTED, paused], "paused")
    assert "halted by ada (too late)" in picture
    assert "refold resume order-1" in picture
    resumed = WorkflowResumed(**h(2), payload=WHY)
    assert "paused by ada (too late)" in drawn([STARTED, paused, resumed], "running")
    assert told([STARTED, paused, resumed]).paused is None


@pytest.mark.parametrize("cls", [WorkflowCancelled, WorkflowTerminated])
def test_an_end_from_outside_is_told_in_a_box(
    cls: type[WorkflowCancelled | WorkflowTerminated],
) -> None:
    """Given a cancelled and a terminated run, the box says why, and what was open is not waited for."""
    timer = TimerStarted(**h(1), step=0, name="sleep", due_at=T0 + 90 * S)
    why = "ada asked for it: too late"
    end: Event = (
        WorkflowTerminated(**h(2), error_type="a:Ended", error_message=why, payload=WHY)
        if cls is WorkflowTerminated
        else WorkflowCancelled(**h(2), error_type="a:Ended", error_message=why)
    )
    status = end.kind.rpartition(".")[2]
    picture = drawn([STARTED, timer, end], status)
    assert picture.count("Ended: ada asked for it: too late") == 1
    assert f"╭─ {status} ─" in picture
    assert only([STARTED, timer, end]).state is State.DROPPED
    story = timeline_json(told([STARTED, timer, end]), status, None)
    assert story["error"] == {
        "type": "a:Ended",
        "message": "ada asked for it: too late",
        "stack": None,
    }


def test_a_rewind_strikes_out_what_no_longer_counts() -> None:
    """Given a run that is rewound to before its second step, that one is undone, and the new one counts."""
    rewound = WorkflowRewound(**h(3), step=1, next_step=2, payload=WHY)
    history: list[Event] = [STARTED, step(1, 0), step(2, 1), rewound, step(4, 2)]
    states = [operation.state for operation in told(history).operations]
    assert states == [State.DONE, State.UNDONE, State.DONE]
    assert "charge #1  no longer counts" in drawn(history, "running")
    assert milestones(history)[1][1] == "by ada (too late) to before #1, goes on as #2"


def test_a_reopened_run_has_no_end_any_more() -> None:
    """Given a failed run that is reopened, its error is gone, its timer waits again, and its later steps are undone."""
    failed = WorkflowFailed(**h(3), error_type="a:B", error_message="m")
    reopened = WorkflowReopened(
        **h(4), step=1, detail=WHY, workflow="checkout", payload="[1]", started_at=T0
    )
    copied = '[{"kind":"step.completed"},{"numbering":{}}]'
    history: list[Event] = [
        STARTED,
        TimerStarted(**h(1), step=0, name="sleep", due_at=T0 + 90 * S),
        step(2, 1),
        failed,
        reopened,
        HistoryCopied(**h(5), payload=copied, name="more"),
    ]
    timeline = told(history)
    assert (timeline.failure, timeline.copied) == (None, 1)
    assert [operation.state for operation in timeline.operations] == [State.WAITING, State.UNDONE]
    assert ("copied", "1 outcome of the history, more is coming") in milestones(history)
    assert "copying: the history that it begins with is still coming" in drawn(history, "copying")
    last = HistoryCopied(**h(6), payload=copied, name="last")
    assert milestones([*history, last])[-1] == ("copied", "2 outcomes of the history")


def test_a_fork_says_of_what() -> None:
    """Given a fork, its head and its first row name the source."""
    fork = WorkflowStarted(**h(0), workflow="w", payload="[]", source_id="order-0", step=7)
    picture = drawn([fork], "copying")
    assert "started as a fork of order-0, before #7" in picture
    assert "the history of order-0 that it begins with is still coming" in picture


def test_a_run_that_is_continued_begins_afresh() -> None:
    """Given a run continued as new, its input and version are the new ones and nothing old is waited for."""
    history: list[Event] = [
        STARTED,
        TimerStarted(**h(1), step=0, name="sleep", due_at=T0 + 90 * S),
        WorkflowContinued(**h(2), payload="[2]", next_step=1, detail="[5,6]", version=2),
        WorkflowWarned(**h(3), name="history_grows", error_message="10,000 events"),
    ]
    timeline = told(history)
    assert (timeline.input, timeline.version) == ("[2]", 2)
    assert only(history).state is State.DROPPED
    picture = drawn(history, "running")
    assert "continued as new from #1, 2 messages kept, with [2]" in picture
    assert "warned 10,000 events" in picture


# All kinds -------------------------------------------------------------------------------------------------------


def test_json_tells_of_requests_streams_and_milestones() -> None:
    """Given --json, rows of every form have their facts as values."""
    history: list[Event] = [
        STARTED,
        CancelSent(**h(1), step=0, name="cancel", target_id="order-2", payload="{}"),
        StreamWritten(**h(2), step=1, name="tokens", index=0, count=2, payload='["a","b"]'),
        MessageReceived(**h(3), name="note", payload='{"a":1}', message_id="m1"),
    ]
    story = json.loads(json.dumps(timeline_json(told(history), "running", None)))
    _, cancel, stream, message = story["rows"]
    assert (cancel["what"], cancel["target_id"], cancel["state"]) == (
        "cancel",
        "order-2",
        "waiting",
    )
    assert (stream["what"], stream["name"], stream["items"]) == ("stream", "tokens", 2)
    assert (message["what"], message["text"], message["value"]) == ("received", "note", {"a": 1})


def test_every_kind_of_event_has_words_of_its_own() -> None:
    """Given the kinds that this release has, none is shown by its bare kind, and every milestone has a sign."""
    own = get_args(OwnEvent)  # of the partition, in no workflow's stream
    for cls in (cls for cls in EVENT_CLASSES if cls not in own):
        event = dataclasses.replace(sample(cls, 0, full=False), **h(0))
        for row in told([event]).rows:
            if isinstance(row, Milestone):
                assert row.what != cls.kind, cls
                assert row.what in _MILESTONE_SIGNS, cls
