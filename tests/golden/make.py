"""Write the golden log of a NEW release: `python tests/golden/make.py 0.2.0`, once, and commit it.

What stands in a folder of a past release is never written again: it is what is in people's logs. Every later
release must read it and see what that release meant (`test_golden_log.py`).

    v0_1/log.bin         a partition's events as a worker writes them: values, each after its length
                         in four bytes, big-endian. Four workflows, two owners; a fold can take it
    v0_1/log.json        for each value: key, headers, and the fields that it must decode to
    v0_1/kinds.*         every kind of event with all fields filled, and with as few as it can have
    v0_1/commands.*      the same for commands, and v0_1/replies.* for replies
    v0_1/*.avsc          the schemas that the release wrote them with
    checkpoint_1.txt     the text of a checkpoint of format 1, of the first 40 of log.bin's events
                         (`tests/engine/test_checkpoint.py`)
"""

import dataclasses
import json
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    Self,
    TypedDict,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from refold.engine.copied import Copied, parts_of
from refold.engine.operations import Numbering
from refold.log.codec import GENESIS, encode_command, encode_event, encode_reply, link_claim
from refold.log.commands import COMMAND_CLASSES, Command, Reply, ReplyStatus
from refold.log.events import (
    EVENT_CLASSES,
    AskAnswered,
    AskReceived,
    AttributesSet,
    CancelSent,
    CheckpointBegun,
    CheckpointCompleted,
    CheckpointPart,
    ChildCompleted,
    ChildFailed,
    ChildRequested,
    CommandRefused,
    DeliveryConfirmed,
    DeliveryRefused,
    Event,
    HistoryCopied,
    MessageReceived,
    MessageSent,
    OwnEvent,
    PartitionClaimed,
    PartitionHandedOver,
    PartitionMigrated,
    PartitionOffered,
    PatchApplied,
    QueueSet,
    SlotGranted,
    SlotReleased,
    SlotRequested,
    SlotReturned,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    StreamWritten,
    SubjectErased,
    TimerFired,
    TimerStarted,
    ValuePublished,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowContinued,
    WorkflowFailed,
    WorkflowParked,
    WorkflowPaused,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowRewound,
    WorkflowStarted,
    WorkflowTerminated,
    WorkflowWarned,
)
from refold.log.protocol import Entry
from refold.log.schema_ids import current

T = TypeVar("T")

TEXTS = ("plain", "größe \u0000 \u2028", "🧾 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010ffff", "", "x" * 130)
NUMBERS = (0, 1, -1, 63, 64, 8191, 8192, 1_763_832_000_123_456, 2**63 - 1, -(2**63))
NOW = 1_763_832_000_000_000
TIMES = ("recorded_at", "started_at", "due_at", "requested_at")


def sample(cls: type[T], number: int, *, full: bool) -> T:
    """A value of the class with everything in it, or with None wherever None may be."""
    hints = {name: h for name, h in get_type_hints(cls).items() if name not in {"kind", "chain"}}
    values = {n: _value(n, h, number + at, full) for at, (n, h) in enumerate(hints.items())}
    if cls in get_args(OwnEvent):
        values |= {"workflow_id": None, "position": None, "partition": 3}
    elif cls in EVENT_CLASSES:
        values |= {"workflow_id": f"order-🧾-{number}", "position": number}
    return cls(**cast(dict[str, Any], values))


def _value(name: str, hint: Any, number: int, full: bool) -> object:
    if get_origin(hint) is UnionType:
        if not full:
            return None
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    if get_origin(hint) is Literal:
        return get_args(hint)[number % len(get_args(hint))]
    if name in TIMES:
        return NOW + number
    text = TEXTS[number % len(TEXTS)]
    return {str: text, int: NUMBERS[number % len(NUMBERS)]}.get(hint, {"größe": text, "": "🧾"})


class Error(TypedDict):
    """How a failure is told."""

    error_type: str
    error_message: str


class Header(TypedDict):
    """What every event carries."""

    workflow_id: str | None
    position: int | None
    recorded_at: int
    claim: int
    command: int
    posted: int
    worker: str


