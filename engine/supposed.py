"""A run on a course of its own: told its history as far as it fits, and beyond that what is supposed.

Each operation that the code asks for is matched with one of the recorded run: the first call of `charge` with the first
call of `charge`, counted over all that was asked for, answered or not. So an operation keeps its outcome where another
before it is left out or added. Outcomes are told in the order of the log, each as soon as it is asked for. Where none
of them can be told, something is supposed: an outcome that stands for a step, a delivery that is taken for confirmed,
or a timer, which fires when nothing else can go on. Nothing is carried out.
"""

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final, NamedTuple, cast

from refold.engine.active import facts_of
from refold.engine.async_run import AsyncRun
from refold.engine.base_run import BaseRun
from refold.engine.failures import capture
from refold.engine.ledger import unwritten
from refold.engine.matching import kind_of_outcome, kind_of_request
from refold.engine.operations import (
    Answered,
    ChildRequest,
    EmitRequest,
    Emitted,
    Outcome,
    Request,
    StepCall,
    StepRequest,
    TimerRequest,
)
from refold.engine.payload import PayloadType, problems_of
from refold.engine.rehearsal import History
from refold.engine.run_step import settled_lambda
from refold.engine.runs import CodeRuns
from refold.engine.sync_run import SyncRun
from refold.log.errors import PayloadError, UsageError
from refold.log.events import (
    ChildCompleted,
    ChildFailed,
    DeliveryConfirmed,
    DeliveryRefused,
    StepCompleted,
    StepFailed,
    TimerFired,
)

MAX_BEYOND: Final = 1_000
"""Operations beyond the history: code that asks a stub until it says yes would ask for ever."""

_ANY: PayloadType[Any] = PayloadType.of(object, "what is supposed")


class Json(NamedTuple):
    """A value as its JSON."""

    text: str


class Came(StrEnum):
    """How an operation came to its outcome."""

    RECORDED = "recorded"
    SUPPOSED = "supposed"
    STUBBED = "stubbed"
    ASSUMED = "assumed"
    EMITTED = "emitted"
    ABANDONED = "abandoned"
    OPEN = "open"


class Settled(NamedTuple):
    """What an operation came to.

    Args:
        came: How.
        value: JSON of what the code got; None where it got nothing.
        error: What was raised instead, as "type: message".
    """

    came: Came
    value: str | None = None
    error: str | None = None


class Kind(NamedTuple):
    """What operations are matched by: kind and name."""

    kind: str
    name: str


class _Recorder(BaseRun):
    """A run that keeps what it was asked for."""

    asked: list[Request]

    def _forget(self) -> None:
        super()._forget()
        self.asked = []

    def _ask(self, request: Request) -> int:
        self.asked.append(request)
        return super()._ask(request)

    def is_history(self, replaying: bool) -> None:
        """Say whether what is told next is history, on which `patched` depends."""
        self._replaying = replaying


class RecordedAsync(_Recorder, AsyncRun):
    """An `async def` run that keeps what it was asked for."""


class RecordedSync(_Recorder, SyncRun):
    """A `def` run that does."""


class RecordedRuns(CodeRuns):
    """Makes such runs."""

    async_run = RecordedAsync
    sync_run = RecordedSync

    def of(self, history: History) -> RecordedAsync | RecordedSync:
        """The run of a history, not yet begun. Raises as `create`."""
        started = history.state.started
        if started is None or history.state.broken is not None:
            why = history.state.broken or "its start is not in the log"
            raise UsageError(f"workflow {history.workflow_id!r} can't be replayed: {why}")
        run = self.create(facts_of(history.workflow_id, history.state), started.payload)
        assert isinstance(run, RecordedAsync | RecordedSync)
        return run


def kind_of(request: Request) -> Kind:
    """What a request is matched by."""
    return Kind(kind_of_request(request), request.name)


