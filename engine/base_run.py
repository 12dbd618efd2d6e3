"""What both kinds of run share: numbering requests, matching outcomes with them, keeping what comes from outside."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import replace
from random import Random
from typing import Any, Final, NoReturn

from refold.engine.blobs import IN_RECORDS, Blobs
from refold.engine.callsite import stack_source
from refold.engine.failures import Failure, raised, rebuild
from refold.engine.guard import Guard, GuardMode, arm, disarm, unguarded
from refold.engine.inbox import ChildEnd, Inbox, Message
from refold.engine.matching import (
    CHANGED,
    cancel_message,
    described_outcome,
    described_request,
    kind_of_outcome,
    kind_of_request,
)
from refold.engine.operations import (
    Answered,
    Blocked,
    CallRequest,
    Cancelled,
    ChildRequest,
    Continued,
    Diverged,
    EmitRequest,
    Emitted,
    Ending,
    Input,
    MakeCall,
    Raised,
    Request,
    Returned,
    RunFacts,
    StepRequest,
    Stuck,
    TimerRequest,
)
from refold.engine.payload import PayloadType
from refold.engine.scope import ContinueAsNew
from refold.log.envelope import ELSEWHERE
from refold.log.envelope import PREFIX as ENCLOSED
from refold.log.errors import (
    PayloadsUnavailable,
    PayloadUnreadable,
    RefoldError,
    StepError,
    WorkflowCancelled,
    WorkflowError,
)
from refold.log.events import (
    ChildCompleted,
    ChildFailed,
    DeliveryRefused,
    StepCompleted,
    StepFailed,
    WorkflowCancelRequested,
)

EncodeInput = Callable[[tuple[object, ...], Mapping[str, object]], str]
"""JSON of a workflow's input, by its parameters."""

Check = Callable[[str], str | None]
"""From the payload of a question to why it is refused; None where it is not."""