class Owner:
    """Counts what the first worker counts under its claim at offset 0: commands, posts, positions, seconds.

    Attributes:
        command: Offset of the last command that it has consumed.
        posted: Commands to other workflows that it has sent.
    """

    def __init__(self) -> None:
        self.command = -1
        self.posted = 0
        self._seconds = 0
        self._positions: Counter[str] = Counter()

    def asked(self) -> Self:
        """It consumes a command: the next event is what the command causes."""
        self.command += 1
        return self

    def sent(self) -> Self:
        """It has sent a command to another workflow."""
        self.posted += 1
        return self

    def now(self) -> int:
        """The time of its last event."""
        return NOW + 1_000_000 * self._seconds

    def at(self, workflow_id: str) -> Header:
        """Of the workflow's next event."""
        self._positions[workflow_id] += 1
        return self.header(workflow_id, self._positions[workflow_id] - 1)

    def header(self, workflow_id: str | None, position: int | None) -> Header:
        """Of the next event, which is the partition's own where it has no position."""
        self._seconds += 1
        return {
            "workflow_id": workflow_id,
            "position": position,
            "recorded_at": self.now(),
            "claim": 0,
            "command": self.command,
            "posted": self.posted,
            "worker": "worker-1",
        }


def claimed(claim: int, worker: str, owner: Owner) -> PartitionClaimed:
    """A worker takes over from the claim at offset `claim`, when so much was consumed and sent."""
    return PartitionClaimed(
        workflow_id=None,
        position=None,
        recorded_at=owner.now(),
        claim=claim,
        command=owner.command,
        posted=owner.posted,
        worker=worker,
        partition=3,
    )


WHY = '{"requested_by":"zoë","reason":"größer"}'
FAILED: Error = {"error_type": "builtins:OSError", "error_message": "größer"}
CANCELLED: Error = {
    "error_type": "refold.log.errors:WorkflowCancelled",
    "error_message": "order-1 asked to cancel: too late",
}
UNKNOWN: Error = {
    "error_type": "refold.log.errors:WorkflowNotFound",
    "error_message": "no run has the id order-9",
}
ORDER, CHILD, STUCK, FORK = "order-1", "order-1/5", "order-🧾", "order-1-fork"
QUEUE, QUEUED = "mail", "order-2"


def log() -> list[Event]:
    """A partition's life: claimed, four workflows with all that can happen, claimed by the next worker."""
    owner = Owner()
    return [
        claimed(-1, "worker-1", owner),
        *_migrated(owner),
        *_working(owner),
        *_calling(owner),
        *_receiving(owner),
        *_mended(owner),
        *_stuck(owner),
        *_queued(owner),
        *_checkpoint(owner),
        SubjectErased(
            **owner.header(None, None),
            partition=3,
            payload='{"keys":["k0123456789abcdef0123456"],"requested_by":"ops","reason":"asked for"}',
        ),
        PartitionOffered(**owner.header(None, None), partition=3, due_at=owner.now() + 5_000_000),
        PartitionHandedOver(
            **owner.header(None, None),
            partition=3,
            payload=f'[["{ORDER}",12,1]]',
            due_at=owner.now() + 10_000_000,
        ),
        claimed(0, "worker-2", owner),
    ]


def _migrated(owner: Owner) -> Iterator[Event]:
    """A namespace in which nothing had happened was copied into the partition."""
    for name, floor in (("begun", -1), ("completed", 0)):
        payload = f'{{"forget_before":0,"floor":{floor}}}'
        yield PartitionMigrated(**owner.header(None, None), partition=3, name=name, payload=payload)


