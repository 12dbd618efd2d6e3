"""The border between workflow code and its owner: what a run asks for, and what it is told.

A `Run` is workflow code on its way through a history. It is told outcomes, one at a time and in log order, and
runs to quiescence after each. What the code asks for meanwhile are requests, numbered 0, 1, 2, ... in code order
over all kinds (the event column `step`). A run does no I/O, knows no clock and appends nothing: during replay it
answers its own requests from the outcomes it is told, and those left unanswered are the owner's to carry out.

Rules:

1. The same outcomes in the same order give the same requests with the same numbers, for ever.
2. An outcome that does not match the request of its number (kind or name) ends the run as `Diverged`.
3. An outcome for a request that the code has stopped waiting for (a cancelled await) is taken and ignored.
4. A run that waits while it has no open request and waits for no input can never go on: it ends as `Stuck`.
5. After `Returned`, `Raised`, `Cancelled`, `Continued`, `Diverged`, `Stuck` or `Blocked` a run asks for nothing more.
6. Inputs (messages, questions, ends of children, a request to cancel) are told as they stand in the log, between
   outcomes. They answer no request and have no number: the run keeps them until the code takes them.
7. What the code emits without waiting for it (a published value, an answer, a stream's items, tags) is a request as
   well. Live, the owner records it at once and says so (`emitted`); on replay the record of it is told, and matched.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, NamedTuple, NoReturn, Protocol

from refold.engine.payload import PayloadType
from refold.engine.retry import Retry
from refold.log.errors import PayloadsUnavailable, PayloadUnreadable
from refold.log.events import (
    AskReceived,
    ChildCompleted,
    ChildFailed,
    DeliveryConfirmed,
    DeliveryRefused,
    MessageReceived,
    OnParentEnd,
    StepCompleted,
    StepFailed,
    TimerFired,
    WorkflowCancelRequested,
)


class Emitted(NamedTuple):
    """That emission `step` is recorded: what a run is told of `AskAnswered`, `ValuePublished`, ... on replay.

    Args:
        step: Operation number.
        kind: The event's kind.
        name: The event's name.
        position: The event's position, for messages.
    """

    step: int
    kind: str
    name: str
    position: int | None


Answered = StepCompleted | StepFailed | TimerFired | DeliveryConfirmed | DeliveryRefused
"""Outcomes of the request with their number."""

Input = MessageReceived | AskReceived | ChildCompleted | ChildFailed | WorkflowCancelRequested
"""What comes from outside, without the code's asking. Ends of children carry the number of the request that started
them."""

Outcome = Answered | Input | Emitted
"""What a run is told."""


@dataclass(frozen=True, slots=True)
class Numbering:
    """How a run's operations are numbered: what is continued or rewound never uses a number again.

    Args:
        base: Number of the first operation.
        jumps: Pairs (at, to), in order: where the next number would be `at`, it is `to`.
    """

    base: int = 0
    jumps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run knows of itself from its start, and what `workflow_info()` tells the code.

    Args:
        workflow_id: Its id.
        workflow: Name of its workflow.
        version: Version of its code.
        started_at: When it was started, or last continued as new, microseconds since 1970-01-01 UTC.
        attributes: Its tags at that time, as `log/attributes.py` writes them.
        deadline: Microseconds since 1970-01-01 UTC; None for none.
        parent_id: The workflow that started it as a child.
        numbering: How its operations are numbered.
        patches: Names of the changes whose new path it has taken (`patched`).
    """

    workflow_id: str
    workflow: str
    version: int
    started_at: int
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    deadline: int | None = None
    parent_id: str | None = None
    numbering: Numbering = Numbering()
    patches: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is carried out.

    Args:
        retry: When and how often a failed attempt is tried again; None for a single attempt.
        timeout_s: Longest time for one attempt, in seconds; None for no limit.
        total_timeout_s: Longest time from the first attempt's start to the last one's end, in seconds.
        on_exhausted: What happens when the attempts are used up: the step fails, or the workflow is parked.
        pool: The pool of workers that carries it out; None for the worker that runs the workflow.
    """

    retry: Retry | None = None
    timeout_s: float | None = None
    total_timeout_s: float | None = None
    on_exhausted: Literal["fail", "park"] = "fail"
    pool: str | None = None


class StepCall(NamedTuple):
    """A call of a step as the decorator hands it to the run.

    Args:
        name: The step's recorded name.
        call: The function with its arguments applied. Called outside the run; gives the result, or, where
            `is_async`, a coroutine of it.
        is_async: Whether `call` gives a coroutine.
        options: Retries and timeouts.
        result_type: How the result becomes JSON and comes back.
        input: JSON of the arguments, of a pool's step.
    """

    name: str
    call: Callable[[], Any]
    is_async: bool
    options: StepOptions
    result_type: PayloadType[Any]
    input: str | None = None


EmissionKind = Literal["value.published", "stream.written", "ask.answered", "attributes.set"]


class StepRequest(NamedTuple):
    """The code waits for a step's outcome. `source` is `file:line` of the call, for messages."""

    step: int
    call: StepCall
    source: str

    @property
    def name(self) -> str:
        """The step's recorded name."""
        return self.call.name


