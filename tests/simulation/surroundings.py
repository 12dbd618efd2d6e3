"""What a simulated worker lives in: its way to the log, on which appends meet their fate, and its clocks."""

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol

from tests.simulation.attempts import NAMESPACE, SECOND_US, Attempt
from tests.simulation.faults import Fault, Kind
from tests.simulation.turns import pause

from refold.engine.effects import Answer, Launch
from refold.engine.operations import Outcome
from refold.engine.owner import Owner
from refold.engine.proof import Instant, Proof
from refold.engine.recovery import Folded
from refold.log.errors import AppendUnknown
from refold.log.layout import Layout
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Bounds, Channel, Entry

if TYPE_CHECKING:
    from tests.simulation.shell import SimWorker


class Killed(BaseException):
    """The worker's process is gone."""


class Surroundings(Protocol):
    """What a worker is told by, and tells, the world that it lives in."""

    now_us: int

    @property
    def store(self) -> MemoryStore:
        """The log."""
        ...

    @property
    def random(self) -> Random:
        """Where all chance comes from."""
        ...

    @property
    def layout(self) -> Layout:
        """Which partitions the log has."""
        ...

    def fate(self, worker: "SimWorker", channel: Channel, partition: int, entries: int) -> Fault:
        """What becomes of the worker's next append."""
        ...

    def stall(self, worker: "SimWorker") -> None:
        """The worker stops, and somebody else is to take over."""

    def land_later(self, channel: Channel, partition: int, entries: Sequence[Entry]) -> None:
        """Records are on their way, and will come into the log when nobody waits for them any more."""

    def owns(self, worker: "SimWorker", folded: Folded) -> None:
        """The worker takes itself for the owner, by the last claim of that fold."""

    def began(self, worker: "SimWorker", launch: Launch, knew: Sequence[Outcome]) -> None:
        """A step's attempt begins now, which its code asked for when it knew these outcomes."""

    def goes_on(self, worker: "SimWorker", attempts: Sequence[Attempt]) -> None:
        """These go on after their worker has handed the partition over."""

    def answered(self, answer: Answer) -> None:
        """A client hears a reply."""

    def quiet(self, worker: "SimWorker", owner: Owner) -> None:
        """All that the owner has made is confirmed."""


class SimLog(MemoryLog):
    """One worker's way to the log, on which its appends meet their fate."""

    def __init__(self, world: Surroundings, worker: "SimWorker") -> None:
        super().__init__(NAMESPACE, store=world.store)
        self._world = world
        self._worker = worker

    def _check(self, partition: int) -> None:
        """Nothing was opened: there is no event loop to be bound to."""

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """Append, with what goes wrong on the way."""
        fault = self._world.fate(self._worker, channel, partition, len(entries))
        count = len(entries) if fault.written is None else min(fault.written, len(entries))
        if fault.kind in (Kind.OK, Kind.SLOW):
            count = len(entries)
        await pause()
        if fault.kind is Kind.ZOMBIE and count == 0:
            await self._stop()
        offsets = list(self._store.append(channel, partition, entries[:count]))
        match fault.kind:
            case Kind.OK:
                await pause()
            case Kind.CRASH:
                raise Killed
            case Kind.LOST | Kind.LATE:
                await pause()
                if fault.kind is Kind.LATE:
                    self._world.land_later(channel, partition, entries[count:])
                raise AppendUnknown(f"append of {len(entries)} records timed out")
            case Kind.SLOW | Kind.TORN:
                await pause(self._world.now_us + self._world.random.randrange(20 * SECOND_US))
            case Kind.ZOMBIE:
                if count:
                    await self._stop()
        offsets.extend(self._store.append(channel, partition, entries[count:]))
        return offsets

    async def bounds(self, channel: Channel, partition: int) -> Bounds:
        """First offset and end; the answer takes its time."""
        bounds = await super().bounds(channel, partition)
        await pause()
        return bounds

    async def _stop(self) -> None:
        self._world.stall(self._worker)
        await pause()


class SimProof(Proof):
    """The real rule of how fresh a worker's knowledge is, by virtual clocks."""

    def __init__(self, world: Surroundings, worker: "SimWorker") -> None:
        super().__init__(worker.clock)
        self._world = world
        self._worker = worker

    def now(self) -> Instant:
        """The virtual moment; the monotonic clock is not off and can't be set."""
        return Instant(self._world.now_us / SECOND_US, self._worker.clock())
