"""What the checker knows of a simulated world: its log as an auditor reads it, and a journal of what was done.

The auditor applies the rule of claims on its own, from the records alone, and does not use the fold: a mistake there
shows as a difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from refold.engine.copied import read_copied
from refold.engine.operations import Emitted, Outcome
from refold.engine.state import Ended
from refold.log.codec import decode_event
from refold.log.commands import Command, Reply
from refold.log.events import (
    CommandRefused,
    DeliveryConfirmed,
    DeliveryRefused,
    Event,
    HistoryCopied,
    PartitionClaimed,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
    Unreadable,
    WorkflowCancelRequested,
    WorkflowResumed,
    WorkflowRewound,
)
from refold.log.memory import MemoryStore
from refold.log.protocol import Channel, Record

NUMBERED = StepCompleted | StepFailed | TimerFired | DeliveryConfirmed | DeliveryRefused
"""Outcomes of operations."""


@lru_cache(maxsize=5_000)
def read(record: Record) -> Event | Unreadable:
    """The event of a record; remembered, for several look at each."""
    return decode_event(record)


@dataclass(frozen=True, slots=True)
class Begin:
    """An attempt of a step began, and what an auditor saw in the log at that very moment.

    Args:
        worker: Who began it.
        workflow_id: The run.
        step: Its operation number.
        attempt: From 1.
        at_us: When, virtual microseconds.
        owned: Whether the worker's claim was the current one.
        failed: Failed attempts in the log.
        recorded_at_us: When the step's outcome had come into the log; None where it had none.
        overlaps: Whether an attempt of the step was still under way in the same worker.
        early_us: How long before it was due it began; 0 or less where it was due.
        missing: Outcomes that the code knew when it asked for the step, and that were not in the log.
    """

    worker: str
    workflow_id: str
    step: int
    attempt: int
    at_us: int
    owned: bool
    failed: int
    recorded_at_us: int | None
    overlaps: bool
    early_us: int
    missing: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """A reply was given to a client; `stream` is how much of its run's stream was in the log at that moment."""

    client_id: str
    reply: Reply
    stream: int


@dataclass(frozen=True, slots=True)
class Digests:
    """Two readers' digests of one partition up to one offset."""

    partition: int
    offset: int
    who: str
    found: str
    reader: str