class TimerRequest(NamedTuple):
    """The code waits for a time: `due_at` in microseconds since 1970-01-01 UTC, derived from history alone."""

    step: int
    name: str
    due_at: int
    source: str


class SendRequest(NamedTuple):
    """The code sends a message on the topic `name` and waits until it is recorded with the receiver."""

    step: int
    name: str
    target_id: str
    payload: str
    source: str


class ChildRequest(NamedTuple):
    """The code starts a child, of the workflow `name`, and waits until its start is recorded.

    Its end is told later, as an input with this number; not so for a `detached` child.
    """

    step: int
    name: str
    target_id: str
    payload: str
    version: int | None
    policy: OnParentEnd
    attributes: dict[str, str] | None
    due_at: int | None
    source: str
    queue: str | None = None


class CancelRequest(NamedTuple):
    """The code asks another workflow to cancel and waits until that is recorded. `name` is always "cancel"."""

    step: int
    name: str
    target_id: str
    reason: str | None
    source: str


class EmitRequest(NamedTuple):
    """The code records something without waiting for it.

    Args:
        step: Operation number.
        kind: `value.published`, `stream.written`, `ask.answered` or `attributes.set`.
        name: Key, stream, topic, or "attributes".
        payload: JSON of the value or answer; for a stream, the JSON array of items; None for tags and errors.
        message_id: The question that is answered.
        error_type, error_message: The error that a question is answered with.
        attributes: The tags.
        source: `file:line` of the call.
    """

    step: int
    kind: EmissionKind
    name: str
    payload: str | None
    message_id: str | None
    error_type: str | None
    error_message: str | None
    attributes: dict[str, str] | None
    source: str


CallRequest = SendRequest | ChildRequest | CancelRequest
"""Requests to other workflows."""

Request = StepRequest | TimerRequest | CallRequest | EmitRequest


@dataclass(frozen=True, slots=True)
class Returned:
    """The workflow function returned; `payload` is the JSON of its result."""

    payload: str


@dataclass(frozen=True, slots=True)
class Raised:
    """The workflow function raised. `payload` is the JSON of the error's arguments where they have one."""

    error_type: str
    error_message: str
    error_stack: str
    payload: str | None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The workflow function let the request to cancel end it. `message` says who asked and why."""

    message: str


@dataclass(frozen=True, slots=True)
class Continued:
    """The workflow function asked to begin afresh.

    Args:
        payload: JSON of the new input, encoded by the run's own version of the workflow.
        kept: Positions of the messages and questions that the code has not taken, in order.
    """

    payload: str
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Diverged:
    """The code no longer does what the history says.

    Args:
        step: Operation number at which they part.
        position: Position of the event in the stream that the code does not match; None where unknown.
        expected: What the history holds, e.g. "step 'charge'".
        found: What the code does instead, e.g. "step 'reserve'" or "nothing: the workflow returned".
        source: `file:line` of the call in the code, where there is one.
        cause: The likely cause, in words.
    """

    step: int
    position: int | None
    expected: str
    found: str
    source: str | None
    cause: str


@dataclass(frozen=True, slots=True)
class Stuck:
    """The code waits for something that no step, timer or message will ever bring."""

    message: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """A payload that the code needs can't be had: its blob or key is missing or damaged, erased, or a store is away."""

    error: PayloadUnreadable | PayloadsUnavailable


Ending = Returned | Raised | Cancelled | Continued | Diverged | Stuck | Blocked


class Run(Protocol):
    """One execution of workflow code. `async def` and `def` workflows have an implementation each."""

    @property
    def ending(self) -> Ending | None:
        """How the run ended; None while it goes on."""
        ...

    @property
    def pending(self) -> dict[int, Request]:
        """Requests without outcome that the code still waits for, by number. Not to be changed by the reader."""
        ...

    @property
    def waits_for_input(self) -> bool:
        """Whether the code waits for a message, a question or the end of a child."""
        ...

    @property
    def next_step(self) -> int:
        """The number that the next operation gets."""
        ...

    def start(self) -> None:
        """Run the code from its beginning to its first quiescence. Called once, before any `deliver`."""
        ...

    def replay(self, history: Sequence[Outcome]) -> None:
        """Instead of `start`, for a run that former owners have run: start it and tell its history.

        Meanwhile `patched` answers False for what is not in `RunFacts.patches`: old code has been there.
        """
        ...

    def deliver(self, outcome: Outcome) -> None:
        """Tell the next outcome in log order and run to quiescence."""
        ...

    def deliver_all(self, outcomes: Sequence[Outcome]) -> None:
        """Tell outcomes one after the other, each run to quiescence: a replay, with less around each."""
        ...

    def take(self) -> list[Request]:
        """Requests that came up since the last `take` and are still pending, in number order."""
        ...

    def take_cancelled(self) -> list[int]:
        """Numbers of requests that the code has stopped waiting for since the last call."""
        ...

    def emitted(self, step: int) -> None:
        """Emission `step` is recorded. Runs no code."""
        ...

    def take_patches(self) -> list[str]:
        """Changes whose new path the code has taken since the last call; to be recorded before its requests."""
        ...

    def refusal(self, name: str, payload: str) -> str | None:
        """Why the code would refuse a question on the topic `name`; None where it would take it.

        Asks the validator of the code's `requests(...)` for that topic, where it has come to one. Nothing is changed.
        """
        ...

    def close(self) -> None:
        """Drop the run: coroutines are closed and threads unwound, with nothing recorded and no effect."""
        ...