def _queued(owner: Owner) -> Iterator[Event]:
    """A queue of one, and a run that has its turn; then its slot comes a second time."""
    yield QueueSet(
        **owner.asked().header(QUEUE, None), partition=3, queue=QUEUE, count=1, payload=WHY
    )
    yield WorkflowStarted(**owner.asked().at(QUEUED), workflow="mail", payload="[1]", queue=QUEUE)
    asked = owner.sent().asked().header(QUEUE, None)
    yield SlotRequested(**asked, partition=3, queue=QUEUE, target_id=QUEUED, index=0)
    yield SlotGranted(**owner.sent().asked().at(QUEUED), queue=QUEUE, index=0)
    yield WorkflowCompleted(**owner.at(QUEUED), payload="true", next_step=0)
    told = owner.sent().asked().header(QUEUE, None)
    yield SlotReleased(**told, partition=3, queue=QUEUE, target_id=QUEUED, index=0)
    yield SlotReturned(**owner.asked().header(QUEUED, None), partition=3, queue=QUEUE, index=0)
    owner.sent().asked()


def _checkpoint(owner: Owner) -> Iterator[Event]:
    """The partition's state, which tells a fold from the beginning nothing."""
    yield CheckpointBegun(
        **owner.header(None, None), partition=3, name="0-0", payload='{"forget_before":0,"floor":0}'
    )
    yield CheckpointPart(**owner.header(None, None), partition=3, name="0-0", index=0, payload="[]")
    yield CheckpointCompleted(
        **owner.header(None, None), partition=3, name="0-0", count=1, payload="a1" * 32
    )


def _working(owner: Owner) -> Iterator[Event]:
    """Steps, a timer, and what the code tells of itself."""
    yield WorkflowStarted(
        **owner.asked().at(ORDER),
        workflow="shop",
        payload="[1]",
        version=2,
        code_version="a1",
        attributes={"customer": "Zoë", "vip": "true"},
        due_at=NOW + 86_400_000_000,
    )
    yield PatchApplied(**owner.at(ORDER), name="fees")
    began, due = owner.now(), owner.now() + 2_000_000
    yield StepAttemptFailed(
        **owner.at(ORDER), **FAILED, step=0, name="pay", attempt=1, started_at=began, due_at=due
    )
    yield StreamWritten(
        **owner.at(ORDER), step=0, name="out", index=0, count=1, payload='["a"]', attempt=2
    )
    yield StepCompleted(
        **owner.at(ORDER), step=0, name="pay", payload='"🧾"', attempt=2, started_at=due
    )
    tags = {"customer": "Zoë", "paid_at": "2025-11-22T17:20:05.000000Z"}
    yield AttributesSet(**owner.at(ORDER), step=1, name="attributes", attributes=tags)
    yield ValuePublished(**owner.at(ORDER), step=2, name="status", payload='"paid"')
    yield StreamWritten(
        **owner.at(ORDER), step=3, name="out", index=1, count=2, payload='["b","c"]'
    )
    yield TimerStarted(**owner.at(ORDER), step=4, name="sleep", due_at=owner.now() + 1_000_000)
    yield CommandRefused(
        **owner.asked().header(ORDER, None),
        partition=3,
        name="workflow.start",
        error_type="refold.log.errors:WorkflowConflict",
        error_message="order-1 is taken by a run with another input",
    )
    yield TimerFired(**owner.at(ORDER), step=4, name="sleep")


