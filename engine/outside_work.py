"""What open runs have under way outside their code: steps, here or at other workers, and timers.

Rules:

1. An outcome counts only for the attempt that is under way; anything later, repeated or cancelled is dropped.
2. What is asked for again after a replay goes on with the attempts and the due time that are recorded for it.
3. A step that goes on at a former owner, which handed the partition over, is waited for (`engine/handover.py`).
4. Steps under way of a run that is halted are recorded when they are done, so that they need not run again.
"""

from collections.abc import Callable, Mapping

from refold.engine.active import Active, Items
from refold.engine.alarms import Alarms
from refold.engine.attempts import failed_attempt, next_attempt
from refold.engine.books import Books
from refold.engine.effects import AttemptFailed, Launch, StepResult
from refold.engine.endings import Endings
from refold.engine.handover import read_report
from refold.engine.ledger import Ledger
from refold.engine.operations import StepRequest, TimerRequest
from refold.engine.pools import Pools
from refold.engine.state import PartitionState, Status
from refold.log.commands import ReportStep
from refold.log.events import StepCompleted, StepFailed, StreamWritten, TimerFired, TimerStarted

Tell = Callable[[Active, StepCompleted | StepFailed | TimerFired, int], object]
"""Records an outcome and tells the run."""


class OutsideWork:
    """Steps and timers of the open runs of one owned partition.

    Args:
        state: The partition's fold.
        active: The open runs, by id.
        ledger: Where effects are held.
        books: Where events are recorded.
        alarms: When timers and retries are due.
        pools: Who carries out the steps that are for pools.
        endings: Parks runs whose steps have no attempt left.
        random: Uniform in [0, 1), for the jitter of retries.
        tell: Records an outcome and tells the run.
    """

    def __init__(  # noqa: PLR0913 - each a plain part of it
        self,
        *,
        state: PartitionState,
        active: Mapping[str, Active],
        ledger: Ledger,
        books: Books,
        alarms: Alarms,
        pools: Pools,
        endings: Endings,
        random: Callable[[], float],
        tell: Tell,
    ) -> None:
        self._state = state
        self._active = active
        self._ledger = ledger
        self._books = books
        self._alarms = alarms
        self._pools = pools
        self._endings = endings
        self._random = random
        self._tell = tell
        self._elsewhere: dict[tuple[str, int], Launch] = {}  # steps that go on at a former owner
        self._overdue: list[tuple[str, int]] = []  # of those, not heard of in time
        self._heard_at = 0  # offset of the command by which their reports, if any, have come

    def recover(self, commands_end: int) -> None:
        """What former owners report of their steps, if they do, lies before that offset of the commands."""
        self._heard_at = commands_end - 1

    def wants(self, launch: Launch) -> bool:
        """Whether an attempt that was asked for is still waited for."""
        active = self._active.get(launch.workflow_id)
        return active is not None and active.in_flight.get(launch.step) == launch.attempt

    def wrote(self, launch: Launch, items: Items, now: int) -> None:
        """Record what a step under way has written to a stream."""
        active = self._active.get(launch.workflow_id)
        if active is None or not self.wants(launch):
            return
        self._books.record(
            active,
            StreamWritten(
                **self._books.header(active, now),
                step=launch.step,
                name=items.stream,
                index=active.state.exchange.streams.get(items.stream, 0),
                count=items.count,
                payload=items.payload,
                attempt=launch.attempt,
            ),
        )

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
                **self._books.header(active, now),
                step=launch.step,
                name=launch.call.name,
                payload=result.payload,
                attempt=launch.attempt,
                started_at=result.started_at,
            ),
            now,
        )

    def reported(self, command: ReportStep, now: int) -> None:
        """Take what became of a step that another worker carried out; what nobody waits for is dropped."""
        key = command.workflow_id, command.step
        launch = self._elsewhere.get(key) or self._pools.reported(command)
        if launch is None or launch.attempt != command.attempt:
            return
        result, items = read_report(command)
        self._elsewhere.pop(key, None)
        active = self._active.get(command.workflow_id)
        if active is None or not self.wants(launch):
            return
        self._ledger.command -= (
            1  # the last of the command's events alone says that it was consumed
        )
        for written in items:
            self.wrote(launch, written, now)
        self._ledger.command += 1
        if result is not None:
            self.step_done(launch, result, now)
            return
        if launch.call.options.pool is not None:
            self._pools.expect(launch, is_inherited=False)
        self._ledger.hold(active.last_sequence, launch)

    def begin_overdue(self) -> None:
        """Begin steps again that a former owner was to report and has not, now that all its reports were consumed."""
        if self._overdue and self._ledger.command >= self._heard_at:
            overdue, self._overdue = self._overdue, []
            for workflow_id, step in overdue:
                launch = self._elsewhere.pop((workflow_id, step), None)
                active = self._active.get(workflow_id)
                if active is None or launch is None or not self.wants(launch):
                    continue
                if active.state.status is Status.RUNNING:
                    self._ledger.hold(active.last_sequence, launch)
                else:  # it is asked for again when it goes on
                    del active.in_flight[step]

    def is_elsewhere(self, workflow_id: str, step: int) -> bool:
        """Whether a step goes on at a former owner."""
        return (workflow_id, step) in self._elsewhere

    def is_overdue(self, workflow_id: str, step: int) -> bool:
        """Whether a step goes on at a former owner, which should have been heard of by now."""
        if not self.is_elsewhere(workflow_id, step):
            return False
        self._overdue.append((workflow_id, step))
        return True

    def request_step(self, active: Active, request: StepRequest, now: int) -> None:
        """Begin a step that the code asks for, or go on with it where its attempts are recorded already."""
        step = request.step
        if step in active.in_flight:  # it was under way when the run was parked, and still is
            return
        attempts = active.state.attempts.get(step)
        if attempts is None:
            self._launch(active, request, 1, None, now)
        elif attempts.due_at is not None:
            self._arm(active, step, attempts.due_at, now)
        else:  # used up: the owner before us died between that event and the next
            self._endings.used_up(active, step, request.name, "see the last attempt", now)

    def request_timer(self, active: Active, request: TimerRequest, now: int) -> None:
        """Begin a timer that the code asks for, or go on waiting for it."""
        timer = active.state.timers.get(request.step)
        if timer is None:
            timer = TimerStarted(
                **self._books.header(active, now),
                step=request.step,
                name=request.name,
                due_at=request.due_at,
            )
            self._books.record(active, timer)
        self._arm(active, request.step, timer.due_at, now)

    def _arm(self, active: Active, step: int, due_at: int, now: int) -> None:
        active.armed[step] = due_at
        self._alarms.set(due_at, now, active.workflow_id, step)

    def due(self, active: Active, step: int, now: int) -> None:
        """The time of a timer or a retry has come."""
        timer = active.state.timers.get(step)
        if timer is None:
            self._retry(active, step, now)
        elif active.state.status is Status.RUNNING:
            fired = TimerFired(**self._books.header(active, now), step=step, name=timer.name)
            self._tell(active, fired, now)

    def _launch(
        self,
        active: Active,
        request: StepRequest,
        attempt: int,
        first_started_at: int | None,
        now: int,
    ) -> None:
        started = active.state.started
        workflow_id, step = active.workflow_id, request.step
        active.in_flight[step] = attempt
        launch = Launch(
            workflow_id,
            started.workflow if started is not None else "?",
            step,
            attempt,
            request.call,
            first_started_at,
            self._ledger.key_of(active.state),
        )
        if request.call.options.pool is not None:
            earlier = started is None or started.claim != self._state.claim
            self._pools.expect(launch, is_inherited=earlier)
        handed = self._state.handed.get((workflow_id, step)) if self._state.handed else None
        if handed is None or handed.attempt != attempt:
            self._ledger.hold(active.last_sequence, launch)
        else:
            self._elsewhere[workflow_id, step] = launch
            self._alarms.set(handed.due_at, now, workflow_id, step)

    def _retry(self, active: Active, step: int, now: int) -> None:
        attempts = active.state.attempts.get(step)
        request = active.run.pending.get(step) if active.run is not None else None
        if attempts is not None and isinstance(request, StepRequest):
            self._launch(active, request, attempts.failed + 1, attempts.started_at, now)

    def _attempt_failed(
        self, launch: Launch, active: Active, result: AttemptFailed, now: int
    ) -> None:
        due_at = next_attempt(launch, result, now, self._random)
        event = failed_attempt(launch, result, due_at, self._books.header(active, now))
        if isinstance(event, StepFailed):
            self._tell(active, event, now)
            return
        event = self._books.record(active, event)  # where it is encrypted, so is what quotes it
        if due_at is not None:
            self._arm(active, launch.step, due_at, now)
        elif active.state.status is Status.RUNNING:
            error = f"{event.error_type}: {event.error_message}"
            self._endings.used_up(active, launch.step, launch.call.name, error, now)
