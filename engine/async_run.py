"""Runs `async def` workflow code against a history, on an event loop of its own.

Each outcome resolves one future (or fires one timer), and the loop runs to quiescence. That happens inside the
worker's own running loop, and mostly inside one of its tasks: the running loop, the current task and the hooks for
asynchronous generators are swapped before a turn and put back after it.
"""

import asyncio
import sys
from asyncio.events import (
    _get_running_loop,  # pyright: ignore[reportPrivateUsage] - for makers of event loops
    _set_running_loop,  # pyright: ignore[reportPrivateUsage]
)
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from typing import Any, Final, Literal

from refold.engine.base_run import BaseRun, FailedStep
from refold.engine.callsite import call_source, wait_source
from refold.engine.guard import Guard, GuardMode, arm, disarm
from refold.engine.loop import TURN_LIMIT, DeterministicLoop, DurableTimer, Spinning, WorkflowTask
from refold.engine.operations import Outcome, StepCall, StepRequest, Stuck
from refold.engine.payload import PayloadType
from refold.engine.scope import enter_run
from refold.log.errors import UsageError
from refold.log.events import TimerFired

if sys.version_info >= (3, 14):
    # For makers of event loops; typeshed does not know it.
    from asyncio.tasks import _swap_current_task  # type: ignore[attr-defined]
else:

    def _swap_current_task(
        loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None
    ) -> asyncio.Task[Any] | None:
        """Before 3.14 each loop has a current task of its own, and no thread has: ours does not meet the worker's."""
        return None


REFUSALS: Final = 100
"""Durable calls that a closed run refuses by raising. Those after wait for ever: code that catches everything and
tries again would otherwise never stop."""

_CLOSE_TRIES: Final = (
    10  # awaits in nested `finally` blocks, each of which may hold up a close once
)
_NAMED: Final = 5  # tasks named in a message


