"""The open runs of an owned partition: their code, what it asks for, and how they are halted and go on.

Rules (those for their steps and timers: `engine/outside_work.py`):

1. Workflow code runs on as soon as an outcome is recorded (write-behind); what it asks for is held by the ledger.
2. A replay is silent: requests that its history answers are answered from there, and only what is left open when
   the history ends is carried out.
3. A run that can't go on (diverged, stuck, attempts used up where asked) is parked; nothing else stops.
4. A run that only waits may be dropped from memory (`engine/residents.py`); what comes for it brings it back.
5. What the code sends or emits is recorded as soon as it rests; what is recorded already, from before a crash, is not
   recorded again.
6. Time goes to everybody: code that continues as new, over and over, is begun again by `tick`, not at once.
7. A run that waits in a queue has no code in memory; one that is asked to cancel there ends without having run.
"""

import json
import logging
from collections.abc import Callable, Iterator, Set
from datetime import UTC, datetime
from typing import Final, TypeVar

from refold.engine.active import Active, Detail, OwnerSettings, Runs, facts_of, next_look
from refold.engine.alarms import Alarms
from refold.engine.books import Books
from refold.engine.effects import Answer
from refold.engine.endings import Endings
from refold.engine.failures import capture, type_name
from refold.engine.ledger import Header, Ledger
from refold.engine.operations import (
    CallRequest,
    Continued,
    EmitRequest,
    Outcome,
    Run,
    StepRequest,
    TimerRequest,
)
from refold.engine.outside_work import OutsideWork
from refold.engine.pools import Pools
from refold.engine.requests import disagreement, emitted, sent
from refold.engine.residents import Residents
from refold.engine.room import LOOK_EVERY_US, Room
from refold.engine.state import PartitionState, Status
from refold.engine.watchers import Watchers
from refold.log import errors
from refold.log.errors import (
    EnvelopeCorrupt,
    KeyMissing,
    PayloadErased,
    PayloadError,
    PayloadsUnavailable,
    UnknownWorkflow,
)
from refold.log.events import (
    AskAnswered,
    Event,
    PatchApplied,
    SlotGranted,
    ValuePublished,
    WorkflowCancelRequested,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowRewound,
    WorkflowStarted,
    WorkflowTerminated,
    WorkflowWarned,
)
from refold.log.keys import KEY_TAG

logger = logging.getLogger("refold.worker")

E = TypeVar("E", bound=Event)

DEADLINE: Final = -1
"""Stands for a run's deadline where others have the number of an operation."""
MICROSECONDS = 1_000_000
_GOES_ON: Final = (Status.RUNNING, Status.QUEUED)
"""Runs that nothing halts: those that wait in a queue are not run, but end when they are asked to cancel."""


