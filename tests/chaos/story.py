"""A sound history, small enough to read, which plants spoil: four runs on one partition, under one claim.

Event n is recorded at second n. The run `w` does a step, sleeps and does another; `t` is a tally of one message, who
was asked once; `g` is a guest who is asked to leave; `r` does a step that fails once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict

from chaos_case import Case
from chaos_history import Fault, Json, Life, Operation, Recorded
from chaos_workflows import ADD, TOTAL, guest, tally
from crash_audit import Begun
from crash_shapes import paused
from refold.log.codec import GENESIS, encode_command, encode_event, link_claim
from refold.log.commands import Command, SendMessage, StartWorkflow
from refold.log.events import (
    AskAnswered,
    AskReceived,
    Event,
    MessageReceived,
    PartitionClaimed,
    StepAttemptFailed,
    StepCompleted,
    TimerFired,
    TimerStarted,
    ValuePublished,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowStarted,
)
from refold.log.protocol import Record

WORKER, PID = "worker-1.1", 17
ORIGIN_US = 1_700_000_000_000_000
CLIENT, OTHER = "client-1.1", "client-2.1"


def at(second: float) -> int:
    """A second of the story, as a time."""
    return ORIGIN_US + round(second * 1_000_000)


class Base(TypedDict):
    """The fields of every event."""

    workflow_id: str
    position: int
    recorded_at: int
    claim: int
    command: int
    posted: int
    worker: str


def base(run: str, second: float) -> Base:
    """Those fields; positions are counted when the story is told."""
    return Base(
        workflow_id=run,
        position=0,
        recorded_at=at(second),
        claim=0,
        command=0,
        posted=0,
        worker=WORKER,
    )


CLAIM = PartitionClaimed(
    workflow_id=None,
    position=None,
    recorded_at=at(0),
    claim=-1,
    command=-1,
    posted=0,
    worker=WORKER,
    partition=0,
)


def mark(value: int) -> str:
    """What a step that marks returns."""
    return json.dumps({"value": value, "token": f"token-{value}"})


def step(run: str, second: float, number: int, payload: str, attempt: int = 1) -> StepCompleted:
    """A step's outcome."""
    return StepCompleted(
        **base(run, second),
        step=number,
        name="mark",
        payload=payload,
        attempt=attempt,
        started_at=at(second - 0.5),
    )


def started(run: str, second: float, workflow: str) -> WorkflowStarted:
    """A run's start, with the input 1."""
    return WorkflowStarted(**base(run, second), workflow=workflow, payload="[1]")


def completed(run: str, second: float, payload: str) -> WorkflowCompleted:
    """A run's end."""
    return WorkflowCompleted(**base(run, second), payload=payload)


def message(second: float, text: str, message_id: str) -> MessageReceived:
    """A message to the tally."""
    payload = json.dumps(text)
    return MessageReceived(**base("t", second), name=ADD, payload=payload, message_id=message_id)


def published(second: float, number: int, value: int) -> ValuePublished:
    """The tally publishes what it has counted."""
    return ValuePublished(**base("t", second), step=number, name=TOTAL, payload=str(value))


def asked(second: float, token: str) -> AskReceived:
    """A question to the tally; its id is its token."""
    payload = json.dumps(token)
    return AskReceived(**base("t", second), name=TOTAL, payload=payload, message_id=token)


def answered(second: float, number: int, token: str, count: int) -> AskAnswered:
    """The answer to it."""
    payload = json.dumps([token, count])
    return AskAnswered(
        **base("t", second), step=number, name=TOTAL, message_id=token, payload=payload
    )


def sound_events() -> list[Event]:
    """The log of the story, in order."""
    return [
        CLAIM,
        started("w", 1, paused.name),
        step("w", 2, 0, mark(10)),
        TimerStarted(**base("w", 3), step=1, name="sleep", due_at=at(4)),
        TimerFired(**base("w", 4), step=1, name="sleep"),
        step("w", 5, 2, mark(11)),
        completed("w", 6, f"[{mark(10)}, {mark(11)}]"),
        started("t", 7, tally.name),
        published(8, 0, 0),
        message(9, "m1", "m1"),
        step("t", 10, 1, mark(1)),
        published(11, 2, 1),
        asked(12, "q1"),
        answered(13, 3, "q1", 1),
        message(14, "", "end-of-t"),
        completed("t", 15, '["m1"]'),
        started("g", 16, guest.name),
        WorkflowCancelRequested(**base("g", 17), name="request", payload="{}"),
        WorkflowCancelled(**base("g", 18), error_type="cancelled", error_message="it was asked to"),
        started("r", 19, "mends"),
        StepAttemptFailed(
            **base("r", 20),
            step=0,
            name="flaky",
            attempt=1,
            started_at=at(19.5),
            error_type="builtins:ConnectionError",
            error_message="away",
            due_at=at(20.5),
        ),
        step("r", 21, 0, mark(5), attempt=2),
        completed("r", 22, "5"),
    ]


Outcome = Literal["ok", "fail", "info"]


