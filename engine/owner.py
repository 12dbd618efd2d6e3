"""An owned partition as a state machine with no I/O: the part of refold that has to be right.

In go commands, step results, acknowledgements and the time; out come records to append, effects to carry out and
the next time to wake up. A worker's event loop, threads and Kafka are a thin shell around it (`engine/worker.py`),
and the simulator drives the very same code. `engine/ledger.py` holds the rules for what is recorded and when an
effect may go out, `engine/open_runs.py` those for the runs; the rules for commands:

1. One command causes at most one event, which carries the command's offset, so that after a crash it is either
   done or taken up again, never half done.
2. Refusals are events too, so that no later owner accepts what a client was told is refused.
3. The first start of an id wins, for ever; the same start again gets the run that there is.
4. Once lost, an owner does nothing more. Its clients are told `unknown`, never a failure.
"""

from collections.abc import Callable, Iterator, Sequence

from refold.engine.effects import Answer, Effect, Launch, Lookup, StepResult
from refold.engine.fold import Closed, PartitionState, Status, WorkflowState, digest_input
from refold.engine.ledger import Ledger
from refold.engine.open_runs import Active, OpenRuns, OwnerSettings, Runs
from refold.engine.watchers import Watchers, parked_reply
from refold.log.commands import Command, Reply, ResumeWorkflow, StartWorkflow, WatchWorkflow
from refold.log.errors import CommandRefused as RefusedError
from refold.log.errors import (
    InvalidInput,
    LogCorrupt,
    PayloadError,
    RefoldError,
    UnknownWorkflow,
    WorkflowConflict,
    WorkflowNotFound,
)
from refold.log.events import CommandRefused, Unreadable, WorkflowStarted
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
    """

    def __init__(
        self,
        partition: int,
        state: PartitionState,
        settings: OwnerSettings,
        runs: Runs,
        random: Callable[[], float],
    ) -> None:
        self.state = state
        self._partition = partition
        self._runs = runs
        self._ledger = Ledger(state, settings.worker)
        self._watchers = Watchers(settings.max_kept_result_bytes)
        self._open = OpenRuns(
            state=state,
            ledger=self._ledger,
            watchers=self._watchers,
            settings=settings,
            runs=runs,
            random=random,
        )

    # What the shell asks for ------------------------------------------------------------------------------

    def take_entries(self) -> list[Entry]:
        """Records to append, in order. Each list is reported whole, with `acked`, before the next is taken."""
        return self._ledger.take_entries()

    def take_effects(self) -> list[Effect]:
        """Effects whose time has come: everything that they follow from is confirmed."""
        return self._ledger.take_effects()

    def take_cancels(self) -> list[tuple[str, int]]:
        """Steps under way (workflow id, step) that nobody waits for any more."""
        return self._open.take_cancels()

    def wake_at(self) -> int | None:
        """When `tick` has something to do next, microseconds since 1970-01-01 UTC; None for never."""
        return self._open.wake_at()

    def wants(self, launch: Launch) -> bool:
        """Whether an attempt that was asked for is still waited for: its workflow may have gone on without it."""
        return self._open.wants(launch)

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
    def unconfirmed(self) -> int:
        """Records that were made and are not confirmed yet."""
        return self._ledger.made - self._ledger.confirmed

    # What the shell tells ---------------------------------------------------------------------------------

    def recover(self, now: int) -> Iterator[None]:
        """Bring back every open run; yields after each so that the shell can let others work."""
        return self._open.recover(now)

    def handle(self, offset: int, command: Command | Unreadable, now: int) -> None:
        """Consume the command at `offset`; those already consumed are ignored."""
        if offset <= self._ledger.command:
            return
        self._ledger.command = offset
        match command:
            case StartWorkflow():
                self._start(command, now)
            case WatchWorkflow():
                self._watch(command)
            case ResumeWorkflow():
                self._resume(command, now)
            case Unreadable():
                error = LogCorrupt(
                    f"the command at offset {offset} can't be read: {command.reason}"
                )
                self._refusal(command.workflow_id, "unreadable", error, now)

    def step_done(self, launch: Launch, result: StepResult, now: int) -> None:
        """Record what became of an attempt; one that nobody waits for any more is dropped."""
        self._open.step_done(launch, result, now)

    def tick(self, now: int) -> None:
        """Fire what is due: timers, and retries whose wait is over."""
        self._open.tick(now)

    def acked(self, offsets: Sequence[int]) -> tuple[int, int] | None:
        """Take the offsets of the entries that `take_entries` gave last; see `Ledger.acked`."""
        return self._ledger.acked(offsets)

    def inspected(self, records: Sequence[Record], offsets: Sequence[int]) -> None:
        """Look at the range that `acked` asked for; see `Ledger.inspected`."""
        self._ledger.inspected(records, offsets)

    def abandon(self) -> list[Answer]:
        """Drop everything: the partition is lost or given up. Returns what the waiting clients are told."""
        self._open.close()
        dropped = [effect for effect in self._ledger.drop() if not isinstance(effect, Launch)]
        return [*self._watchers.abandoned(), *map(_unknown, dropped)]

    # Commands ---------------------------------------------------------------------------------------------

    def _start(self, command: StartWorkflow, now: int) -> None:
        workflow_id = command.workflow_id
        problem: RefoldError | None = None
        payload = command.payload
        try:
            payload = self._runs.canonical(command.workflow, payload)
        except UnknownWorkflow as error:
            problem = error
        except PayloadError as error:
            problem = InvalidInput(str(error))
        existing = self.state.open.get(workflow_id) or self.state.closed.get(workflow_id)
        if existing is not None:
            self._start_again(command, payload, existing, now)
        elif problem is not None:
            self._refuse(command, problem, now)
        else:
            started = WorkflowStarted(
                **self._ledger.header(workflow_id, 0, now),
                workflow=command.workflow,
                payload=payload,
                encoding=command.encoding,
                code_version=self._runs.code_version(command.workflow),
                attributes=command.attributes,
            )
            sequence = self._open.begin(started, now)
            self._accept(command, sequence)
            self._watch_for(workflow_id, command.reply_to, command.command_id)

    def _start_again(
        self, command: StartWorkflow, payload: str, existing: WorkflowState | Closed, now: int
    ) -> None:
        """The first start of an id wins; the same start again gets the run that there is."""
        workflow_id = command.workflow_id
        if isinstance(existing, Closed):
            workflow, same = existing.workflow, existing.input_digest == digest_input(payload)
        elif existing.started is None:
            workflow, same = "unknown (its history is broken)", False
        else:
            workflow, same = existing.started.workflow, existing.started.payload == payload
        if not same or workflow != command.workflow:
            self._refuse(command, _conflict(command, workflow), now)
            return
        active = self._open.find(workflow_id)
        self._accept(command, active.last_sequence if active is not None else self._ledger.made)
        self._watch_for(workflow_id, command.reply_to, command.command_id)

    def _accept(self, command: Command, sequence: int) -> None:
        if command.reply_to is not None:
            reply = Reply(
                command_id=command.command_id, workflow_id=command.workflow_id, status="accepted"
            )
            self._ledger.hold(sequence, Answer(command.reply_to, reply))

    def _watch(self, command: WatchWorkflow) -> None:
        state = self.state.open.get(command.workflow_id)
        if state is not None or command.workflow_id in self.state.closed:
            if state is not None and state.status is Status.RUNNING:
                # The end may be far: the client knows that somebody listens. Not before the run's start is safe.
                self._accept(command, self._ledger.made)
            self._watch_for(command.workflow_id, command.reply_to, command.command_id)
        elif command.reply_to is not None:
            error = WorkflowNotFound(
                f"no workflow has the id {command.workflow_id!r}: start it first, or check the id"
            )
            # It changes nothing, and a later start must not be hindered by it: a reply, no event.
            self._ledger.hold(self._ledger.made, Answer(command.reply_to, _refused(command, error)))

    def _watch_for(self, workflow_id: str, client_id: str | None, command_id: str) -> None:
        """Tell a client how a run ended: now if it has or is parked, else when it does."""
        if client_id is None:
            return
        state = self.state.open.get(workflow_id)
        if state is None:
            # Its last event is among those made so far, so waiting for all of them is safe.
            result = self._watchers.result(workflow_id, client_id, command_id)
            self._ledger.hold(self._ledger.made, result)
        elif state.status is Status.PARKED:
            reply = parked_reply(workflow_id, state, command_id)
            self._ledger.hold(self._ledger.made, Answer(client_id, reply))
        else:
            self._watchers.add(workflow_id, client_id, command_id)

    def _resume(self, command: ResumeWorkflow, now: int) -> None:
        active = self._open.find(command.workflow_id)
        problem = _why_not_resumable(command.workflow_id, active, self.state)
        if active is None or problem is not None:
            self._refuse(command, problem or RefusedError("nothing to resume"), now)
            return
        detail = {"requested_by": command.requested_by, "reason": command.reason}
        self._accept(command, self._open.resume(active, detail, now))

    def _refuse(self, command: Command, error: RefoldError, now: int) -> None:
        sequence = self._refusal(command.workflow_id, command.kind, error, now)
        if command.reply_to is not None:
            self._ledger.hold(sequence, Answer(command.reply_to, _refused(command, error)))

    def _refusal(self, workflow_id: str | None, name: str, error: RefoldError, now: int) -> int:
        return self._ledger.record(
            CommandRefused(
                **self._ledger.header(workflow_id, None, now),
                partition=self._partition,
                name=name,
                error_type=_type_name(error),
                error_message=str(error),
            )
        )


def _why_not_resumable(
    workflow_id: str, active: Active | None, state: PartitionState
) -> RefoldError | None:
    if active is not None and active.state.broken is not None:
        return RefusedError(
            f"workflow {workflow_id!r} can't be resumed, its history is broken: {active.state.broken}"
        )
    if active is not None and active.state.status is Status.PARKED:
        return None
    if active is not None:
        return RefusedError(
            f"workflow {workflow_id!r} is running: only a parked run can be resumed"
        )
    closed = state.closed.get(workflow_id)
    if closed is not None:
        return RefusedError(
            f"workflow {workflow_id!r} has ended ({closed.status}): nothing to resume"
        )
    return WorkflowNotFound(f"no workflow has the id {workflow_id!r}: nothing to resume")


def _conflict(command: StartWorkflow, workflow: str) -> WorkflowConflict:
    workflow_id = command.workflow_id
    if workflow != command.workflow:
        return WorkflowConflict(
            f"workflow id {workflow_id!r} belongs to a run of {workflow!r}, so {command.workflow!r} "
            "can't be started under it: use another id"
        )
    return WorkflowConflict(
        f"workflow id {workflow_id!r} belongs to a run of {workflow!r} with another input: "
        "use another id, or attach to that run by its id"
    )


def _refused(command: Command, error: RefoldError) -> Reply:
    return Reply(
        command_id=command.command_id,
        workflow_id=command.workflow_id,
        status="refused",
        error_type=_type_name(error),
        error_message=str(error),
    )


def _unknown(effect: Answer | Lookup) -> Answer:
    """What a client is told in place of an answer that was held when the partition was lost: ask again."""
    asked = effect.reply if isinstance(effect, Answer) else effect
    reply = Reply(command_id=asked.command_id, workflow_id=asked.workflow_id, status="unknown")
    return Answer(effect.client_id, reply)


def _type_name(error: RefoldError) -> str:
    return f"{type(error).__module__}:{type(error).__qualname__}"
