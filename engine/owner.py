"""An owned partition as a state machine with no I/O: the part of refold that has to be right.

In go commands, step results, acknowledgements and the time; out come records to append, effects to carry out and
the next time to wake up. A worker's event loop, threads and Kafka are a thin shell around it (`engine/worker.py`),
and the simulator drives the very same code. `engine/ledger.py` holds the rules for what is recorded and when an
effect may go out; the rules here:

1. Workflow code runs on as soon as an outcome is recorded (write-behind); what it asks for is held.
2. One command causes at most one event, which carries the command's offset, so that after a crash it is either
   done or taken up again, never half done.
3. Refusals are events too, so that no later owner accepts what a client was told is refused.
4. An outcome counts only for the attempt that is under way; anything later, repeated or cancelled is dropped.
5. A run that fails the owner (diverged, stuck, steps used up where asked) is parked; nothing else stops.
6. Once lost, an owner does nothing more. Its clients are told `unknown`, never a failure.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from typing import Protocol

from refold.engine.effects import (
    Answer,
    AttemptFailed,
    Effect,
    Launch,
    StepResult,
    Succeeded,
)
from refold.engine.failures import capture
from refold.engine.fold import Closed, PartitionState, Status, WorkflowState, digest_input
from refold.engine.ledger import Header, Ledger
from refold.engine.operations import (
    Diverged,
    Ending,
    Outcome,
    Raised,
    Request,
    Returned,
    Run,
    StepRequest,
    Stuck,
    TimerRequest,
)
from refold.engine.payload import check_size
from refold.engine.watchers import Watchers, ended_reply, parked_reply
from refold.log.commands import Command, Reply, ResumeWorkflow, StartWorkflow, WatchWorkflow
from refold.log.errors import (
    CommandRefused as RefusedError,
)
from refold.log.errors import (
    InvalidInput,
    LogCorrupt,
    PayloadError,
    PayloadTooLarge,
    RefoldError,
    UnknownWorkflow,
    WorkflowConflict,
    WorkflowNotFound,
)
from refold.log.events import (
    CommandRefused,
    Event,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
    TimerStarted,
    Unreadable,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowParked,
    WorkflowResumed,
    WorkflowStarted,
)
from refold.log.protocol import Entry, Record

MICROSECONDS = 1_000_000


class Runs(Protocol):
    """Makes runs: the owner's only link to the user's code."""

    def code_version(self, workflow: str) -> str | None:
        """What the run's start event says of the code; None where nothing is known."""

    def create(self, started: WorkflowStarted) -> Run:
        """A run of the workflow that `started` names, not yet begun.

        Raises:
            UnknownWorkflow: No workflow of that name is registered here.
            PayloadError: The input does not fit the workflow's parameters.
        """


@dataclass(frozen=True, slots=True)
class OwnerSettings:
    """Limits of an owner.

    Args:
        worker: Name of the worker, recorded in every event.
        max_payload_bytes: Largest JSON of a workflow's result.
        max_kept_result_bytes: Memory for results of ended runs; older ones are looked up in the log.
        suspend_after_s: A run that waits for nothing but timers, the nearest of them at least this far away, is
            dropped from memory and replayed when one fires. A minute makes the replay small beside the wait.
    """

    worker: str
    max_payload_bytes: int = 900_000
    max_kept_result_bytes: int = 32_000_000
    suspend_after_s: float = 60.0


