"""A worker: the thin shell around the owners of its partitions. It moves bytes, time and results; it decides nothing.

For each partition that its membership assigns there is one `_Session`: fold the events, claim, recover, then pump:
append what the owner made, tell it the offsets, carry out the effects that have become safe, sleep until something
happens. A session that loses its partition, or whose append has an unknown outcome, drops everything and begins
again from the log for as long as the membership says that the partition is its own.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from refold.engine.active import Items
from refold.engine.blobs import IN_RECORDS, Blobs
from refold.engine.checkpoints import CheckpointSettings
from refold.engine.effects import Answer, Effect, Grant, Launch, Lookup, Post, StepResult
from refold.engine.handover import Reporter
from refold.engine.migration_marks import require_not_moved
from refold.engine.owner import Owner, OwnerSettings, Runs
from refold.engine.pools import DEFAULT_LEASE_S, all_waiting
from refold.engine.proof import Proof
from refold.engine.reader import read_lookup
from refold.engine.recovery import Folded, recover
from refold.engine.room import Room
from refold.engine.state import PartitionState
from refold.engine.stats import Tally
from refold.engine.steps import Steps
from refold.log.codec import (
    decode_command,
    encode_command,
    encode_event,
    encode_reply,
)
from refold.log.commands import Command, Reply, ReportStep
from refold.log.errors import (
    AppendUnknown,
    LogCorrupt,
    LogError,
    LogMismatch,
    LogTrimmed,
    LogUnavailable,
)
from refold.log.events import PartitionClaimed, Unreadable
from refold.log.health import CHECK_EVERY_S, Checked, watch
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Entry, Log, Membership, Record

MICROSECONDS = 1_000_000
MAX_UNCONFIRMED = 10_000
"""Records made and not yet durable above which a partition takes no further commands (back-pressure)."""
MAX_SLEEP_S = 1.0
"""Longest sleep before the wall clock is looked at again: it may have been set meanwhile."""
MAX_POSTS = 1_000
"""Commands to other workflows that go out together."""
RECORD_HEADROOM_BYTES = 8_000
"""Of a record beside its payload: names, ids, the worker."""
MIN_PAYLOAD_BYTES = 1_000
RECOVERY_SLICE = 50
"""Runs that are replayed before others get the event loop."""
GRACE_S = 0.15
"""How long a partition that is to move waits for steps under way, before it is handed over without them: most steps
are shorter, and nobody works on the partition meanwhile."""
LOST_PAUSE_S = 1.0
"""Pause before a lost partition is claimed back: the group, which assigns it, knows of its new owner before we do, and
tells us within some heartbeats. Without it a worker that was stopped takes its old partitions from their new owner."""
MAX_BACKOFF_S = 10.0
"""Longest wait between two tries to take up a partition that fails."""

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
        drain_s: How long steps under way may go on after a stop, in seconds; what is not done by then runs again
            elsewhere.
        max_steps: Steps that are under way at a time, `async def` ones as well; further ones wait. None for any number.
        max_runs: Runs whose code is in memory at a time; further ones wait. None for any number.
        max_memory_bytes: Memory of the process above which no further run is taken up. None for any.
        checkpoints: When checkpoints are written and what they forget.
        pool_lease_s: How long a pool's worker may go on with a step without a word, in seconds.
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
        self._sessions: dict[int, _Session] = {}
        self._membership: Membership | None = None
        self._replies: dict[int, list[Entry]] = {}
        self._reply_task: asyncio.Task[None] | None = None
        self._stopping = False
        self._ending: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._recovered = asyncio.Event()

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
        room = self.log.max_record_bytes - RECORD_HEADROOM_BYTES
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
        self._membership = await self.log.join(self.settings.name, self)
        for partition in self._sessions:  # assigned while joining
            self._sessions[partition].begin()
        if isinstance(self.log, Checked):
            self._watching = asyncio.get_running_loop().create_task(
                watch(self.log, self._halt_now, lambda: asyncio.sleep(self.check_every_s))
            )

    def _halt_now(self, partition: int, error: LogError) -> None:
        """The log is no longer the one that was opened: drop the partition, with nothing more written."""
        self.halt(partition, error)
        session = self._sessions.pop(partition, None)
        if session is not None:
            self._end(session, 0.0, 0.0)

    async def stop(self) -> None:
        """Hand all partitions over and leave the group; steps under way may finish within `drain_s`."""
        self._stopping = True
        if self._watching is not None:
            self._watching.cancel()
        sessions = list(self._sessions.values())
        drain_s = self.settings.drain_s
        membership = self._membership
        # Where nobody would take over, there is nothing to hurry for.
        grace_s = drain_s if membership is None or membership.alone else GRACE_S
        leftovers = await asyncio.gather(*(s.give_up(drain_s, grace_s) for s in sessions))
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

    # Listener: called by the membership -------------------------------------------------------------------

    def assigned(self, partition: int) -> None:
        """A partition should be ours: claim it and work on it."""
        if self._stopping or partition in self._sessions:
            return
        session = _Session(self, partition)
        self._sessions[partition] = session
        if self._membership is not None:
            session.begin()

    def revoking(self, partition: int) -> None:
        """A partition is about to be somebody else's."""
        session = self._sessions.get(partition)
        if session is not None:
            session.proof.withdraw()

    def revoked(self, partition: int, lost: bool) -> None:
        """A partition should be somebody else's: hand it over, or drop it where that has happened."""
        session = self._sessions.pop(partition, None)
        if session is not None:
            drain_s = 0.0 if lost else self.settings.drain_s
            self._end(session, drain_s, GRACE_S if self.membership.waits_for_release else 0.0)

    def _end(self, session: "_Session", drain_s: float, grace_s: float) -> None:
        async def end() -> None:
            leftover = await session.give_up(drain_s, grace_s)
            if leftover is not None:
                await leftover.finish()

        task = asyncio.get_running_loop().create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def deliver(self, partition: int, records: Sequence[Record]) -> None:
        """Commands have come."""
        session = self._sessions.get(partition)
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
        session = self._sessions.get(partition)
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