class SupposedRun:
    """One course.

    Args:
        run: The run, not yet begun.
        history: What is recorded of it.
        recorded: What the recorded run asked for, in order.
        supposed: What stands for the outcome of recorded operations, by their number: a value, `Json`, an `Exception`
            that is raised instead, or, for a step, a function that is called with its arguments.
        stubs: What stands for operations beyond the history, by name.
    """

    def __init__(
        self,
        run: RecordedAsync | RecordedSync,
        history: History,
        recorded: Sequence[Request],
        supposed: Mapping[int, object],
        stubs: Mapping[str, object],
    ) -> None:
        self.settled: dict[int, Settled] = {}
        self.stopped = False
        self._run = run
        self._history = history
        self._supposed = supposed
        self._stubs = stubs
        self._twins = _in_order(recorded)
        self._seen: Counter[Kind] = Counter()
        self._matched: dict[int, int] = {}  # number of a recorded operation -> of its twin here
        self._numbers: dict[int, int] = {}  # the other way round
        self._looked = 0
        self._ended: set[int] = set()  # children whose end was told, or that never began

    def go(self) -> None:
        """Run it to where it ends, or waits for what nobody supposes.

        Raises:
            PayloadError: A value does not fit what its step returns.
        """
        run = self._run
        run.is_history(True)
        run.start()
        self._look()
        left: list[Outcome] = [
            o for o in self._history.state.outcomes if not isinstance(o, Emitted)
        ]
        for _ in range(MAX_BEYOND):
            while run.ending is None and (outcome := self._next_recorded(left)) is not None:
                self._tell(outcome)
            run.is_history(bool(left))
            if run.ending is not None or not self._suppose():
                return
        self.stopped = True

    def _tell(self, outcome: Outcome) -> None:
        self._run.deliver(outcome)
        self._look()

    def _look(self) -> None:
        """Match what the code has asked for since the last look, and take what it emits as recorded."""
        run = self._run
        for request in run.asked[self._looked :]:
            kind = kind_of(request)
            twins = self._twins.get(kind, ())
            if self._seen[kind] < len(twins):
                number = twins[self._seen[kind]]
                self._matched[number], self._numbers[request.step] = request.step, number
            self._seen[kind] += 1
            if isinstance(request, EmitRequest):
                run.emitted(request.step)
                self.settled[request.step] = Settled(Came.EMITTED, request.payload)
        self._looked = len(run.asked)
        run.take()
        run.take_patches()
        for step in run.take_cancelled():
            self.settled[step] = Settled(Came.ABANDONED)

    # What is recorded -------------------------------------------------------------------------------------

    def _next_recorded(self, left: list[Outcome]) -> Outcome | None:
        """Take the first outcome of the log that can be told now, with the number that its operation has here."""
        for index, outcome in enumerate(left):
            fitting = self._fitting(outcome)
            if fitting is not None:
                del left[index]
                return fitting
        return None

    def _fitting(self, outcome: Outcome) -> Outcome | None:
        if not isinstance(outcome, Answered | ChildCompleted | ChildFailed):
            return outcome  # it came from outside
        number = outcome.step
        step = self._matched.get(number)
        if step is None:
            return None
        request = self._run.pending.get(step)
        if isinstance(outcome, ChildCompleted | ChildFailed):
            if request is not None:
                return None  # its start is confirmed first
            self._ended.add(step)
            if number in self._supposed:
                return self._end(step, outcome.name, self._supposed[number], Came.SUPPOSED)
        elif request is None or kind_of_request(request) != kind_of_outcome(outcome):
            return None
        elif number in self._supposed and isinstance(request, StepRequest):
            return self._made(request, self._supposed[number], Came.SUPPOSED, outcome.recorded_at)
        elif isinstance(outcome, DeliveryRefused):
            self._ended.add(step)
        self.settled[step] = _settled(Came.RECORDED, outcome)
        return replace(outcome, step=step)

    # What is supposed -------------------------------------------------------------------------------------

    def _suppose(self) -> bool:
        """Tell the run one thing more; returns whether there was one."""
        pending = list(self._run.pending.values())
        for request in pending:
            if isinstance(request, StepRequest):
                stands_for, came = self._stand_in(request)
                if came is not Came.OPEN:
                    self._tell(self._made(request, stands_for, came, self._run.now_us))
                    return True
            elif not isinstance(request, TimerRequest | EmitRequest):
                self.settled[request.step] = Settled(Came.ASSUMED)
                header = unwritten(self._history.workflow_id, self._run.now_us)
                self._tell(DeliveryConfirmed(**header, step=request.step, name=request.name))
                return True
        children = [
            request
            for request in self._run.asked
            if isinstance(request, ChildRequest)
            and request.policy != "detached"
            and request.step not in self._ended
        ]
        for request in children:
            stands_for, came = self._stand_in(request)
            if came is not Came.OPEN:
                self._ended.add(request.step)
                self._tell(self._end(request.step, request.name, stands_for, came))
                return True
        return not children and self._fire(pending)

    def _stand_in(self, request: StepRequest | ChildRequest) -> tuple[object, Came]:
        """What stands for the outcome of an operation that has none in the history; OPEN where nothing does."""
        number = self._numbers.get(request.step, -1)
        if number in self._supposed:
            return self._supposed[number], Came.SUPPOSED
        if request.name in self._stubs:
            return self._stubs[request.name], Came.STUBBED
        return None, Came.OPEN

    def _fire(self, pending: Sequence[Request]) -> bool:
        """Let the time pass to the first timer, where nothing else is waited for; returns whether there was one."""
        timers = [request for request in pending if isinstance(request, TimerRequest)]
        if not timers or len(timers) < len(pending):
            return False
        first = min(timers, key=lambda timer: (timer.due_at, timer.step))
        self.settled[first.step] = Settled(Came.ASSUMED)
        header = unwritten(self._history.workflow_id, max(first.due_at, self._run.now_us))
        self._tell(TimerFired(**header, step=first.step, name=first.name))
        return True

    def _made(
        self, request: StepRequest, stands_for: object, came: Came, now: int
    ) -> StepCompleted | StepFailed:
        """The outcome of a step that is supposed.

        Raises:
            PayloadError: It does not fit what the step returns.
        """
        step, call = request.step, request.call
        header = unwritten(self._history.workflow_id, now)
        if callable(stands_for) and not isinstance(stands_for, type):
            stands_for = _called(stands_for, call)
        outcome: StepCompleted | StepFailed
        if isinstance(stands_for, Exception):
            failure = capture(stands_for)
            outcome = StepFailed(
                **header,
                step=step,
                name=call.name,
                attempt=1,
                started_at=now,
                error_type=failure.error_type,
                error_message=failure.error_message,
                error_stack=failure.error_stack,
                payload=failure.payload,
            )
        else:
            text = _text_of(stands_for, call)
            outcome = StepCompleted(
                **header, step=step, name=call.name, payload=text, attempt=1, started_at=now
            )
        self.settled[step] = _settled(came, outcome)
        return outcome

    def _end(
        self, step: int, name: str, stands_for: object, came: Came
    ) -> ChildCompleted | ChildFailed:
        """The end of a child that is supposed. Whether its result fits is seen when the code takes it."""
        header = unwritten(self._history.workflow_id, self._run.now_us)
        end: ChildCompleted | ChildFailed
        if isinstance(stands_for, Exception):
            failure = capture(stands_for)
            end = ChildFailed(
                **header,
                step=step,
                name=name,
                error_type=failure.error_type,
                error_message=failure.error_message,
                error_stack=failure.error_stack,
                payload=failure.payload,
            )
        elif callable(stands_for):
            raise UsageError(f"a function can't stand for child '{name}': give its result")
        else:
            text = stands_for.text if isinstance(stands_for, Json) else _ANY.encode(stands_for)
            end = ChildCompleted(**header, step=step, name=name, payload=text)
        self.settled[step] = _settled(came, end)
        return end


