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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from refold.engine.active import Items
from refold.engine.effects import Answer, Effect, Launch, Lookup, Post, StepResult
from refold.engine.owner import Owner, OwnerSettings, Runs
from refold.engine.proof import Proof
from refold.engine.reader import fold_range, read_lookup
from refold.engine.state import PartitionState
from refold.engine.stats import Tally
from refold.engine.steps import Steps
from refold.log.codec import (
    decode_command,
    encode_command,
    encode_event,
    encode_reply,
)
from refold.log.commands import Command, Reply
from refold.log.errors import AppendUnknown, LogCorrupt, LogError, LogMismatch, LogUnavailable
from refold.log.events import PartitionClaimed, Unreadable
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Entry, Log, Membership, Record

MICROSECONDS = 1_000_000
MAX_UNCONFIRMED = 10_000
"""Records made and not yet durable above which a partition takes no further commands (back-pressure)."""
MAX_SLEEP_S = 1.0
"""Longest sleep before the wall clock is looked at again: it may have been set meanwhile."""
MAX_POSTS = 1_000
"""Commands to other workflows that go out together."""
RECOVERY_SLICE = 50
"""Runs that are replayed before others get the event loop."""
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
        drain_s: How long a stop waits for steps under way, in seconds; what is not done by then runs again
            elsewhere.
    """

    name: str
    threads: int = 32
    max_payload_bytes: int = 900_000
    drain_s: float = 10.0


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
    """

    def __init__(
        self,
        log: Log,
        runs: Runs,
        settings: WorkerSettings,
        *,
        answer_locally: Callable[[str, Reply], bool],
        halted: Callable[[int, LogError], None],
        clock: Callable[[], int] = wall_clock,
        elapsed: Callable[[], int] = elapsed_clock,
    ) -> None:
        self.log = log
        self.runs = runs
        self.settings = settings
        self.clock = clock
        self.elapsed = elapsed
        self.pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="refold-step")
        self.random = random.SystemRandom().random
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
        self._recovered = asyncio.Event()

    @property
    def membership(self) -> Membership:
        """The worker's place in the group."""
        if self._membership is None:
            raise RuntimeError("the worker has not been started")
        return self._membership

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
        owners = [session.owner for session in self._sessions.values() if session.ready]
        return [owner.state for owner in owners if owner is not None]

    async def start(self) -> None:
        """Join the group. Partitions come as they are assigned."""
        self._membership = await self.log.join(self.settings.name, self)
        for partition in self._sessions:  # assigned while joining
            self._sessions[partition].begin()

    async def stop(self) -> None:
        """Drain: take no more commands, let steps finish within `drain_s`, then leave the group."""
        self._stopping = True
        sessions = list(self._sessions.values())
        await asyncio.gather(*(session.drain(self.settings.drain_s) for session in sessions))
        if self._ending:
            await asyncio.gather(*self._ending, return_exceptions=True)
        if self._reply_task is not None:
            await self._reply_task
        if self._membership is not None:
            await self._membership.leave()
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
            task = asyncio.get_running_loop().create_task(session.drain(drain_s))
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
        self._draining = False  # nothing new is begun
        self._finishing = False  # the pump returns when all that was made is durable
        self._wake: asyncio.Future[None] | None = None
        self._woken = False
        self._follow_from: int | None = None
        self.proof = Proof(worker.clock)
        self._handed_back: list[Effect] = []
        self._failure: Exception | None = None
        self._failed_at: tuple[int, Exception] | None = None  # offset of a command, and its error
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
            self._failed_at = offset, error
            self._fail(error)
            return False
        return True

    def _fail(self, error: Exception) -> None:
        """An error in a callback: have the pump raise it, so that all begins again from the log."""
        self._failure = error
        self._wake_up()

    async def drain(self, drain_s: float) -> None:
        """Let steps under way finish and be recorded, then give the partition up."""
        self._draining = True
        self.proof.withdraw()
        if self._task is not None:
            if self._steps is not None and drain_s > 0:
                await self._steps.wait_idle(drain_s)
                self._finishing = True
                self._wake_up()
                await asyncio.wait([self._task], timeout=drain_s)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._drop()
        self._worker.membership.release(self._partition)

    # Serving ----------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        backoff_s = 0.05
        while not self._finishing:
            try:
                await self._own()
                backoff_s = LOST_PAUSE_S
            except (LogCorrupt, LogMismatch) as error:
                self._drop()
                self._worker.halt(self._partition, error)
                return
            except (AppendUnknown, LogUnavailable) as error:
                logger.warning(
                    "partition %d: %s; beginning again from the log", self._partition, error
                )
            except Exception:
                logger.exception(
                    "partition %d: unexpected error; beginning again from the log", self._partition
                )
            self._drop()
            await self._pause(backoff_s)
            backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)

    async def _pause(self, backoff_s: float) -> None:
        if not self._finishing:
            await asyncio.sleep(backoff_s * (0.5 + self._worker.random()))

    async def _own(self) -> None:
        """Claim, recover and pump; returns when a newer claim was met."""
        worker = self._worker
        state = await claim(self._log, self._partition, worker.settings.name, worker.clock)
        settings = OwnerSettings(
            worker=worker.settings.name, max_payload_bytes=worker.settings.max_payload_bytes
        )
        owner = Owner(self._partition, state, settings, worker.runs, worker.random, worker.elapsed)
        self._owner = owner
        self._steps = Steps(
            self._step_done,
            self._not_begun,
            self._wrote,
            may_begin=self.proof.is_fresh,
            pool=worker.pool,
            clock=worker.clock,
            namespace=self._log.namespace,
            max_payload_bytes=worker.settings.max_payload_bytes,
        )
        for count, _ in enumerate(owner.recover(worker.clock()), 1):
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
            entries = owner.take_entries()
            if entries:
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
        if any(isinstance(effect, Launch) for effect in effects):
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
            elif isinstance(effect, Answer):
                answers.append(effect)
            elif isinstance(effect, Post):
                self._outgoing.append(effect)
            else:
                self._look_up(effect)
        if answers:
            self._worker.answer(answers)
        if self._outgoing and self._post_task is None:
            self._post_task = asyncio.get_running_loop().create_task(self._post_all(owner))

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

        task = asyncio.get_running_loop().create_task(find())
        task.add_done_callback(_log_failure)

    def _step_done(self, launch: Launch, result: StepResult) -> None:
        owner = self._owner
        if owner is not None:
            try:
                owner.step_done(launch, result, self._worker.clock())
            except Exception as error:  # noqa: BLE001 - told by `_pump`
                self._fail(error)
            self._wake_up()

    def _wrote(self, launch: Launch, items: Items) -> None:
        owner = self._owner
        if owner is not None:
            owner.wrote(launch, items, self._worker.clock())
            self._wake_up()

    def _not_begun(self, launch: Launch) -> None:
        if self._owner is not None:
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


async def claim(log: Log, partition: int, worker: str, clock: Callable[[], int]) -> PartitionState:
    """Become the owner of a partition: fold it, claim it, until a claim of ours is the accepted one.

    Returns:
        The state up to and with the accepted claim.

    Raises:
        LogCorrupt: The partition can't be folded.
        LogError: The log can't be read or written.
    """
    state = PartitionState()
    position = 0
    start = (await log.bounds(Channel.EVENTS, partition)).start
    if start > 0:
        raise LogCorrupt(
            f"the first {start} events of partition {partition} of {log.namespace!r} are gone, and there "
            "is no checkpoint: restore the log, or set its retention to unlimited before it is too late"
        )
    while True:
        position = await fold_range(log, partition, state, position)
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
        position = await fold_range(log, partition, state, position, offset + 1)
        if state.claim == offset:
            return state


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.warning(
            "a result could not be looked up, the client will ask again: %s", task.exception()
        )
