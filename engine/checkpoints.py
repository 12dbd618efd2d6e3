"""When an owner writes a checkpoint, and what is forgotten with it.

A checkpoint is due when the events since the last one began are at least twice as long as it will be: so checkpoints
are at most a third of all that is written, and a recovery reads at most about three times what is open. Its parts go
out one at a time, between the events of the partition's ordinary life, which go on meanwhile.

Where to find it is noted in the log's bookmark once its last event is confirmed: no newer claim stands before it, so
every reader accepts it. A checkpoint that is never completed, since its owner died or lost the partition, is nothing.

Source of the idea: fuzzy checkpoints as in ARIES (Mohan et al., 1992), with copies in place of redo.
"""

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from refold.engine.blobs import MIN_PAYLOAD_BYTES, RECORD_HEADROOM_BYTES
from refold.engine.checkpoint import Snapshot, estimate
from refold.engine.effects import Bookmark
from refold.engine.ledger import Ledger
from refold.engine.state import PartitionState
from refold.log.events import CheckpointBegun, CheckpointCompleted, CheckpointPart

PART_CHARS: Final = 200_000
"""Length of a part, where the log takes records of four bytes for each of its characters."""
WEIGHT: Final = 2
"""How many times a checkpoint's length the events since the last one are, at least."""
MOST_AHEAD: Final = 4
"""Parts and other records that are made and not confirmed, above which no further part is made."""
MICROSECONDS: Final = 1_000_000


def part_chars(record_bytes: int) -> int:
    """Length of a part that fits into a record."""
    return min(PART_CHARS, max(MIN_PAYLOAD_BYTES, record_bytes - RECORD_HEADROOM_BYTES) // 4)


@dataclass(frozen=True, slots=True)
class CheckpointSettings:
    """When checkpoints are written and what they forget.

    Args:
        min_bytes: Events since the last checkpoint, in bytes, below which there is none: a recovery reads so much
            in a moment.
        dedup_window_s: How long the id of a run that has ended is known, in seconds: until then a second start of it
            gets its result.
        max_closed: Ended runs that are known at most in one partition, whatever the window: the latest ones.
    """

    min_bytes: int = 2_000_000
    dedup_window_s: float = 7 * 24 * 3600.0
    max_closed: int = 250_000


class Checkpoints:
    """The checkpoints of one owned partition.

    Args:
        partition: Its number.
        state: Its fold.
        ledger: Where events are recorded.
        settings: When, and what is forgotten.
        since_bytes: Length of the events since the last checkpoint began, that were there before this owner.
        record_bytes: Largest record that the log takes.
    """

    def __init__(  # noqa: PLR0917 - each a plain part of it
        self,
        partition: int,
        state: PartitionState,
        ledger: Ledger,
        settings: CheckpointSettings,
        since_bytes: int,
        record_bytes: int = 1_000_000,
    ) -> None:
        self._partition = partition
        self._state = state
        self._ledger = ledger
        self._settings = settings
        self._part_chars = part_chars(record_bytes)
        self._snapshot: Snapshot | None = None
        self._name = ""
        self._sequence = 0
        self._count = 0
        self._parts = 0
        self._hasher = blake2b(digest_size=32)
        self._from = (
            -since_bytes
        )  # so many of the ledger's bytes had been made when the last one began
        self._due = settings.min_bytes

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._snapshot is not None

    def step(self, now: int) -> bool:
        """Begin a checkpoint where one is due; else write the next part of the one that is being written.

        Returns:
            Whether one has begun, so that runs may have been forgotten.
        """
        ledger = self._ledger
        if self._snapshot is not None:
            if ledger.made - ledger.confirmed < MOST_AHEAD:
                self._write(self._snapshot, now)
        elif ledger.bytes_made - self._from >= self._due:
            return self._look(now)
        return False

    def _look(self, now: int) -> bool:
        """Begin one, unless it would be too long for what has happened since the last."""
        ledger = self._ledger
        before = self._forget_before(now)
        gone = [run.position for run in self._state.closed.values() if run.ended_at < before]
        since = ledger.bytes_made - self._from
        enough = WEIGHT * estimate(self._state, len(gone))
        if since > enough:
            self._begin(before, max([self._state.floor, *gone]), now)
            return True
        self._due = min(enough, since + since // 4 + 1)  # the state may also have shrunk by then
        return False

    def _begin(self, before: int, floor: int, now: int) -> None:
        ledger, state = self._ledger, self._state
        self._name = f"{state.claim}-{self._count}"
        self._count += 1
        sequence = ledger.record(
            CheckpointBegun(
                **ledger.header(None, None, now),
                partition=self._partition,
                name=self._name,
                payload=json.dumps({"forget_before": before, "floor": floor}),
            )
        )
        ledger.note_offset(sequence)
        self._sequence = sequence
        self._from = ledger.bytes_made
        self._snapshot = ledger.snapshot = Snapshot(state)
        self._parts = 0
        self._hasher = blake2b(digest_size=32)

    def _forget_before(self, now: int) -> int:
        """Before which time runs must have ended to be forgotten."""
        state, settings = self._state, self._settings
        before = now - round(settings.dedup_window_s * MICROSECONDS)
        excess = len(state.closed) - settings.max_closed
        if excess > 0:
            ends = sorted(run.ended_at for run in state.closed.values())
            before = max(before, ends[excess - 1] + 1)
        return max(before, state.forgotten_before)

    def _write(self, snapshot: Snapshot, now: int) -> None:
        ledger = self._ledger
        before = ledger.bytes_made
        text = snapshot.next_part(self._part_chars)
        if text is None:
            self._complete(now)
        else:
            self._hasher.update(text.encode())
            ledger.record(
                CheckpointPart(
                    **ledger.header(None, None, now),
                    partition=self._partition,
                    name=self._name,
                    index=self._parts,
                    payload=text,
                )
            )
            self._parts += 1
        self._from += (
            ledger.bytes_made - before
        )  # what is written of it brings the next one no nearer

    def _complete(self, now: int) -> None:
        ledger = self._ledger
        self._snapshot = ledger.snapshot = None
        sequence = ledger.record(
            CheckpointCompleted(
                **ledger.header(None, None, now),
                partition=self._partition,
                name=self._name,
                count=self._parts,
                payload=self._hasher.hexdigest(),
            )
        )
        self._due = self._settings.min_bytes
        ledger.hold(sequence, Bookmark(self._sequence))
