"""Which open runs of a partition have their code in memory, which only rest there, and which wait for room.

A run that waits for nothing but far timers is dropped from memory and replayed when one fires. One that waits for
messages, children or answers is kept as long as there is room, since the next may come soon.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from refold.engine.active import Active, OwnerSettings
from refold.engine.operations import Run, StepRequest, TimerRequest
from refold.engine.room import Queue, Room

MICROSECONDS: Final = 1_000_000


class Residents:
    """The runs in memory of one partition.

    Args:
        room: For how many runs there is memory, over all partitions.
        settings: Limits.
    """

    def __init__(self, room: Room, settings: OwnerSettings) -> None:
        self._room = room
        self._max_idle_runs = settings.max_idle_runs
        self._suspend_after_us = round(settings.suspend_after_s * MICROSECONDS)
        self._idle: OrderedDict[str, Active] = OrderedDict()
        self._outside: Queue[str, Active] = Queue(room)

    @property
    def any_outside(self) -> bool:
        """Whether a run waits for room."""
        return bool(self._outside)

    @property
    def may_enter(self) -> bool:
        """Whether a run waits for room, and there is some."""
        return bool(self._outside) and not self._room.is_full()

    def make_room(self) -> bool:
        """Whether one more run may be taken into memory; the longest idle one makes room for it."""
        room = self._room
        if room.is_full() and self._idle:
            _, longest = self._idle.popitem(last=False)
            self.suspend(longest)
        return not room.is_full()

    def admits(self, active: Active) -> bool:
        """Whether a run may be taken into memory now; else it waits outside."""
        if self.make_room():
            return True
        self._outside.add(active.workflow_id, active)
        return False

    def enter(self, active: Active, run: Run) -> None:
        """A run's code is in memory from now on."""
        active.run = run
        self._room.enter()

    def let_in(self) -> Iterator[Active]:
        """Runs that have waited and may be taken up now; room is made for those of other partitions."""
        if self._room.waiting:
            self.make_room()
        while self._outside and self.make_room():
            yield self._outside.next()

    def clear(self) -> None:
        """Nobody waits for room any more."""
        self._outside.clear()

    def rest(self, active: Active, run: Run, now: int) -> None:
        """Drop a run from memory that only waits: at once for far timers, else when there is no more room."""
        far_us = 0 if self._room.waiting else self._suspend_after_us
        waits = not active.in_flight and (
            not active.armed or min(active.armed.values()) - now >= far_us
        )
        if not waits or any(isinstance(request, StepRequest) for request in run.pending.values()):
            if self._idle:
                self._idle.pop(active.workflow_id, None)
            return
        if not run.waits_for_input and all(
            isinstance(request, TimerRequest) for request in run.pending.values()
        ):
            self.suspend(active)
            return
        if self._room.waiting:
            self.suspend(active)
            return
        self._idle[active.workflow_id] = active
        self._idle.move_to_end(active.workflow_id)
        if len(self._idle) > self._max_idle_runs:
            _, longest = self._idle.popitem(last=False)
            self.suspend(longest)

    def suspend(self, active: Active) -> None:
        """Drop a run from memory; its alarms stay set, and what comes for it brings it back."""
        if active.run is not None:
            active.run.close()
            active.run = None
            self._room.leave()
        active.armed.clear()
        self._idle.pop(active.workflow_id, None)
