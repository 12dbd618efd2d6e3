"""What a worker has to do and has done, as numbers for whoever watches it from outside.

Counted where it costs nothing: what was appended, batch by batch, from the records' headers. The rest is counted when
somebody asks, from the folds, in slices, so that a worker with a million sleepers works on meanwhile.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from refold.engine.room import Room
from refold.engine.state import PartitionState, Status
from refold.log.events import WorkflowWarned
from refold.log.protocol import Entry

SLICE = 10_000
"""Open runs that are counted before others get the event loop: a millisecond or two."""

_WARNED = WorkflowWarned.kind.encode()


@dataclass(frozen=True, slots=True)
class Stats:
    """A worker's numbers.

    Args:
        owned_partitions: Partitions that it owns now.
        open_runs: Open runs of those, by name of the workflow ("?" where its start can't be read) and status.
        longest_history: Entries of the longest history that an open run has to be told when it is replayed.
        history_warnings: `WorkflowWarned` events that this worker has written since it was made.
        events: Events that it has written since it was made, claims not among them.
        waiting_for_pools: Steps of its runs that wait for a worker of their pool, by pool.
        runs_in_memory: Runs whose code is in its memory.
        runs_waiting: Runs that are to be taken into memory and have no room there (`max_runs`, `max_memory_bytes`).
        steps_waiting: Steps that are to begin here and have no room (`max_steps`).
        projections: Whether each projection that this process keeps goes on, by name.
        halted_partitions: Partitions that it should own and can't go on with: their workflows stand still.
    """

    owned_partitions: int
    open_runs: Mapping[tuple[str, Status], int]
    longest_history: int
    history_warnings: int
    events: int
    waiting_for_pools: Mapping[str, int]
    runs_in_memory: int = 0
    runs_waiting: int = 0
    steps_waiting: int = 0
    projections: Mapping[str, bool] = field(default_factory=dict[str, bool])
    halted_partitions: int = 0


class Tally:
    """What a worker has written since it was made."""

    def __init__(self) -> None:
        self.events = 0
        self.history_warnings = 0

    def appended(self, entries: Sequence[Entry]) -> None:
        """Count events that have become durable."""
        self.events += len(entries)
        for entry in entries:
            if entry.headers[0][1] == _WARNED:
                self.history_warnings += 1


async def stats_of(
    states: Iterable[PartitionState],
    tally: Tally,
    waiting_for_pools: Mapping[str, int],
    room: Room,
    step_room: Room,
) -> Stats:
    """The numbers of a worker that owns partitions with these folds."""
    owned = 0
    open_runs: Counter[tuple[str, Status]] = Counter()
    longest = 0
    for state in states:
        owned += 1
        runs = list(state.open.values())
        for start in range(0, len(runs), SLICE):
            for run in runs[start : start + SLICE]:
                name = run.started.workflow if run.started is not None else "?"
                open_runs[name, run.status] += 1
                longest = max(longest, len(run.outcomes))
            await asyncio.sleep(0)
    return Stats(
        owned,
        open_runs,
        longest,
        tally.history_warnings,
        tally.events,
        waiting_for_pools,
        room.in_memory,
        room.waiting,
        step_room.waiting,
    )
