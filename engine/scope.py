"""What the running code is part of: a workflow's run, a step's attempt, or neither; and what it may ask of it.

One context variable says which. The deterministic helpers for workflow code stand here too: `now`, `random`,
`uuid4`, `sleep` and `sleep_until` answer from history alone, so a replay sees the same values.
"""

import asyncio
import hashlib
import math
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, Token
from datetime import UTC, datetime, timedelta
from random import Random
from types import TracebackType
from typing import Any, Final
from uuid import UUID

from refold.engine.loop import LAST_DUE_US
from refold.engine.operations import DurableScope
from refold.log.errors import UsageError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KEY_BYTES: Final = (
    16  # 128 bits: as unlikely to repeat as a UUID, and short enough for any API's header
)


class Suspended(BaseException):
    """A run is being put away: workflow code must let this pass.

    It is raised from a durable call, and is a `BaseException` so that `except Exception` in workflow code
    does not swallow it. Nothing is recorded; a later replay brings the code back to the same place.
    """


class ContinueAsNew(BaseException):
    """A run asks to begin afresh with the input `payload` (JSON): workflow code must let this pass, as `Suspended`."""

    def __init__(self, payload: str) -> None:
        super().__init__("the workflow begins afresh: nothing may catch this")
        self.payload = payload


class StepContext:
    """What a step can know about the attempt that it is.

    Args:
        namespace: The log's namespace; part of the idempotency key only.
        workflow_id: The workflow that the step belongs to.
        step: Operation number of the step within the workflow, from 0.
        attempt: Which attempt this is, from 1.
        deadline: When this attempt times out (UTC); None where it has no limit.
        write: Takes this context, the name of a stream and the JSON of an item for it; None where nobody does.
    """

    __slots__ = (
        "_cancelled",
        "_gate",
        "_namespace",
        "_write",
        "attempt",
        "deadline",
        "step",
        "workflow_id",
    )

    def __init__(
        self,
        *,
        namespace: str,
        workflow_id: str,
        step: int,
        attempt: int,
        deadline: datetime | None = None,
        write: "Callable[[StepContext, str, str], None] | None" = None,
    ) -> None:
        self._namespace = namespace
        self._write = write
        self.workflow_id = workflow_id
        self.step = step
        self.attempt = attempt
        self.deadline = deadline
        self._cancelled = False
        # A held lock is an event that costs a tenth of threading.Event to make; every attempt makes one.
        self._gate = threading.Lock()
        self._gate.acquire()

    def __repr__(self) -> str:
        return f"<step {self.step} of {self.workflow_id!r}, attempt {self.attempt}>"

    @property
    def idempotency_key(self) -> str:
        """32 hex digits for an outside API's idempotency header: the same for every attempt and after every crash.

        BLAKE2b over namespace, workflow id and step number, each with its length, so that no two triples give
        the same bytes.
        """
        digest = hashlib.blake2b(digest_size=_KEY_BYTES, person=b"refold.step")
        for part in (self._namespace, self.workflow_id, str(self.step)):
            raw = part.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "big"))
            digest.update(raw)
        return digest.hexdigest()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for this attempt any more: stop early if that is safe."""
        return self._cancelled

    def wait_cancelled(self, timeout_s: float | None = None) -> bool:
        """Block this thread until the attempt is cancelled or the time is over; returns `cancelled`.

        Args:
            timeout_s: Longest wait in seconds, none at all from 0 down; None waits without limit.
        """
        # To the lock, -1 is no limit, and other negative numbers are errors, as are those beyond its maximum.
        limit_s = -1 if timeout_s is None else min(max(0.0, timeout_s), threading.TIMEOUT_MAX)
        if self._gate.acquire(timeout=limit_s):
            self._gate.release()  # lets the next waiter through
        return self._cancelled

    def write(self, stream: str, item: str) -> None:
        """Add an item to a stream of the workflow's; for `Stream.write`.

        Args:
            stream: Its name.
            item: The item's JSON.

        Raises:
            UsageError: The attempt has nobody who takes it.
        """
        if self._write is None:
            raise UsageError(
                f"stream {stream!r} was written to in step {self.step} of workflow {self.workflow_id!r}, which no"
                " worker carries out: write from workflow code, or run the step in an engine"
            )
        self._write(self, stream, item)

    def cancel(self) -> None:
        """Tell the attempt that its outcome is not waited for. For whoever runs the step."""
        if not self._cancelled:
            self._cancelled = True
            self._gate.release()


_scope: ContextVar[DurableScope | StepContext | None] = ContextVar("refold_scope", default=None)


def current() -> DurableScope | StepContext | None:
    """What the calling code is part of: a run, a step's attempt, or None for neither."""
    return _scope.get()


