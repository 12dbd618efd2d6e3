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

from refold.engine.base_run import BaseRun, EncodeInput, FailedStep
from refold.engine.blobs import IN_RECORDS, Blobs
from refold.engine.callsite import call_source, wait_source
from refold.engine.guard import GuardMode, arm, disarm
from refold.engine.inbox import Message, Topic, topic_of
from refold.engine.loop import (
    TURN_LIMIT,
    DeterministicLoop,
    DurableTimer,
    Over,
    Spinning,
    WorkflowTask,
)
from refold.engine.matching import ANSWERED, two_waiters
from refold.engine.operations import (
    Answered,
    EmitRequest,
    Emitted,
    Input,
    MakeCall,
    Outcome,
    RunFacts,
    StepCall,
    StepRequest,
    Stuck,
)
from refold.engine.payload import PayloadType
from refold.engine.scope import enter_run
from refold.log.errors import UsageError
from refold.log.events import ChildCompleted, ChildFailed, WorkflowCancelRequested

if sys.version_info >= (3, 14):
    # For makers of event loops; typeshed does not know it.
    from asyncio.tasks import _swap_current_task  # type: ignore[attr-defined]
else:

    def _swap_current_task(
        loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None
    ) -> asyncio.Task[Any] | None:
        """Before 3.14 each loop has a current task of its own, and no thread has: ours does not meet the worker's."""
        return None


_CLOSE_TRIES: Final = (
    10  # awaits in nested `finally` blocks, each of which may hold up a close once
)
_NAMED: Final = 5  # tasks named in a message


_NOWHERE: Final = Context()