def did(
    number: int,
    kind: str,
    run: str,
    began: float,
    ended: float,
    answer: Json = None,
    asked_for: Mapping[str, Json] | None = None,
    process: str = CLIENT,
    outcome: Outcome = "ok",
    error: str | None = None,
) -> Operation:
    """An operation of a client."""
    return Operation(
        process, 0, number, kind, run, asked_for or {}, at(began), outcome, at(ended), answer, error
    )


def sound_operations() -> list[Operation]:
    """What the story's clients did."""
    marks: list[Json] = [json.loads(mark(10)), json.loads(mark(11))]
    result: dict[str, Json] = {"status": "completed", "value": marks}
    confirmed: dict[str, Json] = {"confirm": True}
    return [
        did(1, "start", "w", 0.5, 1.2, asked_for=confirmed),
        did(2, "result", "w", 1.3, 6.1, result),
        did(3, "result", "w", 7.0, 7.1, result, process=OTHER),
        did(4, "start", "t", 6.5, 7.2, asked_for=confirmed),
        did(5, "send", "t", 8.5, 9.1, asked_for={"message_id": "m1"}),
        did(6, "value", "t", 11.1, 11.3, 1),
        did(7, "ask", "t", 11.5, 13.1, ["q1", 1], {"token": "q1"}),
        did(8, "start", "g", 15.5, 16.2, asked_for=confirmed),
        did(9, "cancel", "g", 16.5, 17.2),
        did(10, "start", "r", 18.5, 19.2, asked_for={"confirm": False}),
    ]


def begun(run: str, number: int, second: float, attempt: int = 1, pid: int = PID) -> Begun:
    """A line of the journal."""
    return Begun(run, number, attempt, pid, at(second))


def sound_attempts() -> list[Begun]:
    """The story's journal."""
    return [
        begun("w", 0, 1.5),
        begun("w", 2, 4.5),
        begun("t", 1, 9.5),
        begun("r", 0, 19.5),
        begun("r", 0, 20.6, attempt=2),
    ]


def start_command(run: str) -> StartWorkflow:
    """The command that starts a run."""
    return StartWorkflow(
        command_id=f"c/{run}",
        workflow_id=run,
        reply_to=CLIENT,
        requested_at=at(0),
        workflow="any",
        payload="[1]",
    )


def send_command(run: str, message_id: str) -> SendMessage:
    """The command that sends a message."""
    return SendMessage(
        command_id=f"c/{message_id}",
        workflow_id=run,
        reply_to=CLIENT,
        requested_at=at(0),
        name=ADD,
        payload='""',
        message_id=message_id,
    )


@dataclass
class Story:
    """The history, before it is told; every part may be spoilt.

    Args:
        events: The log, in order.
        positions: Positions that are not as they are counted, by place in the log.
        offsets: Offsets that are not their places, by place.
        commands: The commands, in order.
        operations: What clients did.
        attempts: The journal.
        faults: What was broken.
        lives: Who lived.
        digests: Who folded to what.
        forged: Place of an event whose chain does not follow from the one before.
        garbage: A record at the end that nobody can read.
    """

    events: list[Event] = field(default_factory=sound_events)
    positions: dict[int, int] = field(default_factory=dict[int, int])
    offsets: dict[int, int] = field(default_factory=dict[int, int])
    commands: list[Command] = field(
        default_factory=lambda: [
            *(start_command(run) for run in "wtgr"),
            send_command("t", "m1"),
        ]
    )
    operations: list[Operation] = field(default_factory=sound_operations)
    attempts: list[Begun] = field(default_factory=sound_attempts)
    faults: list[Fault] = field(default_factory=list[Fault])
    lives: list[Life] = field(default_factory=lambda: [Life(WORKER, PID, at(-1), at(99), 0)])
    digests: dict[str, Sequence[str]] = field(
        default_factory=lambda: {"one": ["same"], "another": ["same"]}
    )
    forged: int | None = None
    garbage: bytes | None = None

    def told(self) -> Case:
        """As the checker gets it."""
        commands = [
            Record(offset, at(0), *encode_command(command))
            for offset, command in enumerate(self.commands)
        ]
        recorded = Recorded(tuple(self.operations), tuple(self.faults), tuple(self.lives))
        return Case(recorded, self.attempts, [self._records()], [commands], self.digests)

    def place(self, event: Event) -> int:
        """Where an event stands."""
        return self.events.index(event)

    def operation(self, number: int) -> Operation:
        """The client's operation of that number."""
        return self.operations[number - 1]

    def _records(self) -> list[Record]:
        chain, records = GENESIS, list[Record]()
        ends: dict[str, int] = {}
        for place, event in enumerate(self.events):
            run = event.workflow_id
            numbered = event
            if run is not None:
                position = self.positions.get(place, ends.get(run, 0))
                ends[run] = position + 1
                numbered = replace(event, position=position)
            entry, own = encode_event(numbered, chain)
            if place != self.forged:
                chain = link_claim(chain, own) if isinstance(event, PartitionClaimed) else own
            offset = self.offsets.get(place, place)
            records.append(Record(offset, event.recorded_at, *entry))
        if self.garbage is not None:
            records.append(Record(len(records), at(23), "w", self.garbage))
        return records
