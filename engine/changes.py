"""What changed between two moments: which runs, from what to what, and what their steps came to."""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from refold.engine.fold import evolve
from refold.engine.reader import WorkflowInfo, info_of, read_partition
from refold.engine.state import PartitionState
from refold.log.accepted import Accepted
from refold.log.events import (
    Event,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    Unreadable,
)
from refold.log.protocol import Channel, Log


class Step(NamedTuple):
    """A step of a workflow, of all its runs on one version."""

    workflow: str
    version: int
    name: str


class RunChange(NamedTuple):
    """A run that something was recorded of.

    Args:
        before: How it stood at the first moment; None where it had not been started.
        after: How it stood at the second.
    """

    before: WorkflowInfo | None
    after: WorkflowInfo


@dataclass(slots=True)
class Changes:
    """What changed.

    Args:
        before: How many runs there were at the first moment, by status.
        after: The same at the second.
        runs: The runs that something was recorded of, the latest started first.
        steps: How often each step completed, failed, and failed an attempt.
        events: How many events there were of each kind.
        history: The events themselves, where one run was asked for.
    """

    before: Counter[str] = field(default_factory=Counter[str])
    after: Counter[str] = field(default_factory=Counter[str])
    runs: list[RunChange] = field(default_factory=list[RunChange])
    steps: dict[Step, Counter[str]] = field(default_factory=dict[Step, Counter[str]])
    events: Counter[str] = field(default_factory=Counter[str])
    history: list[Event | Unreadable] = field(default_factory=list[Event | Unreadable])


async def read_changes(
    log: Log, first: Mapping[int, int], last: Mapping[int, int], workflow_id: str | None = None
) -> Changes:
    """Compare two moments. Folds the log up to the second one; of one run, its events alone.

    Args:
        log: An open log.
        first: For each partition, the offset before which is the first moment (`engine/moments.py`).
        last: The same for the second, not before the first.
        workflow_id: Only what concerns this run.

    Raises:
        LogTrimmed: What came before the first moment was trimmed.
        LogError: The log can't be read.
    """
    changes = Changes()
    wanted = range(log.partitions) if workflow_id is None else [log.layout.place(workflow_id)]
    for partition in wanted:
        await _compare(log, partition, (first[partition], last[partition]), workflow_id, changes)
    changes.runs.sort(key=lambda run: run.after.started_at, reverse=True)
    return changes


async def _compare(
    log: Log, partition: int, between: tuple[int, int], workflow_id: str | None, changes: Changes
) -> None:
    state = await read_partition(log, partition, workflow_id, between[0], remembers=True)
    changes.before.update(_by_status(state, workflow_id))
    before: dict[str, WorkflowInfo | None] = {}
    async for event, offset in _counted(log, partition, between, state.claim, workflow_id):
        id_ = event.workflow_id
        own = not isinstance(event, Unreadable) and event.position is None  # the partition's
        if id_ is not None and not own and id_ not in before:
            before[id_] = info_of(state, id_)
        evolve(state, event, offset)
        if workflow_id is not None and not own:
            changes.history.append(event)
        if workflow_id is None or not own:
            _note(changes, state, event)
    for id_, info in before.items():
        after = info_of(state, id_)
        if after is not None:
            changes.runs.append(RunChange(info, after))
    changes.after.update(_by_status(state, workflow_id))


async def _counted(
    log: Log, partition: int, between: tuple[int, int], claim: int, workflow_id: str | None
) -> AsyncGenerator[tuple[Event | Unreadable, int], None]:
    accepted = Accepted(claim)
    async for batch in log.read(Channel.EVENTS, partition, *between, key=workflow_id):
        for record in batch:
            event = accepted.take(record)
            if event is not None:
                yield event, record.offset


def _note(changes: Changes, state: PartitionState, event: Event | Unreadable) -> None:
    if isinstance(event, Unreadable):
        changes.events["unreadable"] += 1
        return
    changes.events[event.kind] += 1
    if isinstance(event, StepCompleted | StepFailed | StepAttemptFailed):
        run = info_of(state, event.workflow_id or "")
        if run is not None:
            step = Step(run.workflow, run.version, event.name)
            changes.steps.setdefault(step, Counter())[event.kind] += 1


def _by_status(state: PartitionState, workflow_id: str | None) -> Counter[str]:
    if workflow_id is not None:
        info = info_of(state, workflow_id)
        return Counter() if info is None else Counter([info.status.value])
    counts = Counter(run.status.value for run in state.open.values())
    counts.update(run.status.value for run in state.closed.values())
    return counts
