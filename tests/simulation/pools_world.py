"""A partition with steps of a pool, its owners one after the other, and the pool's workers, in a time of its own.

The owner's side is the real `Pools`; the workers do what `PoolJob` does, without threads and asyncio. Replies are
delayed and lost, commands are consumed late and, by the next owner, again; owners die, workers are killed, stopped and
woken up. What is checked whatever happens: no attempt begins once its outcome is recorded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from random import Random

from refold.engine.effects import Answer, Effect, Grant, Launch
from refold.engine.operations import StepCall, StepOptions
from refold.engine.payload import PayloadType
from refold.engine.pool_messages import (
    Attempted,
    Offer,
    PoolStep,
    offer_text,
    read_cancelled,
    read_task,
)
from refold.engine.pools import Pools
from refold.engine.proof import FRESH_S
from refold.log.commands import BeginStep, Command, KeepStep, OfferWork, Reply, ReportStep

SECOND = 1_000_000
LEASE_S = 8.0
OFFER_EVERY_S = 30.0
STEP = PoolStep("p", "s")
ANY = PayloadType.of(object, "result")
STEPS_TAKE_S = (0.02, 0.5, 20.0)


class Begun(AssertionError):
    """A step began after its outcome was recorded."""


@dataclass(slots=True)
class Job:
    """An attempt in a worker."""

    attempted: Attempted
    asked: dict[str, int] = field(default_factory=dict[str, int])  # command id -> when
    last: str = ""
    proof: int | None = None
    has_begun: bool = False
    over: bool = False


class SimWorker:
    """A pool's worker. While it is stopped, nothing happens in it; what was to happen does so when it goes on."""

    def __init__(self, world: "PoolsWorld", name: str, slots: int) -> None:
        self.world = world
        self.name = name
        self.slots = slots
        self.alive = True
        self.stopped_until = 0
        self.jobs: dict[tuple[str, int], Job] = {}
        self.commands = 0
        self.offer()

    def does(self, what: Callable[[], None], after_s: float) -> None:
        """Do something later, or whenever it can by then."""

        def act() -> None:
            if not self.alive:
                return
            if self.stopped_until > self.world.now:
                self.world.at(self.stopped_until, act)
            else:
                what()

        self.world.after(after_s, act)

    def next_id(self) -> str:
        self.commands += 1
        return f"{self.name}/{self.commands}"

    def offer(self) -> None:
        self.say()
        self.does(self.offer, OFFER_EVERY_S)

    def say(self, slots: int | None = None, declined: tuple[Attempted, ...] = ()) -> None:
        slots = self.slots if slots is None else slots
        offer = Offer(slots=slots, steps=(STEP,), lasts_s=3 * OFFER_EVERY_S, declined=declined)
        self.world.command(
            OfferWork(
                command_id=self.next_id(),
                workflow_id="p",
                reply_to=self.name,
                requested_at=0,
                payload=offer_text(offer),
            )
        )

    def hear(self, reply: Reply) -> None:
        match reply.status:
            case "step":
                self.given(read_task(reply).attempted)
            case "granted":
                for job in self.jobs.values():
                    if job.last == reply.command_id and not job.has_begun:
                        job.proof = job.asked[job.last]
                        self.does(partial(self.begin, job), self.world.some(0.01, 2.5))
            case "cancel":
                cancelled = read_cancelled(reply)
                found = self.jobs.get((cancelled.workflow_id, cancelled.step))
                is_past = found is None or (found.has_begun and reply.command_id in found.asked)
                if found is not None and found.attempted == cancelled and not is_past:
                    self.end(found)
            case _:
                self.say()

    def given(self, attempted: Attempted) -> None:
        key = attempted.workflow_id, attempted.step
        if key in self.jobs:
            return
        if len(self.jobs) >= self.slots:
            self.say(0, (attempted,))
            return
        job = self.jobs[key] = Job(attempted)
        self.ask(job)

    def ask(self, job: Job) -> None:
        if job.over or job.has_begun:
            return
        job.last = self.next_id()
        job.asked[job.last] = self.world.now
        workflow_id, step, attempt = job.attempted
        self.world.command(
            BeginStep(
                command_id=job.last,
                workflow_id=workflow_id,
                reply_to=self.name,
                requested_at=0,
                step=step,
                attempt=attempt,
            )
        )
        self.does(partial(self.ask, job), 2 * FRESH_S)

    def begin(self, job: Job) -> None:
        if job.over or job.has_begun or job.proof is None:
            return
        if self.world.now - job.proof > FRESH_S * SECOND:
            return  # it asks again
        self.world.begins(job.attempted)
        job.has_begun = True
        self.does(partial(self.keep, job), LEASE_S / 4)
        self.does(partial(self.report, job), self.world.some(*STEPS_TAKE_S))

    def keep(self, job: Job) -> None:
        if job.over:
            return
        workflow_id, step, attempt = job.attempted
        self.world.command(
            KeepStep(
                command_id=self.next_id(),
                workflow_id=workflow_id,
                reply_to=self.name,
                requested_at=0,
                step=step,
                attempt=attempt,
            )
        )
        self.does(partial(self.keep, job), LEASE_S / 4)

    def report(self, job: Job) -> None:
        if job.over:
            return
        self.end(job)
        workflow_id, step, attempt = job.attempted
        self.world.command(
            ReportStep(
                command_id=self.next_id(),
                workflow_id=workflow_id,
                reply_to=self.name,
                requested_at=0,
                step=step,
                attempt=attempt,
                payload="{}",
            )
        )

    def end(self, job: Job) -> None:
        job.over = True
        self.jobs.pop((job.attempted.workflow_id, job.attempted.step), None)
        self.say()


