"""An owned partition as a state machine with no I/O: the part of refold that has to be right.

In go commands, step results, acknowledgements and the time; out come records to append, effects to carry out and
the next time to wake up. A worker's event loop, threads and Kafka are a thin shell around it (`engine/worker.py`),
and the simulator drives the very same code. `engine/ledger.py` holds the rules for what is recorded and when an
effect may go out, `engine/open_runs.py` those for the runs; the rules for commands:

1. One command causes at most one event, which carries the command's offset, so that after a crash it is either
   done or taken up again, never half done. A start with a message causes two: the first does not carry the offset,
   and a repeat finds the run and sends the message.
2. Refusals are events too, so that no later owner accepts what a client was told is refused.
3. The first start of an id wins, for ever; the same start again gets the run that there is.
4. What comes from another workflow's operation comes at least once and counts once: a message by its id, a start by
   the operation that it comes from, an answer because the operation has none yet. A refusal is told to the operation.
5. Once lost, an owner does nothing more. Its clients are told `unknown`, never a failure.
"""

import json
from collections.abc import Callable, Iterator, Sequence

from refold.engine.active import Active, Items, OwnerSettings, Runs
from refold.engine.answers import Answers, not_found, refused_reply, who
from refold.engine.blobs import Blob, Lift, never
from refold.engine.checkpoints import Checkpoints
from refold.engine.conflict import other_input, other_workflow
from refold.engine.effects import Answer, Bookmark, Effect, Grant, Launch, Lookup, Post, StepResult
from refold.engine.exchanges import Exchanges
from refold.engine.ledger import Ledger
from refold.engine.open_runs import OpenRuns
from refold.engine.orders import Control, why_refused
from refold.engine.pools import Pools
from refold.engine.privacy import Privacy
from refold.engine.private_events import is_misplaced
from refold.engine.queues import Queues
from refold.engine.room import Room
from refold.engine.state import Closed, PartitionState, Status, WorkflowState, digest_input
from refold.engine.watchers import Watchers, parked_reply, value_reply
from refold.log.commands import (
    AskForPartition,
    AskWorkflow,
    BeginStep,
    CancelWorkflow,
    Command,
    ConfirmDelivery,
    CopyHistory,
    EraseSubject,
    ForkWorkflow,
    GrantSlot,
    KeepStep,
    LookAtQueue,
    OfferWork,
    PauseWorkflow,
    ReleaseSlot,
    ReopenWorkflow,
    Reply,
    ReportChild,
    ReportStep,
    RequestSlot,
    ResumeWorkflow,
    RewindWorkflow,
    SendMessage,
    SetQueue,
    StartWorkflow,
    TerminateWorkflow,
    WatchValue,
    WatchWorkflow,
)
from refold.log.errors import CommandRefused as RefusedError
from refold.log.errors import (
    InvalidInput,
    LogCorrupt,
    PayloadError,
    UnknownWorkflow,
    WorkflowConflict,
)
from refold.log.events import (
    HistoryCopied,
    PartitionHandedOver,
    PartitionOffered,
    SubjectErased,
    Unreadable,
    WorkflowReopened,
    WorkflowStarted,
)
from refold.log.keys import KEY_TAG
from refold.log.protocol import Entry, Record

__all__ = ["Owner", "OwnerSettings", "Runs"]


