"""The worker's shell without threads, asyncio and wall clock: `engine/session.py` as a coroutine driven by hand.

The owner, the ledger, the fold, the runs, the codec, `claim` and `read_ending` are the real ones. What is written anew
here is `Session`: it does the same in the same order, and yields wherever the real one lets others run.
"""

from collections.abc import Callable, Coroutine, Sequence
from functools import partial

from tests.simulation.attempts import MAX_STEP_US, SECOND_US, STEP_US, Attempt, carry_out
from tests.simulation.surroundings import Killed, SimLog, SimProof, Surroundings
from tests.simulation.turns import finish, pause
from tests.simulation.watched import WatchedRuns

from refold.engine.active import Items
from refold.engine.asking import patience_s
from refold.engine.blobs import Blobs
from refold.engine.claim import ask, claim
from refold.engine.definitions import Catalogue
from refold.engine.effects import Answer, Bookmark, Effect, Grant, Launch, Post, StepResult
from refold.engine.owner import Owner, OwnerSettings
from refold.engine.privacy import Privacy
from refold.engine.proof import FRESH_S, OFFER_S, Instant
from refold.engine.reader import read_lookup
from refold.engine.recovery import Folded
from refold.engine.session import LOST_PAUSE_S, WAIT_S
from refold.engine.thread_slots import ThreadSlots
from refold.log.codec import decode_command, encode_command
from refold.log.errors import AppendUnknown
from refold.log.keys import PayloadKeys
from refold.log.protocol import Channel, Entry, Record

DRAIN_US = 10 * SECOND_US
NEVER_US = 1 << 62
LOOK_US = SECOND_US // 20
"""Most time until a claimant looks again whether a partition has been handed over."""
MAX_POSTS = 3
"""So few go out together that many posts are cut in two."""


