"""A worker: the thin shell around the owners of its partitions. It moves bytes, time and results; it decides nothing.

For each partition that its membership assigns there is one `Session` (`engine/session.py`).
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from refold.engine.blobs import (
    IN_RECORDS,
    MIN_PAYLOAD_BYTES,
    RECORD_HEADROOM_BYTES,
    Blobs,
)
from refold.engine.checkpoints import CheckpointSettings
from refold.engine.effects import Answer
from refold.engine.groups import join
from refold.engine.leftover import Leftover
from refold.engine.lookout import LOOK_EVERY_S, Lookout
from refold.engine.owner import Owner, Runs
from refold.engine.pools import DEFAULT_LEASE_S, all_waiting
from refold.engine.room import Room
from refold.engine.session import GRACE_S, Session
from refold.engine.state import PartitionState
from refold.engine.stats import Tally
from refold.log.codec import encode_reply
from refold.log.commands import Command, Reply
from refold.log.errors import LogError, UsageError
from refold.log.health import CHECK_EVERY_S, Checked, watch
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Entry, Log, Membership, Record

logger = logging.getLogger("refold.worker")


def wall_clock() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


def elapsed_clock() -> int:
    """Microseconds by a clock that nobody can set; on Linux it goes on while the machine is suspended."""
    return time.clock_gettime_ns(_ELAPSED) // 1000


_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works.

    Args:
        name: Its name, recorded in every event that it writes.
        threads: Most `def` steps that run at once.
        max_payload_bytes: Largest JSON of one argument list or result.
        drain_s: How long steps under way may go on once their partition is given up, in seconds; what is not done by
            then runs again elsewhere. On Kafka a worker that is told to stop gives up what it has when others ask for
            it, or after 4 s; with 0 at once.
        max_steps: Steps that are under way at a time, `async def` ones as well; further ones wait. None for any number.
        max_runs: Runs whose code is in memory at a time; further ones wait. None for any number.
        max_memory_bytes: Memory of the process above which no further run is taken up. None for any.
        checkpoints: When checkpoints are written and what they forget.
        pool_lease_s: How long a pool's worker may go on with a step without a word, in seconds.
        serves: The pools of workflows whose partitions it takes; None is for those that are no pool's.

    Raises:
        UsageError: A limit can't be.
    """

    name: str
    threads: int = 32
    max_payload_bytes: int = 900_000
    drain_s: float = 10.0
    max_steps: int | None = None
    max_runs: int | None = 20_000
    max_memory_bytes: int | None = None
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    pool_lease_s: float = DEFAULT_LEASE_S
    serves: tuple[str | None, ...] = (None,)

    def __post_init__(self) -> None:
        for limit in ("threads", "max_payload_bytes", "max_steps", "max_runs", "max_memory_bytes"):
            value = getattr(self, limit)
            if value is not None and not value >= 1:
                raise UsageError(f"{limit}={value!r} can't be: give 1 or more")
        check_seconds("drain_s", self.drain_s)