class Owner:
    """One owned partition. Tell it what happens, then carry out what the `take_*` methods give.

    Args:
        partition: Its number.
        state: The fold of the partition up to and with this owner's claim, which is its last record.
        settings: Limits, and the worker's name.
        runs: Makes runs from histories.
        random: Uniform in [0, 1), for the jitter of retries.
        elapsed: A clock that only goes forward, in microseconds from any beginning.
        since_bytes: Length of the events since the last checkpoint began.
        room: For how many runs there is memory; any number where it is not given.
        lift: Which payloads are kept as blobs.
        privacy: With what payloads are encrypted; None for none.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each a plain part of the owner
        self,
        partition: int,
        state: PartitionState,
        settings: OwnerSettings,
        runs: Runs,
        random: Callable[[], float],
        elapsed: Callable[[], int],
        since_bytes: int = 0,
        room: Room | None = None,
        lift: Lift = never,
        privacy: Privacy | None = None,
    ) -> None:
        self.state = state
        self.is_asked_for = False  # since it was offered
        self._partition = partition
        self._runs = runs
        self._ledger = Ledger(state, settings.worker, lift, privacy)
        self._checkpoints = Checkpoints(
            partition,
            state,
            self._ledger,
            settings.checkpoints,
            since_bytes,
            settings.max_record_bytes,
        )
        self._watchers = Watchers(settings.max_kept_result_bytes)
        self.pools = Pools(self.wants, elapsed, settings.pool_lease_s, privacy)
        self._open = OpenRuns(
            state=state,
            ledger=self._ledger,
            watchers=self._watchers,
            settings=settings,
            runs=runs,
            random=random,
            elapsed=elapsed,
            room=room or Room(),
            pools=self.pools,
        )
        self._answers = Answers(self._ledger, partition)
        self._exchanges = Exchanges(state, self._open, self._watchers, self._answers)
        self._queues = Queues(partition, state, self._ledger, self._open, self._answers)

    # What the shell asks for ------------------------------------------------------------------------------

    def take_blobs(self) -> list[Blob]:
        """Blobs to write before what `take_entries` gives next is appended."""
        return self._ledger.take_blobs()

    def take_entries(self) -> list[Entry]:
        """Records to append, in order. Each list is reported whole, with `acked`, before the next is taken."""
        return self._ledger.take_entries()

    def take_effects(self) -> list[Effect]:
        """Effects whose time has come: everything that they follow from is confirmed."""
        return self.pools.divert(self._ledger.take_effects())

    def take_cancels(self) -> list[tuple[str, int]]:
        """Steps under way (workflow id, step) that nobody waits for any more."""
        return self._open.take_cancels()

    def wake_at(self) -> int | None:
        """When `tick` has something to do next, by the clock `elapsed`; None for never."""
        times = [at for at in (self._open.wake_at(), self.pools.wake_at()) if at is not None]
        return min(times, default=None)

    def offset_of(self, bookmark: Bookmark) -> int:
        """Offset of the event that a completed checkpoint began with."""
        return self._ledger.noted_offset(bookmark.sequence)

    def wants(self, launch: Launch) -> bool:
        """Whether an attempt that was asked for is still waited for: its workflow may have gone on without it."""
        return self._open.work.wants(launch)

    @property
    def lost_to(self) -> str | None:
        """The worker that has claimed the partition since; None while it is owned."""
        return self._ledger.lost_to

    @property
    def waiting_for_code(self) -> dict[str, str]:
        """Open runs whose workflow is not registered here: id and name. They stay as they are."""
        return self._open.waiting_for_code

    @property
    def next_offset(self) -> int:
        """The offset that the next record of the partition gets, as far as this owner knows."""
        return self._ledger.next_offset

    @property
    def command(self) -> int:
        """Offset of the last command consumed."""
        return self._ledger.command

    @property
    def confirmed(self) -> int:
        """How many records are confirmed."""
        return self._ledger.confirmed

    @property
    def unconfirmed(self) -> int:
        """Records that were made and are not confirmed yet."""
        return self._ledger.made - self._ledger.confirmed

    # What the shell tells ---------------------------------------------------------------------------------

    def recover(self, now: int, commands_end: int = 0) -> Iterator[None]:
        """Bring back every open run; yields after each so that the shell can let others work.

        Args:
            now: Microseconds since 1970-01-01 UTC.
            commands_end: The offset that the partition's next command gets: those before it may be reports of steps
                that went on at the former owner.
        """
        return self._open.recover(now, commands_end)

    def handle(self, offset: int, command: Command | Unreadable, now: int) -> None:
        """Consume the command at `offset`; those already consumed are ignored."""
        if offset <= self._ledger.command:
            return
        self._ledger.command = offset
        if self._ledger.privacy is None or not self._is_misplaced(command, now):
            self._consume(offset, command, now)
        self._open.work.begin_overdue()

    def _is_misplaced(self, command: Command | Unreadable, now: int) -> bool:
        """Whether a command's payload is none of its own; then it is refused."""
        if isinstance(command, Unreadable) or not is_misplaced(command, self.state):
            return False
        error = RefusedError(
            f"the payload of {command.kind} is encrypted for another workflow than {command.workflow_id!r}, or to be "
            "something else: send it to that one, or encrypt it anew"
        )
        self._answers.refuse(command, error, now)
        return True

    def _consume(  # noqa: C901, PLR0912 - an arm for each kind
        self, offset: int, command: Command | Unreadable, now: int
    ) -> None:
        match command:
            case StartWorkflow():
                self._start(command, offset, now)
            case WatchWorkflow():
                self._watch(command)
            case WatchValue():
                self._watch_value(command)
            case SendMessage():
                self._exchanges.send(command, now)
            case AskWorkflow():
                self._exchanges.ask(command, now)
            case ConfirmDelivery():
                self._exchanges.confirm(command, now)
            case ReportChild():
                self._exchanges.child_ended(command, now)
            case CancelWorkflow():
                self._exchanges.cancel(command, now)
            case ReportStep():
                if not self.pools.puts_off(command):
                    self._open.work.reported(command, now)
            case AskForPartition():
                self.is_asked_for = True
            case OfferWork():
                self.pools.offered(command)
            case BeginStep():
                self.pools.begin(command)
            case KeepStep():
                self.pools.keep(command)
            case Unreadable():
                error = LogCorrupt(
                    f"the command at offset {offset} can't be read: {command.reason}"
                )
                self._answers.refusal(command.workflow_id, "unreadable", error, now)
            case EraseSubject():
                self._erased(command, offset, now)
            case SetQueue() | LookAtQueue() | RequestSlot() | ReleaseSlot() | GrantSlot():
                self._queues.take(command, now)
            case _:
                self._control(command, now)

    def failed(
        self, offset: int, command: Command | Unreadable, error: Exception, now: int
    ) -> None:
        """Refuse a command that could not be handled, twice, because of an error in refold itself."""
        if offset <= self._ledger.command:
            return
        self._ledger.command = offset
        problem = RefusedError(
            f"the command could not be handled, which is a fault of refold: {error!r}. Nothing else stops; "
            "please report it with the worker's log"
        )
        if isinstance(command, Unreadable):
            self._answers.refusal(command.workflow_id, "unreadable", problem, now)
        else:
            self._answers.refuse(command, problem, now)

    def offer(self, due_at: int, now: int) -> int:
        """Record that the partition goes to whoever asks for it, and that all goes on until then, or until `due_at`.

        Returns:
            How many records are confirmed when this one is.
        """
        self.is_asked_for = False
        return self._ledger.record(
            PartitionOffered(
                **self._ledger.header(None, None, now), partition=self._partition, due_at=due_at
            )
        )

    def hand_over(self, steps: Sequence[Launch], due_at: int, now: int) -> None:
        """Record that the partition is given up while these steps go on, until `due_at`; nothing may be told after."""
        under_way = [
            [step.workflow_id, step.step, step.attempt] for step in steps if self.wants(step)
        ]
        self._ledger.record(
            PartitionHandedOver(
                **self._ledger.header(None, None, now),
                partition=self._partition,
                payload=json.dumps(under_way),
                due_at=due_at,
            )
        )

    def step_done(self, launch: Launch, result: StepResult, now: int) -> None:
        """Record what became of an attempt; one that nobody waits for any more is dropped."""
        self._open.work.step_done(launch, result, now)

    def wrote(self, launch: Launch, items: Items, now: int) -> None:
        """Record what a step under way has written to a stream."""
        self._open.work.wrote(launch, items, now)

    def posted(self, number: int) -> None:
        """Take note that the command with this number, and so all before it, have been posted."""
        self._ledger.posted = max(self._ledger.posted, number)

    def tick(self, now: int) -> None:
        """Fire what is due: timers, retries whose wait is over, the next part of a checkpoint."""
        self._open.tick(now)
        for report in self.pools.take_put_off():
            self._open.work.reported(report, now)
        self.pools.tick()
        if self._checkpoints.step(now):
            self._watchers.forget_all_but(self.state.closed)

    def acked(self, offsets: Sequence[int]) -> tuple[int, int] | None:
        """Take the offsets of the entries that `take_entries` gave last; see `Ledger.acked`."""
        return self._ledger.acked(offsets)

    def inspected(self, records: Sequence[Record], offsets: Sequence[int]) -> None:
        """Look at the range that `acked` asked for; see `Ledger.inspected`."""
        self._ledger.inspected(records, offsets)

    def abandon(self) -> list[Answer]:
        """Drop everything: the partition is lost or given up. Returns what the waiting clients are told."""
        self._open.close()
        dropped = [e for e in self._ledger.drop() if not isinstance(e, Launch | Post | Bookmark)]
        return [*self._watchers.abandoned(), *self.pools.abandoned(), *map(_unknown, dropped)]

    # Starts -----------------------------------------------------------------------------------------------

    def _start(self, command: StartWorkflow, offset: int, now: int) -> None:
        workflow_id = command.workflow_id
        existing = self.state.open.get(workflow_id) or self.state.closed.get(workflow_id)
        if existing is not None:
            self._start_again(command, existing, now)
            return
        if command.parent_step is not None and command.requested_at < self.state.forgotten_before:
            # Its parent's partition rested so long that it may be a repeat of one that was carried out and forgotten.
            error = WorkflowConflict(
                f"the start of child {workflow_id!r} is older than what this partition remembers of runs that "
                "have ended, so it may have run already: look for it in the history, then start it under another id"
            )
            self._answers.refuse(command, error, now)
            return
        try:
            version = self._runs.resolve(command.workflow, command.version)
            payload = self._runs.canonical(command.workflow, version, command.payload)
        except UnknownWorkflow as error:
            self._answers.refuse(command, error, now)
            return
        except PayloadError as error:
            message = self._note(str(error), command)  # it may quote the input
            self._answers.refuse(command, InvalidInput(message), now)
            return
        if command.name is not None:
            self._ledger.command = offset - 1  # rule 1: the message's event carries it
        started = WorkflowStarted(
            **self._ledger.header(workflow_id, self.state.floor, now),
            workflow=command.workflow,
            payload=payload,
            encoding=command.encoding,
            version=version,
            code_version=self._runs.code_version(command.workflow, version),
            attributes=command.attributes,
            due_at=command.due_at,
            parent_id=command.parent_id,
            parent_step=command.parent_step,
            policy=command.policy,
            queue=command.queue or self._runs.queue_of(command.workflow, version),
        )
        sequence = self._open.begin(started, now)
        if command.name is not None:
            self._ledger.command = offset
            self._message_with_start(command, now)
            return
        self._answers.accept(command, sequence)
        self._watch_for(workflow_id, command.reply_to, command.command_id)

    def _start_again(
        self, command: StartWorkflow, existing: WorkflowState | Closed, now: int
    ) -> None:
        """The first start of an id wins; the same start again gets the run that there is."""
        first: str | None = None
        if isinstance(existing, Closed):
            workflow, version, input_digest = (
                existing.workflow,
                existing.version,
                existing.input_digest,
            )
            parent = existing.parent_id, existing.parent_step
        elif existing.started is None:
            unknown = "unknown (its history is broken)"
            self._answers.refuse(command, other_workflow(command, unknown), now)
            return
        else:
            started = existing.started
            workflow, version = started.workflow, started.version
            input_digest = existing.input_digest or digest_input(started.payload)
            first = started.payload if existing.input_digest is None else None
            parent = started.parent_id, started.parent_step
        if command.parent_step is not None:
            if parent != (command.parent_id, command.parent_step):
                error = WorkflowConflict(
                    f"workflow id {command.workflow_id!r} is taken by a run that this operation did not "
                    "start: give the child another id"
                )
                self._answers.refuse(command, error, now)
            return  # rule 4: the start by that very operation has been answered
        if workflow == command.workflow and command.name is not None:
            self._message_with_start(command, now)
            return
        if workflow != command.workflow:
            self._answers.refuse(command, other_workflow(command, workflow), now)
            return
        given = self._canonical(command, version)
        if input_digest == self._digest(command, given):
            active = self._open.find(command.workflow_id)
            self._answers.accept(
                command, active.last_sequence if active is not None else self._ledger.made
            )
            self._watch_for(command.workflow_id, command.reply_to, command.command_id)
        else:
            private = KEY_TAG in {**(existing.attributes or {}), **(command.attributes or {})}
            self._answers.refuse(command, other_input(command, given, first, private=private), now)

    def _canonical(self, command: StartWorkflow, version: int) -> str:
        """A second start's input, in the form that the first one's was recorded in."""
        try:
            return self._runs.canonical(command.workflow, version, command.payload)
        except (UnknownWorkflow, PayloadError):
            return command.payload

    def _digest(self, command: StartWorkflow, payload: str) -> bytes:
        """Digest of a second start's input."""
        ring, privacy = (command.attributes or {}).get(KEY_TAG), self._ledger.privacy
        if privacy is not None and ring is not None:
            payload = privacy.protect(payload, ring, "input", command.workflow_id)
        return digest_input(payload)

    def _note(self, text: str, command: StartWorkflow) -> str:
        """What is said of a start, encrypted where the run would be."""
        ring, privacy = (command.attributes or {}).get(KEY_TAG), self._ledger.privacy
        if privacy is None or ring is None:
            return text
        return privacy.protect(text, ring, "error", command.workflow_id)

    def _message_with_start(self, command: StartWorkflow, now: int) -> None:
        message = SendMessage(
            command_id=command.command_id,
            workflow_id=command.workflow_id,
            reply_to=command.reply_to,
            requested_at=command.requested_at,
            requested_by=command.requested_by,
            name=command.name or "",
            payload=command.message or "null",
            message_id=command.message_id or command.command_id,
        )
        is_open = command.workflow_id in self.state.open
        self._exchanges.send(message, now)
        if is_open:  # else that was a refusal; it may have ended by this very message
            self._watch_for(command.workflow_id, command.reply_to, command.command_id)

    # Orders -----------------------------------------------------------------------------------------------

    def _control(self, command: Control, now: int) -> None:
        """What an operator orders. It is refused where it does not apply."""
        active = self._open.find(command.workflow_id)
        problem = why_refused(command, active, self.state, self._runs)
        if problem is not None:
            self._answers.refuse(command, problem, now)
            return
        match command:
            case ReopenWorkflow() | ForkWorkflow():
                self._answers.accept(command, self._begin_copy(command, active, now))
            case _:
                if active is not None:  # else `why_refused` says so
                    self._answers.accept(command, self._carry_out(command, active, now))

    def _carry_out(
        self,
        command: TerminateWorkflow | PauseWorkflow | ResumeWorkflow | RewindWorkflow | CopyHistory,
        active: Active,
        now: int,
    ) -> int:
        """Do what is ordered; returns the sequence number of the event that says so."""
        match command:
            case ResumeWorkflow():
                return self._open.resume(active, who(command), now)
            case PauseWorkflow():
                return self._open.pause(active, who(command), now)
            case RewindWorkflow():
                return self._open.rewind(active, command.step, who(command), now)
            case TerminateWorkflow():
                return self._open.terminate(active, who(command), now)
            case CopyHistory():
                if command.position < active.state.exchange.parts:  # it has come already
                    return active.last_sequence
                copied = HistoryCopied(
                    **self._open.header(active, now),
                    payload=command.payload,
                    encoding=command.encoding,
                    name=command.name,
                )
                return self._open.copy(active, copied, now)

    def _begin_copy(
        self, command: ReopenWorkflow | ForkWorkflow, active: Active | None, now: int
    ) -> int:
        workflow_id, name = command.workflow_id, command.workflow
        if active is not None:  # the same fork again
            return active.last_sequence
        version = self._runs.resolve(name, command.version)
        code_version = self._runs.code_version(name, version)
        if isinstance(command, ForkWorkflow):
            payload = self._runs.canonical(name, version, command.payload)
            started = WorkflowStarted(
                **self._ledger.header(workflow_id, self.state.floor, now),
                workflow=name,
                payload=payload,
                version=version,
                code_version=code_version,
                attributes=command.attributes,
                source_id=command.source_id,
                step=command.step,
                detail=json.dumps(who(command)),
                queue=command.queue,
            )
            return self._open.begin(started, now)
        at = max(now, self.state.closed[workflow_id].ended_at)  # time never goes back in a stream
        reopened = WorkflowReopened(
            **self._ledger.header(workflow_id, command.position, at),
            step=command.step,
            detail=json.dumps(who(command)),
            workflow=name,
            payload=command.payload,
            started_at=command.started_at,
            version=version,
            code_version=code_version,
            attributes=command.attributes,
            due_at=command.due_at,
            parent_id=command.parent_id,
            parent_step=command.parent_step,
            policy=command.policy,
            queue=command.queue,
        )
        return self._open.reopen(reopened)

    def _erased(self, command: EraseSubject, offset: int, now: int) -> None:
        """Record that keys were destroyed, after parking the runs that are encrypted with them."""
        keys: list[str] = json.loads(command.payload)
        if self._ledger.privacy is not None:
            self._ledger.privacy.forget(keys)
        self._ledger.command = offset - 1  # rule 1: the last event carries it
        detail = who(command)
        self._open.erased(frozenset(keys), detail, now)
        self._ledger.command = offset
        sequence = self._ledger.record(
            SubjectErased(
                **self._ledger.header(None, None, now),
                partition=self._partition,
                payload=json.dumps({"keys": keys, **detail}),
            )
        )
        self._answers.accept(command, sequence)

    # Watching ---------------------------------------------------------------------------------------------

    def _watch(self, command: WatchWorkflow) -> None:
        state = self.state.open.get(command.workflow_id)
        if state is not None or command.workflow_id in self.state.closed:
            if state is not None and state.status is not Status.PARKED:
                # The end may be far: the client knows that somebody listens. Not before the run's start is safe.
                self._answers.accept(command, self._ledger.made)
            self._watch_for(command.workflow_id, command.reply_to, command.command_id)
        elif command.reply_to is not None:
            self._not_known(command, command.reply_to)

    def _not_known(self, command: WatchWorkflow | WatchValue, client_id: str) -> None:
        """It changes nothing, and a later start must not be hindered by it: a reply, no event."""
        workflow_id = command.workflow_id
        if self.state.forgotten_before:
            key = command.name if isinstance(command, WatchValue) else None
            lookup = Lookup(workflow_id, client_id, command.command_id, key, forgotten=True)
            self._ledger.hold(self._ledger.made, lookup)
        else:
            reply = refused_reply(command, not_found(workflow_id))
            self._ledger.hold(self._ledger.made, Answer(client_id, reply))

    def _watch_for(self, workflow_id: str, client_id: str | None, command_id: str) -> None:
        """Tell a client how a run ended: now if it has or is parked, else when it does."""
        if client_id is None:
            return
        state = self.state.open.get(workflow_id)
        if state is None:
            # Its last event is among those made so far, so waiting for all of them is safe.
            closed = self.state.closed[workflow_id]
            result = self._watchers.result(workflow_id, closed, client_id, command_id)
            self._ledger.hold(self._ledger.made, result)
        elif state.status is Status.PARKED:
            reply = parked_reply(workflow_id, state, command_id)
            self._ledger.hold(self._ledger.made, Answer(client_id, reply))
        else:
            self._watchers.add(workflow_id, client_id, command_id)

    def _watch_value(self, command: WatchValue) -> None:
        workflow_id, client_id = command.workflow_id, command.reply_to
        state = self.state.open.get(workflow_id)
        if client_id is None:
            return
        if state is not None:
            value = state.exchange.values.get(command.name)
            if value is not None:
                self._answers.give(
                    command, self._ledger.made, value_reply(value, command.command_id)
                )
                return
            self._answers.accept(command, self._ledger.made)
            self._watchers.add_for_value(workflow_id, command.name, client_id, command.command_id)
        elif workflow_id in self.state.closed:
            lookup = Lookup(workflow_id, client_id, command.command_id, command.name)
            self._ledger.hold(self._ledger.made, lookup)
        else:
            self._not_known(command, client_id)


def _unknown(effect: Answer | Grant | Lookup) -> Answer:
    """What a client is told in place of an answer that was held when the partition was lost: ask again."""
    asked = effect if isinstance(effect, Lookup) else effect.reply
    reply = Reply(command_id=asked.command_id, workflow_id=asked.workflow_id, status="unknown")
    return Answer(effect.client_id, reply)
