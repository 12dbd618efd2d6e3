"""What the checker knows of a simulated world: its log as an auditor reads it, and a journal of what was done.

The auditor applies the rule of claims on its own, from the records alone, and does not use the fold: a mistake there
shows as a difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from refold.engine.operations import Outcome
from refold.log.codec import decode_event
from refold.log.commands import Reply
from refold.log.events import (
    CommandRefused,
    Event,
    PartitionClaimed,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
    Unreadable,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowResumed,
)
from refold.log.memory import MemoryStore
from refold.log.protocol import Channel, Record


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
    ended: WorkflowCompleted | WorkflowFailed | None


@dataclass(frozen=True, slots=True)
class Digests:
    """Two readers' digests of one log up to one offset."""

    offset: int
    who: str
    found: str
    reader: str


@dataclass(frozen=True, slots=True)
class Silence:
    """What a recovery of the finished log did: kinds of the records that it appended, and steps that it began."""

    appended: tuple[str, ...]
    begun: int


@dataclass(slots=True)
class Journal:
    """What was done in a world, in order.

    Args:
        begins: Attempts of steps.
        answers: Replies to clients.
        owners: Who took itself for the owner, by which claim.
        digests: Readers that were compared.
        silence: What a recovery of the finished log did; None where none was looked at.
        acts: Everything, with its time in seconds, for people.
    """

    begins: list[Begin] = field(default_factory=list[Begin])
    answers: list[Given] = field(default_factory=list[Given])
    owners: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    digests: list[Digests] = field(default_factory=list[Digests])
    silence: Silence | None = None
    acts: list[str] = field(default_factory=list[str])


class Audit:
    """The accepted events of a partition, read as the log grows.

    Args:
        store: The log.
        partition: Its partition.
    """

    def __init__(self, store: MemoryStore, partition: int = 0) -> None:
        self.claim = -1
        self.claims: list[tuple[int, PartitionClaimed]] = []
        self.accepted: list[tuple[Record, Event]] = []
        self.streams: dict[str, list[Event]] = {}
        self.broken: set[str] = set()
        self.refused: list[CommandRefused] = []
        self._outcomes: dict[tuple[str, int], int] = {}  # when it was recorded
        self._failed: dict[tuple[str, int], tuple[int, bool]] = {}  # how often; used up?
        self._due: dict[tuple[str, int], int] = {}
        self._store = store
        self._partition = partition
        self._next = 0

    def advance(self) -> None:
        """Read on to the end."""
        for record in self._store.read(Channel.EVENTS, self._partition, self._next):
            self._read(record)
            self._next = record.offset + 1

    def recorded_at_us(self, workflow_id: str, step: int) -> int | None:
        """When the step's outcome came into the log; None for none."""
        return self._outcomes.get((workflow_id, step))

    def failed(self, workflow_id: str, step: int) -> int:
        """Failed attempts of the step, since the run was last resumed with none left."""
        return self._failed.get((workflow_id, step), (0, False))[0]

    def due_us(self, workflow_id: str, step: int) -> int:
        """When the step's next attempt is due; 0 where nothing is said."""
        return self._due.get((workflow_id, step), 0)

    def holds(self, event: Event) -> bool:
        """Whether exactly this event is in the log, and accepted."""
        stream = self.streams.get(event.workflow_id or "", ())
        position = event.position
        return position is not None and position < len(stream) and stream[position] == event

    def stream(self, workflow_id: str) -> Sequence[Event]:
        """The run's accepted events."""
        return self.streams.get(workflow_id, ())

    def ended(self, workflow_id: str) -> WorkflowCompleted | WorkflowFailed | None:
        """The run's last event if it is the end."""
        stream = self.stream(workflow_id)
        last = stream[-1] if stream else None
        return last if isinstance(last, WorkflowCompleted | WorkflowFailed) else None

    def _read(self, record: Record) -> None:
        event = decode_event(record)
        if isinstance(event, Unreadable):
            workflow_id = event.workflow_id
            if event.claim in (None, self.claim) and workflow_id and not self.ended(workflow_id):
                self.broken.add(workflow_id)
            return
        if event.claim != self.claim:
            return
        self.accepted.append((record, event))
        if isinstance(event, PartitionClaimed):
            self.claim = record.offset
            self.claims.append((record.offset, event))
        elif isinstance(event, CommandRefused):
            self.refused.append(event)
        else:
            self.streams.setdefault(event.workflow_id or "", []).append(event)
            self._note_step(event, record.timestamp)

    def _note_step(self, event: Event, at_us: int) -> None:
        workflow_id = event.workflow_id or ""
        match event:
            case StepCompleted() | StepFailed() | TimerFired():
                self._outcomes.setdefault((workflow_id, event.step), at_us)
            case StepAttemptFailed():
                failed = self.failed(workflow_id, event.step) + 1
                self._failed[workflow_id, event.step] = (failed, event.due_at is None)
                self._due[workflow_id, event.step] = event.due_at or 0
            case WorkflowResumed():
                for key, (_, used_up) in list(self._failed.items()):
                    if key[0] == workflow_id and used_up:
                        del self._failed[key]
            case _:
                pass