MAX_FOUND_CHARS: Final = 500
"""Of an error's message, where it is the reason why the code asks for nothing more."""

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
        facts: What the run knows of itself.
        result_type: How its result becomes JSON.
        encode_input: How the input becomes JSON with which it may continue as new.
        guard: What to do about side effects in workflow code.
        blobs: Where large payloads are read.
    """

    def __init__(
        self,
        facts: RunFacts,
        result_type: PayloadType[Any],
        encode_input: EncodeInput,
        guard: GuardMode,
        blobs: Blobs = IN_RECORDS,
    ) -> None:
        self._blobs = blobs
        self._workflow_id = facts.workflow_id
        self._start_facts = facts
        self._result_type = result_type
        self._encode_input = encode_input
        self._guard = None if guard == "off" else Guard(facts.workflow_id, guard)
        self._jumps = {at: to for at, to in facts.numbering.jumps if to > at}
        self._ending: Ending | None = None
        self._replaying = False
        self._patches: dict[str, bool] = {}  # kept when a run begins again: the answer is for ever
        self._new_patches: list[str] = []
        self._forget()

    def _forget(self) -> None:
        """Stand where the workflow began."""
        self._facts = self._start_facts
        self._now_us = self._facts.started_at
        self._random: Random | None = None
        self._pending: dict[int, Request] = {}
        self._next = self._numbered(self._facts.numbering.base)
        self._told = 0
        self._new: list[Request] = []
        self._abandoned: dict[int, tuple[str, str]] = {}  # number -> kind of its outcome, name
        self._cancelled: list[int] = []
        self._inbox = Inbox()
        self._children: dict[int, str] = {}  # number of the request -> name of the workflow
        self._checks: dict[str, Check] = {}
        self._cancel_asked: str | None = None

    # Run, DurableScope ------------------------------------------------------------------------------------

    @property
    def workflow_id(self) -> str:
        """Id of the workflow."""
        return self._workflow_id

    @property
    def facts(self) -> RunFacts:
        """What the run knows of itself, with the tags that its code has set since."""
        return self._facts

    @property
    def now_us(self) -> int:
        """Time of the last event that the run was told, in microseconds since 1970-01-01 UTC."""
        return self._now_us

    @property
    def told(self) -> int:
        """How many outcomes the run was told: the length of its history."""
        return self._told

    @property
    def max_payload_bytes(self) -> int:
        """Largest JSON of what the code hands over."""
        return self._blobs.max_payload_bytes

    @property
    def next_step(self) -> int:
        """The number that the next operation gets."""
        return self._next

    @property
    def random(self) -> Random:
        """The run's own random numbers, seeded by the workflow's id, and anew when it continues as new."""
        if self._random is None:
            base = self._facts.numbering.base
            seed = f"refold:{self._workflow_id}:{base}" if base else f"refold:{self._workflow_id}"
            self._random = Random(seed)  # by SHA-512 of the text, on every Python
        return self._random

    @property
    def ending(self) -> Ending | None:
        """How the run ended; None while it goes on."""
        return self._ending

    @property
    def pending(self) -> dict[int, Request]:
        """Requests without outcome that the code still waits for, by number; emissions until they are recorded."""
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

    def emitted(self, step: int) -> None:
        """Emission `step` is recorded."""
        if isinstance(self._pending.get(step), EmitRequest):
            del self._pending[step]
            self._told += 1  # as on replay, where the record of it is told

    def has_message(self, topic: str, asks: bool) -> bool:
        """Whether a message, or question, is there to be taken at once."""
        return self._inbox.holds((topic, asks))

    def patched(self, name: str) -> bool:
        """Whether the run takes the new path of the change `name`; the same answer for ever."""
        answer = self._patches.get(name)
        if answer is None:
            recorded = name in self._facts.patches
            answer = recorded or not self._replaying
            self._patches[name] = answer
            if answer and not recorded:
                self._new_patches.append(name)
        return answer

    def take_patches(self) -> list[str]:
        """Changes whose new path the code has taken since the last call; to be recorded before its requests."""
        taken, self._new_patches = self._new_patches, []
        return taken

    def validate_with(self, topic: str, check: Check) -> None:
        """Ask `check` about questions on `topic` before they are recorded."""
        self._checks[topic] = check

    def refusal(self, name: str, payload: str) -> str | None:
        """Why the code would refuse a question on the topic `name`; None where it would take it."""
        check = self._checks.get(name)
        if check is None or self._ending is not None:
            return None
        try:
            payload = self._blobs.read(
                payload, f"question on {name!r} to workflow {self._workflow_id!r}"
            )
        except (PayloadUnreadable, PayloadsUnavailable) as error:
            return str(error)
        if self._guard is not None:
            arm(self._guard)
        try:
            # A context of its own: in the worker's, durable calls would be taken for those of another run.
            return Context().run(run_workflow_code, check, payload)
        finally:
            if self._guard is not None:
                disarm()

    def continue_as_new(self, args: Sequence[object], kwargs: Mapping[str, object]) -> NoReturn:
        """End this execution and begin afresh with a new input."""
        raise ContinueAsNew(self._encode_input(tuple(args), kwargs))

    # Asking -----------------------------------------------------------------------------------------------

    def _ask_timer(self, due_at: int, name: str, source: str) -> int:
        return self._ask(TimerRequest(self._next, name, due_at, source))

    def _ask_call(self, make: MakeCall, source: str) -> int:
        request: CallRequest = make(self._next, source)
        if isinstance(request, ChildRequest):
            self._children[request.step] = request.name
        return self._ask(request)

    def _emit(self, make: Callable[[int, str], EmitRequest], source: str) -> None:
        request = make(self._next, source)
        if request.attributes:
            attributes = {**self._facts.attributes, **request.attributes}
            self._facts = replace(self._facts, attributes=attributes)
        self._ask(request)

    def _ask(self, request: Request) -> int:
        step = request.step
        if len(self._new) > 2 * len(self._pending) + _PRUNE_AT:  # a long replay, where nobody takes
            self._new = [new for new in self._new if new.step in self._pending]
        self._pending[step] = request
        self._new.append(request)
        self._next = self._numbered(step + 1) if self._jumps else step + 1
        return step

    def _numbered(self, step: int) -> int:
        """The number given where the next would be `step`."""
        while step in self._jumps:
            step = self._jumps[step]
        return step

    def _abandon(self, step: int) -> None:
        """The code waits no longer for `step`; nothing happens where it has its outcome."""
        request = self._pending.pop(step, None)
        if request is not None and self._ending is None:
            self._abandoned[step] = (kind_of_request(request), request.name)
            self._cancelled.append(step)

    # Being told -------------------------------------------------------------------------------------------

    def _match(self, outcome: Answered) -> Request | None:
        """Take an outcome's request out of `pending`, and move the time on.

        Returns:
            The request; None where nobody waits for it, or where it does not match, which ends the run.
        """
        self._told += 1
        request = self._pending.get(outcome.step)
        if request is None:
            self._match_unawaited(outcome)
            return None
        if isinstance(
            request, StepRequest
        ):  # first, and without a look at tables: nearly all are steps
            kind_of = outcome.__class__
            fits = outcome.name == request.call.name and (
                kind_of is StepCompleted or kind_of is StepFailed
            )
        else:
            kind = kind_of_outcome(outcome)
            fits = outcome.name == request.name and kind == kind_of_request(request)
        if not fits:
            self._mismatch(outcome, described_request(request), request.source)
            return None
        del self._pending[outcome.step]
        due_at = request.due_at if isinstance(request, TimerRequest) else 0
        self._tell_time(max(outcome.recorded_at, due_at))
        return request

    def _match_emitted(self, emitted: Emitted) -> None:
        """Take a recorded emission out of `pending`. It does not move the time."""
        self._told += 1
        request = self._pending.get(emitted.step)
        if request is None:
            self._match_unawaited(emitted)
        elif kind_of_request(request) == emitted.kind and request.name == emitted.name:
            del self._pending[emitted.step]
        else:
            self._mismatch(emitted, described_request(request), request.source)

    def _take_in(self, told: Input) -> None:
        """Keep what came from outside until the code takes it."""
        self._told += 1
        if self._ending is not None:
            self._take_in_late(told)
            return
        self._tell_time(told.recorded_at)
        if isinstance(told, WorkflowCancelRequested):
            self._cancel_asked = cancel_message(told)
        elif isinstance(told, ChildCompleted | ChildFailed):
            self._take_end(told)
        else:
            self._inbox.put(told)

    def _take_in_late(self, told: Input) -> None:
        """What came after the code had asked to begin afresh is for what begins then."""
        if (
            isinstance(self._ending, Continued)
            and isinstance(told, Message | WorkflowCancelRequested)
            and told.position is not None
        ):
            self._ending = Continued(self._ending.payload, (*self._ending.kept, told.position))

    def _take_end(self, end: ChildEnd) -> None:
        if self._children.get(end.step) == end.name:
            self._inbox.put_end(end)
        elif not self._is_void(end.step):
            name = self._children.get(end.step)
            found = self._nothing() if name is None else f"start of child '{name}'"
            self._mismatch(end, found, None)

    def _result_of(
        self, result_type: PayloadType[Any], outcome: StepCompleted | ChildCompleted, what: str
    ) -> object:
        """The result that is recorded of a step or a child.

        One that the type does not take ends the run as diverged: the type was changed.
        """
        payload: str | None = outcome.payload
        if outcome.payload[:1] in ELSEWHERE:
            role = f"result of {what} {outcome.step} '{outcome.name}'"
            payload = self._text(outcome.payload, role)
        if payload is None:
            return None
        try:
            return result_type.decode(payload)
        except RefoldError as error:
            self._diverge(
                outcome,
                expected=f"{what} '{outcome.name}' with the recorded result",
                found=f"a result type that the recorded result does not fit: {error}",
                source=None,
                cause=f"the {what}'s result type was changed while the run was open",
            )
            return None

    def _value_of(self, request: Request, outcome: Answered) -> object:
        """What the code gets for an outcome: a step's result, a FailedStep, or None."""
        if isinstance(outcome, StepCompleted) and isinstance(request, StepRequest):
            return self._result_of(request.call.result_type, outcome, "step")
        if isinstance(outcome, StepFailed):
            return FailedStep(rebuild(self._failure(outcome)))
        if isinstance(outcome, DeliveryRefused):
            refused = self._note(outcome.error_message, f"refusal of operation {outcome.step}")
            return FailedStep(rebuild(Failure(outcome.error_type, refused, None, None)))
        return None

    def _child_result(self, end: ChildEnd, result_type: PayloadType[Any]) -> object:
        """What the code gets for a child's end: its result, or a FailedStep; see `_result_of`."""
        if isinstance(end, ChildCompleted):
            return self._result_of(result_type, end, "child")
        error = rebuild(self._failure(end))
        if type(error) is StepError and not end.error_type.endswith(":StepError"):
            told = f"child {end.step} '{end.name}' of workflow {self._workflow_id!r} failed with an error whose type"
            unknown = WorkflowError(f"{told} can't be rebuilt here: {error}")
            unknown.__cause__ = error
            return FailedStep(unknown)
        return FailedStep(error)

    def _failure(self, outcome: StepFailed | ChildFailed) -> Failure:
        payload, stack = outcome.payload, outcome.error_stack
        what = f"error of operation {outcome.step} '{outcome.name}'"
        if payload is not None:
            payload = self._text(payload, what)
        if stack is not None:
            stack = self._note(stack, what)
        return Failure(outcome.error_type, self._note(outcome.error_message, what), stack, payload)

    def _note(self, text: str, what: str) -> str:
        """A recorded message for a person, with what is encrypted in it; as of `_text` where that can't be had."""
        if ENCLOSED not in text:
            return text
        try:
            with unguarded():
                return self._blobs.read_note(text, f"{what} of workflow {self._workflow_id!r}")
        except (PayloadUnreadable, PayloadsUnavailable) as error:
            self._end(Blocked(error))
            return text

    def _text(self, payload: str, what: str) -> str | None:
        """The JSON of a recorded payload; None where it can't be had, which ends the run as blocked."""
        if payload[:1] not in ELSEWHERE:
            return payload
        try:
            with unguarded():
                return self._blobs.read(payload, f"{what} of workflow {self._workflow_id!r}")
        except (PayloadUnreadable, PayloadsUnavailable) as error:
            self._end(Blocked(error))
            return None

    def _with_text(self, message: Message) -> Message | None:
        """A message with the JSON of its payload; None as of `_text`."""
        if message.payload[:1] not in ELSEWHERE:
            return message
        text = self._text(message.payload, f"message {message.message_id!r} on {message.name!r}")
        return None if text is None else replace(message, payload=text)

    def _match_unawaited(self, outcome: Answered | Emitted) -> None:
        if isinstance(self._ending, Diverged | Blocked):
            return
        abandoned = self._abandoned.pop(outcome.step, None)
        if abandoned is not None:
            if abandoned != (kind_of_outcome(outcome), outcome.name):
                self._mismatch(outcome, described_outcome(*abandoned), None)
            elif not isinstance(outcome, Emitted):
                self._tell_time(outcome.recorded_at)
        elif self._is_void(outcome.step):
            return
        elif outcome.step >= self._next:
            self._mismatch(outcome, self._nothing(), self._raised_at())
        else:
            self._diverge(
                outcome,
                expected=f"one outcome of operation {outcome.step}",
                found="a second one",
                source=None,
                cause="the history holds two outcomes of one operation: it was not written by one owner at a time",
            )

    def _is_void(self, step: int) -> bool:
        """Whether the number belongs to what was rewound, or ran before the run continued as new."""
        return step < self._facts.numbering.base or any(
            at <= step < to for at, to in self._jumps.items()
        )

    def _mismatch(
        self, outcome: Answered | ChildEnd | Emitted, found: str, source: str | None
    ) -> None:
        expected = described_outcome(kind_of_outcome(outcome), outcome.name)
        self._diverge(outcome, expected=expected, found=found, source=source, cause=CHANGED)

    def _diverge(
        self,
        outcome: Answered | ChildEnd | Emitted,
        *,
        expected: str,
        found: str,
        source: str | None,
        cause: str,
    ) -> None:
        self._end(Diverged(outcome.step, outcome.position, expected, found, source, cause))

    def _nothing(self) -> str:
        """What the code does where history has it ask for more, in words."""
        if isinstance(self._ending, Raised):
            return (
                f"nothing: the workflow has raised {self._ending.error_type.rpartition(':')[2]}: "
                f"{self._ending.error_message[:MAX_FOUND_CHARS]}"
            )
        if self._ending is not None:
            return f"nothing: the workflow has {type(self._ending).__name__.lower()}"
        waits = ", ".join(
            f"{described_request(request)} ({step})"
            for step, request in list(self._pending.items())[:3]
        )
        return (
            f"nothing: the workflow waits for {waits}"
            if waits
            else "nothing: the workflow asks for nothing"
        )

    def _raised_at(self) -> str | None:
        """`file:line` of the user's at which the workflow has raised; None where it has not."""
        ending = self._ending
        return stack_source(ending.error_stack) if isinstance(ending, Raised) else None

    def _tell_time(self, time_us: int) -> None:
        self._now_us = max(self._now_us, time_us)

    # The end ----------------------------------------------------------------------------------------------

    def _end(self, ending: Ending) -> None:
        """Set how the run ended; its open requests are void, but for telling whether history matches.

        What the code emitted on its way to the end is still to be recorded, unless a person has to correct the code.
        """
        self._ending = ending
        void = {
            step: request
            for step, request in self._pending.items()
            if not isinstance(request, EmitRequest)
            or isinstance(ending, Diverged | Stuck | Blocked)
        }
        for step, request in void.items():
            self._abandoned[step] = (kind_of_request(request), request.name)
            del self._pending[step]

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
        asked = self._cancel_asked
        if isinstance(error, ContinueAsNew):
            self._end(Continued(error.payload, self._inbox.positions()))
            return
        if asked is not None and isinstance(error, asyncio.CancelledError | WorkflowCancelled):
            self._end(Cancelled(asked))
            return
        self._end(raised(error))


def run_workflow_code(check: Check, payload: str) -> str | None:
    """Ask the code's own check. `callsite.BOUNDARY` knows this by its name."""
    return check(payload)
