"""The border between workflow code and its owner: what a run asks for, and what it is told.

A `Run` is workflow code on its way through a history. It is told outcomes, one at a time and in log order, and
runs to quiescence after each. What the code asks for meanwhile are requests, numbered 0, 1, 2, ... in code order
over all kinds (the event column `step`). A run does no I/O, knows no clock and appends nothing: during replay it
answers its own requests from the outcomes it is told, and those left unanswered are the owner's to carry out.

Rules:

1. The same outcomes in the same order give the same requests with the same numbers, for ever.
2. An outcome that does not match the request of its number (kind or name) ends the run as `Diverged`.
3. An outcome for a request that the code has stopped waiting for (a cancelled await) is taken and ignored.
4. A run that waits while it has no open request can never go on: it ends as `Stuck`.
5. After `Returned`, `Raised`, `Diverged` or `Stuck` a run asks for nothing more.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple, Protocol

from refold.engine.payload import PayloadType
from refold.engine.retry import Retry
from refold.log.events import StepCompleted, StepFailed, TimerFired

Outcome = StepCompleted | StepFailed | TimerFired
"""The events that a run is told."""


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is carried out.

    Args:
        retry: When and how often a failed attempt is tried again; None for a single attempt.
        timeout_s: Longest time for one attempt, in seconds; None for no limit.
        total_timeout_s: Longest time from the first attempt's start to the last one's end, in seconds.
        on_exhausted: What happens when the attempts are used up: the step fails, or the workflow is parked.
    """

    retry: Retry | None = None
    timeout_s: float | None = None
    total_timeout_s: float | None = None
    on_exhausted: Literal["fail", "park"] = "fail"


class StepCall(NamedTuple):
    """A call of a step as the decorator hands it to the run.

    Args:
        name: The step's recorded name.
        call: The function with its arguments applied. Called outside the run; gives the result, or, where
            `is_async`, a coroutine of it.
        is_async: Whether `call` gives a coroutine.
        options: Retries and timeouts.
        result_type: How the result becomes JSON and comes back.
    """

    name: str
    call: Callable[[], Any]
    is_async: bool
    options: StepOptions
    result_type: PayloadType[Any]


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


Request = StepRequest | TimerRequest


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


Ending = Returned | Raised | Diverged | Stuck


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

    def start(self) -> None:
        """Run the code from its beginning to its first quiescence. Called once, before any `deliver`."""
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

    def close(self) -> None:
        """Drop the run: coroutines are closed and threads unwound, with nothing recorded and no effect."""
        ...


class DurableScope(Protocol):
    """A run as durable calls see it from inside workflow code."""

    @property
    def mode(self) -> Literal["async", "sync"]:
        """Whether the workflow is `async def` or `def`."""
        ...

    @property
    def workflow_id(self) -> str:
        """Id of the workflow."""
        ...

    @property
    def now_us(self) -> int:
        """Time of the last event that the run was told, in microseconds since 1970-01-01 UTC."""
        ...

    @property
    def random(self) -> Random:
        """The run's own random numbers, seeded by the workflow's id: a new run draws the same again."""
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