class AsyncRun(BaseRun):
    """One execution of an `async def` workflow (see `operations.Run` and `operations.DurableScope`).

    Args:
        function: The workflow's function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        facts: What the run knows of itself.
        result_type: How its result becomes JSON.
        encode_input: How the input becomes JSON with which it may continue as new.
        guard: What to do about side effects in workflow code.
        blobs: Where large payloads are read.
    """

    def __init__(  # noqa: PLR0913 - each is a plain fact about the run
        self,
        function: Callable[..., Coroutine[Any, Any, Any]],
        args: Sequence[object],
        kwargs: Mapping[str, object],
        *,
        facts: RunFacts,
        result_type: PayloadType[Any],
        encode_input: EncodeInput,
        guard: GuardMode = "raise",
        blobs: Blobs = IN_RECORDS,
    ) -> None:
        super().__init__(facts, result_type, encode_input, guard, blobs)
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._loop = _new_loop(facts.workflow_id, self)
        self._waiting: dict[int, asyncio.Future[Any] | DurableTimer] = {}
        self._receiving: dict[Topic, asyncio.Future[None]] = {}
        self._awaiting_ends: dict[int, list[asyncio.Future[None]]] = {}
        self._main: WorkflowTask | None = None
        # A fresh context, not a copy of the worker's: what that holds is in no history.
        self._context = Context()
        self._context.run(enter_run, self)
        self._over: Over | None = None  # once it is over

    @property
    def mode(self) -> Literal["async", "sync"]:
        """The workflow is `async def`."""
        return "async"

    @property
    def waits_for_input(self) -> bool:
        """Whether the code waits for a message, a question or the end of a child."""
        return bool(self._receiving or self._awaiting_ends)

    # Run --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run the code from its beginning to its first quiescence."""
        self._turn((), self._begin)

    def replay(self, history: Sequence[Outcome]) -> None:
        """Instead of `start`, for a run that former owners have run: start it and tell its history."""
        self._replaying = True
        try:
            self._turn((), self._begin)
            self._turn(history)
        finally:
            self._replaying = False

    def deliver(self, outcome: Outcome) -> None:
        """Tell the next outcome in log order and run to quiescence."""
        self._turn((outcome,))

    def deliver_all(self, outcomes: Sequence[Outcome]) -> None:
        """Tell outcomes one after the other, each run to quiescence: a replay, with less around every one."""
        self._turn(outcomes)

    def close(self) -> None:
        """Drop the run: its coroutines are closed, with nothing recorded and no effect."""
        if self._over is None:
            self._turn((), self._shut)

    # DurableScope: what waits ------------------------------------------------------------------------------

    def perform(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """The awaitable outcome of a step. The request is made when it is first awaited."""
        self.refuse_if_closed()
        work = self._perform(call, call_source())
        # So Python says what was never awaited. Whatever `async def` makes has the attribute.
        work.__qualname__ = call.name  # type: ignore[attr-defined]
        return work

    async def _perform(self, call: StepCall, source: str) -> Any:
        future: asyncio.Future[Any] = asyncio.Future(loop=self._loop)
        if self._over is not None:
            self.refuse_if_closed()
            return await future  # for ever: see `loop.REFUSALS`
        step = self._ask(StepRequest(self._next, call, source))
        self._waiting[step] = future
        try:
            value = await future
        except BaseException:  # cancelled, or the coroutine is closed
            self.abandon(step)
            raise
        if value.__class__ is FailedStep:
            raise value.error
        return value

    def call(self, make: MakeCall) -> Coroutine[Any, Any, int]:
        """Make a request to another workflow, when it is first awaited, and wait until it is recorded there."""
        self.refuse_if_closed()
        return self._call(make, call_source())

    async def _call(self, make: MakeCall, source: str) -> int:
        future: asyncio.Future[Any] = asyncio.Future(loop=self._loop)
        if self._over is not None:
            await self._refused_for_good()
        step = self._ask_call(make, source)
        self._waiting[step] = future
        try:
            refused = await future
        except BaseException:  # as above
            self.abandon(step)
            raise
        if refused.__class__ is FailedStep:
            raise refused.error
        return step

    def sleep_until(self, due_at: int) -> Coroutine[Any, Any, None]:
        """Wait for a durable timer; not at all where its time has come already."""
        self.refuse_if_closed()
        return self._sleep_until(due_at, call_source())

    async def _sleep_until(self, due_at: int, source: str) -> None:
        if self._over is not None:
            await self._refused_for_good()
        if due_at <= self._now_us:
            return
        future: asyncio.Future[None] = asyncio.Future(loop=self._loop)
        timer = self._loop.call_when_due(due_at, source, _wake, future)
        try:
            await future
        finally:
            timer.cancel()

    def receive(self, topic: str, asks: bool) -> Coroutine[Any, Any, Message]:
        """Take the next message, or question, on a topic, waiting for it."""
        self.refuse_if_closed()
        return self._receive((topic, asks), call_source())

    async def _receive(self, topic: Topic, source: str) -> Message:
        if self._over is not None:
            await self._refused_for_good()
        # A message stays in the inbox until the code is here to take it, so that none is lost with a cancelled wait.
        if topic in self._receiving:
            raise two_waiters(self._workflow_id, topic, source)
        message = self._inbox.take(topic)
        if message is not None:
            return await self._readable(message)
        future: asyncio.Future[None] = asyncio.Future(loop=self._loop)
        self._receiving[topic] = future
        try:
            await future
        finally:
            self._receiving.pop(topic, None)
        message = self._inbox.take(topic)
        assert message is not None, "nobody else may take it while the place is held"
        return await self._readable(message)

    async def _readable(self, message: Message) -> Message:
        readable = self._with_text(message)
        if readable is None:
            await self._go_no_further()
            raise AssertionError
        return readable

    def child_end(self, step: int, result_type: PayloadType[Any]) -> Coroutine[Any, Any, Any]:
        """The awaitable result of the child that request `step` started."""
        self.refuse_if_closed()
        return self._child_end(step, result_type)

    async def _child_end(self, step: int, result_type: PayloadType[Any]) -> Any:
        if self._over is not None:
            await self._refused_for_good()
        end = self._inbox.end_of(step)
        if end is None:
            await self._end_told(step)
            end = self._inbox.end_of(step)
            assert end is not None
        value = self._child_result(end, result_type)
        if self._ending is not None:  # its recorded result does not fit, or can't be had
            await self._go_no_further()
        if isinstance(value, FailedStep):
            raise value.error
        return value

    async def _end_told(self, step: int) -> None:
        future: asyncio.Future[None] = asyncio.Future(loop=self._loop)
        self._awaiting_ends.setdefault(step, []).append(future)
        try:
            await future
        finally:
            waiters = self._awaiting_ends.get(step, [])
            if future in waiters:
                waiters.remove(future)
            if not waiters:
                self._awaiting_ends.pop(step, None)

    async def _go_no_further(self) -> None:
        """The run has ended while its code runs: wait for ever."""
        self._loop.finish()
        await asyncio.Future(loop=self._loop)

    async def _refused_for_good(self) -> None:
        """Raise GeneratorExit, or wait for ever: see `loop.REFUSALS`."""
        self.refuse_if_closed()
        await asyncio.Future(loop=self._loop)

    # DurableScope: what does not wait ----------------------------------------------------------------------

    def emit(self, make: Callable[[int, str], EmitRequest]) -> None:
        """Record something without waiting for it."""
        if self._over is not None:
            self.refuse_if_closed()
        else:
            self._emit(make, call_source())

    def perform_sync(self, call: StepCall) -> Any:
        """Refused: it would block the other tasks."""
        raise UsageError(
            f"step '{call.name}' was called without await in `async def` workflow {self._workflow_id!r}"
            f" ({call_source()}); await it"
        )

    def sleep_sync(self, delay_s: float) -> None:
        """Refused, as all of these."""
        raise UsageError(
            f"`async def` workflow {self._workflow_id!r} slept without await ({call_source()});"
            f" write `await asyncio.sleep({delay_s!r})`"
        )

    def sleep_until_sync(self, due_at: int) -> None:
        """Refused."""
        raise self._blocking("sleep_until_sync", "sleep_until")

    def call_sync(self, make: MakeCall) -> int:
        """Refused."""
        raise self._blocking("a `_sync` call", "its form for `async def` workflows")

    def child_end_sync(self, step: int, result_type: PayloadType[Any]) -> Any:
        """Refused."""
        raise self._blocking("result_sync", "result")

    def receive_sync(self, topic: str, asks: bool, timeout_s: float | None) -> Message:
        """Refused."""
        raise self._blocking("receive_sync", "receive")

    def _blocking(self, called: str, right: str) -> UsageError:
        return UsageError(
            f"`async def` workflow {self._workflow_id!r} called {called} ({call_source()}), which would block it;"
            f" await {right} there"
        )

    # For the loop -----------------------------------------------------------------------------------------

    def start_timer(self, handle: DurableTimer, due_at: int, name: str, source: str) -> int:
        """Ask for a timer that fires `handle`; returns its number, or -1 where the run is over."""
        if self._over is not None:
            self.refuse_if_closed()
            return -1
        step = self._ask_timer(due_at, name, source)
        self._waiting[step] = handle
        return step

    def abandon(self, step: int) -> None:
        """The code waits no longer for operation `step`."""
        if self._over is None and self._waiting.pop(step, None) is not None:
            self._abandon(step)

    def refuse_if_closed(self) -> None:
        """Raise GeneratorExit where the run is over, the first `REFUSALS` times."""
        if self._over is not None:
            self._over.refuse_if_closed()

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
        if self._over is not None and self._ending is None:
            return  # dropped by its owner
        if isinstance(outcome, ANSWERED):
            self._answer(outcome)
        elif isinstance(outcome, Emitted):
            self._match_emitted(outcome)
        else:
            self._take_in(outcome)
            if self._ending is None:
                self._wake_for(outcome)
        if self._ending is not None:
            self._shut()

    def _answer(self, outcome: Answered) -> None:
        """Wake the code that waits for this outcome, if it does."""
        request = self._match(outcome)
        if request is None:
            return
        waiting = self._waiting.pop(outcome.step)
        if isinstance(waiting, DurableTimer):
            self._loop.fire(waiting)
            self._run()
            return
        value = self._value_of(request, outcome)
        if self._ending is None:
            waiting.set_result(value)
            self._run()

    def _wake_for(self, told: Input) -> None:
        """Wake the code that waits for what came, if it does."""
        woken: Sequence[asyncio.Future[None] | None]
        if isinstance(told, WorkflowCancelRequested):
            assert self._main is not None
            self._main.cancel(self._cancel_asked)
            self._run()
            return
        if isinstance(told, ChildCompleted | ChildFailed):
            woken = self._awaiting_ends.get(told.step, ())
        else:
            woken = (self._receiving.get(topic_of(told)),)
        waiting = [future for future in woken if future is not None and not future.done()]
        for future in waiting:
            future.set_result(None)
        if waiting:
            self._run()

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
            if self._ending is not None:
                pass  # a child's recorded result did not fit its type, or a payload could not be had
            elif main.done():
                self._end_done(main)
            elif not self._waiting and not self.waits_for_input:
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
            f"workflow {self._workflow_id!r} waits for something that no step, timer or message will bring:"
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
        if self._over is not None:
            return
        over = self._over = Over(self._now_us)
        self._loop.finish()
        for task in self._loop.open_tasks():
            task.abandon()
            task.run_context.run(_close, task.get_coro())
        self._context.run(self._loop.close_generators)
        self._loop.forget(over)
        self._context = _NOWHERE
        self._waiting.clear()
        self._receiving.clear()
        self._awaiting_ends.clear()
        self._main = None


def _new_loop(workflow_id: str, run: AsyncRun) -> DeterministicLoop:
    # Most of AbstractEventLoop's methods are given to the class after its body, as refusals.
    return DeterministicLoop(workflow_id, run)  # type: ignore[abstract]


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


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