def check_seconds(name: str, value: object) -> None:
    """Refuse what is no length of time.

    Raises:
        UsageError: It is no number, or negative.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        raise UsageError(f"{name}={value!r} can't be: give seconds, 0 or more")


class Worker:
    """Runs the workflows of the partitions that it is assigned.

    Args:
        log: An open log.
        runs: Makes runs from histories: the user's code.
        settings: Name and limits.
        answer_locally: Offered each reply first; returns whether it was for a client of this process.
        halted: Told of a partition that can't go on (corrupt log, wrong topic), with the reason.
        clock: Wall clock, microseconds since 1970-01-01 UTC.
        elapsed: A clock that only goes forward, in microseconds: alarms look at both.
        blobs: Where large payloads are put and read.
    """

    def __init__(  # noqa: PLR0913 - each a plain part of the worker
        self,
        log: Log,
        runs: Runs,
        settings: WorkerSettings,
        *,
        answer_locally: Callable[[str, Reply], bool],
        halted: Callable[[int, LogError], None],
        clock: Callable[[], int] = wall_clock,
        elapsed: Callable[[], int] = elapsed_clock,
        blobs: Blobs = IN_RECORDS,
    ) -> None:
        self.log = log
        self.blobs = blobs
        self.runs = runs
        self.settings = settings
        self.clock = clock
        self.elapsed = elapsed
        self.check_every_s = CHECK_EVERY_S
        self.pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="refold-step")
        self.random = random.SystemRandom().random
        self.step_room = Room(settings.max_steps)
        self.room = Room(settings.max_runs, settings.max_memory_bytes, elapsed=elapsed)
        self.tally = Tally()
        self._answer_locally = answer_locally
        self._halted = halted
        self._halted_with: dict[int, LogError] = {}
        self._sessions: dict[int, Session] = {}
        # Those that go on until somebody asks for their partition, and what waits for that.
        self._parting: dict[int, tuple[Session, asyncio.Task[Leftover | None]]] = {}
        self._awaited: set[int] = set()  # of these partitions, those that are ours again after that
        self._membership: Membership | None = None
        self._replies: dict[int, list[Entry]] = {}
        self._reply_task: asyncio.Task[None] | None = None
        self._stopping = False
        self._ending: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._watching: list[asyncio.Task[None]] = []
        self.lookout: Lookout | None = None

    @property
    def membership(self) -> Membership:
        """The worker's place in the group."""
        if self._membership is None:
            raise RuntimeError("the worker has not been started")
        return self._membership

    @property
    def max_payload_bytes(self) -> int:
        """Largest JSON of a payload: the setting, or less where it stands in a record and the log takes less."""
        if self.blobs.store is not None:
            return self.settings.max_payload_bytes
        room = self.blobs.fitting(self.log.max_record_bytes - RECORD_HEADROOM_BYTES)
        return max(MIN_PAYLOAD_BYTES, min(self.settings.max_payload_bytes, room))

    @property
    def owned(self) -> list[int]:
        """Partitions whose claim was accepted and whose open runs are back, in order."""
        # A copy first: other threads ask, while the loop's own may be taking a partition up.
        return sorted(p for p, session in list(self._sessions.items()) if session.ready)

    @property
    def halted(self) -> dict[int, LogError]:
        """Partitions that could not go on here, each with the reason."""
        return dict(self._halted_with)

    def states(self) -> list[PartitionState]:
        """The folds of the partitions that are owned, to be read on the worker's loop only."""
        return [owner.state for owner in self._owners()]

    def waiting_for_pools(self) -> Counter[str]:
        """How many attempts each pool has nobody for, in the partitions that are owned."""
        return all_waiting(owner.pools for owner in self._owners())

    def _owners(self) -> list[Owner]:
        owners = [session.owner for session in self._sessions.values() if session.ready]
        return [owner for owner in owners if owner is not None]

    async def start(self) -> None:
        """Join the group. Partitions come as they are assigned."""
        settings = self.settings
        self._membership = await join(self.log, settings.name, self, settings.serves)
        for partition in self._sessions:  # assigned while joining
            self._sessions[partition].begin()
        loop = asyncio.get_running_loop()
        if isinstance(self.log, Checked):
            watching = watch(self.log, self._halt_now, lambda: asyncio.sleep(self.check_every_s))
            self._watching.append(loop.create_task(watching))
        if not self._membership.waits_for_release:
            self.lookout = Lookout(
                self.log, self._membership, lambda partition: self._at_work(partition) is not None
            )
            looking = self.lookout.watch(lambda: asyncio.sleep(LOOK_EVERY_S))
            self._watching.append(loop.create_task(looking))

    def _halt_now(self, partition: int, error: LogError) -> None:
        """The log is no longer the one that was opened: drop the partition, with nothing more written."""
        self.halt(partition, error)
        session = self._at_work(partition)
        self._sessions.pop(partition, None)
        if session is not None:
            self._end(session.give_up(0.0, 0.0))

    async def stop(self) -> None:
        """Hand all partitions over and leave the group; steps under way may finish within `drain_s`."""
        self._stopping = True
        for watching in self._watching:
            watching.cancel()
        sessions = list(self._sessions.values())
        drain_s = self.settings.drain_s
        membership = self._membership
        parted: list[asyncio.Task[Leftover | None]] = []
        waiting: asyncio.Task[None] | None = None
        if membership is not None and drain_s > 0 and membership.understands_offers:
            await asyncio.gather(*(session.offer() for session in sessions))
            if await membership.retire():
                parted = [self._part_with(p, session) for p, session in self._sessions.items()]
                sessions = []
                self._sessions.clear()
                waiting = asyncio.get_running_loop().create_task(self._until_deserted(membership))
        # Where nobody would take over, there is nothing to hurry for.
        grace_s = drain_s if membership is None or membership.alone else GRACE_S
        leftovers = await asyncio.gather(
            *(session.give_up(drain_s, grace_s) for session in sessions), *parted
        )
        await asyncio.gather(*(parting for _, parting in self._parting.values()))
        if waiting is not None:
            waiting.cancel()
        if membership is not None:
            await membership.leave()  # before the steps that are left: others may begin
        await asyncio.gather(*(left.finish() for left in leftovers if left is not None))
        if self._ending:
            await asyncio.gather(*self._ending, return_exceptions=True)
        if self._reply_task is not None:
            await self._reply_task
        if self._background:
            await asyncio.gather(*self._background, return_exceptions=True)
        self.pool.shutdown(wait=False, cancel_futures=True)

    async def _until_deserted(self, membership: Membership) -> None:
        """Where nobody is left who could ask for a partition, do not wait for it."""
        await membership.deserted()
        for session, _ in list(self._parting.values()):
            session.hand_over_now()

    # Listener: called by the membership -------------------------------------------------------------------

    def assigned(self, partition: int) -> None:
        """A partition should be ours: claim it and work on it."""
        if self._stopping or partition in self._sessions:
            return
        self._halted_with.pop(partition, None)  # it is tried anew
        if partition in self._parting:
            self._awaited.add(partition)
            self._parting[partition][0].hand_over_now()
            return
        session = Session(self, partition)
        self._sessions[partition] = session
        if self._membership is not None:
            session.begin()

    def revoking(self, partition: int) -> None:
        """A partition is about to be somebody else's."""
        session = self._sessions.get(partition)
        if session is None:
            return
        if self._membership is not None and self._membership.understands_offers:
            session.proof.suspend()
        else:
            session.proof.withdraw()

    def revoked(self, partition: int, lost: bool) -> None:
        """A partition should be somebody else's: hand it over, or drop it where that has happened."""
        self._awaited.discard(partition)
        # Somebody else may go on with it: a newer release, for one.
        self._halted_with.pop(partition, None)
        session = self._sessions.pop(partition, None)
        if session is None:
            if lost and partition in self._parting:
                self._parting[partition][0].hand_over_now()
        elif lost or self.settings.drain_s == 0 or not self.membership.understands_offers:
            self._end(session.give_up(0.0 if lost else self.settings.drain_s, GRACE_S))
        else:
            self._end(self._part_with(partition, session))

    def _part_with(self, partition: int, session: Session) -> "asyncio.Task[Leftover | None]":
        """Have a session go on until somebody asks for its partition."""

        async def part() -> Leftover | None:
            try:
                await session.offer()
                self.membership.offered(partition)
                await session.until_asked_for()
                return await session.give_up(self.settings.drain_s, 0.0)
            finally:
                del self._parting[partition]
                if partition in self._awaited:
                    self._awaited.discard(partition)
                    self.assigned(partition)

        task = asyncio.get_running_loop().create_task(part())
        self._parting[partition] = session, task
        return task

    def _end(self, giving_up: Awaitable[Leftover | None]) -> None:
        async def end() -> None:
            leftover = await giving_up
            if leftover is not None:
                await leftover.finish()

        task = asyncio.get_running_loop().create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _at_work(self, partition: int) -> Session | None:
        """The session that consumes the commands of a partition."""
        if partition in self._parting:
            return self._parting[partition][0]
        return self._sessions.get(partition)

    def deliver(self, partition: int, records: Sequence[Record]) -> None:
        """Commands have come."""
        session = self._at_work(partition)
        if session is not None:
            session.deliver(records)

    # For sessions -----------------------------------------------------------------------------------------

    def answer(self, answers: Iterable[Answer]) -> None:
        """Send replies; those to other processes go out together, and are lost if the log can't take them."""
        for client_id, reply in answers:
            if not self._answer_locally(client_id, reply):
                partition = partition_of(client_id, self.log.partitions)
                self._replies.setdefault(partition, []).append(encode_reply(reply, client_id))
        if self._replies and (self._reply_task is None or self._reply_task.done()):
            self._reply_task = asyncio.get_running_loop().create_task(self._send_replies())

    def posted_to(self, partition: int, posted: Iterable[tuple[int, Command]]) -> None:
        """Commands were appended by one of our partitions: if their receiver is ours as well, it has them at once."""
        session = self._at_work(partition)
        if session is not None:
            session.deliver_posted(posted)

    async def _send_replies(self) -> None:
        while self._replies:
            batches, self._replies = self._replies, {}
            try:
                for partition, entries in batches.items():
                    await self.log.append(Channel.REPLIES, partition, entries)
            except LogError as error:
                # A reply is a hint: the clients ask again.
                logger.warning("replies could not be sent, the clients will ask again: %s", error)

    def in_background(self, work: Coroutine[object, object, None], failure: str) -> None:
        """Do what nobody waits for; where it fails, say `failure` and why."""

        async def done() -> None:
            try:
                await work
            except LogError as error:
                logger.warning("%s: %s", failure, error)

        task = asyncio.get_running_loop().create_task(done())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def halt(self, partition: int, error: LogError) -> None:
        """A partition can't go on; others do."""
        logger.error("partition %d is halted: %s", partition, error)
        self._halted_with[partition] = error
        self._halted(partition, error)