class DurableScope(Protocol):
    """A run as durable calls see it from inside workflow code.

    The calls that wait come twice: as coroutines for `async def` workflows, and with `_sync` for `def` workflows; the
    wrong one raises `UsageError`, which names the right one.
    """

    @property
    def mode(self) -> Literal["async", "sync"]:
        """Whether the workflow is `async def` or `def`."""
        ...

    @property
    def workflow_id(self) -> str:
        """Id of the workflow."""
        ...

    @property
    def facts(self) -> RunFacts:
        """What the run knows of itself."""
        ...

    @property
    def now_us(self) -> int:
        """Time of the last event that the run was told, in microseconds since 1970-01-01 UTC."""
        ...

    @property
    def told(self) -> int:
        """How many outcomes the run was told: the length of its history."""
        ...

    @property
    def random(self) -> Random:
        """The run's own random numbers, seeded by the workflow's id: a new run draws the same again."""
        ...

    @property
    def max_payload_bytes(self) -> int:
        """Largest JSON of what the code hands over, in bytes."""
        ...

    def perform(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """In an `async def` workflow: the awaitable outcome of a step."""
        ...

    def perform_sync(self, call: StepCall) -> Any:
        """In a `def` workflow: wait for a step and return its result."""
        ...

    def sleep_sync(self, delay_s: float) -> None:
        """In a `def` workflow: wait for a durable timer."""
        ...

    def sleep_until(self, due_at: int) -> Coroutine[Any, Any, None]:
        """In an `async def` workflow: wait for a durable timer that is due at `due_at`, microseconds since 1970 UTC."""
        ...

    def sleep_until_sync(self, due_at: int) -> None:
        """In a `def` workflow: the same."""
        ...

    def call(self, make: "MakeCall") -> Coroutine[Any, Any, int]:
        """In an `async def` workflow: make a request to another workflow and wait until it is recorded there.

        Args:
            make: Given the number and `file:line`, makes the request.

        Returns:
            Its number, by which a child's end is asked for.

        Raises:
            Exception: The refusal, as the type that it was recorded with.
        """
        ...

    def call_sync(self, make: "MakeCall") -> int:
        """In a `def` workflow: the same."""
        ...

    def child_end(self, step: int, result_type: PayloadType[Any]) -> Coroutine[Any, Any, Any]:
        """In an `async def` workflow: wait for the end of the child that request `step` started; its result.

        A recorded result that `result_type` does not take ends the run as `Diverged`, like that of a step.

        Raises:
            Exception: What the child failed with, as the same type where that can be rebuilt.
        """
        ...

    def child_end_sync(self, step: int, result_type: PayloadType[Any]) -> Any:
        """In a `def` workflow: the same."""
        ...

    def receive(self, topic: str, asks: bool) -> Coroutine[Any, Any, MessageReceived | AskReceived]:
        """In an `async def` workflow: take the next message (or question, with `asks`) on a topic, waiting for it.

        Raises:
            UsageError: Another task waits on that topic already.
        """
        ...

    def receive_sync(
        self, topic: str, asks: bool, timeout_s: float | None
    ) -> MessageReceived | AskReceived:
        """In a `def` workflow: the same.

        Raises:
            TimeoutError: None came within `timeout_s` (a durable timer).
        """
        ...

    def has_message(self, topic: str, asks: bool) -> bool:
        """Whether a message (or question, with `asks`) is there to be taken at once."""
        ...

    def validate_with(self, topic: str, check: Callable[[str], str | None]) -> None:
        """Ask `check` (payload to why it is refused, or None) about questions on `topic` before they are recorded."""
        ...

    def emit(self, make: Callable[[int, str], EmitRequest]) -> None:
        """Record something without waiting for it; both kinds of workflow.

        Args:
            make: Given the number and `file:line`, makes the request.
        """
        ...

    def patched(self, name: str) -> bool:
        """Whether the run takes the new path of the change `name`; the same answer for ever."""
        ...

    def continue_as_new(self, args: Sequence[object], kwargs: Mapping[str, object]) -> NoReturn:
        """End this execution and begin afresh with a new input.

        Raises:
            PayloadError: The input does not fit the workflow's parameters.
            ContinueAsNew: Always, else: it must reach the workflow function's caller.
        """
        ...


MakeCall = Callable[[int, str], CallRequest]
"""Makes a request from its number and the `file:line` of the call."""
