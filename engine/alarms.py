"""When what is due: timers, retries and deadlines of one owner's runs.

An alarm rings once the wall clock has reached its time and, as well, as much time has passed as there was to wait when
it was set, by a clock that nobody can set. So a wall clock that is set forward rings nothing early, and one that is
set back rings nothing twice; the latter makes alarms late by as much as it was set back, never early.
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final

LOOK_AGAIN_US: Final = 60_000_000
"""An alarm that the wall clock, set back, has put off is looked at again after this long: it may be set right."""
PRUNE_AT: Final = 1_000
"""Alarms, some 100 bytes each, below which nobody looks which of them are still wanted."""

Wanted = Callable[[str, int, int], bool]
"""Whether an alarm is still wanted, by workflow id, step and due time."""


class Alarms:
    """Alarms, earliest first. One that is no longer wanted may ring all the same: who hears it has to know.

    Timeouts are mostly set to be cancelled, and timers are set again whenever their run is replayed. So what is not
    wanted any more, or is set twice, is forgotten whenever there are twice as many as were wanted the last time.

    Args:
        elapsed: A clock that only goes forward, in microseconds from any beginning.
        wanted: Whether an alarm is still wanted.
    """

    def __init__(self, elapsed: Callable[[], int], wanted: Wanted) -> None:
        self._elapsed = elapsed
        self._wanted = wanted
        self._heap: list[tuple[int, int, int, str, int]] = []  # rings, tie-break, due, id, step
        self._count = 0
        self._prune_at = PRUNE_AT

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, due_at: int, now: int, workflow_id: str, step: int) -> None:
        """Ring at `due_at` for an operation.

        Args:
            due_at: Microseconds since 1970-01-01 UTC.
            now: The wall clock, likewise.
            workflow_id: Whose operation it is.
            step: Its number; negative for alarms of the run itself.
        """
        if len(self._heap) >= self._prune_at:
            self._prune()
        self._push(max(0, due_at - now), due_at, workflow_id, step)

    def ring(self, now: int) -> tuple[str, int, int] | None:
        """The next alarm whose time has come: workflow id, step and due time; None where there is none."""
        if not self._heap:
            return None
        elapsed = self._elapsed()
        while self._heap and self._heap[0][0] <= elapsed:
            _, _, due_at, workflow_id, step = heappop(self._heap)
            if due_at <= now:
                return workflow_id, step, due_at
            self._push(min(due_at - now, LOOK_AGAIN_US), due_at, workflow_id, step)
        return None

    def wake_at(self) -> int | None:
        """When `ring` has something to do next, by the clock that only goes forward; None for never."""
        return self._heap[0][0] if self._heap else None

    def clear(self) -> None:
        """Forget all."""
        self._heap.clear()

    def _prune(self) -> None:
        kept: dict[tuple[int, str, int], tuple[int, int, int, str, int]] = {}
        for alarm in self._heap:
            _, _, due_at, workflow_id, step = alarm
            other = kept.get(alarm[2:])
            if alarm < other if other is not None else self._wanted(workflow_id, step, due_at):
                kept[alarm[2:]] = alarm
        self._heap = list(kept.values())
        heapify(self._heap)
        self._prune_at = max(PRUNE_AT, 2 * len(self._heap))

    def _push(self, wait: int, due_at: int, workflow_id: str, step: int) -> None:
        self._count += 1
        rings = self._elapsed() + wait
        heappush(self._heap, (rings, self._count, due_at, workflow_id, step))
