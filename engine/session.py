"""One partition of a worker, from its assignment to its release.

Fold the events, claim, recover, then pump: append what the owner made, tell it the offsets, carry out the effects that
have become safe, sleep until something happens. A session that loses its partition, or whose append has an unknown
outcome, drops everything and begins again from the log for as long as the membership says that the partition is its
own.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from refold.engine.active import Items
from refold.engine.asking import Asking
from refold.engine.claim import claim
from refold.engine.effects import Answer, Effect, Grant, Launch, Lookup, Post, StepResult
from refold.engine.leftover import Leftover
from refold.engine.owner import Owner, OwnerSettings
from refold.engine.postbox import Postbox
from refold.engine.proof import OFFER_S, Instant, Proof
from refold.engine.reader import read_lookup
from refold.engine.steps import Steps
from refold.log.codec import decode_command
from refold.log.commands import Command
from refold.log.errors import (
    AppendUnknown,
    LogCorrupt,
    LogMismatch,
    LogTrimmed,
    LogUnavailable,
)
from refold.log.events import Unreadable
from refold.log.protocol import Channel, Entry, Record

if TYPE_CHECKING:  # it makes the sessions
    from refold.engine.worker import Worker

MICROSECONDS: Final = 1_000_000
MAX_UNCONFIRMED: Final = 10_000
"""Records made and not yet durable above which a partition takes no further commands (back-pressure)."""
MAX_SLEEP_S: Final = 1.0
"""Longest sleep before the wall clock is looked at again: it may have been set meanwhile."""
RECOVERY_SLICE: Final = 50
"""Runs that are replayed before others get the event loop."""
GRACE_S: Final = 0.15
"""How long a partition that is to move waits for steps under way, before it is handed over without them: most steps
are shorter, and nobody works on the partition meanwhile."""
WAIT_S: Final = OFFER_S - 1.0
"""How long an owner that has offered its partition waits to be asked for it, before it hands it over all the same: what
is left of `OFFER_S` is for that."""
LOST_PAUSE_S: Final = 1.0
"""Pause before a lost partition is claimed back: the group, which assigns it, knows of its new owner before we do, and
tells us within some heartbeats. Without it a worker that was stopped takes its old partitions from their new owner."""
MAX_BACKOFF_S: Final = 10.0
"""Longest wait between two tries to take up a partition that fails."""

logger = logging.getLogger("refold.worker")


class Session:
    """One partition, from its assignment to its release."""

    def __init__(self, worker: "Worker", partition: int) -> None:
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
        self._follows = False  # this owner has asked for commands: what was asked for before it is not its to consume
        self.proof = Proof(worker.clock)
        self._handed_back: list[Effect] = []
        self._failure: Exception | None = None
        self._failed_at: tuple[int, Exception] | None = None  # offset of a command, and its error
        self._leftover: Leftover | None = None
        self._postbox: Postbox | None = None
        self._offer: int | None = None  # number of the record that is to be confirmed
        self._offered_at: Instant | None = None
        self._is_offered = asyncio.Event()
        self._is_asked_for = asyncio.Event()

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
        if owner is None or not self._follows or self._draining:
            return
        now = self._worker.clock()
        for record in records:
            if record.offset <= owner.command:  # it came the short way
                continue
            if record.offset > owner.command + 1:
                self._fail(_missing_commands(self._partition, owner.command + 1, record.offset))
                return
            if not self._handle(owner, record.offset, decode_command(record), now):
                return
            if owner.is_asked_for and self._offer is not None:
                self.hand_over_now()  # what stands behind is the next owner's
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

    async def offer(self) -> None:
        """Let the log know that the partition goes to whoever asks for it; all goes on here until then.

        Returns when that is durable, or when there is nothing to offer.
        """
        owner = self._owner
        if self._offer is None and owner is not None and self.ready and not self._draining:
            self.proof.suspend()
            self._offered_at = self.proof.now()
            now = self._worker.clock()
            self._offer = owner.offer(now + round(OFFER_S * MICROSECONDS), now)
            self._wake_up()
        if self._offer is not None:
            await self._first_of(self._is_offered)

    async def until_asked_for(self) -> None:
        """Wait until somebody asks for the partition that was offered, or nobody does for long, or it is lost."""
        if self._is_offered.is_set():
            await self._first_of(self._is_asked_for, WAIT_S)

    def hand_over_now(self) -> None:
        """Consume no more commands and begin no more steps: whoever waits to be asked need not wait any longer."""
        self._draining = True
        self.proof.withdraw()
        self._is_asked_for.set()

    async def _first_of(self, event: asyncio.Event, timeout_s: float | None = None) -> None:
        """Wait for an event, or until nothing is served any more."""
        waiting = asyncio.ensure_future(event.wait())
        served = () if self._task is None else (self._task,)
        await asyncio.wait(
            (waiting, *served), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()

    async def give_up(self, drain_s: float, grace_s: float) -> Leftover | None:
        """Give the partition up: at once, or as soon as steps that are about to end have been recorded.

        Args:
            drain_s: How long steps under way may go on; 0 where the partition is lost already.
            grace_s: How long the owner waits for them before it hands the partition over without them.

        Returns:
            The steps that go on and whose ends are to be reported to the next owner; None where there are none.
        """
        self._draining = True
        self.proof.withdraw()
        leftover: Leftover | None = None
        if self._task is not None:
            steps = self._steps
            if steps is not None and drain_s > 0:
                steps.cancel_queued()
                idle = await steps.wait_idle(min(drain_s, grace_s))
                left_s = drain_s - grace_s
                to_say = self._offer is not None or not idle
                if to_say and left_s > 0 and self.ready and self._steps is steps:
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

    def _hand_over(self, steps: Steps, drain_s: float) -> Leftover | None:
        owner, worker = self._owner, self._worker
        if owner is None or owner.lost_to is not None:
            return None
        now = worker.clock()
        due_at = now + round(drain_s * MICROSECONDS)
        owner.hand_over(steps.under_way(), due_at, now)
        self._leftover = Leftover(worker, self._partition, steps, due_at)
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
            if self._offer is not None:
                return  # whoever should have it takes it
            await self._pause(backoff_s)
            backoff_s = min(backoff_s * 2, longest_s)

    async def _pause(self, backoff_s: float) -> None:
        if not self._finishing:
            await asyncio.sleep(backoff_s * (0.5 + self._worker.random()))

    async def _own(self) -> None:
        """Claim, recover and pump; returns when a newer claim was met."""
        worker = self._worker
        name, clock = worker.settings.name, worker.clock
        patience = Asking(self._log, self._partition, name, clock)
        lookout = worker.lookout
        ahead = None if lookout is None else await lookout.take(self._partition)
        folded = await claim(self._log, self._partition, name, clock, ahead, patience)
        if worker.blobs.privacy is not None:
            worker.blobs.privacy.forget(folded.erased)
        settings = OwnerSettings(
            worker=name,
            max_payload_bytes=worker.max_payload_bytes,
            max_record_bytes=self._log.max_record_bytes,
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
            worker.blobs.privacy,
        )
        self._owner = owner
        self._postbox = Postbox(
            self._log, self._partition, owner.posted, worker.posted_to, worker.random
        )
        self._steps = Steps(
            self._step_done,
            self._not_begun,
            self._wrote,
            may_begin=self.proof.is_fresh,
            pool=worker.pool,
            room=worker.step_room,
            clock=clock,
            namespace=self._log.namespace,
            max_payload_bytes=worker.max_payload_bytes,
        )
        commands_end = 0
        if owner.state.handed:
            commands_end = (await self._log.bounds(Channel.COMMANDS, self._partition)).end
        for count, _ in enumerate(owner.recover(worker.clock(), commands_end), 1):
            if count % RECOVERY_SLICE == 0:
                await self._carry_out(owner, self._steps, self._postbox)
                await asyncio.sleep(0)
        self._warn_of_missing_code(owner)
        self._follow_from = owner.command + 1
        self.ready = True
        await self._pump(owner, self._steps, self._postbox)
        if owner.lost_to is None:
            return
        logger.warning(
            "partition %d was claimed by worker %r: dropped here", self._partition, owner.lost_to
        )

    async def _pump(self, owner: Owner, steps: Steps, postbox: Postbox) -> None:
        while owner.lost_to is None:
            self._woken = False
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            owner.tick(self._worker.clock())
            await self._carry_out(owner, steps, postbox)
            if self._follow_from is not None and owner.unconfirmed < MAX_UNCONFIRMED:
                follow_from, self._follow_from = self._follow_from, None
                if not self._draining:
                    self._worker.membership.follow(self._partition, follow_from)
                    self._follows = True
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
            self._look_at_offer(owner)

    def _look_at_offer(self, owner: Owner) -> None:
        if self._offer is not None and owner.confirmed >= self._offer and self._offered_at:
            self.proof.offered(self._offered_at)
            self._offered_at = None
            self._is_offered.set()
            self._wake_up()  # for the steps that have waited meanwhile

    async def _carry_out(self, owner: Owner, steps: Steps, postbox: Postbox) -> None:
        for workflow_id, step in owner.take_cancels():
            steps.cancel(workflow_id, step)
        handed_back, self._handed_back = self._handed_back, []
        effects = [*handed_back, *owner.take_effects()]
        launches = [effect for effect in effects if isinstance(effect, Launch)]
        if any(launch.attempt > 1 for launch in launches):
            await self._probe(owner)
        if launches or any(isinstance(effect, Grant) for effect in effects):
            proof = self.proof
            while owner.lost_to is None and not (proof.rests or proof.is_fresh()):
                await self._probe(owner)
        if owner.lost_to is not None:
            self._wake_up()  # the pump looks before it sleeps
            return
        answers: list[Answer] = []
        for effect in effects:
            if self.proof.suspended and isinstance(effect, Launch | Grant):
                self._handed_back.append(effect)
            elif isinstance(effect, Launch):
                if not self.proof.withdrawn and owner.wants(effect):
                    steps.launch(effect)
            elif isinstance(effect, Answer | Grant):
                answers.extend(self._said(effect))
            elif isinstance(effect, Post):
                postbox.add(effect)
            elif isinstance(effect, Lookup):
                self._look_up(effect)
            else:
                self._note_checkpoint(owner.offset_of(effect))
        if answers:
            self._worker.answer(answers)
        postbox.send()

    def _said(self, effect: Answer | Grant) -> list[Answer]:
        """What is told; nobody is let begin once the partition is to be given up."""
        if isinstance(effect, Grant):
            return [] if self.proof.withdrawn else [Answer(*effect)]
        return [effect]

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
        if self._leftover is not None:
            self._leftover.reporter.done(launch, result)
        else:
            self._tell(lambda owner, now: owner.step_done(launch, result, now))

    def _wrote(self, launch: Launch, items: Items) -> None:
        if self._leftover is not None:
            self._leftover.reporter.wrote(launch, items)
        else:
            self._tell(lambda owner, now: owner.wrote(launch, items, now))

    def _tell(self, news: Callable[[Owner, int], None]) -> None:
        """Tell the owner something, if there is one."""
        owner = self._owner
        if owner is None:
            return
        try:
            news(owner, self._worker.clock())
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
        self.ready = self._follows = False
        self._failure = None
        self._handed_back.clear()
        if self._postbox is not None:
            self._postbox.close()
        owner, steps = self._owner, self._steps
        self._owner = self._steps = self._postbox = None
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


def _missing_commands(partition: int, start: int, stop: int) -> LogCorrupt:
    """The error for commands that nobody has consumed and that are not in the log."""
    return LogCorrupt(
        f"the commands of partition {partition} from offset {start} to {stop - 1} are gone from the log, and nobody"
        " has consumed them: starts and messages among them would be lost. Nothing more is consumed there. Find out"
        " what deleted them (compaction: `refold doctor` looks at the topic's settings) and restore them from a backup,"
        " or have the clients ask again in a new namespace"
    )