def _calling(owner: Owner) -> Iterator[Event]:
    """A child that is sent a message and cancelled, a message to nobody, a child that returns."""
    yield ChildRequested(
        **owner.at(ORDER), step=5, name="ship", target_id=CHILD, payload="[1]", policy="cancel"
    )
    yield WorkflowStarted(
        **owner.sent().asked().at(CHILD),
        workflow="ship",
        payload="[1]",
        parent_id=ORDER,
        parent_step=5,
        policy="cancel",
    )
    yield DeliveryConfirmed(**owner.sent().asked().at(ORDER), step=5, name="ship")
    yield MessageSent(**owner.at(ORDER), step=6, name="address", target_id=CHILD, payload='"é"')
    yield MessageReceived(
        **owner.sent().asked().at(CHILD),
        name="address",
        payload='"é"',
        message_id="order-1/6",
        parent_id=ORDER,
        parent_step=6,
    )
    yield DeliveryConfirmed(**owner.sent().asked().at(ORDER), step=6, name="address")
    yield MessageSent(**owner.at(ORDER), step=7, name="hello", target_id="order-9", payload="{}")
    yield CommandRefused(
        **owner.sent().asked().header("order-9", None),
        **UNKNOWN,
        partition=3,
        name="message.send",
        parent_id=ORDER,
        parent_step=7,
    )
    yield DeliveryRefused(**owner.sent().asked().at(ORDER), **UNKNOWN, step=7, name="hello")
    yield CancelSent(
        **owner.at(ORDER), step=8, name="cancel", target_id=CHILD, payload='{"reason":"too late"}'
    )
    yield WorkflowCancelRequested(
        **owner.sent().asked().at(CHILD),
        name="request",
        payload='{"requested_by":"workflow order-1","reason":"too late"}',
        parent_id=ORDER,
        parent_step=8,
    )
    yield DeliveryConfirmed(**owner.sent().asked().at(ORDER), step=8, name="cancel")
    yield WorkflowCancelled(**owner.at(CHILD), **CANCELLED, next_step=0)
    yield ChildFailed(**owner.sent().asked().at(ORDER), **CANCELLED, step=5, name="ship")
    yield ChildRequested(
        **owner.at(ORDER),
        step=9,
        name="ship",
        target_id="order-1/9",
        payload="[2]",
        policy="abandon",
        version=3,
        attributes={"speed": "slow"},
        due_at=NOW + 86_400_000_000,
    )
    yield DeliveryConfirmed(**owner.sent().asked().at(ORDER), step=9, name="ship")
    yield ChildCompleted(**owner.asked().at(ORDER), step=9, name="ship", payload="true")


def _receiving(owner: Owner) -> Iterator[Event]:
    """A message and two questions from clients; then the run is continued as new, with a message kept."""
    for text in ("m-1", "m-2"):
        yield MessageReceived(
            **owner.asked().at(ORDER), name="note", payload=f'"{text}"', message_id=text
        )
    yield AskReceived(**owner.asked().at(ORDER), name="change", payload="1", message_id="q-1")
    yield AskAnswered(**owner.at(ORDER), step=10, name="change", message_id="q-1", payload="true")
    yield AskReceived(**owner.asked().at(ORDER), name="change", payload="2", message_id="q-2")
    yield AskAnswered(**owner.at(ORDER), **FAILED, step=11, name="change", message_id="q-2")
    yield WorkflowWarned(**owner.at(ORDER), name="history_grows", error_message="10,000 events")
    yield WorkflowContinued(
        **owner.at(ORDER),
        payload="[3]",
        next_step=12,
        detail="[23]",  # m-2
        version=2,
        code_version="a1",
    )


def _copied() -> str:
    """What a copy of the order before operation 12 begins with."""
    message = MessageReceived(
        **Owner().header(ORDER, 23), name="note", payload='"m-2"', message_id="m-2"
    )
    value = ValuePublished(**Owner().header(ORDER, 6), step=2, name="status", payload='"paid"')
    copied = Copied(
        outcomes=[message],
        numbering=Numbering(12),
        next_step=13,
        patches=["fees"],
        streams={"out": 3},
        values={"status": value},
        seen=["m-1", "m-2"],
    )
    (part,) = parts_of(copied)
    return part


def _mended(owner: Owner) -> Iterator[Event]:
    """Paused, rewound, completed, opened again; a fork of it that is terminated."""
    yield WorkflowPaused(**owner.asked().at(ORDER), payload=WHY, next_step=12)
    yield WorkflowResumed(**owner.asked().at(ORDER), payload=WHY, encoding="json")
    yield StepCompleted(
        **owner.at(ORDER), step=12, name="pay", payload="2", attempt=1, started_at=owner.now()
    )
    yield WorkflowRewound(**owner.asked().at(ORDER), step=12, next_step=13, payload=WHY)
    yield WorkflowCompleted(**owner.at(ORDER), payload='{"paid":true}', next_step=13)
    yield WorkflowReopened(
        **owner.asked().at(ORDER),
        step=12,
        detail=WHY,
        workflow="shop",
        payload="[3]",
        started_at=NOW,
        version=2,
        code_version="a1",
        attributes={"customer": "Zoë"},
    )
    yield HistoryCopied(**owner.asked().at(ORDER), payload=_copied(), name="last")
    yield WorkflowCompleted(**owner.at(ORDER), payload='{"paid":false}', next_step=13)
    yield WorkflowStarted(
        **owner.asked().at(FORK), workflow="shop", payload="[3]", source_id=ORDER, step=12
    )
    yield HistoryCopied(**owner.asked().at(FORK), payload=_copied(), name="more")
    yield WorkflowTerminated(
        **owner.asked().at(FORK),
        error_type="refold.log.errors:WorkflowTerminated",
        error_message="zoë terminated it: größer",
        payload=WHY,
    )


