"""What events fold to: the state of an open run, of one that has ended, of a partition (transitions: `fold.py`)."""

import hashlib
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from refold.engine.operations import Numbering, Outcome
from refold.log.blobs import reference_in
from refold.log.commands import Command
from refold.log.envelope import ELSEWHERE, comparable
from refold.log.events import (
    AskAnswered,
    AskReceived,
    AttributesSet,
    CancelSent,
    ChildRequested,
    MessageSent,
    StreamWritten,
    TimerStarted,
    ValuePublished,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowParked,
    WorkflowStarted,
    WorkflowTerminated,
)

NO_CLAIM = -1
NO_COMMAND = -1
ANYWHERE = -1
"""The floor of a partition into which streams are copied: they begin where they began."""
MAX_REMEMBERED = 10_000
"""Message ids, and answers to questions, that an open run remembers: the latest ones. A repeat comes within seconds."""

Sent = MessageSent | ChildRequested | CancelSent
Ended = WorkflowCompleted | WorkflowFailed | WorkflowCancelled | WorkflowTerminated
Emission = AskAnswered | ValuePublished | StreamWritten | AttributesSet


class Origin(NamedTuple):
    """Where a stream begins: offset of its start, or a little before, and the claim that it was written under."""

    offset: int
    claim: int


class Status(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    QUEUED = "queued"
    PARKED = "parked"
    PAUSED = "paused"
    COPYING = "copying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"


ENDED_AS = {
    WorkflowCompleted.kind: Status.COMPLETED,
    WorkflowFailed.kind: Status.FAILED,
    WorkflowCancelled.kind: Status.CANCELLED,
    WorkflowTerminated.kind: Status.TERMINATED,
}
"""How a run stands after its end, by the kind of that event."""


@dataclass(slots=True)
class Attempts:
    """Failed attempts of a step that has no outcome yet.

    Args:
        name: The step's name.
        failed: How many attempts have failed.
        started_at: Start of the first attempt, microseconds since 1970-01-01 UTC.
        due_at: When the next attempt begins; None where they are used up.
    """

    name: str
    failed: int
    started_at: int
    due_at: int | None


@dataclass(slots=True)
class Exchange:
    """What an open run has had to do with others: most have nothing, and are spared the memory.

    Args:
        requests: What it sent to other workflows and has no answer to, by operation number.
        children: Children that have not ended, by operation number; detached ones are not among them.
        values: What it has published, by key.
        streams: The next index of each stream that it has written.
        seen: Ids of the messages, questions and orders that have come, latest last, `MAX_REMEMBERED` at most.
        asked: Questions that are not answered yet, by id.
        answers: Answers by id, latest last, `MAX_REMEMBERED` at most.
        patches: Changes of code whose new path it takes.
        tags: Its tags where its code has set some; None where those of its start hold.
        cancel: The last request to cancel; None where there was none.
        parts: How many parts of a copied history have come.
        copied: How many outcomes came with them.
    """

    requests: dict[int, Sent] = field(default_factory=dict[int, Sent])
    children: dict[int, ChildRequested] = field(default_factory=dict[int, ChildRequested])
    values: dict[str, ValuePublished] = field(default_factory=dict[str, ValuePublished])
    streams: dict[str, int] = field(default_factory=dict[str, int])
    seen: dict[str, None] = field(default_factory=dict[str, None])
    asked: dict[str, AskReceived] = field(default_factory=dict[str, AskReceived])
    answers: dict[str, AskAnswered] = field(default_factory=dict[str, AskAnswered])
    patches: set[str] = field(default_factory=set[str])
    tags: dict[str, str] | None = None
    cancel: WorkflowCancelRequested | None = None
    parts: int = 0
    copied: int = 0


NO_EXCHANGE = Exchange()
"""Of runs that have had nothing to do with others: for reading, never written to."""
PLAIN = Numbering()
NO_ATTEMPTS: Mapping[int, Attempts] = MappingProxyType({})


@dataclass(slots=True)
class WorkflowState:
    """An open run: all that is needed to bring it back.

    Args:
        started: Its start, with the input and version that count since it was last continued as new; None only for
            a broken stream that has none.
        position: The position that its next event gets.
        status: `running`, `queued`, `parked`, `paused` or `copying`.
        first_started_at: When it was started, whatever was continued or reopened since.
        input_digest: Digest of the input that it was first started with; None where that is `started`'s.
        next_step: A number that no operation recorded so far has.
        numbering: How its operations are numbered.
        outcomes: What a replay tells the code, in log order.
        resolved: Numbers of the operations that have an outcome.
        attempts: Failed attempts by operation number, of operations without outcome.
        timers: Timers that were started and have not fired.
        exchange: What it has had to do with others; shared and empty until there is something.
        parked: Why it is parked; None where it is not.
        broken: Why its stream can't be folded (rules 3 and 4); None where it can.
        ticket: The position of the event by which it asked its queue for a slot; None where it is in no queue.
        waits: Whether it has not got that slot yet.
        updated_at: `recorded_at` of its last event.
        origin: Where its stream begins; None where that is not known. No part of the digest.
    """

    started: WorkflowStarted | None
    position: int
    status: Status
    updated_at: int
    first_started_at: int
    input_digest: bytes | None = None
    next_step: int = 0
    numbering: Numbering = PLAIN
    outcomes: Sequence[Outcome] = ()
    resolved: Set[int] = frozenset()
    attempts: Mapping[int, Attempts] = field(default_factory=lambda: NO_ATTEMPTS)
    timers: dict[int, TimerStarted] = field(default_factory=dict[int, TimerStarted])
    exchange: Exchange = field(default_factory=lambda: NO_EXCHANGE)
    parked: WorkflowParked | None = None
    broken: str | None = None
    origin: Origin | None = None
    ticket: int | None = None
    waits: bool = False

    @property
    def attributes(self) -> dict[str, str]:
        """Its tags now."""
        if self.exchange.tags is not None:
            return self.exchange.tags
        return (self.started.attributes if self.started is not None else None) or {}

    def add_outcome(self, outcome: Outcome) -> None:
        """Put an outcome at the end. A run that has none yet has no list either: most sleepers have none."""
        if isinstance(self.outcomes, list):
            self.outcomes.append(outcome)
        else:
            self.outcomes = [*self.outcomes, outcome]

    def resolve(self, step: int) -> None:
        """Note that an operation has its outcome."""
        if isinstance(self.resolved, set):
            self.resolved.add(step)
        else:
            self.resolved = {*self.resolved, step}

    def own_attempts(self) -> dict[int, Attempts]:
        """`attempts`, to be written to."""
        if not isinstance(self.attempts, dict):
            self.attempts = dict(self.attempts)
        return self.attempts

    def own_exchange(self) -> Exchange:
        """`exchange`, to be written to."""
        if self.exchange is NO_EXCHANGE:
            self.exchange = Exchange()
        return self.exchange


@dataclass(frozen=True, slots=True)
class Closed:
    """What stays of a run that has ended: enough to answer a second start and to find its result in the log.

    Args:
        offset: Where its last event is, or a little before; no part of the digest.
        claim: Under which that was written.
        origin: Where its stream begins; None where that is not known. No part of the digest.
    """

    workflow: str
    version: int
    input_digest: bytes
    status: Status
    position: int
    started_at: int
    ended_at: int
    parent_id: str | None
    parent_step: int | None
    attributes: dict[str, str] | None
    offset: int = 0
    claim: int = NO_CLAIM
    origin: Origin | None = None
    queue: str | None = None


class Handed(NamedTuple):
    """A step that goes on at the worker that handed its partition over: which attempt, and until when it is waited for
    (microseconds since 1970-01-01 UTC).
    """

    attempt: int
    due_at: int


class Ticket(NamedTuple):
    """A run that asked a queue for a slot, and the position of the event by which it did."""

    workflow_id: str
    position: int


@dataclass(slots=True)
class Queue:
    """A queue, on the partition of its name.

    Args:
        limit: How many of its runs run at once; None where nobody has said so, and nothing runs.
        running: Those that have a slot. More than `limit` only where that was lowered.
        waiting: Those that wait for one, the longest first.
    """

    limit: int | None = None
    running: dict[Ticket, None] = field(default_factory=dict[Ticket, None])
    # A dict that loses its first entries looks for the next one among all that are gone.
    waiting: OrderedDict[Ticket, None] = field(default_factory=OrderedDict[Ticket, None])


@dataclass(slots=True)
class PartitionState:
    """State of one partition.

    Args:
        claim: Offset of the current claim; -1 before the first.
        owner: Worker that made it.
        command: Offset of the last command consumed; -1 for none.
        posted: How many commands to other workflows are known to have been posted.
        outbox: Commands to other workflows that are not known to have been posted, oldest first.
        chain: Head of the hash chain over accepted events.
        open: Runs that have not ended, by workflow id.
        closed: Runs that have, by workflow id, but for those that ended before `forgotten_before`.
        handed: Steps that go on at a former owner, by workflow id and operation number.
        offered_until: Until when the owner works on though the partition is to go to another (`PartitionOffered`),
            microseconds since 1970-01-01 UTC; 0 where it is not.
        queues: The queues whose name belongs to this partition.
        floor: The position at which new streams begin: no forgotten stream had come so far.
        forgotten_before: Microseconds since 1970-01-01 UTC; 0 where nothing has been forgotten.
        offset: Offset of the last event that was folded, or a little before; no part of the digest.
        remembers: Keep what owners forget: for those who read history. No part of the digest.
    """

    claim: int = NO_CLAIM
    owner: str = ""
    command: int = NO_COMMAND
    posted: int = 0
    outbox: deque[Command] = field(default_factory=deque[Command])
    chain: bytes = bytes(32)
    open: dict[str, WorkflowState] = field(default_factory=dict[str, WorkflowState])
    closed: dict[str, Closed] = field(default_factory=dict[str, Closed])
    handed: dict[tuple[str, int], Handed] = field(default_factory=dict[tuple[str, int], Handed])
    offered_until: int = 0
    queues: dict[str, Queue] = field(default_factory=dict[str, Queue])
    floor: int = 0
    forgotten_before: int = 0
    offset: int = 0
    remembers: bool = False


def digest_input(payload: str) -> bytes:
    """Digest (16 bytes) by which a second start's input is compared with the first's, wherever either is kept."""
    reference = reference_in(payload)
    if reference is not None:
        return bytes.fromhex(reference.digest)[:16]
    if payload[:1] in ELSEWHERE:
        payload = comparable(payload)
    return hashlib.sha256(payload.encode()).digest()[:16]