class PoolsWorld:
    """The partition's commands, its owner, and all workers."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0
        self.calm = False  # nothing fails any more
        self.recorded: set[tuple[str, int]] = set()
        self.begun = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._commands: list[Command] = []
        self._durable = 0  # commands before it need not be consumed again
        self._consumed = 0
        self._launches: dict[tuple[str, int], Launch] = {}
        self._owner = 0
        self.pools = self._new_pools()
        self.workers = [SimWorker(self, f"w{n}", 1 + n) for n in range(2)]

    # Time -------------------------------------------------------------------------------------------------

    def at(self, when: int, what: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (when, self._count, what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now + round(seconds * SECOND), what)

    def some(self, *at_most_s: float) -> float:
        """Some seconds, at most one of these."""
        return self.random.random() * self.random.choice(at_most_s)

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + round(seconds * SECOND)
        while self._events and self._events[0][0] <= end:
            self.now, _, what = heappop(self._events)
            what()
        self.now = end

    # Commands and replies ---------------------------------------------------------------------------------

    def command(self, command: Command) -> None:
        """Append a command; the owner consumes it soon, or late."""
        self._commands.append(command)
        late_s = 0.01 if self.calm else self.some(0.01, 0.01, 0.1, 1.5, 4.0)
        self.after(late_s, partial(self._consume, self._owner))

    def begins(self, attempted: Attempted) -> None:
        """A worker begins an attempt."""
        self.begun += 1
        if (attempted.workflow_id, attempted.step) in self.recorded:
            raise Begun(attempted)

    def _consume(self, owner: int) -> None:
        """The owner, if it still is, consumes all that there is, in order."""
        if owner != self._owner:
            return
        while self._consumed < len(self._commands):
            command = self._commands[self._consumed]
            self._consumed += 1
            match command:
                case OfferWork():
                    self.pools.offered(command)
                case BeginStep():
                    self.pools.begin(command)
                case KeepStep():
                    self.pools.keep(command)
                case ReportStep():
                    if not self.pools.puts_off(command):
                        self._reported(command)
                case _:
                    raise AssertionError(command)
        self._pump()

    def _reported(self, command: ReportStep) -> None:
        launch = self.pools.reported(command)
        if launch is not None and self._wants(launch):
            self.recorded.add((launch.workflow_id, launch.step))
            self._durable = self._consumed

    def _pump(self) -> None:
        for report in self.pools.take_put_off():
            self._reported(report)
        self.pools.tick()
        self._tell(self.pools.divert([]))
        wake_at = self.pools.wake_at()
        if wake_at is not None:
            self.at(max(wake_at, self.now + 1), partial(self._woken, self._owner))

    def _woken(self, owner: int) -> None:
        if owner == self._owner:
            self._pump()

    def _tell(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert isinstance(effect, Answer | Grant)
            if not self.calm and self.random.random() < 0.1:
                continue  # lost
            late_s = 0.01 if self.calm else self.some(0.01, 0.01, 0.5, 3.0)
            for worker in self.workers:
                if worker.name == effect.client_id:
                    worker.does(partial(worker.hear, effect.reply), late_s)

    # Owners -----------------------------------------------------------------------------------------------

    def _new_pools(self) -> Pools:
        return Pools(self._wants, lambda: self.now, LEASE_S)

    def _wants(self, launch: Launch) -> bool:
        return (launch.workflow_id, launch.step) not in self.recorded

    def ask_for(self, workflow_id: str) -> None:
        """A workflow asks for a step."""
        call = StepCall(STEP.name, lambda: None, False, StepOptions(pool=STEP.pool), ANY, "{}")
        launch = Launch(workflow_id, "w", 0, 1, call, None)
        self._launches[workflow_id, 0] = launch
        self.pools.expect(launch, is_inherited=False)
        self._tell(self.pools.divert([launch]))
        self._pump()

    def take_over(self) -> None:
        """The owner is no more; the next one knows what is recorded, and consumes the commands since again."""
        told = self.pools.abandoned()
        if self.random.random() < 0.5:  # it was given up, not killed
            self._tell([*told])
        self._owner += 1
        self.pools = self._new_pools()
        self._consumed = self._durable
        open_ones = [launch for launch in self._launches.values() if self._wants(launch)]
        for launch in open_ones:
            self.pools.expect(launch, is_inherited=True)
        self._tell(self.pools.divert([*open_ones]))
        self.after(self.random.random(), partial(self._consume, self._owner))

    # Faults -----------------------------------------------------------------------------------------------

    def fault(self) -> None:
        """Something happens."""
        worker = self.random.choice(self.workers)
        match self.random.randrange(4):
            case 0:
                self.take_over()
            case 1:
                worker.stopped_until = self.now + self.random.randrange(round(3 * LEASE_S * SECOND))
            case 2:
                worker.alive = False
                self.workers.remove(worker)
                name = f"w{len(self._commands)}-{self._count}"
                self.workers.append(SimWorker(self, name, self.random.randint(1, 3)))
            case _:
                pass
