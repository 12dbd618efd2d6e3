"""Histories of one partition for tests of the audit: several owners, workflows that take turns, zombies' records.

They are written with the codec alone, so that a test knows every byte, and can write the same history anew as a forger.
"""

import random
from dataclasses import dataclass, field
from typing import TypedDict

from refold.log.codec import GENESIS, encode_event, link_claim
from refold.log.events import (
    AskReceived,
    Event,
    PartitionClaimed,
    StepCompleted,
    WorkflowCompleted,
    WorkflowPaused,
    WorkflowStarted,
)
from refold.log.protocol import Entry, Record

BEGAN_AT = 1_700_000_000_000_000
STREAMS = ("order-1", "order-2", "größe")


class _Header(TypedDict):
    """What every event carries."""

    workflow_id: str | None
    position: int | None
    recorded_at: int
    claim: int
    command: int
    posted: int
    worker: str


@dataclass
class Chronicle:
    """A partition's history as it is written.

    Args:
        partition: Its number.
        word: In every record, so that two histories of one shape differ.
    """

    partition: int = 0
    word: str = "paid"
    entries: list[Entry] = field(default_factory=list[Entry])
    counting: list[int] = field(default_factory=list[int])  # offsets of those that count
    owner: int = -1  # the current claim
    _chain: bytes = GENESIS
    _zombies: dict[int, bytes] = field(default_factory=dict[int, bytes])
    positions: dict[str, int] = field(default_factory=dict[str, int])

    def claim(self) -> None:
        """Another owner takes over."""
        entry, own = encode_event(
            PartitionClaimed(**self._header(None, None), partition=self.partition), GENESIS
        )
        self._zombies[self.owner] = self._chain
        self.owner = len(self.entries)
        self._chain = link_claim(self._chain, own)
        self.counting.append(self.owner)
        self.entries.append(entry)

    def step(self, workflow_id: str) -> None:
        """A step of a run is done; the run is started where there is none."""
        position = self.positions.get(workflow_id, 0)
        header = self._header(workflow_id, position)
        self.positions[workflow_id] = position + 1
        if not position:
            self.write(WorkflowStarted(**header, workflow="checkout", payload=f'["{workflow_id}"]'))
            return
        self.write(
            StepCompleted(
                **header,
                step=position - 1,
                name="charge",
                attempt=1,
                started_at=header["recorded_at"] - 5_000,
                payload=f'"{self.word} {position}"',
            )
        )

    def pause(self, workflow_id: str, by: str, why: str) -> None:
        """Somebody halts a run."""
        header = self._header(workflow_id, self.positions[workflow_id])
        self.positions[workflow_id] += 1
        said = f'{{"requested_by": "{by}", "reason": "{why}"}}'
        self.write(WorkflowPaused(**header, payload=said))

    def ask(self, workflow_id: str, topic: str, payload: str) -> None:
        """A client asks a run."""
        header = self._header(workflow_id, self.positions[workflow_id])
        self.positions[workflow_id] += 1
        self.write(AskReceived(**header, name=topic, payload=payload, message_id="ask-1"))

    def complete(self, workflow_id: str) -> None:
        """A run ends."""
        header = self._header(workflow_id, self.positions[workflow_id])
        self.positions[workflow_id] += 1
        self.write(WorkflowCompleted(**header, payload='"done"'))

    def write(self, event: Event) -> None:
        """Add an event that counts."""
        entry, self._chain = encode_event(event, self._chain)
        self.counting.append(len(self.entries))
        self.entries.append(entry)

    def zombie(self, claim: int) -> None:
        """A former owner adds a record that does not count."""
        header = self._header("order-1", self.positions.get("order-1", 0))
        header["claim"] = claim
        late = WorkflowStarted(**header, workflow="checkout", payload="[]")
        entry, self._zombies[claim] = encode_event(late, self._zombies[claim])
        self.entries.append(entry)

    def events(self) -> list[int]:
        """Offsets of the events that count and are no claims."""
        return [offset for offset in self.counting if self.entries[offset].key is not None]

    def records(self) -> list[Record]:
        """As they would stand in a log."""
        return [
            Record(offset, BEGAN_AT + offset * 1_000, *entry)
            for offset, entry in enumerate(self.entries)
        ]

    def _header(self, workflow_id: str | None, position: int | None) -> _Header:
        return _Header(
            workflow_id=workflow_id,
            position=position,
            recorded_at=BEGAN_AT + len(self.entries) * 1_000,
            claim=self.owner,
            command=-1,
            posted=0,
            worker=f"worker-{self.word}",
        )


def drawn(
    seed: int, length: int = 30, *, word: str = "paid", partition: int = 0, anew: int = -1
) -> Chronicle:
    """A history drawn at random: same seed, same shape, whatever the word; another word from offset `anew` on."""
    chance = random.Random(seed)
    made = Chronicle(partition, word)
    made.claim()
    former: list[int] = []
    while len(made.entries) < length:
        if len(made.entries) == anew:
            made.word = "stolen"
        draw = chance.random()
        if draw < 0.08:
            former.append(made.owner)
            made.claim()
        elif draw < 0.16 and former:
            made.zombie(chance.choice(former))
        else:
            made.step(chance.choice(STREAMS))
    return made
