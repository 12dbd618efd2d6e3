"""An owner's book: events made, events confirmed, and the effects that wait for the one to become the other.

Rules:

1. Whatever happens is first an event: encoded, folded and queued for append in one act (`record`).
2. An effect that follows from an event is held until that event is confirmed: durable, with no newer claim
   before it. So no step begins before what led to it is safe, and no client hears of what may be taken back.
3. An event is confirmed when its offset is the one after the last confirmed one. Only the owner writes to its
   partition unless somebody claims it, so an unbroken run of offsets proves that no claim stands between, and
   no second read of the log is needed. Where there is a gap, the shell reads it and shows it (`inspected`):
   zombies' records are ignored, a newer claim ends the ownership. So does any other record that the fold counts
   (somebody who is no worker wrote into the topic): our state is no longer what every reader has.
4. A command to another workflow is such an effect. What former owners may have left unsent goes out first, and each
   event says how many are known to have gone out.

Source of the idea: fencing tokens as in Kleppmann's "How to do distributed locking", with the log's own order in
place of a lock service.
"""

from collections.abc import Sequence
from typing import TypedDict, TypeVar

from refold.engine.blobs import Blob, Lift, lifted, never
from refold.engine.checkpoint import Snapshot
from refold.engine.effects import Effect, Post
from refold.engine.fold import evolve
from refold.engine.privacy import Privacy
from refold.engine.private_events import protected
from refold.engine.state import NO_CLAIM, NO_COMMAND, PartitionState, WorkflowState
from refold.log.codec import decode_event, encode_event
from refold.log.events import Event, EventBase, Unreadable
from refold.log.keys import KEY_TAG
from refold.log.protocol import Entry, Record

E = TypeVar("E", bound=EventBase)


class Header(TypedDict):
    """The part of an event that is the same for all kinds."""

    workflow_id: str | None
    position: int | None
    recorded_at: int
    claim: int
    command: int
    posted: int
    worker: str


def unwritten(workflow_id: str, recorded_at: int) -> Header:
    """The common fields of what a run is told that is no event of its own stream."""
    return {
        "workflow_id": workflow_id,
        "position": None,
        "recorded_at": recorded_at,
        "claim": NO_CLAIM,
        "command": NO_COMMAND,
        "posted": 0,
        "worker": "",
    }