def _stuck(owner: Owner) -> Iterator[Event]:
    """A run that is parked and then fails."""
    began = owner.now()
    yield WorkflowStarted(**owner.asked().at(STUCK), workflow="shop", payload="[2]")
    yield StepFailed(
        **owner.at(STUCK), **FAILED, step=0, name="pay", attempt=1, started_at=began, payload="[5]"
    )
    yield WorkflowParked(
        **owner.at(STUCK), name="nondeterminism", error_message="pay is now charge", next_step=1
    )
    yield WorkflowResumed(**owner.asked().at(STUCK), payload=WHY, encoding="json")
    yield WorkflowFailed(
        **owner.at(STUCK), **FAILED, payload="[5]", error_stack="Traceback ...", next_step=1
    )


def kinds() -> Iterator[Event]:
    """Every kind of event, full and sparse."""
    for number, cls in enumerate(EVENT_CLASSES):
        yield sample(cls, number, full=True)
        yield sample(cls, number, full=False)


def chained(events: Iterable[Event]) -> Iterator[tuple[Entry, Event]]:
    """Events as an owner and its fold chain them."""
    running = GENESIS
    for event in events:
        entry, chain = encode_event(event, running)
        is_claim = isinstance(event, PartitionClaimed)
        running = link_claim(running, chain) if is_claim else chain
        yield entry, dataclasses.replace(event, chain=chain)


def commands() -> Iterator[tuple[Entry, Command]]:
    """Every kind, full and sparse."""
    for number, cls in enumerate(COMMAND_CLASSES):
        for full in (True, False):
            command: Command = sample(cls, number, full=full)
            yield encode_command(command), command


def replies() -> Iterator[tuple[Entry, Reply]]:
    """Every status, full and sparse."""
    statuses = len(get_args(ReplyStatus))
    for number in range(2 * statuses):
        reply = sample(Reply, number, full=number < statuses)
        yield encode_reply(reply, f"client-{number}"), reply


def write(folder: Path, name: str, pairs: Sequence[tuple[Entry, Event | Command | Reply]]) -> None:
    """The two files of one channel."""
    framed = (struct.pack(">i", len(entry.value)) + entry.value for entry, _ in pairs)
    (folder / f"{name}.bin").write_bytes(b"".join(framed))
    expected = [_expected(entry, value) for entry, value in pairs]
    text = json.dumps(expected, indent=1, ensure_ascii=True, default=bytes.hex)
    (folder / f"{name}.json").write_text(text + "\n", encoding="ascii")


def _expected(entry: Entry, value: Event | Command | Reply) -> dict[str, object]:
    return {
        "key": entry.key,
        "headers": [[name, text.decode()] for name, text in entry.headers],
        "class": type(value).__name__,
        "fields": dataclasses.asdict(value),
    }


def main(version: str) -> None:
    """Make the folder of a release that has none yet."""
    major, minor = version.split(".")[:2]
    folder = Path(__file__).parent / f"v{major}_{minor}"
    folder.mkdir()  # FileExistsError: that release's log is written, and stays as it is
    write(folder, "log", list(chained(log())))
    write(folder, "kinds", list(chained(kinds())))
    write(folder, "commands", list(commands()))
    write(folder, "replies", list(replies()))
    for schema in current():
        (folder / f"{schema.shape}.avsc").write_text(schema.text, encoding="utf-8")
    print(f"wrote {folder}")


if __name__ == "__main__":
    main(sys.argv[1])