class AsyncRun(BaseRun):
    """One execution of an `async def` workflow (see `operations.Run` and `operations.DurableScope`).

    Args:
        function: The workflow's function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        workflow_id: Id of the workflow.
        started_at_us: When it started, in microseconds since 1970-01-01 UTC.
        result_type: How its result becomes JSON.
        guard: What to do about side effects in workflow code.
    """

    def __init__(
        self,
        function: Callable[..., Coroutine[Any, Any, Any]],
        args: Sequence[object],
        kwargs: Mapping[str, object],
        *,
        workflow_id: str,
        started_at_us: int,
        result_type: PayloadType[Any],
        guard: GuardMode = "raise",
    ) -> None:
        super().__init__(workflow_id, started_at_us, result_type)
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._guard = None if guard == "off" else Guard(workflow_id, guard)
        self._loop = _new_loop(workflow_id, self)
        self._waiting: dict[int, asyncio.Future[Any] | DurableTimer] = {}
        self._main: WorkflowTask | None = None
        # A fresh context, not a copy of the worker's: what that holds is in no history.
        self._context = Context()
        self._context.run(enter_run, self)
        self._closed = False
        self._refused = 0

    @property
    def mode(self) -> Literal["async", "sync"]:
        """The workflow is `async def`."""
        return "async"

    # Run --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run the code from its beginning to its first quiescence."""
        self._turn((), self._begin)

    def deliver(self, outcome: Outcome) -> None:
        """Tell the next outcome in log order and run to quiescence."""
        self._turn((outcome,))

    def deliver_all(self, outcomes: Sequence[Outcome]) -> None:
        """Tell outcomes one after the other, each run to quiescence: a replay, with less around every one."""
        self._turn(outcomes)

    def close(self) -> None:
        """Drop the run: its coroutines are closed, with nothing recorded and no effect."""
        if not self._closed:
            self._turn((), self._shut)

    # DurableScope -----------------------------------------------------------------------------------------

    def perform(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """The awaitable outcome of a step. The request is made when it is first awaited."""
        self.refuse_if_closed()
        return self._perform(call, call_source())

    async def _perform(self, call: StepCall, source: str) -> Any:
        future: asyncio.Future[Any] = asyncio.Future(loop=self._loop)
        if self._closed:
            self.refuse_if_closed()
            return await future  # for ever: see REFUSALS
        step = self._ask_step(call, source)
        self._waiting[step] = future
        try:
            value = await future
        except BaseException:  # cancelled, or the coroutine is closed
            self.abandon(step)
            raise
        if value.__class__ is FailedStep:
            raise value.error
        return value

    def perform_sync(self, call: StepCall) -> Any:
        """Refused: it would block the other tasks."""
        raise UsageError(
            f"step '{call.name}' was called without await in `async def` workflow {self._workflow_id!r}"
            f" ({call_source()}); await it"
        )

    def sleep_sync(self, delay_s: float) -> None:
        """Refused: it would block the other tasks."""
        raise UsageError(
            f"`async def` workflow {self._workflow_id!r} slept without await ({call_source()});"
            f" write `await asyncio.sleep({delay_s!r})`"
        )

    # For the loop -----------------------------------------------------------------------------------------

    def start_timer(self, handle: DurableTimer, due_at: int, name: str, source: str) -> int:
        """Ask for a timer that fires `handle`; returns its number, or -1 where the run is over."""
        if self._closed:
            self.refuse_if_closed()
            return -1
        step = self._ask_timer(due_at, name, source)
        self._waiting[step] = handle
        return step

    def abandon(self, step: int) -> None:
        """The code waits no longer for operation `step`."""
        if not self._closed and self._waiting.pop(step, None) is not None:
            self._abandon(step)

    def refuse_if_closed(self) -> None:
        """Raise GeneratorExit where the run is over, the first `REFUSALS` times.

        That is what its coroutines are closed with, so it ends them as one more of the same.
        """
        if self._closed:
            self._refused += 1
            if self._refused <= REFUSALS:
                raise GeneratorExit("the run is over, or put away: nothing more is done for it")

    # Turns ------------------------------------------------------------------------------------------------

    def _turn(self, outcomes: Sequence[Outcome], turn: Callable[[], None] | None = None) -> None:
        """Enter the run's own loop, tell the outcomes or do `turn`, and restore what was there before."""
        outer = _get_running_loop()
        outer_task = None if outer is None else _swap_current_task(outer, None)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._loop.hold_generator, None)
        _set_running_loop(self._loop)
        guard = self._guard
        if guard is not None:
            arm(guard)
        try:
            for outcome in outcomes:
                self._tell(outcome)
            if turn is not None:
                turn()
        finally:
            if guard is not None:
                disarm()
            _set_running_loop(outer)
            sys.set_asyncgen_hooks(*hooks)
            if outer is not None:
                _swap_current_task(outer, outer_task)

    def _begin(self) -> None:
        self._main = self._loop.create_task(self._entry(), name="workflow", context=self._context)
        self._run()

    async def _entry(self) -> object:
        """The main task's coroutine: an error of the call itself is the workflow's as well."""
        try:
            return await self._function(*self._args, **self._kwargs)
        finally:
            self._loop.finish()  # nothing runs after the function has ended, not even what is ready

    def _tell(self, outcome: Outcome) -> None:
        if self._closed and self._ending is None:
            return  # dropped by its owner
        request = self._match(outcome)
        if isinstance(request, StepRequest):
            assert not isinstance(outcome, TimerFired)
            value = self._result_of(request.call, outcome)
            future = self._waiting.pop(outcome.step)
            assert not isinstance(future, DurableTimer)
            if self._ending is None:
                future.set_result(value)
                self._run()
        elif request is not None:
            timer = self._waiting.pop(outcome.step)
            assert isinstance(timer, DurableTimer)
            self._loop.fire(timer)
            self._run()
        if self._ending is not None:
            self._shut()

    def _run(self) -> None:
        """Run to quiescence, and see whether the run has ended with it."""
        main = self._main
        assert main is not None
        try:
            self._loop.run_workflow_code()
        except Spinning:
            self._end(Stuck(self._spinning_message()))
        except SystemExit as error:  # the workflow's, not the worker's
            self._end_raised(error)
        except BaseException:  # a KeyboardInterrupt is the worker's
            self._shut()
            raise
        else:
            if main.done():
                self._end_done(main)
            elif not self._pending:
                self._end(Stuck(self._stuck_message()))
            else:
                return
        self._loop.report_unretrieved()
        self._shut()

    def _end_done(self, main: WorkflowTask) -> None:
        try:
            value = main.result()
        except BaseException as error:  # noqa: BLE001 - however the function ended is recorded
            self._end_raised(error)
        else:
            self._end_returned(value)

    def _stuck_message(self) -> str:
        tasks = self._loop.open_tasks()
        waits = "; ".join(
            f"task {task.get_name()!r} waits at {wait_source(task.get_coro())}"
            for task in tasks[:_NAMED]
        )
        more = f"; and {len(tasks) - _NAMED} more" if len(tasks) > _NAMED else ""
        return (
            f"workflow {self._workflow_id!r} waits for something that no step and no timer will bring:"
            f" {waits}{more}. Correct the code and resume the workflow"
        )

    def _spinning_message(self) -> str:
        return (
            f"workflow {self._workflow_id!r} went on for {TURN_LIMIT:,} turns without waiting for a step or"
            " a timer, as `while not done: await asyncio.sleep(0)` would; wait for an asyncio.Event"
            " or a future, or sleep longer. Correct the code and resume the workflow"
        )

    # The end ----------------------------------------------------------------------------------------------

    def _shut(self) -> None:
        """Close all coroutines. What they still do in `finally` blocks is refused, and recorded nowhere."""
        if self._closed:
            return
        self._closed = True
        self._loop.finish()
        for task in self._loop.open_tasks():
            task.abandon()
            task.run_context.run(_close, task.get_coro())
        self._context.run(self._loop.close_generators)
        self._loop.forget()
        self._waiting.clear()
        self._main = None


def _new_loop(workflow_id: str, run: AsyncRun) -> DeterministicLoop:
    # Most of AbstractEventLoop's methods are given to the class after its body, as refusals.
    return DeterministicLoop(workflow_id, run)  # type: ignore[abstract]


def _close(coroutine: object) -> None:
    """Throw GeneratorExit into a coroutine until it has ended; it may wait in a `finally` block."""
    assert isinstance(coroutine, Coroutine)
    for _ in range(_CLOSE_TRIES):
        try:
            coroutine.close()
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001, S112 - it was dropped: nobody is to hear of its errors
            continue
        return
