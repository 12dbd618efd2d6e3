"""What both kinds of run share: numbering requests, and matching outcomes with them."""

from random import Random
from typing import Any, Final

from refold.engine.failures import Failure, capture, rebuild
from refold.engine.operations import (
    Diverged,
    Ending,
    Outcome,
    Raised,
    Request,
    Returned,
    StepCall,
    StepRequest,
    TimerRequest,
)
from refold.engine.payload import PayloadType
from refold.log.errors import RefoldError
from refold.log.events import StepCompleted, StepFailed, TimerFired

CHANGED: Final = (
    "the workflow's code was changed while the run was open, or it depends on something that no event"
    " records (a clock, random numbers, the environment, the order of a set)"
)

_PRUNE_AT: Final = (
    64  # answered requests are dropped from the new ones when these outgrow what is pending
)


class FailedStep:
    """An error on its way to the code: a value, since a future's exception makes noise where nobody looks at it."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class BaseRun:
    """The requests of one run, and what has become of them.

    Args:
        workflow_id: Id of the workflow.
        started_at_us: When it started, in microseconds since 1970-01-01 UTC.
        result_type: How its result becomes JSON.
    """

    def __init__(self, workflow_id: str, started_at_us: int, result_type: PayloadType[Any]) -> None:
        self._workflow_id = workflow_id
        self._result_type = result_type
        self._started_at_us = started_at_us
        self._ending: Ending | None = None
        self._forget()

    def _forget(self) -> None:
        """Stand where the workflow began."""
        self._now_us = self._started_at_us
        self._random: Random | None = None
        self._pending: dict[int, Request] = {}
        self._count = 0  # operations asked for so far: the next number
        self._new: list[Request] = []
        self._abandoned: dict[int, tuple[bool, str]] = {}  # number -> is it a timer, name
        self._cancelled: list[int] = []

    # Run, DurableScope ------------------------------------------------------------------------------------

    @property
    def workflow_id(self) -> str:
        """Id of the workflow."""
        return self._workflow_id

    @property
    def now_us(self) -> int:
        """Time of the last event that the run was told, in microseconds since 1970-01-01 UTC."""
        return self._now_us

    @property
    def random(self) -> Random:
        """The run's own random numbers, seeded by the workflow's id."""
        if self._random is None:
            self._random = Random(
                f"refold:{self._workflow_id}"
            )  # by SHA-512 of the text, on every Python
        return self._random

    @property
    def ending(self) -> Ending | None:
        """How the run ended; None while it goes on."""
        return self._ending

    @property
    def pending(self) -> dict[int, Request]:
        """Requests without outcome that the code still waits for, by number. Not to be changed by the reader."""
        return self._pending

    def take(self) -> list[Request]:
        """Requests that came up since the last `take` and are still pending, in number order."""
        if not self._new:
            return []
        taken = [request for request in self._new if request.step in self._pending]
        self._new = []
        return taken

    def take_cancelled(self) -> list[int]:
        """Numbers of requests that the code has stopped waiting for since the last call."""
        if not self._cancelled:
            return []
        taken, self._cancelled = self._cancelled, []
        return taken

    # For the two kinds ------------------------------------------------------------------------------------

    def _ask_step(self, call: StepCall, source: str) -> int:
        return self._ask(StepRequest(self._count, call, source))

    def _ask_timer(self, due_at: int, name: str, source: str) -> int:
        return self._ask(TimerRequest(self._count, name, due_at, source))

    def _ask(self, request: Request) -> int:
        if len(self._new) > 2 * len(self._pending) + _PRUNE_AT:  # a long replay, where nobody takes
            self._new = [new for new in self._new if new.step in self._pending]
        self._pending[request.step] = request
        self._new.append(request)
        self._count += 1
        return request.step

    def _abandon(self, step: int) -> None:
        """The code waits no longer for `step`; nothing happens where it has its outcome."""
        request = self._pending.pop(step, None)
        if request is not None and self._ending is None:
            self._abandoned[step] = (isinstance(request, TimerRequest), request.name)
            self._cancelled.append(step)

    def _match(self, outcome: Outcome) -> Request | None:
        """Take an outcome's request out of `pending`, and move the time on.

        Returns:
            The request; None where nobody waits for it, or where it does not match, which ends the run.
        """
        is_timer = outcome.__class__ is TimerFired
        request = self._pending.get(outcome.step)
        if request is None:
            self._match_unawaited(outcome, is_timer)
        elif isinstance(request, TimerRequest):
            if is_timer and request.name == outcome.name:
                del self._pending[outcome.step]
                self._tell_time(max(outcome.recorded_at, request.due_at))
                return request
            self._mismatch(outcome, is_timer, _described(True, request.name), request.source)
        else:
            if not is_timer and request.call.name == outcome.name:
                del self._pending[outcome.step]
                self._tell_time(outcome.recorded_at)
                return request
            self._mismatch(outcome, is_timer, _described(False, request.name), request.source)
        return None

    def _result_of(self, call: StepCall, outcome: StepCompleted | StepFailed) -> object:
        """What the code gets for a step's outcome: the result, or a FailedStep.

        A recorded result that the step's type does not take ends the run as diverged: the type was changed.
        """
        if isinstance(outcome, StepFailed):
            return FailedStep(
                rebuild(
                    Failure(
                        outcome.error_type,
                        outcome.error_message,
                        outcome.error_stack,
                        outcome.payload,
                    )
                )
            )
        try:
            return call.result_type.decode(outcome.payload)
        except RefoldError as error:
            self._diverge(
                outcome,
                expected=f"step '{call.name}' with the recorded result",
                found=f"a result type that the recorded result does not fit: {error}",
                source=None,
                cause="the step's result type was changed while the run was open",
            )
            return None

    def _match_unawaited(self, outcome: Outcome, is_timer: bool) -> None:
        if isinstance(self._ending, Diverged):
            return
        abandoned = self._abandoned.pop(outcome.step, None)
        if abandoned is not None:
            if abandoned == (is_timer, outcome.name):
                self._tell_time(outcome.recorded_at)
            else:
                self._mismatch(outcome, is_timer, _described(*abandoned), None)
        elif outcome.step >= self._count:
            self._mismatch(outcome, is_timer, self._nothing(), None)
        else:
            self._diverge(
                outcome,
                expected=f"one outcome of operation {outcome.step}",
                found="a second one",
                source=None,
                cause="the history holds two outcomes of one operation: it was not written by one owner at a time",
            )

    def _mismatch(self, outcome: Outcome, is_timer: bool, found: str, source: str | None) -> None:
        expected = _described(is_timer, outcome.name)
        self._diverge(outcome, expected=expected, found=found, source=source, cause=CHANGED)

    def _diverge(
        self, outcome: Outcome, *, expected: str, found: str, source: str | None, cause: str
    ) -> None:
        self._end(Diverged(outcome.step, outcome.position, expected, found, source, cause))

    def _nothing(self) -> str:
        """What the code does where history has it ask for more, in words."""
        if self._ending is not None:
            return f"nothing: the workflow has {type(self._ending).__name__.lower()}"
        waits = ", ".join(
            f"{_described(isinstance(request, TimerRequest), request.name)} ({step})"
            for step, request in list(self._pending.items())[:3]
        )
        return (
            f"nothing: the workflow waits for {waits}"
            if waits
            else "nothing: the workflow asks for nothing"
        )

    def _end(self, ending: Ending) -> None:
        """Set how the run ended; its open requests are void, but for telling whether history matches."""
        self._ending = ending
        for step, request in self._pending.items():
            self._abandoned[step] = (isinstance(request, TimerRequest), request.name)
        self._pending.clear()
        self._new.clear()

    def _end_returned(self, value: object) -> None:
        """The function has returned `value`."""
        try:
            payload = self._result_type.encode(value)
        except RefoldError as error:
            self._end_raised(error)
        else:
            self._end(Returned(payload))

    def _end_raised(self, error: BaseException) -> None:
        """The function has raised `error`."""
        failure = capture(error)
        self._end(
            Raised(
                failure.error_type,
                failure.error_message,
                failure.error_stack or "",
                failure.payload,
            )
        )

    def _tell_time(self, time_us: int) -> None:
        self._now_us = max(self._now_us, time_us)


def _described(is_timer: bool, name: str) -> str:
    return f"timer '{name}'" if is_timer else f"step '{name}'"
