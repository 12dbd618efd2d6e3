"""What past releases wrote, this one reads, and sees in it what they meant."""

import dataclasses
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from refold.engine.fold import evolve
from refold.engine.state import PartitionState, Queue, Status
from refold.log.codec import (
    GENESIS,
    decode_command,
    decode_event,
    decode_reply,
    link_claim,
    verify,
)
from refold.log.commands import COMMAND_CLASSES, Command, Reply
from refold.log.events import EVENT_CLASSES, Event, PartitionClaimed, Unreadable
from refold.log.protocol import Record

RELEASES = sorted(path.name for path in Path(__file__).parent.glob("v*_*"))
DECODERS: dict[str, Callable[[Record], Event | Command | Reply | Unreadable]] = {
    "log": decode_event,
    "kinds": decode_event,
    "commands": decode_command,
    "replies": decode_reply,
}


def golden(release: str, channel: str) -> Iterator[tuple[Record, dict[str, Any]]]:
    """The records of a golden log, and what each must decode to."""
    folder = Path(__file__).parent / release
    expected = json.loads((folder / f"{channel}.json").read_text(encoding="ascii"))
    data, at = (folder / f"{channel}.bin").read_bytes(), 0
    for offset, line in enumerate(expected):
        (size,) = struct.unpack_from(">i", data, at)
        value, at = data[at + 4 : at + 4 + size], at + 4 + size
        headers = tuple((name, text.encode()) for name, text in line["headers"])
        yield Record(offset, 0, line["key"], value, headers), line
    assert at == len(data)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("channel", DECODERS)
def test_a_golden_log_decodes_to_what_was_meant(release: str, channel: str) -> None:
    """Given a past release's bytes, each field is what it was; fields that came later have their default."""
    for record, expected in golden(release, channel):
        value = DECODERS[channel](record)
        assert type(value).__name__ == expected["class"], value
        fields = dataclasses.asdict(value)
        for name, meant in expected["fields"].items():
            found = fields.pop(name)
            assert (found.hex() if isinstance(found, bytes) else found) == meant, name
        defaults = {field.name: field.default for field in dataclasses.fields(value)}
        assert fields == {name: defaults[name] for name in fields}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("channel", ["log", "kinds"])
def test_a_golden_logs_chain_verifies_from_its_first_event(release: str, channel: str) -> None:
    """Given a past release's events, the chain holds from the genesis over claims to the end."""
    running = GENESIS
    for record, _ in golden(release, channel):
        assert verify(record, running), record.offset
        event = decode_event(record)
        assert not isinstance(event, Unreadable)
        is_claim = isinstance(event, PartitionClaimed)
        running = link_claim(running, event.chain) if is_claim else event.chain


def test_a_golden_log_folds_to_what_it_tells() -> None:
    """Given 0.1's log of one partition, no stream is broken, each run stands as its story says, nothing is unsent."""
    state = PartitionState()
    for record, _ in golden("v0_1", "log"):
        evolve(state, decode_event(record), record.offset)
    assert state.open == {}
    assert {id_: closed.status for id_, closed in state.closed.items()} == {
        "order-1": Status.COMPLETED,
        "order-1/5": Status.CANCELLED,
        "order-1-fork": Status.TERMINATED,
        "order-🧾": Status.FAILED,
        "order-2": Status.COMPLETED,
    }
    assert state.queues == {"mail": Queue(1)}
    assert (state.owner, state.posted, list(state.outbox)) == ("worker-2", 14, [])


def test_every_kind_stands_in_some_golden_log() -> None:
    """Given the kinds that this release writes, none can be changed unseen: each has its golden bytes."""
    found = {
        line["class"] for r in RELEASES for channel in DECODERS for _, line in golden(r, channel)
    }
    assert found == {cls.__name__ for cls in (*EVENT_CLASSES, *COMMAND_CLASSES, Reply)}


def test_the_log_holds_every_kind_of_event() -> None:
    """Given 0.1's log of one partition, each of the kinds that 0.1 had happens in it."""
    assert {line["class"] for _, line in golden("v0_1", "log")} == {
        line["class"] for _, line in golden("v0_1", "kinds")
    }
