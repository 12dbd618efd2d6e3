"""What must hold of a log and of a journal after any number of crashes, checked without the fold.

The log is walked record by record with rules of its own, written down again from the design and not shared with
`engine/fold.py`: a mistake there should not hide here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from refold.log.codec import GENESIS, decode_event, link_claim, verify
from refold.log.events import (
    Event,
    PartitionClaimed,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
    Unreadable,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowStarted,
    WorkflowTerminated,
)
from refold.log.protocol import Channel, Log, Record

NANOSECONDS = 1_000

Ended = WorkflowCompleted | WorkflowFailed | WorkflowCancelled | WorkflowTerminated


class Begun(NamedTuple):
    """A line of the journal: an attempt began. `at_us` is the wall clock's, microseconds since 1970-01-01 UTC."""

    workflow_id: str
    step: int
    attempt: int
    pid: int
    at_us: int


class Place(NamedTuple):
    """Where a record stands. `timestamp` is the log's own, microseconds since 1970-01-01 UTC."""

    partition: int
    offset: int
    timestamp: int


class Journal:
    """What steps have written, read on as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Begun] = []
        self._read = 0

    def new(self) -> list[Begun]:
        """Lines that were written since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        lines = [_line(text) for text in whole.decode().splitlines()]
        self.lines += lines
        return lines


def _line(text: str) -> Begun:
    workflow_id, step, attempt, pid, at_ns = text.split()
    return Begun(workflow_id, int(step), int(attempt), int(pid), int(at_ns) // NANOSECONDS)


@dataclass(slots=True)
class Audited:
    """What a partition's accepted records say.

    Args:
        streams: Events of each workflow, in order.
        claims: Accepted claims, in order.
        stale: Records that do not count: written under a claim that was not the current one.
        problems: What should not be, in words.
        places: Where the event of a workflow at a position stands; the first, should there be two.
        claimed: Where each accepted claim stands, in order.
    """

    streams: dict[str, list[Event]] = field(default_factory=dict[str, list[Event]])
    claims: list[PartitionClaimed] = field(default_factory=list[PartitionClaimed])
    stale: int = 0
    problems: list[str] = field(default_factory=list[str])
    places: dict[tuple[str, int], Place] = field(default_factory=dict[tuple[str, int], Place])
    claimed: list[Place] = field(default_factory=list[Place])


async def audit(log: Log) -> Audited:
    """Walk all partitions of a log."""
    partitions: list[Sequence[Record]] = []
    for partition in range(log.partitions):
        records: list[Record] = []
        async for batch in log.read(Channel.EVENTS, partition, 0):
            records += batch
        partitions.append(records)
    return audit_records(partitions)


def audit_records(partitions: Sequence[Sequence[Record]]) -> Audited:
    """Walk the records of all partitions, each from its first on."""
    found = Audited()
    for partition, records in enumerate(partitions):
        _walk(partition, records, found)
    for workflow_id, events in found.streams.items():
        found.problems += [f"{workflow_id}: {problem}" for problem in _stream_problems(events)]
    return found


def _walk(partition: int, records: Sequence[Record], found: Audited) -> None:
    claim, chain, command = -1, GENESIS, -1
    for record in records:
        event = decode_event(record)
        where = f"partition {partition}, offset {record.offset}"
        if event.claim != claim:
            found.stale += 1
            continue
        if isinstance(event, Unreadable):
            found.problems.append(f"{where} can't be read: {event.reason}")
            continue
        if not verify(record, chain):
            found.problems.append(f"{where}, {event.kind}: the chain does not hold")
        if isinstance(
            event, PartitionClaimed
        ):  # its writer may not have seen the last events before it
            claim, chain = record.offset, link_claim(chain, event.chain)
            found.claims.append(event)
            found.claimed.append(Place(partition, record.offset, record.timestamp))
            continue
        if event.command < command:
            found.problems.append(f"{where}: command {event.command} < {command}")
        command = event.command
        chain = event.chain
        if event.workflow_id is None or event.position is None:
            continue  # the partition's own
        found.streams.setdefault(event.workflow_id, []).append(event)
        place = Place(partition, record.offset, record.timestamp)
        found.places.setdefault((event.workflow_id, event.position), place)


def _stream_problems(events: Sequence[Event]) -> list[str]:
    problems: list[str] = []
    positions = [event.position for event in events]
    if positions != list(range(len(events))):
        problems.append(f"its positions are {positions}")
    if not isinstance(events[0], WorkflowStarted):
        problems.append(f"it begins with {events[0].kind}")
    outcomes = [e.step for e in events if isinstance(e, StepCompleted | StepFailed | TimerFired)]
    if len(outcomes) != len(set(outcomes)):
        problems.append(f"a second outcome among those of operations {outcomes}")
    ends = [isinstance(event, Ended) for event in events]
    if any(ends[:-1]):
        problems.append("something follows its end")
    return problems


def repeated(audited: Audited, lines: Sequence[Begun]) -> list[str]:
    """Attempts that began after their outcome, or a later attempt's, had been recorded."""
    recorded: dict[tuple[str, int, int], int] = {}  # workflow, step, attempt -> when
    outcomes: dict[tuple[str, int], int] = {}
    for workflow_id, events in audited.streams.items():
        for event in events:
            if isinstance(event, StepCompleted | StepFailed):
                outcomes[workflow_id, event.step] = event.recorded_at
            elif isinstance(event, StepAttemptFailed):
                recorded[workflow_id, event.step, event.attempt] = event.recorded_at
    problems: list[str] = []
    for line in lines:
        known = (
            outcomes.get((line.workflow_id, line.step)),
            recorded.get((line.workflow_id, line.step, line.attempt)),
        )
        problems += [
            f"{line} began {line.at_us - at} us after it was recorded"
            for at in known
            if at is not None and line.at_us > at
        ]
    return problems


def unfounded(audited: Audited, lines: Sequence[Begun]) -> list[str]:
    """Recorded outcomes of steps that never began: an outcome has at least one execution behind it."""
    begun = {(line.workflow_id, line.step) for line in lines}
    return [
        f"step {event.step} of {workflow_id} was recorded and never began"
        for workflow_id, events in audited.streams.items()
        for event in events
        if isinstance(event, StepCompleted | StepFailed) and (workflow_id, event.step) not in begun
    ]


def early(audited: Audited, lines: Sequence[Begun], workflow: str) -> list[str]:
    """Steps of a sequential workflow that began before the step before them was recorded."""
    first: dict[tuple[str, int], int] = {}
    for line in lines:
        first.setdefault((line.workflow_id, line.step), line.at_us)
    problems: list[str] = []
    for workflow_id, events in audited.streams.items():
        started = events[0]
        if not isinstance(started, WorkflowStarted) or started.workflow != workflow:
            continue
        for event in events:
            if not isinstance(event, StepCompleted):
                continue
            after = (workflow_id, event.step + 1)
            if first.get(after, event.recorded_at) < event.recorded_at:
                problems.append(f"step {after} began before the one before it was recorded")
    return problems