@dataclass(slots=True)
class _Active:
    """An open run that this owner works on: its fold, its code (None while suspended or parked), its effects."""

    workflow_id: str
    state: WorkflowState
    run: Run | None = None
    last_sequence: int = 0
    in_flight: dict[int, int] = field(default_factory=dict)  # step -> attempt
    armed: dict[int, int] = field(default_factory=dict)  # timer or retry -> due time


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
        self.waiting_for_code: dict[str, str] = {}  # workflow id -> name not registered here
        self._settings = settings
        self._runs = runs
        self._random = random
        self._ledger = Ledger(state, settings.worker)
        self._watchers = Watchers(settings.max_kept_result_bytes)
        self._active: dict[str, _Active] = {}
        self._cancels: list[tuple[str, int]] = []
        self._alarms: list[tuple[int, int, str, int]] = []  # due, tie-break, workflow id, step
        self._alarm_count = 0
        self._suspend_after_us = round(settings.suspend_after_s * MICROSECONDS)

    # What the shell asks for ------------------------------------------------------------------------------

    def take_entries(self) -> list[Entry]:
        """Records to append, in order. Each list is reported whole, with `acked`, before the next is taken."""
        return self._ledger.take_entries()

    def take_effects(self) -> list[Effect]:
        """Effects whose time has come: everything that they follow from is confirmed."""
        return self._ledger.take_effects()

    def take_cancels(self) -> list[tuple[str, int]]:
        """Steps under way (workflow id, step) that nobody waits for any more."""
        cancels, self._cancels = self._cancels, []
        return cancels

    def wake_at(self) -> int | None:
        """When `tick` has something to do next, microseconds since 1970-01-01 UTC; None for never."""
        return self._alarms[0][0] if self._alarms else None

    @property
    def lost_to(self) -> str | None:
        """The worker that has claimed the partition since; None while it is owned."""
        return self._ledger.lost_to

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
        for workflow_id, state in list(self.state.open.items()):
            active = _Active(workflow_id, state)
            self._active[workflow_id] = active
            if state.status is Status.RUNNING:
                self._revive(active, now)
            yield

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
                error = LogCorrupt(f"the command at offset {offset} can't be read: {command.reason}")
                self._refusal(command.workflow_id, "unreadable", error, now)

    def step_done(self, launch: Launch, result: StepResult, now: int) -> None:
        """Record what became of an attempt; one that nobody waits for any more is dropped."""
        active = self._active.get(launch.workflow_id)
        if active is None or active.in_flight.get(launch.step) != launch.attempt:
            return
        del active.in_flight[launch.step]
        if isinstance(result, AttemptFailed):
            self._attempt_failed(launch, active, result, now)
            return
        self._tell(
            active,
            StepCompleted(
                **self._header(active, now),
                step=launch.step,
                name=launch.call.name,
                payload=result.payload,
                attempt=launch.attempt,
                started_at=result.started_at,
            ),
            now,
        )

    def tick(self, now: int) -> None:
        """Fire what is due: timers, and retries whose wait is over."""
        while self._alarms and self._alarms[0][0] <= now:
            due, _, workflow_id, step = heappop(self._alarms)
            active = self._active.get(workflow_id)
            if active is None or active.armed.get(step) != due:
                continue  # cancelled meanwhile
            del active.armed[step]
            timer = active.state.timers.get(step)
            if timer is None:
                self._retry(active, step)
            else:
                header = self._header(active, now)
                self._tell(active, TimerFired(**header, step=step, name=timer.name), now)

    def acked(self, offsets: Sequence[int]) -> tuple[int, int] | None:
        """Take the offsets of the entries that `take_entries` gave last; see `Ledger.acked`."""
        return self._ledger.acked(offsets)

    def inspected(self, records: Sequence[Record], offsets: Sequence[int]) -> None:
        """Look at the range that `acked` asked for; see `Ledger.inspected`."""
        self._ledger.inspected(records, offsets)

    def abandon(self) -> list[Answer]:
        """Drop everything: the partition is lost or given up. Returns what the waiting clients are told."""
        for active in self._active.values():
            if active.run is not None:
                active.run.close()
        self._active.clear()
        self._alarms.clear()
        self._ledger.drop()
        return self._watchers.abandoned()

    # Commands ---------------------------------------------------------------------------------------------

    def _start(self, command: StartWorkflow, now: int) -> None:
        workflow_id = command.workflow_id
        existing = self.state.open.get(workflow_id) or self.state.closed.get(workflow_id)
        if existing is not None:
            self._start_again(command, existing, now)
            return
        started = WorkflowStarted(
            **self._ledger.header(workflow_id, 0, now),
            workflow=command.workflow,
            payload=command.payload,
            encoding=command.encoding,
            code_version=self._runs.code_version(command.workflow),
            attributes=command.attributes,
        )
        try:
            run = self._runs.create(started)
        except UnknownWorkflow as error:
            self._refuse(command, error, now)
            return
        except PayloadError as error:
            self._refuse(command, InvalidInput(str(error)), now)
            return
        sequence = self._ledger.record(started)
        active = _Active(workflow_id, self.state.open[workflow_id], run, sequence)
        self._active[workflow_id] = active
        self._accept(command, sequence)
        if command.reply_to is not None:
            self._watchers.add(workflow_id, command.reply_to, command.command_id)
        run.start()
        self._settle(active, now)

    def _start_again(self, command: StartWorkflow, existing: WorkflowState | Closed, now: int) -> None:
        """The first start of an id wins; the same start again gets the run that there is."""
        workflow_id = command.workflow_id
        if isinstance(existing, Closed):
            workflow, same = existing.workflow, existing.input_digest == digest_input(command.payload)
        elif existing.started is None:
            workflow, same = "unknown (its history is broken)", False
        else:
            workflow, same = existing.started.workflow, existing.started.payload == command.payload
        if not same or workflow != command.workflow:
            self._refuse(command, _conflict(command, workflow), now)
            return
        active = self._active.get(workflow_id)
        self._accept(command, active.last_sequence if active is not None else self._ledger.made)
        self._watch_for(workflow_id, command.reply_to, command.command_id)

    def _accept(self, command: Command, sequence: int) -> None:
        if command.reply_to is not None:
            reply = Reply(
                command_id=command.command_id, workflow_id=command.workflow_id, status="accepted"
            )
            self._ledger.hold(sequence, Answer(command.reply_to, reply))

    def _watch(self, command: WatchWorkflow) -> None:
        if command.workflow_id in self.state.open or command.workflow_id in self.state.closed:
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
        active = self._active.get(command.workflow_id)
        problem = _why_not_resumable(command.workflow_id, active, self.state)
        if active is None or problem is not None:
            self._refuse(command, problem or RefusedError("nothing to resume"), now)
            return
        detail = {"requested_by": command.requested_by, "reason": command.reason}
        self._record(
            active,
            WorkflowResumed(
                **self._header(active, now), payload=json.dumps(detail), encoding="json"
            ),
        )
        self._accept(command, active.last_sequence)
        self._revive(active, now)

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

    # Runs -------------------------------------------------------------------------------------------------

    def _header(self, active: _Active, now: int) -> Header:
        """Common fields of a stream's next event; time never goes back within a stream."""
        state = active.state
        return self._ledger.header(
            active.workflow_id, state.position, max(now, state.updated_at)
        )

    def _record(self, active: _Active, event: Event) -> None:
        active.last_sequence = self._ledger.record(event)

    def _tell(self, active: _Active, outcome: Outcome, now: int) -> None:
        """Record an outcome and tell the run, which is brought back first where it was suspended."""
        self._record(active, outcome)
        if active.run is not None:
            active.run.deliver(outcome)
            self._settle(active, now)
        elif active.state.status is Status.RUNNING:
            self._revive(active, now)  # the outcome is in its history by now

    def _revive(self, active: _Active, now: int) -> None:
        """Replay a run's history, silently, and go on from where it ends."""
        started = active.state.started
        if started is None:  # a broken stream: those are parked and never come here
            return
        try:
            run = self._runs.create(started)
        except UnknownWorkflow:
            self.waiting_for_code[active.workflow_id] = started.workflow
            return
        except PayloadError as error:
            self._park(active, "input", f"its input can't be read any more: {error}", None, now)
            return
        active.run = run
        active.armed.clear()
        run.start()
        for outcome in active.state.outcomes:
            run.deliver(outcome)
            if isinstance(run.ending, Diverged | Stuck):
                break
        self._settle(active, now)

    def _settle(self, active: _Active, now: int) -> None:
        """Take up what a run asks for after it has run to quiescence."""
        run = active.run
        if run is None:
            return
        for step in run.take_cancelled():
            active.armed.pop(step, None)
            if active.in_flight.pop(step, None) is not None:
                self._cancels.append((active.workflow_id, step))
        for request in () if run.ending is not None else run.take():
            problem = _disagreement(active.state, request)
            if problem is not None:
                self._park_diverged(active, problem, now)
                return
            if isinstance(request, StepRequest):
                self._request_step(active, request, now)
            else:
                self._request_timer(active, request, now)
            if active.run is None:  # parked on the way
                return
        if run.ending is not None:
            self._end(active, run.ending, now)
        elif active.armed and not active.in_flight:
            self._suspend_if_far(active, run, now)

    def _request_step(self, active: _Active, request: StepRequest, now: int) -> None:
        step = request.step
        if step in active.in_flight:  # it was under way when the run was parked, and still is
            return
        attempts = active.state.attempts.get(step)
        if attempts is None:
            self._launch(active, request, 1, None)
        elif attempts.due_at is not None:
            self._arm(active, step, attempts.due_at)
        else:  # used up: the owner before us died between that event and the next
            self._park_used_up(active, step, request.name, "see the last attempt", now)

    def _request_timer(self, active: _Active, request: TimerRequest, now: int) -> None:
        timer = active.state.timers.get(request.step)
        if timer is None:
            timer = TimerStarted(
                **self._header(active, now),
                step=request.step,
                name=request.name,
                due_at=request.due_at,
            )
            self._record(active, timer)
        self._arm(active, request.step, timer.due_at)

    def _arm(self, active: _Active, step: int, due_at: int) -> None:
        active.armed[step] = due_at
        self._alarm_count += 1
        heappush(self._alarms, (due_at, self._alarm_count, active.workflow_id, step))

    def _launch(
        self, active: _Active, request: StepRequest, attempt: int, first_started_at: int | None
    ) -> None:
        started = active.state.started
        active.in_flight[request.step] = attempt
        launch = Launch(
            active.workflow_id,
            started.workflow if started is not None else "?",
            request.step,
            attempt,
            request.call,
            first_started_at,
        )
        self._ledger.hold(active.last_sequence, launch)

    def _retry(self, active: _Active, step: int) -> None:
        attempts = active.state.attempts.get(step)
        request = active.run.pending.get(step) if active.run is not None else None
        if attempts is not None and isinstance(request, StepRequest):
            self._launch(active, request, attempts.failed + 1, attempts.started_at)

    def _attempt_failed(
        self, launch: Launch, active: _Active, result: AttemptFailed, now: int
    ) -> None:
        failure, retry = result.failure, launch.call.options.retry
        due_at = self._next_attempt(launch, result, now)
        used_up = due_at is None and (retry is None or result.retryable)
        header = self._header(active, now)
        encoding = "json" if failure.payload is not None else None
        if due_at is None and not (used_up and launch.call.options.on_exhausted == "park"):
            failed = StepFailed(
                **header,
                step=launch.step,
                name=launch.call.name,
                attempt=launch.attempt,
                started_at=result.started_at,
                error_type=failure.error_type,
                error_message=failure.error_message,
                error_stack=failure.error_stack,
                payload=failure.payload,
                encoding=encoding,
            )
            self._tell(active, failed, now)
            return
        attempt = StepAttemptFailed(
            **header,
            step=launch.step,
            name=launch.call.name,
            attempt=launch.attempt,
            started_at=result.started_at,
            error_type=failure.error_type,
            error_message=failure.error_message,
            error_stack=failure.error_stack,
            payload=failure.payload,
            encoding=encoding,
            due_at=due_at,
        )
        self._record(active, attempt)
        if due_at is not None:
            self._arm(active, launch.step, due_at)
        elif active.state.status is Status.RUNNING:
            error = f"{failure.error_type}: {failure.error_message}"
            self._park_used_up(active, launch.step, launch.call.name, error, now)

    def _next_attempt(self, launch: Launch, result: AttemptFailed, now: int) -> int | None:
        """When the next attempt begins; None when there is none."""
        options = launch.call.options
        retry = options.retry
        if retry is None or not result.retryable or launch.attempt >= retry.attempts:
            return None
        due_at = now + round(retry.delay_s(launch.attempt, self._random()) * MICROSECONDS)
        if options.total_timeout_s is not None:
            first = launch.first_started_at or result.started_at
            if due_at >= first + round(options.total_timeout_s * MICROSECONDS):
                return None
        return due_at

    # Ends -------------------------------------------------------------------------------------------------

    def _end(self, active: _Active, ending: Ending, now: int) -> None:
        match ending:
            case Returned():
                self._return(active, ending, now)
            case Raised():
                self._fail(active, ending, now)
            case Diverged():
                self._park_diverged(active, ending, now)
            case Stuck():
                self._park(active, "stuck", ending.message, None, now)

    def _return(self, active: _Active, ending: Returned, now: int) -> None:
        try:
            what = f"result of workflow {active.workflow_id!r}"
            check_size(ending.payload, self._settings.max_payload_bytes, what)
        except PayloadTooLarge as error:
            failure = capture(error)
            raised = Raised(
                failure.error_type,
                failure.error_message,
                failure.error_stack or "",
                failure.payload,
            )
            self._fail(active, raised, now)
            return
        self._close(active, WorkflowCompleted(**self._header(active, now), payload=ending.payload))

    def _fail(self, active: _Active, ending: Raised, now: int) -> None:
        event = WorkflowFailed(
            **self._header(active, now),
            error_type=ending.error_type,
            error_message=ending.error_message,
            error_stack=ending.error_stack,
            payload=ending.payload,
            encoding="json" if ending.payload is not None else None,
        )
        self._close(active, event)

    def _close(self, active: _Active, event: WorkflowCompleted | WorkflowFailed) -> None:
        self._record(active, event)
        self._drop_run(active)
        self._cancels.extend((active.workflow_id, step) for step in active.in_flight)
        del self._active[active.workflow_id]
        reply = ended_reply(event)
        self._watchers.keep(active.workflow_id, reply)
        for answer in self._watchers.told(active.workflow_id, reply):
            self._ledger.hold(active.last_sequence, answer)

    def _park_used_up(self, active: _Active, step: int, name: str, error: str, now: int) -> None:
        message = f"step {step} '{name}' has used up its attempts ({error})"
        self._park(active, "attempts_used_up", message, {"step": step, "name": name}, now)

    def _park_diverged(self, active: _Active, ending: Diverged, now: int) -> None:
        where = f" at {ending.source}" if ending.source else ""
        message = (
            f"the code no longer matches the history: step {ending.step} was {ending.expected}, "
            f"and the code asks for {ending.found}{where} ({ending.cause})"
        )
        self._park(active, "diverged", message, asdict(ending), now)

    def _park(
        self, active: _Active, name: str, message: str, detail: dict[str, object] | None, now: int
    ) -> None:
        self._record(
            active,
            WorkflowParked(
                **self._header(active, now),
                name=name,
                error_message=message,
                payload=json.dumps(detail) if detail is not None else None,
                encoding="json" if detail is not None else None,
            ),
        )
        self._drop_run(active)
        reply = parked_reply(active.workflow_id, active.state)
        for answer in self._watchers.told(active.workflow_id, reply):
            self._ledger.hold(active.last_sequence, answer)

    def _suspend_if_far(self, active: _Active, run: Run, now: int) -> None:
        """Drop a run from memory that only waits for timers, all of them far away."""
        if min(active.armed.values()) - now < self._suspend_after_us:
            return
        if all(isinstance(request, TimerRequest) for request in run.pending.values()):
            run.close()
            active.run = None

    def _drop_run(self, active: _Active) -> None:
        if active.run is not None:
            active.run.close()
            active.run = None
        active.armed.clear()


