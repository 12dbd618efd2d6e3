"""How many runs have their code in memory, or how many steps are under way, over all partitions of a worker.

The limits are a number and the memory of the process.

A run beyond the limit is not refused and not lost: its start is recorded, and it waits until another one rests or ends.
What only waits (for messages, children, timers) makes room first, so that runs which wait for each other never stand
in each other's way for good. One run may always be in memory: there is progress whatever else fills the memory.
"""

import logging
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

LOOK_EVERY_US: Final = 1_000_000
"""Memory in use is looked at no more often: it costs a system call and changes slowly."""

logger = logging.getLogger("refold.worker")

K = TypeVar("K")
V = TypeVar("V")

_STATM: Final = Path("/proc/self/statm")
_KIB: Final = 1024
_MEGABYTE: Final = 1_000_000


class Room:
    """Room for runs, or for steps. Used on one event loop.

    Args:
        max_runs: Runs that may be in memory; None for any number.
        max_memory_bytes: Memory of the process above which no further run is taken up; None for any.
        elapsed: A clock that only goes forward, in microseconds.
        memory_bytes: Memory of the process now.
    """

    def __init__(
        self,
        max_runs: int | None = None,
        max_memory_bytes: int | None = None,
        *,
        elapsed: Callable[[], int] = lambda: 0,
        memory_bytes: Callable[[], int] | None = None,
    ) -> None:
        self.in_memory = 0
        self.waiting = (
            0  # runs that are to be taken up and have no room, over all partitions: see `Queue`
        )
        self._max_runs = max_runs
        self._max_memory_bytes = max_memory_bytes
        self._elapsed = elapsed
        self._memory_bytes = memory_bytes or resident_bytes
        self._looked_at: int | None = None
        self._crowded = False
        self._wakers: list[Callable[[], None]] = []

    def is_full(self) -> bool:
        """Whether a run that is to be taken up has to wait."""
        if self.in_memory == 0:
            return False
        if self._max_runs is not None and self.in_memory >= self._max_runs:
            return True
        return self._max_memory_bytes is not None and self._uses_too_much(self._max_memory_bytes)

    def enter(self) -> None:
        """A run is taken into memory."""
        self.in_memory += 1

    def leave(self) -> None:
        """A run is dropped from memory: those who have runs that wait are woken."""
        self.in_memory -= 1
        if self.waiting:
            self._wake()

    def wait(self) -> None:
        """A run is to be taken up and has no room: those who have runs that only wait are woken to make some."""
        self.waiting += 1
        self._wake()

    def wake_with(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when there may be room; returns what ends that."""
        self._wakers.append(wake)

        def end() -> None:
            if wake in self._wakers:
                self._wakers.remove(wake)

        return end

    def _wake(self) -> None:
        for wake in tuple(self._wakers):
            wake()

    def _uses_too_much(self, limit: int) -> bool:
        now = self._elapsed()
        if self._looked_at is None or now - self._looked_at >= LOOK_EVERY_US:
            self._looked_at = now
            self._look(self._memory_bytes(), limit)
        return self._crowded

    def _look(self, used: int, limit: int) -> None:
        was, self._crowded = self._crowded, used > limit
        if was == self._crowded:
            return
        told = f"{used // _MEGABYTE} MB are in use, the limit is {limit // _MEGABYTE} MB"
        if self._crowded:
            logger.warning(
                "memory is short: %s. No further run is taken up until some is free", told
            )
        else:
            logger.info("memory is free again: %s. Runs that have waited are taken up", told)


class Queue(Generic[K, V]):
    """Those of one partition that wait for room, the longest waiting first.

    Args:
        room: What they wait for, with others.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._items: dict[K, V] = {}

    def __bool__(self) -> bool:
        return bool(self._items)

    def add(self, key: K, item: V) -> None:
        """Have it wait; in place of another with its key, if one does."""
        is_new = key not in self._items
        self._items[key] = item
        if is_new:
            self._room.wait()

    def drop(self, key: K) -> None:
        """It waits no longer, if it did."""
        if self._items.pop(key, None) is not None:
            self._room.waiting -= 1

    def next(self) -> V:
        """The one that has waited longest; it waits no longer."""
        item = self._items.pop(next(iter(self._items)))
        self._room.waiting -= 1
        return item

    def clear(self) -> None:
        """Nobody waits any more."""
        self._room.waiting -= len(self._items)
        self._items.clear()


def resident_bytes() -> int:
    """Memory of this process: what is resident now on Linux, elsewhere the most that was."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * _KIB
