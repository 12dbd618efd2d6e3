"""Write the golden log of a NEW release: `python tests/golden/make.py 0.2.0`, once, and commit it.

What stands in a folder of a past release is never written again: it is what is in people's logs. Every later
release must read it and see what that release meant (`test_golden_log.py`).

    v0_1/log.bin         a partition's events as a worker writes them: values, each after its length
                         in four bytes, big-endian. Two workflows, two owners; a fold can take it
    v0_1/log.json        for each value: key, headers, and the fields that it must decode to
    v0_1/kinds.*         every kind of event with all fields filled, and with as few as it can have
    v0_1/commands.*      the same for commands, and v0_1/replies.* for replies
"""

import dataclasses
import json
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypedDict, TypeVar, cast, get_args, get_origin, get_type_hints

from refold.log.codec import GENESIS, encode_command, encode_event, encode_reply, link_claim
from refold.log.commands import COMMAND_CLASSES, Command, Reply
from refold.log.events import (
    EVENT_CLASSES,
    CommandRefused,
    Event,
    PartitionClaimed,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
    TimerStarted,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowParked,
    WorkflowResumed,
    WorkflowStarted,
)
from refold.log.protocol import Entry

T = TypeVar("T")

TEXTS = ("plain", "größe \u0000 \u2028", "🧾 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010ffff", "", "x" * 130)
NUMBERS = (0, 1, -1, 63, 64, 8191, 8192, 1_763_832_000_123_456, 2**63 - 1, -(2**63))
NOW = 1_763_832_000_000_000
TIMES = ("recorded_at", "started_at", "due_at", "requested_at")


def sample(cls: type[T], number: int, *, full: bool) -> T:
    """A value of the class with everything in it, or with None wherever None may be."""
    hints = {name: h for name, h in get_type_hints(cls).items() if name not in {"kind", "chain"}}
    values = {n: _value(n, h, number + at, full) for at, (n, h) in enumerate(hints.items())}
    if cls in {PartitionClaimed, CommandRefused}:
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
    payload: str


class Header(TypedDict):
    """What every event carries."""

    workflow_id: str | None
    position: int | None
    recorded_at: int
    claim: int
    command: int
    worker: str


def header(workflow_id: str | None, position: int | None, command: int) -> Header:
    """The first worker's, under its claim at offset 0."""
    return {
        "workflow_id": workflow_id,
        "position": position,
        "recorded_at": NOW + 1_000_000 * (command + (position or 0)),
        "claim": 0,
        "command": command,
        "worker": "worker-1",
    }


def claimed(claim: int, worker: str) -> PartitionClaimed:
    """A worker takes over from the claim at offset `claim`."""
    return PartitionClaimed(
        workflow_id=None,
        position=None,
        recorded_at=NOW,
        claim=claim,
        command=-1 if claim < 0 else 3,
        worker=worker,
        partition=3,
    )


def done(position: int) -> Header:
    """Of the order that goes well."""
    return header("order-1", position, 0)


def stuck(position: int, command: int = 2) -> Header:
    """Of the order that is parked and then fails."""
    return header("order-🧾", position, command)


def log() -> list[Event]:
    """A partition's life: claimed, two workflows and a refusal, claimed by the next worker."""
    err: Error = {"error_type": "builtins:OSError", "error_message": "größer", "payload": "[5]"}
    began = NOW + 500_000
    return [
        claimed(-1, "worker-1"),
        WorkflowStarted(**done(0), workflow="shop", payload="[1]", attributes={"customer": "Zoë"}),
        StepAttemptFailed(
            **done(1), **err, step=0, name="pay", attempt=1, started_at=began, due_at=began
        ),
        StepCompleted(**done(2), step=0, name="pay", payload='"🧾"', attempt=2, started_at=began),
        TimerStarted(**done(3), step=1, name="sleep", due_at=NOW + 3_000_000),
        CommandRefused(
            **header("order-1", None, 1),
            partition=3,
            name="workflow.start",
            error_type="refold.log.errors:WorkflowConflict",
            error_message="order-1 is taken by a run with another input",
        ),
        TimerFired(**done(4), step=1, name="sleep"),
        WorkflowStarted(**stuck(0), workflow="shop", payload="[2]", code_version="a1"),
        WorkflowCompleted(**done(5), payload='{"paid":true}'),
        StepFailed(**stuck(1), **err, step=0, name="pay", attempt=1, started_at=began),
        WorkflowParked(**stuck(2), name="nondeterminism", error_message="pay is now charge"),
        WorkflowResumed(**stuck(3, 3), payload='{"reason":"deployed"}', encoding="json"),
        WorkflowFailed(**stuck(4, 3), **err, error_stack="Traceback ..."),
        claimed(0, "worker-2"),
    ]


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
    for number in range(12):
        reply = sample(Reply, number, full=number % 2 == 0)
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
    print(f"wrote {folder}")


if __name__ == "__main__":
    main(sys.argv[1])
