"""An asyncio event loop whose every turn follows from history: a ready queue, and no selector, clock or thread.

Outcomes of steps and timers come from outside, one at a time; after each the loop runs what is ready, first in
first out, until nothing is. So whatever asyncio builds on futures, callbacks and `call_later` (gather, wait,
TaskGroup, timeout, Queue, ...) comes out the same on every replay. Rules:

1. `call_later` and `call_at` ask the run for a durable timer; `time()` is that of the last event told.
2. Tasks hash by their number, not by their address: `asyncio.wait` and `TaskGroup` keep them in sets, and a
   set's order follows the hashes.
3. `asyncio.as_completed` makes tasks in the order of a set of coroutines, which hash by address. Their tasks are
   made in the order of the sequence that was passed in; without one, the call is refused.
4. What reaches outside (executors, sockets, processes, signals) is refused: it belongs in a step.
5. Tasks and open asynchronous generators are held until they end, so that no garbage collection decides when
   workflow code runs.

The shape (a loop that a history drives) is that of Temporal's Python SDK; ordered sets and refusals are ours.
"""

import asyncio
import inspect
import logging
import math
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from collections.abc import Set as AbstractSet
from contextvars import Context, copy_context
from types import AsyncGeneratorType, CodeType, FrameType
from typing import Any, Final, NoReturn, Protocol, TypeVarTuple, cast

from refold.engine.callsite import call_source
from refold.log.errors import UsageError

_Args = TypeVarTuple("_Args")
_Coroutine = Coroutine[Any, Any, Any] | Generator[Any, None, Any]

TURN_LIMIT: Final = 1_000_000
"""Callbacks that one outcome may cause. A gather over 200,000 steps needs fewer; a loop that polls without ever
waiting (`while not done: await asyncio.sleep(0)`) would hold up every other workflow of the worker for ever."""

LAST_DUE_US: Final = 253_402_300_799_000_000
"""The end of the year 9999, beyond which a datetime can't say when a timer is due."""

_MICROSECONDS: Final = 1_000_000
_PRUNE_AT: Final = (
    64  # ended tasks are dropped from the list when it has doubled, from this length on
)

_logger = logging.getLogger("refold.workflow")

_UNORDERED: Final = (Iterator, AbstractSet)  # used up, or ordered by addresses
_ASYNCIO_TASKS: Final = asyncio.ensure_future.__code__.co_filename


REFUSALS: Final = 100
"""Durable calls that a closed run refuses by raising. Those after wait for ever: code that catches everything and
tries again would otherwise never stop."""


class Timers(Protocol):
    """Whoever turns the loop's timers into requests: the run."""

    @property
    def now_us(self) -> int:
        """Time of the last event told, in microseconds since 1970-01-01 UTC."""
        ...

    def start_timer(self, handle: "DurableTimer", due_at: int, name: str, source: str) -> int:
        """Ask for a timer that fires `handle`, due at microseconds since 1970-01-01 UTC.

        Returns:
            Its operation number; -1 where the run is over.
        """
        ...

    def abandon(self, step: int) -> None:
        """The code waits for operation `step` no longer."""

    def refuse_if_closed(self) -> None:
        """Raise where the run is over."""


class Over:
    """In place of a run that is over: what is left of its code finds this, and no longer the run.

    So a run, its loop and its context hold each other no longer, and go at once, without the cyclic collector: that
    took a fifth of the time of a workflow of one step.

    Args:
        now_us: Time of the last event told.
    """

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us
        self._refused = 0

    def start_timer(self, handle: "DurableTimer", due_at: int, name: str, source: str) -> int:
        """Start none."""
        self.refuse_if_closed()
        return -1

    def abandon(self, step: int) -> None:
        """Nothing is waited for."""

    def refuse_if_closed(self) -> None:
        """Raise GeneratorExit, the first `REFUSALS` times.

        That is what the run's coroutines are closed with, so it ends them as one more of the same.
        """
        self._refused += 1
        if self._refused <= REFUSALS:
            raise GeneratorExit("the run is over, or put away: nothing more is done for it")