class OpenRuns:
    """The open runs of one owned partition.

    Args:
        state: The partition's fold.
        ledger: Where events are recorded and effects are held.
        watchers: Who hears how runs end.
        settings: Limits.
        runs: Makes runs from histories.
        random: Uniform in [0, 1), for the jitter of retries.
        elapsed: A clock that only goes forward, in microseconds (`engine/alarms.py`).
        room: For how many runs there is memory.
        pools: Who carries out the steps that are for pools.

    Attributes:
        work: Their steps and timers.
    """

    def __init__(  # noqa: PLR0913 - each a plain part of it
        self,
        *,
        state: PartitionState,
        ledger: Ledger,
        watchers: Watchers,
        settings: OwnerSettings,
        runs: Runs,
        random: Callable[[], float],
        elapsed: Callable[[], int],
        room: Room,
        pools: Pools,
    ) -> None:
        self.waiting_for_code: dict[str, str] = {}  # workflow id -> name not registered here
        self._state = state
        self._ledger = ledger
        self._watchers = watchers
        self._settings = settings
        self._runs = runs
        self._active: dict[str, Active] = {}
        self._alarms = Alarms(elapsed, self._is_wanted)
        self._elapsed = elapsed
        self._books = Books(ledger, pools)
        self._residents = Residents(room, settings)
        self._endings = Endings(
            active=self._active,
            ledger=ledger,
            books=self._books,
            residents=self._residents,
            watchers=watchers,
            settings=settings,
            runs=runs,
        )
        self.work = OutsideWork(
            state=state,
            active=self._active,
            ledger=ledger,
            books=self._books,
            alarms=self._alarms,
            pools=pools,
            endings=self._endings,
            random=random,
            tell=self.tell,
        )

    def find(self, workflow_id: str) -> Active | None:
        """The open run of that id."""
        return self._active.get(workflow_id)

    def take_cancels(self) -> list[tuple[str, int]]:
        """Steps under way (workflow id, step) that nobody waits for any more."""
        return self._books.take_cancels()

    def wake_at(self) -> int | None:
        """When `tick` has something to do next, by the clock that only goes forward; None for never."""
        if self._endings.again or self._residents.may_enter:
            return 0
        wake_at = self._alarms.wake_at()
        if not self._residents.any_outside:
            return wake_at
        again = self._elapsed() + LOOK_EVERY_US  # memory may be free by then, with nobody to say so
        return again if wake_at is None else min(wake_at, again)

    def recover(self, now: int, commands_end: int) -> Iterator[None]:
        """Bring back every open run; yields after each so that the shell can let others work."""
        self.work.recover(commands_end)
        for workflow_id, state in list(self._state.open.items()):
            active = Active(workflow_id, state)
            self._active[workflow_id] = active
            self._set_deadline(active, now)
            if state.status in _GOES_ON:
                self._revive(active, now)
            yield

    def begin(self, started: WorkflowStarted, now: int) -> int:
        """Record a start, whose input has been checked, and run the code to where it waits.

        Returns:
            The start's sequence number.
        """
        workflow_id = started.workflow_id or ""
        sequence = self._ledger.record(self._ledger.lifted(started))
        active = Active(workflow_id, self._state.open[workflow_id], None, sequence)
        self._active[workflow_id] = active
        self._set_deadline(active, now)
        if active.state.status is Status.RUNNING:
            self._guarded(active, now, lambda: self._start(active, now))
        return sequence

    def _start(self, active: Active, now: int) -> None:
        run = self._create(active, now)
        if run is not None:
            run.start()
            came = active.state.outcomes  # while it waited in a queue
            if came and (run.ending is None or isinstance(run.ending, Continued)):
                run.deliver_all(came)
            self._settle(active, now)

    def granted(self, active: Active, queue: str, now: int) -> None:
        """Record that a run has a slot of its queue, and begin it unless it is halted."""
        state = active.state
        event = SlotGranted(**self._books.header(active, now), queue=queue, index=state.ticket or 0)
        self._books.record(active, event)
        if state.status is not Status.RUNNING:
            return
        if state.exchange.parts:  # its code has run before
            self._revive(active, now)
        else:
            self._guarded(active, now, lambda: self._start(active, now))

    def reopen(self, event: Event) -> int:
        """Record that a run which had ended is open again; returns the event's sequence number."""
        workflow_id = event.workflow_id or ""
        sequence = self._ledger.record(self._ledger.lifted(event))
        self._active[workflow_id] = Active(
            workflow_id, self._state.open[workflow_id], None, sequence
        )
        return sequence

    def copy(self, active: Active, event: Event, now: int) -> int:
        """Record a part of a copied history, and go on after the last; returns the event's sequence number."""
        self._books.record(active, event)
        sequence = active.last_sequence
        if active.state.status in _GOES_ON:
            self._set_deadline(active, now)
            self._revive(active, now)
        return sequence

    def header(self, active: Active, now: int) -> Header:
        """Common fields of the next event of a stream."""
        return self._books.header(active, now)

    def resume(self, active: Active, detail: Detail, now: int) -> int:
        """Let a parked or paused run go on; returns the sequence number of the event that says so."""
        self._books.record(
            active,
            WorkflowResumed(
                **self._books.header(active, now), payload=json.dumps(detail), encoding="json"
            ),
        )
        sequence = active.last_sequence
        self._revive(active, now)
        return sequence

    def pause(self, active: Active, detail: Detail, now: int) -> int:
        """Halt a run; steps under way are recorded when they are done. Returns the event's sequence number."""
        event = WorkflowPaused(
            **self._books.header(active, now),
            payload=json.dumps(detail),
            next_step=active.next_step,
        )
        self._books.record(active, event)
        self._residents.suspend(active)
        return active.last_sequence

    def rewind(self, active: Active, step: int, detail: Detail, now: int) -> int:
        """Take a run back to before operation `step`; returns the event's sequence number."""
        next_step = max(active.state.next_step, active.next_step or 0, step + 1)
        event = WorkflowRewound(
            **self._books.header(active, now),
            step=step,
            next_step=next_step,
            payload=json.dumps(detail),
        )
        self._residents.suspend(active)
        self._books.record(active, event)
        sequence = active.last_sequence
        for number in [number for number in active.in_flight if number >= step]:
            del active.in_flight[number]
            self._books.cancel(active.workflow_id, number)
        self._revive(active, now)
        return sequence

    def terminate(self, active: Active, detail: Detail, now: int) -> int:
        """End a run without asking its code; returns the event's sequence number."""
        message = _who_and_why(f"workflow {active.workflow_id!r} was terminated", detail)
        event = WorkflowTerminated(
            **self._books.header(active, now),
            error_type=type_name(errors.WorkflowTerminated),
            error_message=message,
            payload=json.dumps(detail),
            next_step=active.next_step,
        )
        self._endings.close(active, event)
        return active.last_sequence

    def tell(self, active: Active, event: Outcome, now: int) -> int:
        """Record an outcome, or what came from outside, and tell the run's code unless it is halted.

        Returns:
            The event's sequence number.
        """
        assert not isinstance(event, tuple)  # an Emitted is no event
        self._books.record(active, event)
        sequence = active.last_sequence
        self._told(active, event, now)
        return sequence

    def refusal(self, active: Active, name: str, payload: str, now: int) -> str | None:
        """Why a run would refuse a question; None where it would take it, or can't be asked now."""
        if active.run is None and active.state.status is Status.RUNNING:
            self._revive(active, now)
        return None if active.run is None else active.run.refusal(name, payload)

    def erased(self, keys: Set[str], detail: Detail, now: int) -> None:
        """Park the runs whose keys were destroyed: what they would record could not be read again."""
        for active in list(self._active.values()):
            state = active.state
            if state.attributes.get(KEY_TAG) in keys and state.status in (
                Status.RUNNING,
                Status.QUEUED,
                Status.PAUSED,
            ):
                message = _who_and_why("its payloads were erased", detail)
                self._endings.park(active, "erased", message, None, now)

    def note(self, active: Active, text: str) -> str:
        """What a run's code says of a question, encrypted where the run is."""
        key, privacy = self._ledger.key_of(active.state), self._ledger.privacy
        if key is None or privacy is None:
            return text
        return privacy.protect(text, key, "error", active.workflow_id)

    def tick(self, now: int) -> None:
        """Fire what is due: timers, retries whose wait is over, deadlines."""
        for _ in range(len(self._endings.again)):
            self._take_up(self._endings.again.popleft(), now)
        while (rung := self._alarms.ring(now)) is not None:
            workflow_id, step, due_at = rung
            rings_for = self._active.get(workflow_id)
            if rings_for is not None:
                self._rung(rings_for, step, due_at, now)
        self.work.begin_overdue()
        self._let_in(now)

    def _let_in(self, now: int) -> None:
        """Take up runs that have waited for room, or make room for those of other partitions."""
        for active in self._residents.let_in():
            self._take_up(active, now)

    def _take_up(self, active: Active, now: int) -> None:
        """Bring back a run that has waited, unless what came meanwhile has ended, halted or revived it."""
        still_open = self._active.get(active.workflow_id) is active
        if still_open and active.run is None and active.state.status is Status.RUNNING:
            self._revive(active, now)

    def _is_wanted(self, workflow_id: str, step: int, due_at: int) -> bool:
        """Whether an alarm is still wanted."""
        active = self._active.get(workflow_id)
        if active is None:
            return False
        if step == DEADLINE:
            return active.deadline == due_at
        return self.work.is_elsewhere(workflow_id, step) or active.expects(step, due_at)

    def _rung(self, active: Active, step: int, due_at: int, now: int) -> None:
        if step == DEADLINE:
            self._deadline_passed(active, due_at, now)
        elif self.work.is_overdue(active.workflow_id, step):
            return
        elif not active.expects(step, due_at):
            return  # cancelled meanwhile
        elif active.run is None:  # its code knows whether it still waits: then it rings again
            self._revive(active, now)
        else:
            active.armed.pop(step, None)
            self.work.due(active, step, now)

    def close(self) -> None:
        """Drop all runs, with nothing recorded."""
        for active in self._active.values():
            self._residents.suspend(active)
        self._active.clear()
        self._alarms.clear()
        self._endings.again.clear()
        self._residents.clear()

    # Runs -------------------------------------------------------------------------------------------------

    def _guarded(self, active: Active, now: int, work: Callable[[], None]) -> None:
        """Do something that runs code; what nobody expected there is that run's trouble alone, and no other's.

        The run is brought back from its history once. If that fails as well, it waits for a person.
        """
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._fault(active, error, now)
        else:
            active.failed = False

    def _fault(self, active: Active, error: Exception, now: int) -> None:
        """Running code raised what nobody expected."""
        if isinstance(error, PayloadsUnavailable):
            raise error  # no trouble of the run's: the shell begins again until the store is back
        self._residents.suspend(active)
        workflow_id = active.workflow_id
        if not active.failed:
            logger.error("workflow %r: unexpected error; replaying it", workflow_id, exc_info=error)
            active.failed = True
            self._revive(active, now)
            return
        logger.error(
            "workflow %r: unexpected error again; it is parked", workflow_id, exc_info=error
        )
        failure = capture(error)
        message = (
            f"refold could not go on with it, twice: {failure.error_type}: {failure.error_message}. Nothing of "
            "it is lost, and nothing else stops. Please report it with the worker's log; when the cause is "
            "mended, resume it"
        )
        self._endings.park(active, "unexpected", message, {"stack": failure.error_stack}, now)
        active.failed = False

    def _told(self, active: Active, outcome: Outcome, now: int) -> None:
        """Tell a run what was just recorded; it is brought back first where it was suspended. As `_guarded`."""
        try:
            self._tell_code(active, outcome, now)
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._fault(active, error, now)
        else:
            active.failed = False

    def _tell_code(self, active: Active, outcome: Outcome, now: int) -> None:
        if 0 < active.look_at <= len(active.state.outcomes):
            self._look_at_history(active, now)
        if active.run is not None:
            active.run.deliver(outcome)
            self._settle(active, now)
        elif active.state.status in _GOES_ON:
            self._revive(active, now, news=1)  # it is the last of its history by now

    def _create(self, active: Active, now: int) -> Run | None:
        """Make the run of a workflow; None where that can't be done, which is noted or parks it."""
        state = active.state
        started = state.started
        if started is None:  # a broken stream: those are parked and never come here
            return None
        if not self._residents.admits(active):
            return None
        try:
            run = self._runs.create(facts_of(active.workflow_id, state), started.payload)
        except UnknownWorkflow:
            name = f"{started.workflow} version {started.version}"
            self.waiting_for_code[active.workflow_id] = name
            return None
        except (PayloadErased, KeyMissing, EnvelopeCorrupt) as error:
            self._endings.unreadable(active, error, now)
            return None
        except PayloadError as error:
            self._endings.park(
                active, "input", f"its input can't be read any more: {error}", None, now
            )
            return None
        self._residents.enter(active, run)
        active.armed.clear()
        active.look_at = next_look(len(state.outcomes), self._settings)
        return run

    def _revive(self, active: Active, now: int, news: int = 0) -> None:
        """Replay a run's history, silently, and go on from where it ends.

        Args:
            active: The run.
            now: Microseconds since 1970-01-01 UTC.
            news: How many of the last outcomes no code has been told before.
        """
        if active.state.status is Status.QUEUED:
            self._endings.cancelled_in_queue(active, now)
            return
        self._guarded(active, now, lambda: self._replay(active, now, news))

    def _replay(self, active: Active, now: int, news: int) -> None:
        run = self._create(active, now)
        if run is None:
            return
        outcomes = active.state.outcomes
        old = len(outcomes) - news
        run.replay(outcomes[:old])
        if news and (run.ending is None or isinstance(run.ending, Continued)):
            run.deliver_all(outcomes[old:])  # a run that begins anew hands on what it did not take
        self._settle(active, now)

    def _settle(self, active: Active, now: int) -> None:
        """Take up what a run asks for after it has run to quiescence."""
        run = active.run
        if run is None:
            return
        for step in run.take_cancelled():
            active.armed.pop(step, None)
            if active.in_flight.pop(step, None) is not None:
                self._books.cancel(active.workflow_id, step)
        for name in run.take_patches():
            self._books.record(active, PatchApplied(**self._books.header(active, now), name=name))
        for request in run.take():
            if isinstance(request, EmitRequest):
                self._emit(active, run, request, now)
                continue
            if run.ending is not None:
                continue
            problem = disagreement(active.state, request)
            if problem is not None:
                self._endings.diverged(active, problem, now)
                return
            if isinstance(request, StepRequest):
                self.work.request_step(active, request, now)
            else:
                self._request(active, request, now)
            if active.run is None:  # parked on the way
                return
        if run.ending is not None:
            self._endings.end(active, run.ending, now)
        else:
            self._residents.rest(active, run, now)

    def _request(self, active: Active, request: TimerRequest | CallRequest, now: int) -> None:
        if isinstance(request, TimerRequest):
            self.work.request_timer(active, request, now)
        elif request.step not in active.state.exchange.requests:
            self._books.record(active, sent(request, self._books.header(active, now)))

    def _emit(self, active: Active, run: Run, request: EmitRequest, now: int) -> None:
        """Record what the code emits, and tell those who wait for it."""
        event = self._books.record(
            active, emitted(request, self._books.header(active, now), active.state)
        )
        answers: list[Answer] = []
        if isinstance(event, ValuePublished):
            answers = self._watchers.published(event)
        elif isinstance(event, AskAnswered):
            answers = self._watchers.answered(event)
        for answer in answers:
            self._ledger.hold(active.last_sequence, answer)
        run.emitted(request.step)

    def _look_at_history(self, active: Active, now: int) -> None:
        """Say that a history grows, in time; park its run where it has grown too long to go on unasked."""
        length, settings = len(active.state.outcomes), self._settings
        full = active.look_at % settings.park_at_history == 0
        active.look_at = next_look(length, settings)
        if active.state.status is not Status.RUNNING:
            return
        if full:
            message = (
                f"its history has {length:,} entries, and a run that goes on for ever should use "
                "continue_as_new(). Nothing is lost: resume it to let it go on for as long again"
            )
            self._endings.park(active, "history_full", message, {"length": length}, now)
            return
        message = (
            f"the history of workflow {active.workflow_id!r} has {length:,} entries; at a multiple of "
            f"{settings.park_at_history:,} it is parked. Use continue_as_new() before that"
        )
        warned = WorkflowWarned(
            **self._books.header(active, now), name="history_grows", error_message=message
        )
        self._books.record(active, warned)

    def _set_deadline(self, active: Active, now: int) -> None:
        deadline = active.deadline
        if deadline is not None and active.state.status is not Status.COPYING:
            self._alarms.set(deadline, now, active.workflow_id, DEADLINE)

    def _deadline_passed(self, active: Active, due_at: int, now: int) -> None:
        state = active.state
        cancel = state.exchange.cancel
        if state.broken is not None or (cancel is not None and cancel.name == "deadline"):
            return
        if active.deadline != due_at:  # it was that of a former run of this id
            return
        deadline = datetime.fromtimestamp(due_at / MICROSECONDS, UTC).isoformat()
        detail = {"requested_by": None, "reason": deadline}
        self.cancel(active, detail, name="deadline", now=now)

    def cancel(
        self,
        active: Active,
        detail: Detail,
        *,
        name: str,
        now: int,
        parent_id: str | None = None,
        parent_step: int | None = None,
    ) -> int:
        """Ask a run to cancel, also one that is parked or paused; returns the event's sequence number."""
        event = WorkflowCancelRequested(
            **self._books.header(active, now),
            name=name,
            payload=json.dumps(detail),
            parent_id=parent_id,
            parent_step=parent_step,
        )
        return self.tell(active, event, now)


def _who_and_why(what: str, detail: Detail) -> str:
    by, reason = detail.get("requested_by"), detail.get("reason")
    return what + (f" by {by}" if by else "") + (f": {reason}" if reason else "")
