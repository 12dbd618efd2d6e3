"""The histories of a log, read to be replayed: of runs that are open, and of some that have ended.

Reading is divided among processes by the runs' ids, not by stretches of the log: each reads all records of a
partition, and decodes and folds those of its own share. Open runs are found as a worker finds them, from the last
checkpoint on. Runs that have ended are in no checkpoint, so their events are read from the log's beginning.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple
from zlib import crc32

from refold.engine.fold import evolve
from refold.engine.reader import beheaded, missing, read_partition
from refold.engine.recovery import recover
from refold.engine.rehearsal import History
from refold.engine.state import Ended, PartitionState
from refold.log.accepted import Accepted
from refold.log.chain_walk import beginning
from refold.log.codec import decode_event, kind_of
from refold.log.events import (
    PartitionClaimed,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowReopened,
    WorkflowStarted,
    WorkflowTerminated,
)
from refold.log.protocol import Channel, Log

_BORDERS = frozenset(
    kind.kind
    for kind in (
        PartitionClaimed,
        WorkflowStarted,
        WorkflowReopened,
        WorkflowCompleted,
        WorkflowFailed,
        WorkflowCancelled,
        WorkflowTerminated,
    )
)
"""Kinds of the events by which a run begins and ends, and of those that say which of them count."""


class Share(NamedTuple):
    """A share of a partition's runs, by their ids: number `number` of shares `of` which there are so many."""

    number: int = 0
    of: int = 1

    def has(self, workflow_id: str) -> bool:
        """Whether a run is in it. crc32 and not hash(), which differs from process to process."""
        return (
            self.of == 1
            or crc32(workflow_id.encode("utf-8", "surrogatepass")) % self.of == self.number
        )


WHOLE = Share()

Told = Callable[[int], None]
"""Hears how many records were read."""


def _unheard(_records: int) -> None:
    return None


async def read_open(
    log: Log, partition: int, share: Share = WHOLE, told: Told = _unheard
) -> list[History]:
    """The open runs of a partition, as a worker that took it over now would find them.

    Args:
        log: An open log.
        partition: Which of its partitions.
        share: Which of the runs.
        told: Hears how many records were read, batch by batch.

    Raises:
        LogCorrupt: The partition can't be folded.
        LogError: The log can't be read.
    """
    recovered = await recover(log, partition)
    state = recovered.state
    state.open = {id_: run for id_, run in state.open.items() if share.has(id_)}
    async for batch in log.read(Channel.EVENTS, partition, recovered.position):
        for record in batch:
            if record.key is None or share.has(record.key):
                evolve(state, decode_event(record), record.offset)
        told(len(batch))
    return [History(id_, run) for id_, run in state.open.items()]


async def ended_ids(log: Log, partition: int, workflow: str | None = None) -> dict[str, str]:
    """Runs of a partition that have ended and whose beginning is there: ids, and the kind of the event that ended them.

    Args:
        log: An open log.
        partition: Which of its partitions.
        workflow: Only runs of this workflow.

    Raises:
        LogCorrupt: The beginning is gone, and there is no checkpoint to begin with.
        LogError: The log can't be read.
    """
    start = await beginning(log, partition)
    accepted = Accepted(start.claim)
    named: set[str] = set()
    ended: dict[str, str] = {}
    async for batch in log.read(Channel.EVENTS, partition, start.offset):
        for record in batch:
            if kind_of(record) not in _BORDERS:
                continue
            event = accepted.take(record)
            if isinstance(event, WorkflowStarted | WorkflowReopened):
                ended.pop(record.key or "", None)
            if isinstance(event, WorkflowStarted):
                if workflow is None or event.workflow == workflow:
                    named.add(record.key or "")
            elif isinstance(event, Ended) and record.key in named:
                ended[record.key] = event.kind
    return ended


async def read_ended(
    log: Log, partition: int, ids: Collection[str], told: Told = _unheard
) -> list[History]:
    """The histories of runs that have ended, each as it stood before its end.

    Args:
        log: An open log.
        partition: Where they are.
        ids: The runs. One that is open again by now is left out.
        told: Hears how many records were read, batch by batch.

    Raises:
        LogCorrupt: The partition can't be folded.
        LogError: The log can't be read.
    """
    start = await beginning(log, partition)
    state = PartitionState(claim=start.claim, remembers=True)
    found: dict[str, History] = {}
    async for batch in log.read(Channel.EVENTS, partition, start.offset):
        for record in batch:
            id_ = record.key
            if id_ is not None and id_ not in ids:
                continue
            event = decode_event(record)
            before = None if id_ is None else state.open.get(id_)
            evolve(state, event, record.offset)
            if id_ is None:
                continue
            if id_ in state.open:
                found.pop(id_, None)  # it was reopened, or is another run under its id
            elif before is not None and isinstance(event, Ended):
                found[id_] = History(id_, before, event)
        told(len(batch))
    return [found[id_] for id_ in sorted(found)]


async def read_run(log: Log, workflow_id: str) -> History:
    """The history of one run, whether it is open or has ended.

    Args:
        log: An open log.
        workflow_id: The run.

    Raises:
        WorkflowNotFound: No run has that id.
        LogTrimmed: Its first events were trimmed.
        LogCorrupt: Its partition can't be folded.
        LogError: The log can't be read.
    """
    partition = log.layout.place(workflow_id)
    state = await read_partition(log, partition, workflow_id, remembers=True)
    if workflow_id in state.open:
        return History(workflow_id, state.open[workflow_id])
    start = await beginning(log, partition)
    for history in await read_ended(log, partition, {workflow_id}):
        if history.state.started is None:
            raise beheaded(workflow_id, start)
        return history
    raise await missing(log, workflow_id, start)