class Ledger:
    """Events and held effects of one owned partition.

    Args:
        state: The fold of the partition up to and with the owner's claim, which is its last record.
        worker: Name of the worker, recorded in every event.
        lift: Which payloads are kept as blobs.
        privacy: With what payloads are encrypted; None for none.
    """

    def __init__(
        self,
        state: PartitionState,
        worker: str,
        lift: Lift = never,
        privacy: Privacy | None = None,
    ) -> None:
        self.state = state
        self.command = state.command
        self.posted = state.posted
        self.lost_to: str | None = None
        self.made = 0  # entries made so far: the last one's sequence number
        self.confirmed = 0  # entries confirmed so far
        self.bytes_made = 0
        self.snapshot: Snapshot | None = None  # told of each run that is about to change
        self._noted: dict[int, int | None] = {}  # sequence number -> offset, once it is known
        self._worker = worker
        self._claim = state.claim
        self.next_offset = state.claim + 1  # all before it is known
        self._entries: list[Entry] = []
        self._lift = lift
        self.privacy = privacy
        self._blobs: list[Blob] = []
        self._ready: list[Effect] = [
            Post(number, command) for number, command in enumerate(state.outbox, state.posted + 1)
        ]
        self._held: dict[int, list[Effect]] = {}

    def header(self, workflow_id: str | None, position: int | None, recorded_at: int) -> Header:
        """The common fields of the next event."""
        return {
            "workflow_id": workflow_id,
            "position": position,
            "recorded_at": recorded_at,
            "claim": self._claim,
            "command": self.command,
            "posted": self.posted,
            "worker": self._worker,
        }

    def lifted(self, event: E) -> E:
        """An event as it is to be recorded: encrypted, and with a reference in place of a large payload."""
        if self.privacy is not None:
            event = protected(event, self.state, self.privacy)
        event, blob = lifted(event, self._lift)
        if blob is not None:
            self._blobs.append(blob)
        return event

    def key_of(self, run: WorkflowState) -> str | None:
        """With which keys a run's payloads are encrypted; None where they are not, or not here."""
        return None if self.privacy is None else run.attributes.get(KEY_TAG)

    def record(self, event: Event) -> int:
        """Encode, fold and queue an event; returns its sequence number, for `hold`."""
        state = self.state
        entry, chain = encode_event(event, state.chain)
        if self.snapshot is not None and event.workflow_id is not None:
            self.snapshot.changes(event.workflow_id)
        before = state.posted + len(state.outbox)
        evolve(state, event, self.next_offset)  # the offset matters for claims alone
        state.chain = chain
        self._entries.append(entry)
        self.bytes_made += len(entry.value)
        self.made += 1
        if state.outbox:
            for number in range(before + 1, state.posted + len(state.outbox) + 1):
                self.hold(self.made, Post(number, state.outbox[number - state.posted - 1]))
        return self.made

    def hold(self, sequence: int, effect: Effect) -> None:
        """Give `effect` out once the event with this sequence number is confirmed."""
        if sequence <= self.confirmed:
            self._ready.append(effect)
        else:
            self._held.setdefault(sequence, []).append(effect)

    def note_offset(self, sequence: int) -> None:
        """Keep the offset of this event for `noted_offset`."""
        self._noted[sequence] = None

    def noted_offset(self, sequence: int) -> int:
        """The offset of an event that was noted and is confirmed; it is forgotten now."""
        offset = self._noted.pop(sequence)
        assert offset is not None, "it is confirmed"
        return offset

    def take_blobs(self) -> list[Blob]:
        """Blobs to write before the records that are taken next are appended."""
        blobs, self._blobs = self._blobs, []
        return blobs

    def take_entries(self) -> list[Entry]:
        """Records to append, in order."""
        entries, self._entries = self._entries, []
        return entries

    def take_effects(self) -> list[Effect]:
        """Effects whose time has come."""
        ready, self._ready = self._ready, []
        return ready

    def acked(self, offsets: Sequence[int]) -> tuple[int, int] | None:
        """Take the offsets of the list that `take_entries` gave last.

        Returns:
            None when all of it is confirmed; else the range (start, stop) of offsets to read and to show to
            `inspected` before anything else is appended.
        """
        count = len(offsets)
        if count == 0:
            return None
        first, last = offsets[0], offsets[-1]
        for noted, known in self._noted.items():
            if known is None and noted <= self.confirmed + count:
                self._noted[noted] = offsets[noted - self.confirmed - 1]
        if first == self.next_offset and last == first + count - 1:
            self._confirm(count, last + 1)
            return None
        return self.next_offset, last + 1

    def inspected(self, records: Sequence[Record], offsets: Sequence[int]) -> None:
        """Look at records that the owner has not made, or whose offsets it is still to learn.

        Args:
            records: The range that `acked` asked for; or all from `next_offset` on, while no append is in flight.
            offsets: What `acked` was given; empty where no append is in flight.
        """
        own = set(offsets)
        for record in records:
            if record.offset not in own:
                self.lost_to = self._ended_by(record)
                if self.lost_to is not None:
                    return
        if records:
            self._confirm(len(offsets), records[-1].offset + 1)

    def drop(self) -> list[Effect]:
        """Forget what was not appended and what was held: the partition is given up. Returns the lost effects."""
        dropped = [*self._ready, *(effect for held in self._held.values() for effect in held)]
        self._entries.clear()
        self._blobs.clear()
        self._ready.clear()
        self._held.clear()
        return dropped

    def _ended_by(self, record: Record) -> str | None:
        """Who ended the ownership with a record that is not ours; None where the fold ignores it (rules 1 and 4)."""
        event = decode_event(record)
        if isinstance(event, Unreadable):
            counts = event.claim == self._claim or (
                event.claim is None and event.workflow_id is not None
            )
            return f"whoever wrote the unreadable record {record.offset}" if counts else None
        return event.worker if event.claim == self._claim else None

    def _confirm(self, count: int, next_offset: int) -> None:
        self.next_offset = next_offset
        held = self._held
        if held:
            ready = self._ready
            for sequence in range(self.confirmed + 1, self.confirmed + count + 1):
                effects = held.pop(sequence, None)
                if effects is not None:
                    ready.extend(effects)
        self.confirmed += count