class _Session:
    """One partition, from its assignment to its release."""

    def __init__(self, worker: Worker, partition: int) -> None:
        self.ready = False
        self._worker = worker
        self._log = worker.log
        self._partition = partition
        self._owner: Owner | None = None
        self._steps: Steps | None = None
        self._task: asyncio.Task[None] | None = None
        self._no_room_news = worker.room.wake_with(self._wake_up)
        self._draining = False  # nothing new is begun
        self._finishing = False  # the pump returns when all that was made is durable
        self._wake: asyncio.Future[None] | None = None
        self._woken = False
        self._follow_from: int | None = None
        self.proof = Proof(worker.clock)
        self._handed_back: list[Effect] = []
        self._failure: Exception | None = None
        self._failed_at: tuple[int, Exception] | None = None  # offset of a command, and its error
        self._leftover: _Leftover | None = None
        self._outgoing: list[Post] = []
        self._post_task: asyncio.Task[None] | None = None

    @property
    def owner(self) -> Owner | None:
        """The state machine while the partition is owned."""
        return self._owner

    def begin(self) -> None:
        """Take the partition up."""
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def deliver(self, records: Sequence[Record]) -> None:
        """Consume commands, then ask for the next."""
        owner = self._owner
        if owner is None or self._draining:
            return
        now = self._worker.clock()
        for record in records:
            if record.offset <= owner.command:  # it came the short way
                continue
            if not self._handle(owner, record.offset, decode_command(record), now):
                return
        self._follow_from = records[-1].offset + 1
        self._wake_up()

    def deliver_posted(self, posted: Iterable[tuple[int, Command]]) -> None:
        """Consume commands that another partition of this worker has just appended, without reading them back.

        Only where nothing stands before them that has not been consumed; else they come by the log, as all others.
        """
        owner = self._owner
        if owner is None or self._draining or not self.ready:
            return
        now = self._worker.clock()
        for offset, command in posted:
            if offset != owner.command + 1 or owner.unconfirmed >= MAX_UNCONFIRMED:
                break
            if not self._handle(owner, offset, command, now):
                return
        self._worker.membership.skip(self._partition, owner.command + 1)
        self._wake_up()

    def _handle(self, owner: Owner, offset: int, command: Command | Unreadable, now: int) -> bool:
        """Consume a command. One that fails is tried again after a new beginning from the log, then refused."""
        try:
            if self._failed_at is not None and self._failed_at[0] == offset:
                owner.failed(offset, command, self._failed_at[1], now)
            else:
                owner.handle(offset, command, now)
        except Exception as error:  # noqa: BLE001 - told by `_pump`
            if not isinstance(
                error, LogUnavailable
            ):  # e.g. the blob store: no fault of the command
                self._failed_at = offset, error
            self._fail(error)
            return False
        return True

    def _fail(self, error: Exception) -> None:
        """An error in a callback: have the pump raise it, so that all begins again from the log."""
        self._failure = error
        self._wake_up()

    async def give_up(self, drain_s: float, grace_s: float) -> "_Leftover | None":
        """Give the partition up: at once, or as soon as steps that are about to end have been recorded.

        Args:
            drain_s: How long steps under way may go on; 0 where the partition is lost already.
            grace_s: How long the owner waits for them before it hands the partition over without them.

        Returns:
            The steps that go on and whose ends are to be reported to the next owner; None where there are none.
        """
        self._draining = True
        self.proof.withdraw()
        leftover: _Leftover | None = None
        if self._task is not None:
            steps = self._steps
            if steps is not None and drain_s > 0:
                steps.cancel_queued()
                idle = await steps.wait_idle(min(drain_s, grace_s))
                left_s = drain_s - grace_s
                if not idle and left_s > 0 and self.ready and self._steps is steps:
                    leftover = self._hand_over(steps, left_s)
                self._finishing = True
                self._wake_up()
                await asyncio.wait([self._task], timeout=drain_s)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._drop()
        self._no_room_news()
        self._worker.membership.release(self._partition)
        return leftover

    def _hand_over(self, steps: Steps, drain_s: float) -> "_Leftover | None":
        owner, worker = self._owner, self._worker
        if owner is None or owner.lost_to is not None:
            return None
        now = worker.clock()
        due_at = now + round(drain_s * MICROSECONDS)
        owner.hand_over(steps.under_way(), due_at, now)
        self._leftover = _Leftover(worker, self._partition, steps, due_at)
        self._steps = None  # they go on when the partition is dropped
        return self._leftover

    # Serving ----------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        backoff_s, longest_s = 0.05, MAX_BACKOFF_S
        trimmed = False
        while not self._finishing:
            try:
                await self._own()
                longest_s = backoff_s = LOST_PAUSE_S
                trimmed = False
            except LogTrimmed as error:
                # While it was read: the bookmark leads to a checkpoint that is still there.
                if trimmed:
                    self._drop()
                    self._worker.halt(self._partition, error)
                    return
                trimmed = True
            except (LogCorrupt, LogMismatch) as error:
                self._drop()
                self._worker.halt(self._partition, error)
                return
            except (AppendUnknown, LogUnavailable) as error:
                logger.warning(
                    "partition %d: %s; beginning again from the log", self._partition, error
                )
                longest_s = LOST_PAUSE_S  # the log itself waits for what is away
            except Exception:
                longest_s = MAX_BACKOFF_S
                logger.exception(
                    "partition %d: unexpected error; beginning again from the log", self._partition
                )
            self._drop()
            await self._pause(backoff_s)
            backoff_s = min(backoff_s * 2, longest_s)

    async def _pause(self, backoff_s: float) -> None:
        if not self._finishing:
            await asyncio.sleep(backoff_s * (0.5 + self._worker.random()))

    async def _own(self) -> None:
        """Claim, recover and pump; returns when a newer claim was met."""
        worker = self._worker
        folded = await claim(self._log, self._partition, worker.settings.name, worker.clock)
        settings = OwnerSettings(
            worker=worker.settings.name,
            max_payload_bytes=worker.max_payload_bytes,
            checkpoints=worker.settings.checkpoints,
            pool_lease_s=worker.settings.pool_lease_s,
        )
        owner = Owner(
            self._partition,
            folded.state,
            settings,
            worker.runs,
            worker.random,
            worker.elapsed,
            folded.since_bytes,
            worker.room,
            worker.blobs.lift,
        )
        self._owner = owner
        self._steps = Steps(
            self._step_done,
            self._not_begun,
            self._wrote,
            may_begin=self.proof.is_fresh,
            pool=worker.pool,
            room=worker.step_room,
            clock=worker.clock,
            namespace=self._log.namespace,
            max_payload_bytes=worker.max_payload_bytes,
        )
        commands_end = 0
        if owner.state.handed:
            commands_end = (await self._log.bounds(Channel.COMMANDS, self._partition)).end
        for count, _ in enumerate(owner.recover(worker.clock(), commands_end), 1):
            if count % RECOVERY_SLICE == 0:
                await self._carry_out(owner, self._steps)
                await asyncio.sleep(0)
        self._warn_of_missing_code(owner)
        self._follow_from = owner.command + 1
        self.ready = True
        await self._pump(owner, self._steps)
        if owner.lost_to is None:
            return
        logger.warning(
            "partition %d was claimed by worker %r: dropped here", self._partition, owner.lost_to
        )

    async def _pump(self, owner: Owner, steps: Steps) -> None:
        while owner.lost_to is None:
            self._woken = False
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            owner.tick(self._worker.clock())
            await self._carry_out(owner, steps)
            if self._follow_from is not None and owner.unconfirmed < MAX_UNCONFIRMED:
                follow_from, self._follow_from = self._follow_from, None
                if not self._draining:
                    self._worker.membership.follow(self._partition, follow_from)
            blobs, entries = owner.take_blobs(), owner.take_entries()
            if entries:
                await self._worker.blobs.write(blobs)  # before the records that name them
                await self._append(owner, entries)
            elif self._finishing:
                return
            elif not self._woken:
                await self._sleep(owner.wake_at())

    async def _append(self, owner: Owner, entries: Sequence[Entry]) -> None:
        sent_at = self.proof.now()
        offsets = await self._log.append(Channel.EVENTS, self._partition, entries)
        self._worker.tally.appended(entries)
        gap = owner.acked(offsets)
        if gap is not None:
            owner.inspected(await self._records(*gap), offsets)
        if owner.lost_to is None:
            self.proof.given(sent_at)

    async def _carry_out(self, owner: Owner, steps: Steps) -> None:
        for workflow_id, step in owner.take_cancels():
            steps.cancel(workflow_id, step)
        handed_back, self._handed_back = self._handed_back, []
        effects = [*handed_back, *owner.take_effects()]
        if any(isinstance(effect, Launch) and effect.attempt > 1 for effect in effects):
            await self._probe(owner)
        if any(isinstance(effect, Launch | Grant) for effect in effects):
            while owner.lost_to is None and not (self.proof.withdrawn or self.proof.is_fresh()):
                await self._probe(owner)
        if owner.lost_to is not None:
            self._wake_up()  # the pump looks before it sleeps
            return
        answers: list[Answer] = []
        for effect in effects:
            if isinstance(effect, Launch):
                if not self.proof.withdrawn and owner.wants(effect):
                    steps.launch(effect)
            elif isinstance(effect, Answer | Grant):
                answers.extend(self._said(effect))
            elif isinstance(effect, Post):
                self._outgoing.append(effect)
            elif isinstance(effect, Lookup):
                self._look_up(effect)
            else:
                self._note_checkpoint(owner.offset_of(effect))
        if answers:
            self._worker.answer(answers)
        if self._outgoing and self._post_task is None:
            self._post_task = asyncio.get_running_loop().create_task(self._post_all(owner))

    def _said(self, effect: Answer | Grant) -> list[Answer]:
        """What is told; nobody is let begin once the partition is to be given up."""
        if isinstance(effect, Grant):
            return [] if self.proof.withdrawn else [Answer(*effect)]
        return [effect]

    async def _post_all(self, owner: Owner) -> None:
        """Post commands to other workflows, in order; those to different partitions go out side by side."""
        backoff_s = 0.05
        try:
            while self._outgoing and self._owner is owner:
                posts = self._outgoing[:MAX_POSTS]
                try:
                    await self._post(posts)
                except LogError as error:
                    # Whatever was written is written again, in the same order: whoever gets it twice knows.
                    logger.warning(
                        "partition %d: messages to other workflows could not be sent, trying again: %s",
                        self._partition,
                        error,
                    )
                    await self._pause(backoff_s)
                    backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
                    continue
                backoff_s = 0.05
                del self._outgoing[: len(posts)]
                owner.posted(posts[-1].number)
        finally:
            self._post_task = None

    async def _post(self, posts: Sequence[Post]) -> None:
        partitions = self._log.partitions
        batches: dict[int, list[Command]] = {}
        for post in posts:
            partition = partition_of(post.command.workflow_id, partitions)
            batches.setdefault(partition, []).append(post.command)
        if len(batches) == 1:  # mostly: spare the tasks
            ((partition, commands),) = batches.items()
            await self._post_to(partition, commands)
            return
        appends = (self._post_to(partition, commands) for partition, commands in batches.items())
        results = await asyncio.gather(*appends, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _post_to(self, partition: int, commands: Sequence[Command]) -> None:
        entries = [encode_command(command) for command in commands]
        # Lazily: an event that says that they are posted is appended after them, and else they are posted again.
        offsets = await self._log.append(Channel.COMMANDS, partition, entries, lazily=True)
        self._worker.posted_to(partition, zip(offsets, commands, strict=True))

    async def _probe(self, owner: Owner) -> None:
        """Ask the log whether the partition is still ours.

        A retry becomes due by the clock, not by an append: a worker that was stopped for minutes would begin it with no
        sign that another has taken over meanwhile, and perhaps recorded that very step.
        """
        asked_at = self.proof.now()
        end = (await self._log.bounds(Channel.EVENTS, self._partition)).end
        if end > owner.next_offset:
            owner.inspected(await self._records(owner.next_offset, end), ())
        if owner.lost_to is None:
            self.proof.given(asked_at)

    async def _records(self, start: int, stop: int) -> list[Record]:
        """The partition's records from `start` up to (without) `stop`."""
        batches = self._log.read(Channel.EVENTS, self._partition, start, stop)
        return [record async for batch in batches for record in batch]

    def _look_up(self, lookup: Lookup) -> None:
        async def find() -> None:
            reply = await read_lookup(self._log, self._partition, lookup)
            self._worker.answer([Answer(lookup.client_id, reply)])

        self._worker.in_background(
            find(), "a result could not be looked up, the client will ask again"
        )

    def _note_checkpoint(self, offset: int) -> None:
        self._worker.in_background(
            self._log.set_bookmark(self._partition, offset),
            f"where the checkpoint of partition {self._partition} is could not be noted, the one before will be used",
        )

    def _step_done(self, launch: Launch, result: StepResult) -> None:
        owner = self._owner
        if self._leftover is not None:
            self._leftover.reporter.done(launch, result)
        elif owner is not None:
            try:
                owner.step_done(launch, result, self._worker.clock())
            except Exception as error:  # noqa: BLE001 - told by `_pump`
                self._fail(error)
            self._wake_up()

    def _wrote(self, launch: Launch, items: Items) -> None:
        owner = self._owner
        if self._leftover is not None:
            self._leftover.reporter.wrote(launch, items)
        elif owner is not None:
            try:
                owner.wrote(launch, items, self._worker.clock())
            except Exception as error:  # noqa: BLE001 - told by `_pump`
                self._fail(error)
            self._wake_up()

    def _not_begun(self, launch: Launch) -> None:
        if self._leftover is not None:
            self._leftover.reporter.done(launch, None)
        elif self._owner is not None:
            self._handed_back.append(launch)
            self._wake_up()

    def _drop(self) -> None:
        self.ready = False
        self._failure = None
        self._handed_back.clear()
        self._outgoing.clear()
        if self._post_task is not None:
            self._post_task.cancel()
        owner, steps = self._owner, self._steps
        self._owner = self._steps = None
        if steps is not None:
            steps.cancel_all()
        if owner is not None:
            self._worker.answer(owner.abandon())

    def _warn_of_missing_code(self, owner: Owner) -> None:
        waiting = owner.waiting_for_code
        if waiting:
            names = ", ".join(sorted(set(waiting.values())))
            logger.warning(
                "%d open runs of partition %d wait for code that this worker does not have (%s): "
                "start a worker that has it",
                len(waiting),
                self._partition,
                names,
            )

    # Waking up --------------------------------------------------------------------------------------------

    def _wake_up(self) -> None:
        self._woken = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def _sleep(self, wake_at: int | None) -> None:
        """Wait for something to happen, or for the time `wake_at` of the clock that only goes forward."""
        loop = asyncio.get_running_loop()
        self._wake = loop.create_future()
        if wake_at is None:
            await self._wake
        else:
            seconds = (wake_at - self._worker.elapsed()) / MICROSECONDS
            timer = loop.call_later(max(0.0, min(seconds, MAX_SLEEP_S)), self._wake_up)
            try:
                await self._wake
            finally:
                timer.cancel()
        self._wake = None


class _Leftover:
    """Steps that go on after their partition was handed over.

    Args:
        worker: Whose they are.
        partition: The partition.
        steps: They, and nothing else.
        due_at: How long the next owner waits for them, microseconds since 1970-01-01 UTC.
    """

    def __init__(self, worker: Worker, partition: int, steps: Steps, due_at: int) -> None:
        self.reporter = Reporter(self._append, worker.clock, worker.blobs)
        self._worker = worker
        self._partition = partition
        self._steps = steps
        self._due_at = due_at

    async def finish(self) -> None:
        """Wait for the steps, and report each when it ends; those that are late are cancelled, and run again."""
        while not await self._steps.wait_less(max(0.0, self._left_s())):
            await self.reporter.send(until=lambda: self._left_s() <= 0)
            if self._left_s() <= 0:
                break
        await self.reporter.send(until=lambda: self._left_s() <= 0)
        self._steps.cancel_all()

    def _left_s(self) -> float:
        return (self._due_at - self._worker.clock()) / MICROSECONDS

    async def _append(self, reports: Sequence[ReportStep]) -> None:
        entries = [encode_command(report) for report in reports]
        await self._worker.log.append(Channel.COMMANDS, self._partition, entries)


async def claim(
    log: Log,
    partition: int,
    worker: str,
    clock: Callable[[], int],
    folded: Folded | None = None,
) -> Folded:
    """Become the owner of a partition: fold it, claim it, until a claim of ours is the accepted one.

    Args:
        log: An open log.
        partition: Which of its partitions.
        worker: Who claims.
        clock: Microseconds since 1970-01-01 UTC.
        folded: A fold of it that has been begun; consumed.

    Returns:
        The fold up to and with the accepted claim.

    Raises:
        LogCorrupt: The partition can't be folded.
        LogMismatch: Its namespace has moved, or is only being filled.
        LogError: The log can't be read or written.
    """
    folded = folded or await recover(log, partition)
    while True:
        await folded.go_on(log, partition)
        state = folded.state
        require_not_moved(state.owner, worker, log.namespace, partition)
        event = PartitionClaimed(
            workflow_id=None,
            position=None,
            recorded_at=clock(),
            claim=state.claim,
            command=state.command,
            posted=state.posted,
            worker=worker,
            partition=partition,
        )
        entry, _ = encode_event(event, state.chain)
        (offset,) = await log.append(Channel.EVENTS, partition, [entry])
        await folded.go_on(log, partition, offset + 1)
        if state.claim == offset:
            return folded
