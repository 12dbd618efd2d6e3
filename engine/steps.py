"""Carrying out steps: `async def` on the worker's event loop, `def` in a bounded pool of threads.

An attempt ends in exactly one report to the owner, or in none where it was cancelled. A thread can't be stopped from
outside: a `def` step that times out or is cancelled sees `step_context().cancelled`, and what it still does or
returns is dropped; it keeps its thread until it comes back.

Attempts of `async def` steps begin in one task, one after the other, and those that end without having waited for
anything are all that it takes: a task for each would cost as much as the step's record. The first that waits keeps
that task as its own, to its end, and the next begins in a new one. So whatever holds on to the current task of a step
that waits (a timeout, a cancel scope, a watchdog) holds a task in which no other step will ever be. Each attempt has a
context of its own in any case.

Between a launch and the first instruction of the step lie the pool's queue and the event loop's. So the attempt itself
looks, as it begins, whether it is still wanted and whether the worker still knows that the partition is its own
(`engine/proof.py`); where not, it is handed back not begun.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future
from contextvars import Context, copy_context
from datetime import UTC, datetime
from typing import Any, Final

from refold.engine.active import Items
from refold.engine.effects import AttemptFailed, Launch, StepResult, Succeeded
from refold.engine.failures import capture
from refold.engine.payload import check_size
from refold.engine.room import Queue, Room
from refold.engine.scope import StepContext, enter_step
from refold.log.errors import DefinitionError, StepTimeout

MICROSECONDS: Final = 1_000_000
AT_ONCE: Final = 100
"""Attempts that begin in one turn of the event loop: about 5 ms, after which what they came to can go to the log."""
MAX_ITEM_BYTES = 100_000
"""Largest JSON of one item of a stream: several go out together, and a record has room for about a megabyte."""
MAX_BATCH_BYTES = 400_000
"""Items that one step wrote to one stream go out together up to this size."""

Report = Callable[[Launch, StepResult], None]
Wrote = Callable[[Launch, Items], None]
HandBack = Callable[[Launch], None]


class _Attempt:
    """One attempt under way."""

    __slots__ = ("begun", "context", "launch", "over", "started_at", "task", "timer")

    def __init__(self, launch: Launch, context: StepContext, started_at: int) -> None:
        self.launch = launch
        self.context = context
        self.started_at = started_at
        self.begun = False  # written on the thread that it runs on
        self.over = False  # reported or cancelled: nothing more is heard of it
        self.task: asyncio.Task[Any] | None = None  # its own, once it has waited for something
        self.timer: asyncio.TimerHandle | None = None


class _InContext:
    """Awaited, it runs the code of an attempt in a context of its own.

    Args:
        attempt: The attempt.
        waits: Told once, when it first waits for something.
    """

    __slots__ = ("_attempt", "_waits")

    def __init__(self, attempt: _Attempt, waits: Callable[[_Attempt], None]) -> None:
        self._attempt = attempt
        self._waits = waits

    def __await__(self) -> Generator[Any, Any, Any]:
        attempt = self._attempt
        context = copy_context()
        context.run(enter_step, attempt.context)
        code: Any = context.run(attempt.launch.call.call)
        if not asyncio.iscoroutine(code):
            code = code.__await__()
        try:
            awaited = context.run(code.send, None)
        except StopIteration as end:
            return end.value
        self._waits(attempt)
        return (yield from _going_on(code, context, awaited))


def _going_on(code: Any, context: Context, awaited: Any) -> Generator[Any, Any, Any]:
    """What `yield from code` does (PEP 380), but in a context of its own."""
    try:
        while True:
            try:
                told = yield awaited
            except GeneratorExit:
                context.run(code.close)
                raise
            except BaseException as error:  # noqa: BLE001 - a cancellation, mostly
                awaited = context.run(code.throw, error)
            else:
                awaited = context.run(code.send, told)
    except StopIteration as end:
        return end.value


class Steps:
    """The steps under way for one owner.

    Args:
        report: Told of each result, on the event loop's thread.
        wrote: Told of what steps write to streams, in order, on the event loop's thread.
        hand_back: Told of each launch that was not begun, because `may_begin` said no; it may be launched again.
        may_begin: Whether steps may begin now. Asked on the thread that the step would run on.
        pool: Runs `def` steps; shared by all owners of a worker.
        room: For how many steps there is room; shared likewise.
        clock: Wall clock, microseconds since 1970-01-01 UTC.
        namespace: Part of the idempotency keys, so that two namespaces never share one.
        max_payload_bytes: Largest JSON of a result.
    """

    def __init__(  # noqa: PLR0913 - whom to tell of what, and limits
        self,
        report: Report,
        hand_back: HandBack,
        wrote: Wrote,
        *,
        may_begin: Callable[[], bool],
        pool: Executor,
        room: Room,
        clock: Callable[[], int],
        namespace: str,
        max_payload_bytes: int,
    ) -> None:
        self._report = report
        self._hand_back = hand_back
        self._wrote = wrote
        self._may_begin = may_begin
        self._pool = pool
        self._room = room
        self._outside: Queue[tuple[str, int], Launch] = Queue(room)
        self._no_room_news = room.wake_with(self._let_in)
        self._clock = clock
        self._namespace = namespace
        self._max_payload_bytes = max_payload_bytes
        self._loop = asyncio.get_running_loop()
        self._running: dict[tuple[str, int], _Attempt] = {}
        self._to_begin: deque[Launch] = deque()  # of `async def` steps
        self._beginner: asyncio.Task[None] | None = None  # begins them
        self._finished: list[tuple[_Attempt, StepResult | None]] = []  # filled by the threads
        self._written: deque[tuple[StepContext, str, str, int]] = deque()  # stream, item, its bytes
        self._ended = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._running) + len(self._to_begin)

    def launch(self, launch: Launch) -> None:
        """Begin an attempt, as soon as there is room for it."""
        if self._room.is_full():
            self._outside.add((launch.workflow_id, launch.step), launch)
        else:
            self._begin(launch)

    def _let_in(self) -> None:
        while self._outside and not self._room.is_full():
            self._begin(self._outside.next())

    def _begin(self, launch: Launch) -> None:
        self._room.enter()
        self._idle.clear()
        if launch.call.is_async:
            self._to_begin.append(launch)
            if self._beginner is None:
                self._begin_others()
            return
        attempt, limit_s = self._attempt(launch)
        if limit_s is not None:
            attempt.timer = self._loop.call_later(limit_s, self._time_out, attempt)
        future = self._pool.submit(copy_context().run, self._run, attempt)
        future.add_done_callback(self._from_thread)

    def _attempt(self, launch: Launch) -> tuple[_Attempt, float | None]:
        """An attempt that begins now, and how long it may take in seconds."""
        now = self._clock()
        limit_s = _time_left_s(launch, now)
        deadline = None
        if limit_s is not None:
            deadline = datetime.fromtimestamp(now / MICROSECONDS + limit_s, UTC)
        context = StepContext(
            workflow_id=launch.workflow_id,
            step=launch.step,
            attempt=launch.attempt,
            deadline=deadline,
            namespace=self._namespace,
            write=self._write,
        )
        attempt = _Attempt(launch, context, now)
        self._running[launch.workflow_id, launch.step] = attempt
        return attempt, limit_s

    def cancel(self, workflow_id: str, step: int) -> None:
        """End an attempt that nobody waits for; its result is dropped."""
        self._outside.drop((workflow_id, step))
        attempt = self._running.get((workflow_id, step))
        if attempt is None:
            self._forget(
                [q for q in self._to_begin if (q.workflow_id, q.step) == (workflow_id, step)]
            )
        else:
            self._finish(attempt)
            attempt.context.cancel()
            if attempt.task is not None:
                attempt.task.cancel()

    def cancel_all(self) -> None:
        """End all attempts, and hear nothing more of any; their results are dropped."""
        self._outside.clear()
        self._forget(list(self._to_begin))
        self._no_room_news()
        for workflow_id, step in list(self._running):
            self.cancel(workflow_id, step)

    def under_way(self) -> list[Launch]:
        """The attempts that have begun, or are about to, and have not been reported."""
        return [attempt.launch for attempt in self._running.values() if attempt.begun]

    def cancel_queued(self) -> None:
        """Forget the attempts that have not begun."""
        self._outside.clear()
        self._forget(list(self._to_begin))
        for (workflow_id, step), attempt in list(self._running.items()):
            if not attempt.begun:
                self.cancel(workflow_id, step)

    def _forget(self, launches: list[Launch]) -> None:
        """Do not begin these."""
        for launch in launches:
            self._to_begin.remove(launch)
            self._leave()

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no step is under way; returns whether that came within the time."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def wait_less(self, timeout_s: float) -> bool:
        """Wait until an attempt has ended, or the time is over; returns whether none is under way any more."""
        self._ended.clear()
        if len(self):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), timeout_s)
        return not len(self)

    # On the event loop ------------------------------------------------------------------------------------

    def _begin_others(self) -> None:
        """Have the attempts that are to begin begun by a task that is not this one."""
        self._beginner = self._loop.create_task(self._begin_each()) if self._to_begin else None

    async def _begin_each(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        try:
            for _ in range(min(AT_ONCE, len(self._to_begin))):
                launch = self._to_begin.popleft()
                if not self._may_begin():
                    self._leave()
                    self._hand_back(launch)
                    continue
                attempt, limit_s = self._attempt(launch)
                await self._run_async(attempt, limit_s)
                if attempt.task is me or me.cancelling():  # it is nobody else's any more
                    return
        finally:
            if self._beginner is me:
                self._begin_others()

    def _waits(self, attempt: _Attempt) -> None:
        """An attempt waits for something, for the first time: the task is its own."""
        attempt.task = asyncio.current_task()
        self._begin_others()

    async def _run_async(self, attempt: _Attempt, limit_s: float | None) -> None:
        attempt.begun = True
        timeout: asyncio.Timeout | None = None
        result: StepResult
        try:
            if limit_s is None:
                value = await _InContext(attempt, self._waits)
            else:
                async with asyncio.timeout(limit_s) as timeout:
                    value = await _InContext(attempt, self._waits)
            result = self._succeeded(attempt, value)
        except asyncio.CancelledError as error:
            if attempt.over:
                raise  # cancelled by us
            result = self._failed(attempt, error)
        except Exception as error:  # noqa: BLE001 - whatever a step raises is its recorded outcome
            if timeout is not None and timeout.expired() and isinstance(error, TimeoutError):
                error = _timeout_error(attempt.launch, limit_s)
            result = self._failed(attempt, error)
        self._end(attempt, result)

    def _time_out(self, attempt: _Attempt) -> None:
        self._flush()
        if attempt.over:
            return
        self._finish(attempt)
        attempt.context.cancel()
        limit_s = _time_left_s(attempt.launch, attempt.started_at)
        result = self._failed(attempt, _timeout_error(attempt.launch, limit_s))
        self._report(attempt.launch, result)

    def _collect(self) -> None:
        """Report what the threads have finished since the last time."""
        finished, self._finished = self._finished, []
        for attempt, result in finished:
            self._end(attempt, result)

    def _end(self, attempt: _Attempt, result: StepResult | None) -> None:
        """Report an attempt, or hand its launch back where it was not begun (None)."""
        if self._written:
            self._flush()  # what it wrote comes before its end
        if attempt.over:
            return
        self._finish(attempt)
        if result is None:
            self._hand_back(attempt.launch)
        else:
            self._report(attempt.launch, result)

    def _finish(self, attempt: _Attempt) -> None:
        attempt.over = True
        if attempt.timer is not None:
            attempt.timer.cancel()
        self._running.pop((attempt.launch.workflow_id, attempt.launch.step), None)
        self._leave()

    def _leave(self) -> None:
        """One attempt less is under way, or to begin."""
        self._room.leave()
        self._ended.set()
        if not self._running and not self._to_begin:
            self._idle.set()

    def _flush(self) -> None:
        """Report what steps have written since the last time, what one wrote to one stream together."""
        written = self._written
        batch: list[str] = []
        size = 0
        last: tuple[StepContext, str] | None = None
        while written:
            context, stream, item, item_bytes = written.popleft()
            same = last is not None and last[0] is context and last[1] == stream
            if last is not None and (not same or size + item_bytes > MAX_BATCH_BYTES):
                self._report_items(*last, batch)
                batch, size = [], 0
            last = context, stream
            batch.append(item)
            size += item_bytes
        if last is not None:
            self._report_items(*last, batch)

    def _report_items(self, context: StepContext, stream: str, items: list[str]) -> None:
        attempt = self._running.get((context.workflow_id, context.step))
        if attempt is not None and attempt.context is context:  # else it was cancelled or timed out
            self._wrote(attempt.launch, Items(stream, "[" + ",".join(items) + "]", len(items)))

    # On a thread of the pool ------------------------------------------------------------------------------

    def _run(self, attempt: _Attempt) -> tuple[_Attempt, StepResult | None]:
        attempt.begun = True  # before the look: who asks for what is under way misses none
        if attempt.over or not self._may_begin():
            return attempt, None
        enter_step(attempt.context)
        try:
            return attempt, self._succeeded(attempt, attempt.launch.call.call())
        except BaseException as error:  # noqa: BLE001 - also SystemExit: it must not end a pool's thread
            return attempt, self._failed(attempt, error)

    def _from_thread(self, future: Future[tuple[_Attempt, StepResult | None]]) -> None:
        if future.cancelled():
            return
        self._finished.append(future.result())
        if len(self._finished) == 1:  # else a wake-up is on its way that will find this one too
            # RuntimeError: the loop was closed, the worker is gone, and the step will run again elsewhere
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._collect)

    # On either --------------------------------------------------------------------------------------------

    def _write(self, context: StepContext, stream: str, item: str) -> None:
        check_size(item, MAX_ITEM_BYTES, f"item of stream '{stream}'")
        item_bytes = len(item) if item.isascii() else len(item.encode())
        self._written.append((context, stream, item, item_bytes))
        if len(self._written) == 1:  # else a wake-up is on its way that will find this one too
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._flush)

    def _succeeded(self, attempt: _Attempt, value: object) -> StepResult:
        call = attempt.launch.call
        if hasattr(value.__class__, "__await__"):
            if asyncio.iscoroutine(value):
                value.close()
            raise DefinitionError(
                f"step '{call.name}' of workflow {attempt.launch.workflow_id!r} returned something to "
                "await: make the step `async def`, or await it inside the step"
            )
        payload = call.result_type.encode(value)
        if len(payload) * 4 > self._max_payload_bytes:  # nearly never: spare the text
            check_size(payload, self._max_payload_bytes, f"result of step '{call.name}'")
        return Succeeded(payload, attempt.started_at)

    def _failed(self, attempt: _Attempt, error: BaseException) -> StepResult:
        retry = attempt.launch.call.options.retry
        return AttemptFailed(
            capture(error), retry is not None and retry.retries(error), attempt.started_at
        )


def _time_left_s(launch: Launch, now: int) -> float | None:
    """Seconds that an attempt may take from `now`: the nearer of its own limit and the step's."""
    options = launch.call.options
    if options.total_timeout_s is None:
        return options.timeout_s
    first = launch.first_started_at or now
    total_s = max(0.0, options.total_timeout_s - (now - first) / MICROSECONDS)
    return total_s if options.timeout_s is None else min(total_s, options.timeout_s)


def _timeout_error(launch: Launch, limit_s: float | None) -> StepTimeout:
    return StepTimeout(
        f"step {launch.step} '{launch.call.name}' of workflow {launch.workflow_id!r}: attempt "
        f"{launch.attempt} took longer than {limit_s:g} s"
    )