class DurableTimer(asyncio.TimerHandle):
    """A timer handle that knows the operation number of its request; -1 for none."""

    __slots__ = ("step",)
    step: int


class WorkflowTask(asyncio.Task[Any]):
    """A task with a number: a set of tasks is in the same order on every replay."""

    def __init__(
        self,
        coroutine: _Coroutine,
        loop: asyncio.AbstractEventLoop,
        name: str,
        hash_: int,
        context: Context,
    ) -> None:
        self._hash = hash_  # before asyncio's own init, which puts the task into a set
        self.run_context = context  # Task.get_context is new in 3.12
        super().__init__(
            cast("Coroutine[Any, Any, Any]", coroutine), loop=loop, name=name, context=context
        )

    def __hash__(self) -> int:
        return self._hash

    def abandon(self) -> None:
        """The task will never end; asyncio is to make no noise about that."""
        setattr(self, "_log_destroy_pending", False)  # noqa: B010 - no part of the public type

    def unretrieved_error(self) -> BaseException | None:
        """The error that the task ended with, if nothing has awaited it."""
        if self.done() and not self.cancelled() and getattr(self, "_log_traceback", False):
            return self.exception()
        return None


class WorkflowFuture(asyncio.Future[Any]):
    """A future with a number, for the same reason."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hash_: int) -> None:
        self._hash = hash_
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._hash


class Spinning(Exception):
    """Workflow code did not come to rest within `TURN_LIMIT` turns."""


class DeterministicLoop(asyncio.AbstractEventLoop):
    """The event loop of one run.

    Args:
        workflow_id: For messages, and for hashes that differ between runs but not between replays.
        timers: Who is asked for durable timers.
    """

    def __init__(self, workflow_id: str, timers: Timers) -> None:
        self._workflow_id = workflow_id
        self._timers = timers
        self._ready: deque[asyncio.Handle] = deque()
        self._stopped = False
        # crc32 and not hash(): that of a str differs from process to process.
        self._hash_base = zlib.crc32(workflow_id.encode("utf-8", "surrogatepass")) << 20
        self._count = 0
        self._task_count = 0
        self._tasks: list[WorkflowTask] = []
        self._prune_tasks_at = _PRUNE_AT
        self._generators: list[AsyncGeneratorType[Any, Any]] = []
        self._prune_generators_at = _PRUNE_AT
        self._ordered: dict[_Coroutine, WorkflowTask] = {}

    # For the run ------------------------------------------------------------------------------------------

    def run_workflow_code(self) -> None:
        """Run what is ready until nothing is, or until `finish`.

        Raises:
            Spinning: It does not come to rest.
            KeyboardInterrupt, SystemExit: As asyncio's own loops let them through.
        """
        ready = self._ready
        for _ in range(TURN_LIMIT):
            if not ready or self._stopped:
                return
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
        if ready and not self._stopped:
            raise Spinning

    def finish(self) -> None:
        """Run nothing more: the workflow function has ended, or the run is put away."""
        self._stopped = True
        self._ready.clear()

    def fire(self, timer: DurableTimer) -> None:
        """The time of `timer` has come."""
        timer.step = -1
        self._ready.append(timer)

    def open_tasks(self) -> list[WorkflowTask]:
        """Tasks that have not ended, oldest first."""
        return [task for task in self._tasks if not task.done()]

    def open_generators(self) -> list[AsyncGeneratorType[Any, Any]]:
        """Asynchronous generators that were begun and have not ended, oldest first."""
        return [generator for generator in self._generators if generator.ag_frame is not None]

    def hold_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Hook: an asynchronous generator begins. Held until it ends (rule 5)."""
        if len(self._generators) >= self._prune_generators_at:
            self._generators = self.open_generators()
            self._prune_generators_at = max(_PRUNE_AT, 2 * len(self._generators))
        self._generators.append(cast("AsyncGeneratorType[Any, Any]", generator))

    def close_generators(self) -> None:
        """Throw GeneratorExit into the generators that are still open."""
        while self._generators:
            # Before 3.13, one whose iteration was closed half-way counts as running and can't be closed: dropping
            # the last reference ends it, which therefore is to happen here, where durable calls are refused.
            closing = self._generators.pop(0).aclose()
            try:
                closing.send(None)
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001, S110 - it was dropped: nobody is to hear of its errors
                pass
            closing.close()
            del closing

    def report_unretrieved(self) -> None:
        """Log the errors of ended tasks that nobody awaited."""
        for task in self._tasks:
            error = task.unretrieved_error()
            if error is not None:
                self.default_exception_handler(
                    {
                        "message": "a task failed and nothing awaited it",
                        "exception": error,
                        "task": task.get_name(),
                    }
                )

    def forget(self, over: Over) -> None:
        """Let go of everything that is held, of the run as well; the last call."""
        self._timers = over
        self._tasks.clear()
        self._ordered.clear()

    # Callbacks --------------------------------------------------------------------------------------------

    def call_soon(
        self,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Put the callback at the end of the ready queue."""
        handle = asyncio.Handle(callback, args, self, context)
        if not self._stopped:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> NoReturn:
        """Refused: when another thread calls is in no history."""
        self.refuse("loop.call_soon_threadsafe")

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back when a durable timer over `delay` seconds has fired."""
        if not math.isfinite(delay):
            raise UsageError(
                f"workflow {self._workflow_id!r} asked for a timer over {delay!r} seconds;"
                " a durable timer needs a finite time (for no limit, leave the timeout out or pass None)"
            )
        handle = DurableTimer(self.time() + delay, callback, args, self, context)
        if delay <= 0:
            handle.step = -1
            if not self._stopped:
                self._ready.append(handle)
            return handle
        due_at = self._timers.now_us + max(1, round(delay * _MICROSECONDS))
        if due_at > LAST_DUE_US:
            raise UsageError(
                f"workflow {self._workflow_id!r} asked for a timer over {delay!r} seconds, which is due"
                " after the year 9999"
            )
        handle.step = self._timers.start_timer(handle, due_at, _timer_name(callback), call_source())
        return handle

    def call_when_due(
        self, due_at: int, source: str, callback: Callable[[*_Args], object], *args: *_Args
    ) -> asyncio.TimerHandle:
        """Call back when a durable timer has fired, due at microseconds since 1970-01-01 UTC, after `timers.now_us`.

        Seconds in a float, as asyncio counts them, do not tell every microsecond.
        """
        handle = DurableTimer(due_at / _MICROSECONDS, callback, args, self, None)
        handle.step = self._timers.start_timer(handle, due_at, "sleep", source)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back when a durable timer, due at `when` by `time()`, has fired."""
        return self.call_later(when - self.time(), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: DurableTimer) -> None:
        """Called by asyncio when `handle` is cancelled, the first time."""
        if handle.step >= 0:
            self._timers.abandon(handle.step)
            handle.step = -1

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC as of the last event that the workflow was told."""
        return self._timers.now_us / _MICROSECONDS

    # Futures and tasks ------------------------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return WorkflowFuture(self, self._next_hash())

    def create_task(
        self,
        coro: _Coroutine,
        *,
        name: object = None,
        context: Context | None = None,
        eager_start: bool | None = None,
    ) -> WorkflowTask:
        """A task of this loop. Its first turn comes through the ready queue, whatever `eager_start` says."""
        if self._stopped:
            coro.close()
            self._timers.refuse_if_closed()
        if self._ordered and (made := self._ordered.pop(coro, None)) is not None:
            return made
        awaited = _as_completed_argument(inspect.currentframe())
        if awaited is not None:
            return self._tasks_in_order(awaited, coro)
        return self._new_task(coro, name, context)

    def _new_task(
        self, coroutine: _Coroutine, name: object, context: Context | None
    ) -> WorkflowTask:
        self._task_count += 1
        if len(self._tasks) >= self._prune_tasks_at:
            self._tasks = self.open_tasks()
            self._prune_tasks_at = max(_PRUNE_AT, 2 * len(self._tasks))
        task = WorkflowTask(
            coroutine,
            self,
            f"task-{self._task_count}" if name is None else str(name),
            self._next_hash(),
            copy_context() if context is None else context,
        )
        self._tasks.append(task)
        return task

    def _tasks_in_order(self, awaited: object, wanted: _Coroutine) -> WorkflowTask:
        """Make all of `as_completed`'s tasks in the order of its argument; give that for `wanted` (rule 3)."""
        kind = type(awaited).__name__
        if not isinstance(awaited, _UNORDERED):
            for item in cast("list[_Coroutine]", awaited):
                if asyncio.iscoroutine(item) and item not in self._ordered:
                    self._ordered[item] = self._new_task(item, None, None)
        task = self._ordered.pop(wanted, None)
        if task is None:
            wanted.close()
            if isinstance(awaited, AbstractSet):
                for item in cast("AbstractSet[_Coroutine]", awaited):
                    item.close()  # else Python would warn that it was never awaited
            raise UsageError(
                f"asyncio.as_completed() in workflow {self._workflow_id!r} was given a"
                f" {kind} of coroutines, whose order a replay can't repeat"
                f" ({call_source()}); give it a list of them, or of tasks"
            )
        return task

    def _next_hash(self) -> int:
        self._count += 1
        return self._hash_base + self._count

    # What asyncio asks of a loop --------------------------------------------------------------------------

    def is_running(self) -> bool:
        """True until the run has ended."""
        return not self._stopped

    def is_closed(self) -> bool:
        """True once the run has ended."""
        return self._stopped

    def get_debug(self) -> bool:
        """False: asyncio's debug mode measures wall time."""
        return False

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log what went wrong where nobody awaited it."""
        error = context.get("exception")
        details = ", ".join(
            f"{key}={value!r}"
            for key, value in sorted(context.items())
            if key not in {"message", "exception"}
        )
        _logger.error(
            "workflow %r: %s (%s)",
            self._workflow_id,
            context.get("message"),
            details,
            exc_info=error,
        )

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Log, unless the run is over: what is dropped with it is nobody's failure."""
        if not self._stopped:
            self.default_exception_handler(context)

    def refuse(self, what: str) -> NoReturn:
        """Raise the error for what no loop of a workflow does."""
        raise UsageError(
            f"workflow {self._workflow_id!r} called {what} ({call_source()}), whose effect is in no history;"
            " move it into a @step"
        )


def _timer_name(callback: Callable[..., object]) -> str:
    """Name of the timer's request: "sleep" for asyncio.sleep's, "timer" for all others.

    No finer, since the record outlives a Python version: how wait_for and timeout are made changes between them.
    """
    name = getattr(callback, "__name__", "")
    return "sleep" if name == "_set_result_unless_cancelled" else "timer"


def _as_completed() -> tuple[CodeType, str]:
    """The code in which `asyncio.as_completed` makes its tasks, and the name there of what it was given."""
    iterator = getattr(asyncio.tasks, "_AsCompletedIterator", None)  # a class since 3.13
    if iterator is None:
        return asyncio.as_completed.__code__, "fs"
    return iterator.__init__.__code__, "aws"


_AS_COMPLETED, _AS_COMPLETED_ARGUMENT = _as_completed()


def _as_completed_argument(frame: FrameType | None) -> object:
    """What `asyncio.as_completed` was given, if it is what makes a task now; else None.

    It calls ensure_future from itself or, before 3.12, from a comprehension within.

    Args:
        frame: Of the loop's method that is to make the task.
    """
    frame = None if frame is None else frame.f_back
    while frame is not None and frame.f_code.co_filename == _ASYNCIO_TASKS:
        if frame.f_code is _AS_COMPLETED:
            return frame.f_locals[_AS_COMPLETED_ARGUMENT]
        frame = frame.f_back
    return None


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refused(self: DeterministicLoop, *_args: object, **_options: object) -> NoReturn:
        self.refuse(f"loop.{name}")

    refused.__name__ = name
    return refused


# Whatever else a loop can do, in this version of Python or a later one, reaches outside (rule 4).
for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in vars(DeterministicLoop):
        setattr(DeterministicLoop, _name, _refusal(_name))
