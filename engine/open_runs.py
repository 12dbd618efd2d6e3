"""The open runs of an owned partition: their code, their steps under way, their timers, and how they end.

Rules:

1. Workflow code runs on as soon as an outcome is recorded (write-behind); what it asks for is held by the ledger.
2. An outcome counts only for the attempt that is under way; anything later, repeated or cancelled is dropped.
3. A replay is silent: requests that its history answers are answered from there, and only what is left open when
   the history ends is carried out, each with the attempts and the due time that are recorded for it.
4. A run that can't go on (diverged, stuck, attempts used up where asked) is parked; nothing else stops. Steps of
   it that are under way are recorded when they are done, so that they need not run again.
5. A run that waits for nothing but far timers is dropped from memory and replayed when one fires.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from typing import Protocol

from refold.engine.effects import AttemptFailed, Launch, StepResult
from refold.engine.failures import capture
from refold.engine.fold import PartitionState, Status, WorkflowState
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
from refold.log.errors import PayloadError, PayloadTooLarge, UnknownWorkflow
from refold.log.events import (
    Event,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
    TimerStarted,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowParked,
    WorkflowResumed,
    WorkflowStarted,
)

MICROSECONDS = 1_000_000


class Runs(Protocol):
    """Makes runs: the owner's only link to the user's code."""

    def code_version(self, workflow: str) -> str | None:
        """What the run's start event says of the code; None where nothing is known."""
        ...

    def canonical(self, workflow: str, payload: str) -> str:
        """The one text for an input, checked: defaults filled in, so that the same input compares equal.

        Raises:
            UnknownWorkflow: No workflow of that name is registered here.
            PayloadError: It does not fit the workflow's parameters.
        """
        ...

    def create(self, started: WorkflowStarted) -> Run:
        """A run of the workflow that `started` names, not yet begun.

        Raises:
            UnknownWorkflow: No workflow of that name is registered here.
            PayloadError: The input does not fit the workflow's parameters.
        """
        ...


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
class Active:
    """An open run that this owner works on: its fold, its code (None while suspended or parked), its effects."""

    workflow_id: str
    state: WorkflowState
    run: Run | None = None
    last_sequence: int = 0
    in_flight: dict[int, int] = field(default_factory=dict[int, int])  # step -> attempt
    armed: dict[int, int] = field(default_factory=dict[int, int])  # timer or retry -> due time