def _disagreement(state: WorkflowState, request: Request) -> Diverged | None:
    """How an open request differs from what is recorded, without outcome, under its number."""
    step = request.step
    attempts, timer = state.attempts.get(step), state.timers.get(step)
    is_step = isinstance(request, StepRequest)
    if (attempts is None or (is_step and attempts.name == request.name)) and (
        timer is None or not is_step
    ):
        return None
    return Diverged(
        step,
        timer.position if timer is not None else None,
        f"step '{attempts.name}'" if attempts is not None else "a timer",
        f"step '{request.name}'" if is_step else "a timer",
        request.source,
        "the workflow's code was changed while the run was open",
    )


def _why_not_resumable(
    workflow_id: str, active: _Active | None, state: PartitionState
) -> RefoldError | None:
    if active is not None and active.state.broken is not None:
        return RefusedError(
            f"workflow {workflow_id!r} can't be resumed, its history is broken: {active.state.broken}"
        )
    if active is not None and active.state.status is Status.PARKED:
        return None
    if active is not None:
        return RefusedError(f"workflow {workflow_id!r} is running: only a parked run can be resumed")
    closed = state.closed.get(workflow_id)
    if closed is not None:
        return RefusedError(f"workflow {workflow_id!r} has ended ({closed.status}): nothing to resume")
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


def _type_name(error: RefoldError) -> str:
    return f"{type(error).__module__}:{type(error).__qualname__}"
