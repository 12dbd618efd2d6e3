"""Runs `def` workflow code against a history, on a thread, in strict alternation with the worker.

Either the code's thread runs or the worker does, never both: each waits on a lock that only the other releases. The
code waits in a durable call until its outcome is told. Where threads are short, or the wait is long, a waiting run is
suspended: `Suspended` unwinds its thread. When the run is told its next outcome, it begins again on another thread
and takes what it had been told before, without a switch of threads for each, until it stands where it stood.
"""

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import Context
from random import Random
from typing import Any, Final, Literal, NoReturn

from refold.engine.base_run import BaseRun, FailedStep
from refold.engine.callsite import call_source, own_source
from refold.engine.guard import Guard, GuardMode, arm, disarm
from refold.engine.loop import LAST_DUE_US
from refold.engine.operations import Outcome, StepCall, StepRequest
from refold.engine.payload import PayloadType
from refold.engine.scope import Suspended, enter_run
from refold.engine.thread_slots import ThreadSlots
from refold.log.errors import UsageError
from refold.log.events import TimerFired

STALL_REPORT_S: Final = 10.0
"""Code between two steps takes milliseconds. After this long it is reported: it holds up the whole worker."""

REFUSALS: Final = 100
"""Durable calls that a suspended run refuses by raising. The next one stops its thread for good: code that catches
everything and tries again would otherwise never stop."""

_MICROSECONDS: Final = 1_000_000

_logger = logging.getLogger("refold.workflow")


class SyncRun(BaseRun):
    """One execution of a `def` workflow (see `operations.Run` and `operations.DurableScope`).

    Args:
        function: The workflow's function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        workflow_id: Id of the workflow.
        started_at_us: When it started, in microseconds since 1970-01-01 UTC.
        result_type: How its result becomes JSON.
        slots: Where it gets its thread from.
        guard: What to do about side effects in workflow code.
        stall_report_s: Seconds after which code that has not come back is reported, and again each time.
    """

    def __init__(  # noqa: PLR0913 - each is a plain fact about the run
        self,
        function: Callable[..., Any],
        args: Sequence[object],
        kwargs: Mapping[str, object],
        *,
        workflow_id: str,
        started_at_us: int,
        result_type: PayloadType[Any],
        slots: ThreadSlots,
        guard: GuardMode = "raise",
        stall_report_s: float = STALL_REPORT_S,
    ) -> None:
        super().__init__(workflow_id, started_at_us, result_type)
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._slots = slots
        self._guard = None if guard == "off" else Guard(workflow_id, guard)
        self._stall_report_s = stall_report_s
        self._told: list[Outcome] = []  # all so far: what a suspended run begins again with
        self._stay: _Stay | None = None
        self._closed = False

    # Run --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run the code from its beginning to its first wait."""
        self._begin()

    def deliver(self, outcome: Outcome) -> None:
        """Tell the next outcome in log order, and run to the next wait."""
        self.deliver_all((outcome,))

    def deliver_all(self, outcomes: Sequence[Outcome]) -> None:
        """Tell outcomes one after the other: a replay, with one switch of threads for all of them."""
        if self._closed:
            return
        if self._ending is not None:
            self._match_late(outcomes)
            return
        self._told.extend(outcomes)
        if self._stay is None:
            self._begin_again()
        else:
            self._slots.goes_on(self)
            self._stay.feed.extend(outcomes)
            self._stay.to_code.release()
            self._await_code(self._stay)

    def suspend(self) -> None:
        """Unwind the run's thread. The run goes on when it is told its next outcome."""
        stay, self._stay = self._stay, None
        self._slots.goes_on(self)
        if stay is None:
            return
        stay.sealed = True
        stay.to_code.release()
        if not stay.to_caller.acquire(timeout=self._stall_report_s) or not stay.over:
            _logger.error(
                "workflow %r can't be suspended: its code does not let `Suspended` pass, and waits or runs at %s;"
                " its thread is lost until the worker is started again",
                self._workflow_id,
                stay.source(),
            )

    def close(self) -> None:
        """Drop the run: its thread is unwound, with nothing recorded and no effect."""
        self._closed = True
        self.suspend()
        self._told.clear()

    # With the thread --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        stay = _Stay(self, self._guard)
        stay.feed.extend(self._told)
        self._stay = stay
        self._slots.run(lambda: Context().run(stay.run), stay.to_caller.release)
        self._await_code(stay)

    def _begin_again(self) -> None:
        """Run from the beginning with all that was told; the last of it answers the request that was waiting."""
        self._forget()
        self._begin()

    def _await_code(self, stay: "_Stay") -> None:
        """Wait until the code waits, or has ended."""
        while not stay.to_caller.acquire(timeout=self._stall_report_s):
            _logger.warning(
                "workflow %r has not come to a step for %g s, and holds up its worker; it is at %s;"
                " long work belongs in a step",
                self._workflow_id,
                self._stall_report_s,
                stay.source(),
            )
        if not stay.over:
            self._slots.waits(self)
            return
        self._stay = None
        self._told.clear()
        self._match_late(stay.feed)

    def _match_late(self, outcomes: Iterable[Outcome]) -> None:
        """Outcomes that are told after the end: they must not be of requests that the code never made."""
        for outcome in outcomes:
            self._match(outcome)

    # For the stay -----------------------------------------------------------------------------------------

    def ask(self, call: StepCall) -> int:
        """Number of the request that `call` becomes."""
        return self._ask_step(call, call_source())

    def ask_timer(self, delay_s: float) -> int:
        """Number of the request for a timer over `delay_s` seconds."""
        due_at = self._now_us + max(1, round(delay_s * _MICROSECONDS))
        if due_at > LAST_DUE_US:
            raise UsageError(
                f"workflow {self._workflow_id!r} asked for a timer over {delay_s!r} seconds, which is due"
                " after the year 9999"
            )
        return self._ask_timer(due_at, "sleep", call_source())

    def settle(self, outcome: Outcome) -> object:
        """What the code gets for an outcome: a result, a FailedStep, or None for a timer.

        Raises:
            Suspended: The outcome does not fit, which has ended the run.
        """
        request = self._match(outcome)
        value = None
        if isinstance(request, StepRequest):
            assert not isinstance(outcome, TimerFired)
            value = self._result_of(request.call, outcome)
        if self._ending is not None:
            raise Suspended
        return value

    def end(self, stay: "_Stay", value: object, error: BaseException | None) -> None:
        """The code has ended; what a stay that was unwound comes to does not count."""
        if stay.sealed or self._ending is not None:
            return
        if error is None:
            self._end_returned(value)
        else:
            self._end_raised(error)

    def call(self) -> object:
        """Call the workflow's function."""
        return self._function(*self._args, **self._kwargs)


