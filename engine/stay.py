"""A `def` workflow as its code sees it from the thread that it runs on: the durable calls, and what they wait for.

`engine/sync_run.py` is the other side, the worker's. What the code is told while it waits for one thing may be another
thing: a message is kept, a recorded emission matched, and the wait goes on. The feed is looked into only by a wait, so
that code which looks whether a message is there sees what it saw the first time, however much has been told since.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from refold.engine.base_run import Check, FailedStep
from refold.engine.callsite import call_source, own_source
from refold.engine.guard import Guard, arm, disarm
from refold.engine.inbox import Message
from refold.engine.operations import EmitRequest, MakeCall, Outcome, RunFacts, StepCall
from refold.engine.payload import PayloadType
from refold.engine.scope import Suspended, enter_run
from refold.log.errors import UsageError, WorkflowCancelled
from refold.log.events import WorkflowCancelRequested

if TYPE_CHECKING:  # it makes the stays
    from refold.engine.sync_run import SyncRun

REFUSALS: Final = 100
"""Durable calls that a suspended run refuses by raising. The next one stops its thread for good: code that catches
everything and tries again would otherwise never stop."""

UNANSWERED: Final = object()
"""In place of what the code gets, where an outcome answers no request that it waits for."""


class Stay:
    """One stay of the code on a thread: the run as that thread sees it (`operations.DurableScope`).

    Its `feed` and the run's state are touched by the side alone whose turn it is.

    Args:
        run: The run.
        guard: What is refused to its code; None for nothing.
    """

    def __init__(self, run: "SyncRun", guard: Guard | None) -> None:
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

    @property
    def facts(self) -> RunFacts:
        """What the run knows of itself."""
        return self._run.facts

    @property
    def told(self) -> int:
        """How many outcomes the run was told."""
        return self._run.told

    @property
    def max_payload_bytes(self) -> int:
        """Largest JSON of what the code hands over."""
        return self._run.max_payload_bytes

    # DurableScope: what waits ------------------------------------------------------------------------------

    def perform_sync(self, call: StepCall) -> Any:
        """Wait for a step and return its result."""
        self._check()
        return self._outcome(self._run.ask(call))

    def sleep_sync(self, delay_s: float) -> None:
        """Wait for a durable timer."""
        self._check()
        if delay_s > 0:
            self._outcome(self._run.ask_timer(delay_s, "sleep"))

    def sleep_until_sync(self, due_at: int) -> None:
        """Wait for a durable timer; not at all where its time has come already."""
        self._check()
        if due_at > self._run.now_us:
            self._outcome(self._run.ask_timer_at(due_at, "sleep"))

    def call_sync(self, make: MakeCall) -> int:
        """Make a request to another workflow and wait until it is recorded there."""
        self._check()
        step = self._run.ask_call(make)
        self._outcome(step)
        return step

    def receive_sync(self, topic: str, asks: bool, timeout_s: float | None) -> Message:
        """Take the next message, or question, on a topic, waiting for it."""
        self._check()
        key = (topic, asks)
        message = self._run.message(key)
        if message is not None:
            return message
        timer = None
        if timeout_s is not None:
            if timeout_s <= 0:
                raise TimeoutError
            timer = self._run.ask_timer(timeout_s, "timer")
        while message is None:
            answered = self._input(timer)
            message = self._run.message(key)
            if message is None and answered:
                raise TimeoutError
        if timer is not None:
            self._run.give_up(timer)
        return message

    def child_end_sync(self, step: int, result_type: PayloadType[Any]) -> Any:
        """Wait for the end of the child that request `step` started; its result."""
        self._check()
        while not self._run.has_ended(step):
            self._input(None)
        value = self._run.child_result(step, result_type)
        if isinstance(value, FailedStep):
            raise value.error
        return value

    def _outcome(self, step: int) -> Any:
        """What the request just made came to."""
        while True:
            value = self._run.settle(self._next(step))
            if isinstance(value, FailedStep):
                raise value.error
            if value is not UNANSWERED:
                return value

    def _input(self, timer: int | None) -> bool:
        """Wait for something from outside, or for `timer`; returns whether the timer has fired."""
        self._run.wait_for_input(True)  # and still while suspended
        value = self._run.settle(self._next(timer))
        self._run.wait_for_input(False)
        return value is not UNANSWERED

    def _next(self, step: int | None) -> Outcome:
        """The next outcome that the run is told, which waits for `step`.

        Raises:
            Suspended: The thread is to be unwound.
            WorkflowCancelled: It is a request to cancel; it was taken, and `step` is given up.
        """
        while not self.feed:
            self.to_caller.release()
            self.to_code.acquire()
            if self.sealed:
                raise Suspended
        outcome = self.feed.popleft()
        if isinstance(outcome, WorkflowCancelRequested):
            self._run.settle(outcome)
            self._run.wait_for_input(False)
            if step is not None:
                self._run.give_up(step)
            raise WorkflowCancelled(self._run.cancel_message())
        return outcome

    # DurableScope: what does not wait ----------------------------------------------------------------------

    def has_message(self, topic: str, asks: bool) -> bool:
        """Whether a message, or question, is there to be taken at once."""
        return self._run.has_message(topic, asks)

    def emit(self, make: Callable[[int, str], EmitRequest]) -> None:
        """Record something without waiting for it."""
        self._check()
        self._run.emit(make)

    def validate_with(self, topic: str, check: Check) -> None:
        """Ask `check` about questions on `topic` before they are recorded."""
        self._check()
        self._run.validate_with(topic, check)

    def patched(self, name: str) -> bool:
        """Whether the run takes the new path of the change `name`."""
        self._check()
        return self._run.patched(name)

    def continue_as_new(self, args: Sequence[object], kwargs: Mapping[str, object]) -> NoReturn:
        """End this execution and begin afresh with a new input."""
        self._check()
        self._run.continue_as_new(args, kwargs)

    def perform(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """Refused: nothing in a `def` workflow could await it."""
        raise UsageError(
            f"step '{call.name}' was called to be awaited, in `def` workflow {self.workflow_id!r}"
            f" ({call_source()}), which can't await; call its form for `def` workflows"
        )

    def sleep_until(self, due_at: int) -> Coroutine[Any, Any, None]:
        """Refused, as all of these."""
        raise self._awaitable("sleep_until")

    def call(self, make: MakeCall) -> Coroutine[Any, Any, int]:
        """Refused."""
        raise self._awaitable("a call to another workflow")

    def child_end(self, step: int, result_type: PayloadType[Any]) -> Coroutine[Any, Any, Any]:
        """Refused."""
        raise self._awaitable("result")

    def receive(self, topic: str, asks: bool) -> Coroutine[Any, Any, Message]:
        """Refused."""
        raise self._awaitable("receive")

    def _awaitable(self, called: str) -> UsageError:
        return UsageError(
            f"{called} was called to be awaited, in `def` workflow {self.workflow_id!r} ({call_source()}), which"
            " can't await; call its `_sync` form there"
        )

    # The thread --------------------------------------------------------------------------------------------

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

    def frame(self) -> FrameType | None:
        """The innermost frame of the thread now."""
        return sys._current_frames().get(self._ident)  # pyright: ignore[reportPrivateUsage]

    def source(self) -> str:
        """`file:line` at which the code is now."""
        return own_source(self.frame())

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