class enter:  # noqa: N801 - used as `with enter(scope):`, like contextlib's own
    """Context manager: the code in the block is part of `scope`."""

    __slots__ = ("_entered", "_token")

    def __init__(self, entered: DurableScope | StepContext | None) -> None:
        self._entered = entered
        self._token: Token[DurableScope | StepContext | None] | None = None

    def __enter__(self) -> None:
        self._token = _scope.set(self._entered)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        assert self._token is not None
        _scope.reset(self._token)


def enter_run(run: DurableScope) -> None:
    """Make the current context part of a run from here on."""
    _scope.set(run)


def enter_step(context: StepContext) -> None:
    """Make the calling task, or the calling thread's context, part of a step's attempt from here on."""
    _scope.set(context)


def step_context() -> StepContext:
    """The attempt that the calling code is part of.

    Raises:
        UsageError: The caller is not inside a step.
    """
    scope = _scope.get()
    if isinstance(scope, StepContext):
        return scope
    where = (
        "outside any step" if scope is None else f"in the code of workflow {scope.workflow_id!r}"
    )
    raise UsageError(
        f"step_context() was called {where}; only the body of a @step has a step's context"
    )


def workflow_scope(what: str, elsewhere: str) -> DurableScope:
    """The run that the caller is part of, or an error that says what to use instead of `what`."""
    scope = _scope.get()
    if scope is None:
        raise UsageError(f"{what} was called outside a workflow; {elsewhere}")
    if isinstance(scope, StepContext):
        raise UsageError(
            f"{what} was called in step {scope.step} of workflow {scope.workflow_id!r}; it belongs in"
            f" workflow code; {elsewhere}"
        )
    return scope


def async_scope(called: str, twin: str, elsewhere: str) -> DurableScope:
    """The `async def` workflow that the caller is part of.

    Args:
        called: The call, for the message.
        twin: Its form for `def` workflows.
        elsewhere: What to do outside of a workflow.

    Raises:
        UsageError: The caller is a `def` workflow, or no workflow code.
    """
    scope = workflow_scope(called, elsewhere)
    if scope.mode == "sync":
        raise UsageError(
            f"workflow {scope.workflow_id!r} is a plain `def`, which can't await {called}: call {twin} there, without"
            " await"
        )
    return scope


def sync_scope(called: str, twin: str, elsewhere: str) -> DurableScope:
    """The `def` workflow that the caller is part of; arguments as of `async_scope`.

    Raises:
        UsageError: The caller is an `async def` workflow, or no workflow code.
    """
    scope = workflow_scope(called, elsewhere)
    if scope.mode == "async":
        raise UsageError(
            f"workflow {scope.workflow_id!r} is `async def`, and {called} would block it: write `await {twin}`, which"
            " lets its other tasks go on"
        )
    return scope


def now() -> datetime:
    """The workflow's time, UTC: when the last event that the code has seen was recorded. The same on replay.

    Raises:
        UsageError: The caller is not workflow code.
    """
    scope = workflow_scope("now()", "use datetime.now(UTC) there")
    return datetime_of(scope.now_us)