class _Stay:
    """One stay of the code on a thread: the run as that thread sees it (`operations.DurableScope`).

    Its `feed` and the run's state are touched by the side alone whose turn it is.
    """

    def __init__(self, run: SyncRun, guard: Guard | None) -> None:
        self.feed: deque[Outcome] = deque()
        self.to_code = _held_lock()
        self.to_caller = _held_lock()
        self.sealed = False
        self.over = False
        self._run = run
        self._guard = guard
        self._ident = 0
        self._refused = 0

    @property
    def mode(self) -> Literal["async", "sync"]:
        """The workflow is a plain `def`."""
        return "sync"

    @property
    def workflow_id(self) -> str:
        """Id of the workflow."""
        return self._run.workflow_id

    @property
    def now_us(self) -> int:
        """Time of the last event that the run was told, in microseconds since 1970-01-01 UTC."""
        return self._run.now_us

    @property
    def random(self) -> Random:
        """The run's own random numbers."""
        return self._run.random

    def perform(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """Refused: nothing in a `def` workflow could await it."""
        raise UsageError(
            f"step '{call.name}' was called to be awaited, in `def` workflow {self.workflow_id!r}"
            f" ({call_source()}), which can't await; call its form for `def` workflows"
        )

    def perform_sync(self, call: StepCall) -> Any:
        """Wait for a step and return its result."""
        self._check()
        self._run.ask(call)
        value = self._wait()
        if isinstance(value, FailedStep):
            raise value.error
        return value

    def sleep_sync(self, delay_s: float) -> None:
        """Wait for a durable timer."""
        self._check()
        if delay_s > 0:
            self._run.ask_timer(delay_s)
            self._wait()

    def run(self) -> None:
        """The thread's job: the whole of the code, from its beginning."""
        self._ident = threading.get_ident()
        enter_run(self)
        if self._guard is not None:
            arm(self._guard)
        try:
            self.run_workflow_code()
        finally:
            if self._guard is not None:
                disarm()
            self.over = True

    def run_workflow_code(self) -> None:
        """Call the workflow's function. `callsite.BOUNDARY` knows this by its name."""
        try:
            value = self._run.call()
        except BaseException as error:  # noqa: BLE001 - however the function ended is recorded
            self._run.end(self, None, error)
        else:
            self._run.end(self, value, None)

    def source(self) -> str:
        """`file:line` at which the code is now."""
        return own_source(sys._current_frames().get(self._ident))  # pyright: ignore[reportPrivateUsage]

    def _wait(self) -> object:
        """Outcome of the request just made."""
        while not self.feed:
            self.to_caller.release()
            self.to_code.acquire()
            if self.sealed:
                raise Suspended
        return self._run.settle(self.feed.popleft())

    def _check(self) -> None:
        if threading.get_ident() != self._ident:
            raise UsageError(
                f"a durable call of `def` workflow {self.workflow_id!r} was made on another thread"
                f" ({call_source()}); make it on the workflow's own"
            )
        if self.sealed or self._run.ending is not None:
            self._refused += 1
            if self._refused > REFUSALS:
                self._stop_for_good()
            raise Suspended

    def _stop_for_good(self) -> NoReturn:
        """Give the worker its turn and keep this thread from ever going on."""
        self.to_caller.release()
        while True:
            self.to_code.acquire()


def _held_lock() -> threading.Lock:
    """A lock that its taker waits for until the other side releases it."""
    lock = threading.Lock()
    lock.acquire()
    return lock