class SimWorker:
    """A worker of one partition, in acts that somebody else puts in order.

    Args:
        world: Its surroundings.
        partition: The partition.
        settings: Its name, and limits of its owners.
        workflows: Its code.
        slots: Threads for `def` workflows.
        skew_us: How far its wall clock is ahead.
        keys: With what payloads are encrypted; None for none.
    """

    def __init__(
        self,
        world: Surroundings,
        partition: int,
        settings: OwnerSettings,
        workflows: Catalogue,
        slots: ThreadSlots,
        skew_us: int = 0,
        keys: PayloadKeys | None = None,
    ) -> None:
        self.name = settings.worker
        self.partition = partition
        self.alive = True
        self.stopped = False  # as by SIGSTOP: does nothing until the world lets it go on
        self.owner: Owner | None = None
        self.attempts: list[Attempt] = []
        self._world = world
        self._settings = settings
        self._workflows = workflows
        self._slots = slots
        self._skew_us = skew_us
        self._booted_us = world.now_us - world.random.randrange(1000 * SECOND_US)
        self._privacy = None if keys is None else Privacy(keys)
        self._blobs = Blobs(privacy=self._privacy)
        self._runs = WatchedRuns(workflows, slots, self._blobs)
        self._log = SimLog(world, self)
        self._draining = False
        self._hands_over = False
        self._recovered = False
        self._drain_until_us = 0
        self._finishing = False
        self._follow_from: int | None = None
        self._following: int | None = None
        self._proof = SimProof(world, self)
        self._offer: int | None = None
        self._offered_at: Instant | None = None
        self._ask_until_us = NEVER_US
        self._handed_back: list[Effect] = []
        self._reported: list[tuple[Launch, StepResult]] = []
        self._queued: list[Launch] = []  # waiting for a thread, or for a turn of the event loop
        self._woken = False
        self._until_us: int | None = None
        self._task = self._serve()
        self._outgoing: list[Post] = []
        self._post_task: Coroutine[object, object, None] | None = None
        self._post_until_us: int | None = None

    def clock(self) -> int:
        """Its wall clock, microseconds."""
        return self._world.now_us + self._skew_us

    def elapsed(self) -> int:
        """A clock that nobody can set, microseconds since its machine was started."""
        return self._world.now_us - self._booted_us

    # For the scheduler ------------------------------------------------------------------------------------

    def acts(self) -> list[Callable[[], None]]:
        """What it can do now."""
        if self.stopped:
            return []
        now_us = self._world.now_us
        acts: list[Callable[[], None]] = []
        if self._woken or self._until_us is None or self._until_us <= now_us:
            acts.append(self.go_on)
        if self._post_task is not None and (self._post_until_us or 0) <= now_us:
            acts.append(self._go_on_posting)
        due = [attempt for attempt in self.attempts if attempt.done_at_us <= now_us]
        acts.extend(partial(self._begin, launch) for launch in self._queued)
        acts.extend(partial(self._finish_step, attempt) for attempt in due)
        if self._reported and self._world.random.random() < 0.1:
            acts.append(self._report_again)
        if self._following is not None and self._waiting_commands() > self._following:
            acts.append(self._deliver)
        if self.offers and not self._draining and now_us >= self._ask_until_us:
            acts.append(self._hand_over_now)
        drained = not (self.attempts or self._queued) or now_us >= self._drain_until_us
        if self._draining and not self._finishing and (drained or self._hands_over):
            acts.append(self._finish_draining)
        return acts

    def next_time_us(self) -> int | None:
        """When it can do something next, if nothing else happens."""
        if self.stopped:
            return None
        times = [attempt.done_at_us for attempt in self.attempts]
        if self._until_us is not None:
            times.append(self._until_us)
        if self._post_task is not None:
            times.append(self._post_until_us or 0)
        if self._draining and not self._finishing:
            times.append(self._drain_until_us)
        elif self.offers and not self._draining:
            times.append(self._ask_until_us)
        return min(times, default=None)

    def go_on(self) -> None:
        """Run the shell to where it lets others run."""
        self._woken = False
        try:
            self._until_us = self._task.send(None)
        except StopIteration:  # drained
            self._drop()
            self.alive = False
        except Killed:
            self.die()

    def _go_on_posting(self) -> None:
        assert self._post_task is not None
        try:
            self._post_until_us = self._post_task.send(None)  # type: ignore[assignment]
        except StopIteration:
            self._post_task = None
        except Killed:
            self.die()

    def die(self) -> None:
        """The process is gone, with all that it had in memory."""
        self.alive = False
        self._task.close()
        self._stop_posting()
        self._forget_steps()
        if self.owner is not None:
            self.owner.abandon()  # ends the threads of `def` workflows; nobody hears the answers
            self.owner = None

    def set_clock(self, skew_us: int) -> None:
        """Somebody sets its wall clock."""
        self._skew_us = skew_us
        self._woken = True

    def drain(self, *, hands_over: bool | None = None) -> None:
        """SIGTERM: give the partition up; steps under way are recorded before, or go on and are reported."""
        self._draining = True
        often = self._world.random.random() < 0.7
        self._hands_over = often if hands_over is None else hands_over
        self._drain_until_us = self._world.now_us + DRAIN_US
        self._following = None

    @property
    def is_about_to_begin(self) -> bool:
        """Whether a step that it may begin has not begun."""
        return bool(self._queued) and self._proof.is_fresh()

    @property
    def offers(self) -> bool:
        """Whether it goes on until it is asked for the partition."""
        return self._offer is not None

    def offer(self) -> bool:
        """The group is to give the partition to another: go on until that one asks. False where there is nothing to."""
        owner = self.owner
        if owner is None or not self._recovered or self._draining or self._offer is not None:
            return False
        self._proof.suspend()
        self._offered_at = self._proof.now()
        due_us = self.clock() + round(OFFER_S * SECOND_US)
        self._offer = owner.offer(due_us, self.clock())
        self._woken = True
        return True

    def _hand_over_now(self) -> None:
        self._proof.withdraw()
        self.drain(hands_over=True)

    def revoke(self) -> None:
        """The group says that the partition is lost: drop it without a word to the log."""
        self._drop()
        self._task.close()
        self.alive = False

    # The shell, as in engine/session.py -------------------------------------------------------------------

    async def _serve(self) -> None:
        world = self._world
        while True:
            try:
                await self._own()
                backoff_us = round(LOST_PAUSE_S * SECOND_US)
            except AppendUnknown:
                backoff_us = SECOND_US // 10
            if self._finishing:
                return
            self._drop()
            if self.offers:
                return  # whoever should have it takes it
            await pause(world.now_us + world.random.randrange(backoff_us))

    async def _own(self) -> None:
        world = self._world
        patience = SimPatience(world, self, self._log)
        folded = await claim(self._log, self.partition, self.name, self.clock, patience=patience)
        world.owns(self, folded)
        if self._privacy is not None:
            self._privacy.forget(folded.erased)
        self._runs = WatchedRuns(self._workflows, self._slots, self._blobs)
        owner = Owner(
            self.partition,
            folded.state,
            self._settings,
            self._runs,
            world.random.random,
            self.elapsed,
            folded.since_bytes,
            privacy=self._privacy,
        )
        self.owner = owner
        commands_end = (await self._log.bounds(Channel.COMMANDS, self.partition)).end
        for _ in owner.recover(self.clock(), commands_end):
            if world.random.random() < 0.1:
                await self._carry_out(owner)
                await pause()
        self._follow_from = owner.command + 1
        self._recovered = True
        await self._pump(owner)

    async def _pump(self, owner: Owner) -> None:
        while owner.lost_to is None:
            self._woken = False
            owner.tick(self.clock())
            await self._carry_out(owner)
            if self._follow_from is not None:
                follow_from, self._follow_from = self._follow_from, None
                if not self._draining:
                    self._following = follow_from
            entries = owner.take_entries()
            if entries:
                await self._append(owner, entries)
            elif self._finishing:
                return
            elif not (
                self._woken or self._handed_back
            ):  # a probe that is gone on with forgets the first
                if owner.unconfirmed == 0:
                    self._world.quiet(self, owner)
                wake_at = owner.wake_at()
                await pause(NEVER_US if wake_at is None else wake_at + self._booted_us)

    async def _append(self, owner: Owner, entries: Sequence[Entry]) -> None:
        sent_at = self._proof.now()
        offsets = await self._log.append(Channel.EVENTS, self.partition, entries)
        gap = owner.acked(offsets)
        if gap is not None:
            records: list[Record] = []
            async for batch in self._log.read(Channel.EVENTS, self.partition, *gap):
                records.extend(batch)
            owner.inspected(records, offsets)
        if owner.lost_to is None:
            self._proof.given(sent_at)
            if self._offered_at is not None and owner.confirmed >= (self._offer or 0):
                self._proof.offered(self._offered_at)
                self._ask_until_us = self._world.now_us + round(WAIT_S * SECOND_US)
                self._offered_at = None
                self._woken = True

    async def _carry_out(self, owner: Owner) -> None:
        for workflow_id, step in owner.take_cancels():
            self._cancel(workflow_id, step)
        handed_back, self._handed_back = self._handed_back, []
        effects = [*handed_back, *owner.take_effects()]
        if any(isinstance(effect, Launch) and effect.attempt > 1 for effect in effects):
            await self._probe(owner)
        if any(isinstance(effect, Launch | Grant) for effect in effects):
            while owner.lost_to is None and not (self._proof.rests or self._proof.is_fresh()):
                await self._probe(owner)
        if owner.lost_to is not None:
            self._woken = True  # the pump looks before it sleeps
            return
        if self._proof.suspended:
            begins = [effect for effect in effects if isinstance(effect, Launch | Grant)]
            self._handed_back.extend(begins)
            effects = [effect for effect in effects if not isinstance(effect, Launch | Grant)]
        for effect in effects:
            if isinstance(effect, Launch):
                if not self._draining and owner.wants(effect):
                    self._queued.append(effect)
            elif isinstance(effect, Answer):
                self._world.answered(effect)
            elif isinstance(effect, Grant):
                if not self._draining:
                    self._world.answered(Answer(*effect))
            elif isinstance(effect, Post):
                self._outgoing.append(effect)
            elif isinstance(effect, Bookmark):
                offset = owner.offset_of(effect)
                await pause()  # a worker may be stopped here, and note a checkpoint that is not the last any more
                await self._log.set_bookmark(self.partition, offset)
            else:
                reply = finish(read_lookup(self._log, self.partition, effect))
                self._world.answered(Answer(effect.client_id, reply))
        self._begin_posting(owner)

    def _begin_posting(self, owner: Owner) -> None:
        if self._outgoing and self._post_task is None:
            self._post_until_us = None
            self._post_task = self._post_all(owner)

    async def _post_all(self, owner: Owner) -> None:
        world = self._world
        while self._outgoing and self.owner is owner:
            posts = self._outgoing[:MAX_POSTS]
            try:
                await self._post(posts)
            except AppendUnknown:
                await pause(world.now_us + world.random.randrange(SECOND_US // 10))
                continue
            del self._outgoing[: len(posts)]
            owner.posted(posts[-1].number)

    async def _post(self, posts: Sequence[Post]) -> None:
        """Those to different partitions go out in any order."""
        batches: dict[int, list[Entry]] = {}
        for post in posts:
            partition = self._world.layout.place(post.command.workflow_id)
            batches.setdefault(partition, []).append(encode_command(post.command))
        order = list(batches.items())
        if len(order) > 1:
            self._world.random.shuffle(order)
        for partition, entries in order:
            await self._log.append(Channel.COMMANDS, partition, entries)

    def _stop_posting(self) -> None:
        self._outgoing.clear()
        if self._post_task is not None:
            self._post_task.close()
            self._post_task = None

    async def _probe(self, owner: Owner) -> None:
        asked_at = self._proof.now()
        end = (await self._log.bounds(Channel.EVENTS, self.partition)).end
        if end > owner.next_offset:
            records: list[Record] = []
            async for batch in self._log.read(
                Channel.EVENTS, self.partition, owner.next_offset, end
            ):
                records.extend(batch)
            owner.inspected(records, ())
        if owner.lost_to is None:
            self._proof.given(asked_at)

    def _drop(self) -> None:
        self._recovered = False
        owner, self.owner = self.owner, None
        self._forget_steps()
        self._stop_posting()
        self._following = self._follow_from = None
        if owner is not None:
            for answer in owner.abandon():
                self._world.answered(answer)

    # Commands and steps -----------------------------------------------------------------------------------

    def _waiting_commands(self) -> int:
        return self._world.store.end(Channel.COMMANDS, self.partition)

    def _deliver(self) -> None:
        """The next commands come, sometimes with some that have come before."""
        assert self.owner is not None
        assert self._following is not None
        random = self._world.random
        again = random.randrange(4) if random.random() < 0.1 else 0
        start = max(0, self._following - again)
        limit = again + random.choice((1, 1, 2, 5, 100))
        self._following = None
        records = self._world.store.read(Channel.COMMANDS, self.partition, start, None, limit)
        for record in records:
            self.owner.handle(record.offset, decode_command(record), self.clock())
            if self.offers and self.owner.is_asked_for:
                self._hand_over_now()
                return
        self._follow_from = records[-1].offset + 1
        self._woken = True

    def _begin(self, launch: Launch) -> None:
        """A thread is free: begin, or hand the launch back, as `Steps` does."""
        self._queued.remove(launch)
        if not self._proof.is_fresh():
            self._handed_back.append(launch)
            self._woken = True
            return
        world = self._world
        world.began(self, launch, self._runs.knew(launch.workflow_id, launch.step))
        takes_us = STEP_US.get(launch.call.name) or world.random.randrange(MAX_STEP_US)
        self.attempts.append(Attempt(launch, self.clock(), world.now_us + takes_us))

    def _cancel(self, workflow_id: str, step: int) -> None:
        self._queued = [
            launch
            for launch in self._queued
            if (launch.workflow_id, launch.step) != (workflow_id, step)
        ]
        self.attempts = [
            attempt
            for attempt in self.attempts
            if (attempt.launch.workflow_id, attempt.launch.step) != (workflow_id, step)
        ]

    def _forget_steps(self) -> None:
        self._queued.clear()
        self._handed_back.clear()
        self._reported.clear()
        self.attempts.clear()

    def _finish_step(self, attempt: Attempt) -> None:
        assert self.owner is not None
        self.attempts.remove(attempt)
        result = carry_out(attempt, partial(self._wrote, attempt.launch))
        self.owner.step_done(attempt.launch, result, self.clock())
        if self._world.random.random() < 0.1:
            self._reported.append((attempt.launch, result))
        self._woken = True

    def _wrote(self, launch: Launch, stream: str, item: str) -> None:
        assert self.owner is not None
        self.owner.wrote(launch, Items(stream, f"[{item}]", 1), self.clock())

    def _report_again(self) -> None:
        """A report comes once more, perhaps long after."""
        assert self.owner is not None
        launch, result = self._reported.pop()
        self.owner.step_done(launch, result, self.clock())
        self._woken = True

    def under_way(self, launch: Launch) -> bool:
        """Whether the step is being carried out here."""
        wanted = (launch.workflow_id, launch.step)
        return any((a.launch.workflow_id, a.launch.step) == wanted for a in self.attempts)

    def _finish_draining(self) -> None:
        owner = self.owner
        to_say = self.attempts or self.offers
        if to_say and owner is not None and owner.lost_to is None and self._recovered:
            due_us = self.clock() + DRAIN_US
            owner.hand_over([attempt.launch for attempt in self.attempts], due_us, self.clock())
            self._world.goes_on(self, self.attempts)
            self.attempts = []
        self._finishing = True
        self._woken = True


class SimPatience:
    """A claimant's `Patience`, by virtual clocks."""

    def __init__(self, world: Surroundings, worker: SimWorker, log: SimLog) -> None:
        self._world = world
        self._worker = worker
        self._log = log

    async def for_hand_over(self, folded: Folded) -> bool:
        """See `Patience`."""
        world, partition, state = self._world, self._worker.partition, folded.state
        claimed = state.claim
        now = self._worker.clock()
        waited_s = patience_s(state, now)
        until_us = world.now_us + round(waited_s * SECOND_US)
        question = encode_command(ask(self._worker.name, now))
        await self._log.append(Channel.COMMANDS, partition, [question])
        while state.offered_until and state.claim == claimed and world.now_us < until_us:
            await pause(min(until_us, world.now_us + world.random.randrange(LOOK_US)))
            await folded.go_on(self._log, partition)
        begins_none = not state.offered_until or waited_s >= OFFER_S
        return begins_none and state.claim == claimed

    async def for_stale_proof(self) -> None:
        """See `Patience`."""
        await pause(self._world.now_us + round(FRESH_S * SECOND_US))