class OpenRuns:
    """The open runs of one owned partition.

    Args:
        state: The partition's fold.
        ledger: Where events are recorded and effects are held.
        watchers: Who hears how runs end.
        settings: Limits.
        runs: Makes runs from histories.
        random: Uniform in [0, 1), for the jitter of retries.
    """

    def __init__(
        self,
        *,
        state: PartitionState,
        ledger: Ledger,
        watchers: Watchers,
        settings: OwnerSettings,
        runs: Runs,
        random: Callable[[], float],
    ) -> None:
        self.waiting_for_code: dict[str, str] = {}  # workflow id -> name not registered here
        self._state = state
        self._ledger = ledger
        self._watchers = watchers
        self._settings = settings
        self._runs = runs
        self._random = random
        self._active: dict[str, Active] = {}
        self._cancels: list[tuple[str, int]] = []
        self._alarms: list[tuple[int, int, str, int]] = []  # due, tie-break, workflow id, step
        self._alarm_count = 0
        self._suspend_after_us = round(settings.suspend_after_s * MICROSECONDS)

    def find(self, workflow_id: str) -> Active | None:
        """The open run of that id."""
        return self._active.get(workflow_id)

    def take_cancels(self) -> list[tuple[str, int]]:
        """Steps under way (workflow id, step) that nobody waits for any more."""
        cancels, self._cancels = self._cancels, []
        return cancels

    def wants(self, launch: Launch) -> bool:
        """Whether an attempt that was asked for is still waited for."""
        active = self._active.get(launch.workflow_id)
        return active is not None and active.in_flight.get(launch.step) == launch.attempt

    def wake_at(self) -> int | None:
        """When `tick` has something to do next, microseconds since 1970-01-01 UTC; None for never."""
        return self._alarms[0][0] if self._alarms else None

    def recover(self, now: int) -> Iterator[None]:
        """Bring back every open run; yields after each so that the shell can let others work."""
        for workflow_id, state in list(self._state.open.items()):
            active = Active(workflow_id, state)
            self._active[workflow_id] = active
            if state.status is Status.RUNNING:
                self._revive(active, now)
            yield

    def begin(self, started: WorkflowStarted, now: int) -> int:
        """Record a start, whose input has been checked, and run the code to where it waits.

        Returns:
            The start's sequence number.
        """
        workflow_id = started.workflow_id or ""
        run = self._runs.create(started)
        sequence = self._ledger.record(started)
        active = Active(workflow_id, self._state.open[workflow_id], run, sequence)
        self._active[workflow_id] = active
        run.start()
        self._settle(active, now)
        return sequence

    def resume(self, active: Active, detail: dict[str, str | None], now: int) -> int:
        """Let a parked run go on; returns the sequence number of the event that says so."""
        header = self._header(active, now)
        event = WorkflowResumed(**header, payload=json.dumps(detail), encoding="json")
        self._record(active, event)
        sequence = active.last_sequence
        self._revive(active, now)
        return sequence

    def step_done(self, launch: Launch, result: StepResult, now: int) -> None:
        """Record what became of an attempt; one that nobody waits for any more is dropped."""
        active = self._active.get(launch.workflow_id)
        if active is None or not self.wants(launch):
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

    def close(self) -> None:
        """Drop all runs, with nothing recorded."""
        for active in self._active.values():
            self._drop_run(active)
        self._active.clear()
        self._alarms.clear()

    # Runs -------------------------------------------------------------------------------------------------

    def _header(self, active: Active, now: int) -> Header:
        """Common fields of a stream's next event; time never goes back within a stream."""
        state = active.state
        return self._ledger.header(active.workflow_id, state.position, max(now, state.updated_at))

    def _record(self, active: Active, event: Event) -> None:
        active.last_sequence = self._ledger.record(event)

    def _tell(self, active: Active, outcome: Outcome, now: int) -> None:
        """Record an outcome and tell the run, which is brought back first where it was suspended."""
        self._record(active, outcome)
        if active.run is not None:
            active.run.deliver(outcome)
            self._settle(active, now)
        elif active.state.status is Status.RUNNING:
            self._revive(active, now)  # the outcome is in its history by now

    def _revive(self, active: Active, now: int) -> None:
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
        run.deliver_all(active.state.outcomes)
        self._settle(active, now)

    def _settle(self, active: Active, now: int) -> None:
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

    def _request_step(self, active: Active, request: StepRequest, now: int) -> None:
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

    def _request_timer(self, active: Active, request: TimerRequest, now: int) -> None:
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

    def _arm(self, active: Active, step: int, due_at: int) -> None:
        active.armed[step] = due_at
        self._alarm_count += 1
        heappush(self._alarms, (due_at, self._alarm_count, active.workflow_id, step))

    def _launch(
        self, active: Active, request: StepRequest, attempt: int, first_started_at: int | None
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

    def _retry(self, active: Active, step: int) -> None:
        attempts = active.state.attempts.get(step)
        request = active.run.pending.get(step) if active.run is not None else None
        if attempts is not None and isinstance(request, StepRequest):
            self._launch(active, request, attempts.failed + 1, attempts.started_at)

    def _attempt_failed(
        self, launch: Launch, active: Active, result: AttemptFailed, now: int
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

    def _end(self, active: Active, ending: Ending, now: int) -> None:
        match ending:
            case Returned():
                self._return(active, ending, now)
            case Raised():
                self._fail(active, ending, now)
            case Diverged():
                self._park_diverged(active, ending, now)
            case Stuck():
                self._park(active, "stuck", ending.message, None, now)

    def _return(self, active: Active, ending: Returned, now: int) -> None:
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

    def _fail(self, active: Active, ending: Raised, now: int) -> None:
        event = WorkflowFailed(
            **self._header(active, now),
            error_type=ending.error_type,
            error_message=ending.error_message,
            error_stack=ending.error_stack,
            payload=ending.payload,
            encoding="json" if ending.payload is not None else None,
        )
        self._close(active, event)

    def _close(self, active: Active, event: WorkflowCompleted | WorkflowFailed) -> None:
        self._record(active, event)
        self._drop_run(active)
        self._cancels.extend((active.workflow_id, step) for step in active.in_flight)
        del self._active[active.workflow_id]
        reply = ended_reply(event)
        self._watchers.keep(active.workflow_id, reply)
        for answer in self._watchers.told(active.workflow_id, reply):
            self._ledger.hold(active.last_sequence, answer)

    def _park_used_up(self, active: Active, step: int, name: str, error: str, now: int) -> None:
        message = f"step {step} '{name}' has used up its attempts ({error})"
        self._park(active, "attempts_used_up", message, {"step": step, "name": name}, now)

    def _park_diverged(self, active: Active, ending: Diverged, now: int) -> None:
        where = f" at {ending.source}" if ending.source else ""
        message = (
            f"the code no longer matches the history: step {ending.step} was {ending.expected}, "
            f"and the code asks for {ending.found}{where} ({ending.cause})"
        )
        self._park(active, "diverged", message, asdict(ending), now)

    def _park(
        self, active: Active, name: str, message: str, detail: dict[str, object] | None, now: int
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

    def _suspend_if_far(self, active: Active, run: Run, now: int) -> None:
        """Drop a run from memory that only waits for timers, all of them far away."""
        if min(active.armed.values()) - now < self._suspend_after_us:
            return
        if all(isinstance(request, TimerRequest) for request in run.pending.values()):
            run.close()
            active.run = None

    def _drop_run(self, active: Active) -> None:
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