def random() -> Random:
    """The workflow's own random numbers: seeded by its id, so that a replay draws the same.

    Raises:
        UsageError: The caller is not workflow code.
    """
    return workflow_scope("random()", "use the random module there").random


def uuid4() -> UUID:
    """A UUID (version 4) from the workflow's own random numbers. The same on replay.

    It is as unique as the workflow's id, and can be guessed by who knows that: no secret.

    Raises:
        UsageError: The caller is not workflow code.
    """
    scope = workflow_scope("uuid4()", "use uuid.uuid4() there")
    return UUID(int=scope.random.getrandbits(128), version=4)


def _seconds(delay: timedelta | float) -> float:
    """`delay` in seconds, checked."""
    delay_s = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    if not math.isfinite(delay_s) or delay_s < 0:
        raise UsageError(
            f"a workflow can't sleep for {delay!r}: give a finite time of 0 seconds or more"
        )
    return delay_s


def sleep(delay: timedelta | float) -> Coroutine[Any, Any, None]:
    """In an `async def` workflow: wait for a durable timer. `asyncio.sleep` there is the same.

    Args:
        delay: How long, as a timedelta or in seconds; from `now()`, and not at an end before it is over.

    Raises:
        UsageError: The delay is negative or not finite, or the caller is not an `async def` workflow.
    """
    async_scope("sleep()", f"sleep_sync({delay!r})", "use asyncio.sleep or time.sleep there")
    return asyncio.sleep(_seconds(delay))


def sleep_sync(delay: timedelta | float) -> None:
    """In a `def` workflow: wait for a durable timer.

    Args:
        delay: How long, as a timedelta or in seconds; from `now()`, and not at an end before it is over.

    Raises:
        UsageError: The delay is negative or not finite, or the caller is not a `def` workflow.
    """
    scope = sync_scope("sleep_sync()", f"sleep({delay!r})", "use time.sleep there")
    scope.sleep_sync(_seconds(delay))


def sleep_until(when: datetime) -> Coroutine[Any, Any, None]:
    """In an `async def` workflow: wait for a durable timer that is due at a time; not at all where that is past.

    Args:
        when: The time, with a time zone.

    Raises:
        UsageError: The time has no time zone, or the caller is not an `async def` workflow.
    """
    scope = async_scope(
        "sleep_until()", "sleep_until_sync(...)", "use asyncio.sleep or time.sleep there"
    )
    return scope.sleep_until(microseconds_of(when, "sleep until"))


def sleep_until_sync(when: datetime) -> None:
    """In a `def` workflow: wait for a durable timer that is due at a time; not at all where that is past.

    Args:
        when: The time, with a time zone.

    Raises:
        UsageError: The time has no time zone, or the caller is not a `def` workflow.
    """
    scope = sync_scope("sleep_until_sync()", "sleep_until(...)", "use time.sleep there")
    scope.sleep_until_sync(microseconds_of(when, "sleep until"))


def microseconds_of(when: datetime, what: str) -> int:
    """`when` in microseconds since 1970-01-01 UTC.

    Args:
        when: A time with a time zone.
        what: What it is for, for messages.

    Raises:
        UsageError: It is no time, has no time zone, or is too late for a timer.
    """
    if not isinstance(when, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"can't {what} {when!r}: give a datetime with a time zone")
    if when.utcoffset() is None:
        raise UsageError(
            f"can't {what} {when!r}: it has no time zone, so it means another time on each machine; give it one, such"
            " as tzinfo=datetime.UTC"
        )
    time_us = (when - _EPOCH) // timedelta(microseconds=1)
    if time_us > LAST_DUE_US:
        raise UsageError(f"can't {what} {when!r}: that is at the very end of the year 9999")
    return time_us


def datetime_of(time_us: int) -> datetime:
    """Microseconds since 1970-01-01 UTC as a datetime, UTC."""
    return _EPOCH + timedelta(microseconds=time_us)