@dataclass(frozen=True, slots=True)
class Silence:
    """What a recovery of a partition on which all rested did: the records that it appended, and steps that it began."""

    partition: int
    appended: tuple[Event | Unreadable, ...]
    begun: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A command that follows from an event, for another workflow.

    Args:
        partition: Whose outbox it stands in.
        number: Its number there, from 1.
        at_us: When the event came into the log.
        command: The command.
    """

    partition: int
    number: int
    at_us: int
    command: Command


@dataclass(slots=True)
class Journal:
    """What was done in a world, in order.

    Args:
        begins: Attempts of steps.
        answers: Replies to clients.
        owners: Who took itself for the owner, of which partition and by which claim.
        digests: Readers that were compared.
        silences: What recoveries of partitions on which all rested did.
        wanted: What the events want of other workflows.
        recoveries: How many owners began with a checkpoint.
        acts: Everything, with its time in seconds, for people.
    """

    begins: list[Begin] = field(default_factory=list[Begin])
    answers: list[Given] = field(default_factory=list[Given])
    owners: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])
    digests: list[Digests] = field(default_factory=list[Digests])
    silences: list[Silence] = field(default_factory=list[Silence])
    wanted: list[Wanted] = field(default_factory=list[Wanted])
    recoveries: int = 0
    acts: list[str] = field(default_factory=list[str])


class Audit:
    """The accepted events of all partitions, read as the log grows.

    Args:
        store: The log.
    """

    def __init__(self, store: MemoryStore) -> None:
        self.claims = [-1] * store.partitions
        self.claimed: list[tuple[int, int, PartitionClaimed]] = []  # partition, offset
        self.accepted: list[list[tuple[Record, Event]]] = [[] for _ in self.claims]
        self.streams: dict[str, list[Event]] = {}
        self.broken: set[str] = set()
        self.refused: list[tuple[int, CommandRefused]] = []  # with partition
        self._outcomes: dict[tuple[str, int], int] = {}  # when it was recorded
        self._failed: dict[tuple[str, int], tuple[int, bool]] = {}  # how often; used up?
        self._due: dict[tuple[str, int], int] = {}
        self._store = store
        self._next = [0] * store.partitions

    def advance(self) -> None:
        """Read on to the end."""
        for partition, start in enumerate(self._next):
            for record in self._store.read(Channel.EVENTS, partition, start):
                self._read(partition, record)
                self._next[partition] = record.offset + 1

    def recorded_at_us(self, workflow_id: str, step: int) -> int | None:
        """When the step's outcome came into the log; None for none."""
        return self._outcomes.get((workflow_id, step))

    def failed(self, workflow_id: str, step: int) -> int:
        """Failed attempts of the step, since the run was last resumed with none left."""
        return self._failed.get((workflow_id, step), (0, False))[0]

    def due_us(self, workflow_id: str, step: int) -> int:
        """When the step's next attempt is due; 0 where nothing is said."""
        return self._due.get((workflow_id, step), 0)

    def holds(self, workflow_id: str, outcome: Outcome) -> bool:
        """Whether exactly this is in the run's stream and accepted, or in a history that was copied there."""
        stream = self.stream(workflow_id)
        return _holds(stream, outcome) or any(
            outcome in read_copied(event.payload).outcomes
            for event in stream
            if isinstance(event, HistoryCopied)
        )

    def stream(self, workflow_id: str) -> Sequence[Event]:
        """The run's accepted events."""
        return self.streams.get(workflow_id, ())

    def ended(self, workflow_id: str) -> Ended | None:
        """The run's last event if it is the end."""
        stream = self.stream(workflow_id)
        last = stream[-1] if stream else None
        return last if isinstance(last, Ended) else None

    def _read(self, partition: int, record: Record) -> None:
        event = read(record)
        claim = self.claims[partition]
        if isinstance(event, Unreadable):
            workflow_id = event.workflow_id
            if event.claim in (None, claim) and workflow_id and not self.ended(workflow_id):
                self.broken.add(workflow_id)
            return
        if event.claim != claim:
            return
        self.accepted[partition].append((record, event))
        if isinstance(event, PartitionClaimed):
            self.claims[partition] = record.offset
            self.claimed.append((partition, record.offset, event))
        elif isinstance(event, CommandRefused):
            self.refused.append((partition, event))
        elif event.position is not None:  # else the partition's own
            self.streams.setdefault(event.workflow_id or "", []).append(event)
            self._note_step(event, record.timestamp)

    def _note_step(self, event: Event, at_us: int) -> None:
        workflow_id = event.workflow_id or ""
        match event:
            case (
                StepCompleted()
                | StepFailed()
                | TimerFired()
                | DeliveryConfirmed()
                | DeliveryRefused()
            ):
                self._outcomes.setdefault((workflow_id, event.step), at_us)
            case StepAttemptFailed():
                failed = self.failed(workflow_id, event.step) + 1
                self._failed[workflow_id, event.step] = (failed, event.due_at is None)
                self._due[workflow_id, event.step] = event.due_at or 0
            case WorkflowResumed() | WorkflowCancelRequested() | WorkflowRewound():
                for key, (_, used_up) in list(self._failed.items()):
                    if key[0] == workflow_id and used_up:
                        del self._failed[key]
            case _:
                pass


def _holds(stream: Sequence[Event], outcome: Outcome) -> bool:
    position = outcome.position
    if position is None or not 0 <= position < len(stream):
        return False
    event = stream[position]
    if not isinstance(outcome, Emitted):
        return event == outcome
    step: int | None = getattr(event, "step", None)
    name: str | None = getattr(event, "name", None)
    return (event.kind, step, name) == (outcome.kind, outcome.step, outcome.name)
