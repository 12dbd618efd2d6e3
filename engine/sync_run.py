"""Runs `def` workflow code against a history, on a thread, in strict alternation with the worker.

Either the code's thread runs or the worker does, never both: each waits on a lock that only the other releases. The
code waits in a durable call until its outcome is told. Where threads are short, or the wait is long, a waiting run is
suspended: `Suspended` unwinds its thread. When the run is told its next outcome, it begins again on another thread
and takes what it had been told before, without a switch of threads for each, until it stands where it stood.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Context
from typing import Any, Final

from refold.engine.base_run import BaseRun, EncodeInput
from refold.engine.blobs import IN_RECORDS, Blobs
from refold.engine.callsite import call_source
from refold.engine.guard import GuardMode
from refold.engine.inbox import Message, Topic
from refold.engine.loop import LAST_DUE_US
from refold.engine.matching import ANSWERED
from refold.engine.operations import (
    EmitRequest,
    Emitted,
    MakeCall,
    Outcome,
    Request,
    RunFacts,
    StepCall,
    StepRequest,
)
from refold.engine.payload import PayloadType
from refold.engine.scope import Suspended
from refold.engine.stay import UNANSWERED, Stay
from refold.engine.thread_slots import ThreadSlots
from refold.log.errors import UsageError

STALL_REPORT_S: Final = 10.0
"""Code between two steps takes milliseconds. After this long it is reported: it holds up the whole worker."""

_MICROSECONDS: Final = 1_000_000

_logger = logging.getLogger("refold.workflow")


class SyncRun(BaseRun):
    """One execution of a `def` workflow (see `operations.Run` and `operations.DurableScope`).

    Args:
        function: The workflow's function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        facts: What the run knows of itself.
        result_type: How its result becomes JSON.
        encode_input: How the input becomes JSON with which it may continue as new.
        slots: Where it gets its thread from.
        guard: What to do about side effects in workflow code.
        stall_report_s: Seconds after which code that has not come back is reported, and again each time.
        blobs: Where large payloads are read.
    """

    def __init__(  # noqa: PLR0913 - each is a plain fact about the run
        self,
        function: Callable[..., Any],
        args: Sequence[object],
        kwargs: Mapping[str, object],
        *,
        facts: RunFacts,
        result_type: PayloadType[Any],
        encode_input: EncodeInput,
        slots: ThreadSlots,
        guard: GuardMode = "raise",
        stall_report_s: float = STALL_REPORT_S,
        blobs: Blobs = IN_RECORDS,
    ) -> None:
        super().__init__(facts, result_type, encode_input, guard, blobs)
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._slots = slots
        self._stall_report_s = stall_report_s
        self._history: list[Outcome] = []  # all told so far: what a suspended run begins again with
        self._given: set[int] = set()  # what was taken before it began again is not given twice
        self._given_up: set[int] = set()
        self._stay: Stay | None = None
        self._closed = False

    def _forget(self) -> None:
        """Stand where the workflow began."""
        super()._forget()
        self._waits_for_input = False

    # Run --------------------------------------------------------------------------------------------------

    @property
    def waits_for_input(self) -> bool:
        """Whether the code waits for a message, a question or the end of a child."""
        return self._waits_for_input and self._ending is None

    def start(self) -> None:
        """Run the code from its beginning to its first wait."""
        self._begin()

    def replay(self, history: Sequence[Outcome]) -> None:
        """Instead of `start`, for a run that former owners have run: start it and tell its history."""
        self._replaying = True
        try:
            self._history.extend(history)
            self._begin()
        finally:
            self._replaying = False

    def take(self) -> list[Request]:
        """Requests that came up since the last `take` and are still pending, in number order."""
        taken = super().take()
        return [new for new in taken if new.step not in self._given] if self._given else taken

    def take_cancelled(self) -> list[int]:
        """Numbers of requests that the code has stopped waiting for since the last call."""
        taken = [step for step in super().take_cancelled() if step not in self._given_up]
        self._given_up.update(taken)
        return taken

    def emitted(self, step: int) -> None:
        """Emission `step` is recorded."""
        request = self._pending.get(step)
        if isinstance(request, EmitRequest) and self._ending is None:
            self._history.append(Emitted(step, request.kind, request.name, None))
        super().emitted(step)

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
        self._history.extend(outcomes)
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
        self._history.clear()

    # With the thread --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        stay = Stay(self, self._guard)
        stay.feed.extend(self._history)
        self._stay = stay
        self._slots.run(lambda: Context().run(stay.run), stay.to_caller.release)
        self._await_code(stay)

    def _begin_again(self) -> None:
        """Run from the beginning with all that was told, to where the code stood, and on."""
        self._given.update(self._pending.keys() - {request.step for request in self._new})
        self._forget()
        self._begin()

    def _await_code(self, stay: "Stay") -> None:
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
        self._history.clear()
        self._match_late(stay.feed)

    def _match_late(self, outcomes: Iterable[Outcome]) -> None:
        """Outcomes that are told after the end: they must not be of requests that the code never made."""
        for outcome in outcomes:
            self._settle(outcome)

    # For the stay -----------------------------------------------------------------------------------------

    def ask(self, call: StepCall) -> int:
        """Number of the request that `call` becomes."""
        return self._ask(StepRequest(self._next, call, call_source()))

    def ask_call(self, make: MakeCall) -> int:
        """Number of the request that `make` makes."""
        return self._ask_call(make, call_source())

    def ask_timer(self, delay_s: float, name: str) -> int:
        """Number of the request for a timer over `delay_s` seconds."""
        due_at = self._now_us + max(1, round(delay_s * _MICROSECONDS))
        if due_at > LAST_DUE_US:
            raise UsageError(
                f"workflow {self._workflow_id!r} asked for a timer over {delay_s!r} seconds, which is due"
                " after the year 9999"
            )
        return self.ask_timer_at(due_at, name)

    def ask_timer_at(self, due_at: int, name: str) -> int:
        """Number of the request for a timer that is due at `due_at`, microseconds since 1970-01-01 UTC."""
        return self._ask_timer(due_at, name, call_source())

    def give_up(self, step: int) -> None:
        """The code waits no longer for the outcome of request `step`."""
        self._abandon(step)

    def emit(self, make: Callable[[int, str], EmitRequest]) -> None:
        """Make the emission that `make` makes."""
        self._emit(make, call_source())

    def message(self, topic: Topic) -> Message | None:
        """Take the oldest message of a topic that the code was told by now.

        Raises:
            Suspended: Its payload can't be had, which has ended the run.
        """
        message = self._inbox.take(topic)
        if message is None:
            return None
        readable = self._with_text(message)
        if readable is None:
            raise Suspended
        return readable

    def has_ended(self, step: int) -> bool:
        """Whether the code was told by now that the child which request `step` started has ended."""
        return self._inbox.end_of(step) is not None

    def child_result(self, step: int, result_type: PayloadType[Any]) -> object:
        """What the code gets for the end of a child: a result, or a FailedStep.

        Raises:
            Suspended: The recorded result does not fit, which has ended the run.
        """
        end = self._inbox.end_of(step)
        assert end is not None, "the code waits for it first"
        value = self._child_result(end, result_type)
        if self._ending is not None:
            raise Suspended
        return value

    def wait_for_input(self, waits: bool) -> None:
        """Note whether the code waits for what comes from outside."""
        self._waits_for_input = waits

    def cancel_message(self) -> str:
        """Who asked the run to cancel, and why."""
        return self._cancel_asked or "the workflow was cancelled"

    def settle(self, outcome: Outcome) -> object:
        """Take an outcome.

        Returns:
            What the code gets for its request: a result, a FailedStep, or None; `UNANSWERED` where it answers none.

        Raises:
            Suspended: The outcome does not fit, which has ended the run.
        """
        value = self._settle(outcome)
        if self._ending is not None:
            raise Suspended
        return value

    def _settle(self, outcome: Outcome) -> object:
        if isinstance(outcome, ANSWERED):
            request = self._match(outcome)
            return UNANSWERED if request is None else self._value_of(request, outcome)
        if isinstance(outcome, Emitted):
            self._match_emitted(outcome)
        else:
            self._take_in(outcome)
        return UNANSWERED

    def end(self, stay: "Stay", value: object, error: BaseException | None) -> None:
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