def _in_order(recorded: Sequence[Request]) -> dict[Kind, list[int]]:
    """The numbers of operations by what they are matched by, in the order in which they were asked for."""
    numbers: dict[Kind, list[int]] = {}
    for request in recorded:
        numbers.setdefault(kind_of(request), []).append(request.step)
    return numbers


def _called(stub: Callable[..., object], call: StepCall) -> object:
    """What a stub gives for a call of the step that it stands for: a result, or the error that it raises.

    Raises:
        UsageError: It is `async def`.
    """
    args, kwargs = arguments_of(call)
    if inspect.iscoroutinefunction(stub):
        raise UsageError(
            f"the stub of step {call.name!r} is `async def`: write it as a plain `def`"
        )
    try:
        return stub(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - the step's error, then
        return error


def arguments_of(call: StepCall) -> tuple[tuple[object, ...], Mapping[str, object]]:
    """The arguments that a step was called with, as far as they can be known."""
    applied = call.call
    if not isinstance(applied, functools.partial):
        return (), {}
    args: tuple[object, ...] = applied.args
    if applied.func is settled_lambda:  # (the lambda, its arguments)
        args = cast("tuple[object, ...]", args[1])
    return args, applied.keywords


def _text_of(value: object, call: StepCall) -> str:
    """JSON of what a step is supposed to have returned.

    Raises:
        PayloadError: It does not fit.
    """
    try:
        if not isinstance(value, Json):
            return call.result_type.encode(value)
        return call.result_type.encode(call.result_type.decode(value.text))
    except PayloadError as error:
        cause = error.__cause__
        why = problems_of(cause) if isinstance(cause, Exception) else str(error)
        shown = value.text if isinstance(value, Json) else repr(value)
        raise PayloadError(
            f"{shown[:200]} can't be what step {call.name!r} returned: {why}. Nothing was recorded"
        ) from error


def recorded_as(outcomes: Iterable[Outcome]) -> dict[int, Settled]:
    """What operations came to by the history, by their number."""
    return {
        outcome.step: _settled(Came.RECORDED, outcome)
        for outcome in outcomes
        if isinstance(outcome, Answered | ChildCompleted | ChildFailed)
    }


def _settled(came: Came, outcome: Answered | ChildCompleted | ChildFailed) -> Settled:
    match outcome:
        case StepCompleted() | ChildCompleted():
            return Settled(came, outcome.payload)
        case StepFailed() | ChildFailed() | DeliveryRefused():
            error = f"{outcome.error_type.rpartition(':')[2]}: {outcome.error_message}"
            return Settled(came, None, error)
        case TimerFired() | DeliveryConfirmed():
            return Settled(came)
