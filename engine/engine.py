"""The engine: what users hold. A log, a client, and (unless it is only a client) a worker, behind sync and async calls.

There is one implementation and it is asynchronous. `with Engine(...)` runs it on an event loop in a thread of its
own; `async with Engine(...)` runs it on the caller's loop, so that `async def` steps can use what is bound to that
loop. The blocking methods are thin wrappers that wait for their `_async` twins.
"""

import asyncio
import os
import socket
import threading
import uuid
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from typing import Any, Generic, TypeVar, overload

from refold.engine.bound import Bound, Takes0, Takes1, Takes2, Takes3, Takes4
from refold.engine.client import Client, Outcome, check_id, raise_failure
from refold.engine.definitions import Catalogue, Workflow
from refold.engine.guard import GuardMode
from refold.engine.payload import PayloadType, check_size
from refold.engine.reader import WorkflowInfo, read_all, read_history, read_status
from refold.engine.runs import CodeRuns
from refold.engine.scope import current
from refold.engine.thread_slots import ThreadSlots
from refold.engine.worker import Worker, WorkerSettings, wall_clock
from refold.log.errors import EngineClosed, LogError, UsageError
from refold.log.events import Event, Unreadable
from refold.log.protocol import Log
from refold.log.urls import open_log

R = TypeVar("R")
T = TypeVar("T")
A1 = TypeVar("A1")
A2 = TypeVar("A2")
A3 = TypeVar("A3")
A4 = TypeVar("A4")

MAX_WORKFLOW_THREADS = 256
"""Threads for `def` workflows. A parked thread costs about 50 kB; more than these wait for their turn."""


class Handle(Generic[R]):
    """A run, by its id. Made by `Engine.start` and `Engine.handle`; `await handle` gives the result in async code."""

    def __init__(self, engine: "Engine", outcome: Outcome, result_type: PayloadType[R]) -> None:
        self._engine = engine
        self._outcome = outcome
        self._result_type = result_type

    def __repr__(self) -> str:
        return f"<Handle of workflow {self.id!r}>"

    @property
    def id(self) -> str:
        """The run's id."""
        return self._outcome.workflow_id

    def result(self, timeout_s: float | None = None) -> R:
        """Wait for the run's end and return what it returned.

        Args:
            timeout_s: Longest wait in seconds; None waits for ever.

        Raises:
            ResultTimeout: It had not ended in time. It goes on.
            WorkflowParked: It waits for a person.
            WorkflowNotFound: There is no such run.
            Exception: What the workflow raised, as the same type where that can be rebuilt, else `WorkflowError`.
        """
        return self._engine._wait(  # pyright: ignore[reportPrivateUsage]  # one module, one idea
            self.result_async(timeout_s), "result_async()"
        )

    async def result_async(self, timeout_s: float | None = None) -> R:
        """`result` for async code, with a timeout."""
        return await self._engine._run(  # pyright: ignore[reportPrivateUsage]  # one module, one idea
            self._result(timeout_s)
        )

    async def _result(self, timeout_s: float | None) -> R:
        reply = await self._engine._client.wait(  # pyright: ignore[reportPrivateUsage]  # one module, one idea
            self._outcome, timeout_s
        )
        if reply.status != "completed":
            raise_failure(reply)
        return self._result_type.decode(reply.payload or "null")

    def __await__(self) -> Generator[Any, None, R]:
        return self.result_async().__await__()

    def status(self) -> WorkflowInfo:
        """How the run stands, read from the log.

        Raises:
            WorkflowNotFound: There is no such run.
        """
        return self._engine.status(self.id)

    def history(self) -> Sequence[Event | Unreadable]:
        """The run's events, in order.

        Raises:
            WorkflowNotFound: There is no such run.
        """
        return self._engine.history(self.id)


class Engine:
    """Runs durable workflows over a log, and is the client that starts them.

    Args:
        url: Where the log is: `sqlite:///file.db`, `kafka://host:9092/namespace`, `memory://`; or a log object.
        workflows: The workflows to run. All that were declared in this process where not given.
        worker: Whether this process runs workflows; False makes it a client only.
        name: The worker's name in events; host and process id where not given.
        threads: Most `def` steps that run at once.
        guard: What happens when workflow code reaches outside: "raise", "warn" or "off".
        max_payload_bytes: Largest JSON of an input or result.
        start_timeout_s: How long `start` waits for a worker to accept, in seconds.
        drain_s: How long closing waits for steps under way, in seconds.
        clock: Wall clock, microseconds since 1970-01-01 UTC; for tests.

    Raises:
        UsageError: The url is none that refold knows.
        DefinitionError: Two workflows have one name.
    """

    def __init__(  # noqa: PLR0913 - each a keyword with a default
        self,
        url: str | Log,
        *,
        workflows: Iterable[Workflow[..., Any]] | None = None,
        worker: bool = True,
        name: str | None = None,
        threads: int = 32,
        guard: GuardMode = "raise",
        max_payload_bytes: int = 900_000,
        start_timeout_s: float = 30.0,
        drain_s: float = 10.0,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        self._log = open_log(url) if isinstance(url, str) else url
        catalogue = Catalogue.declared() if workflows is None else Catalogue.of(workflows)
        self._workflows = catalogue
        self._settings = WorkerSettings(
            name=name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
            threads=threads,
            max_payload_bytes=max_payload_bytes,
            drain_s=drain_s,
        )
        self._guard: GuardMode = guard
        self._slots = ThreadSlots(MAX_WORKFLOW_THREADS)
        self._start_timeout_s = start_timeout_s
        self._clock = clock
        self._with_worker = worker
        self._client = Client(self._log, clock)
        self._worker: Worker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # Opening and closing ----------------------------------------------------------------------------------

    def __enter__(self) -> "Engine":
        self._refuse_reopening()
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="refold-engine", daemon=True)
        thread.start()
        self._thread = thread
        try:
            asyncio.run_coroutine_threadsafe(self._open(), loop).result()
        except BaseException:
            self._end_thread(loop, thread)
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._thread = None  # a second close finds nothing to do
        try:
            asyncio.run_coroutine_threadsafe(self._close(), loop).result()
        finally:
            self._end_thread(loop, thread)

    async def __aenter__(self) -> "Engine":
        self._refuse_reopening()
        await self._open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._close()

    def _refuse_reopening(self) -> None:
        if self._loop is not None:
            raise UsageError(
                "this engine has been opened already: make a new Engine for the same log"
            )

    async def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await self._log.open()
            await self._client.open()
            if self._with_worker:
                self._worker = self._make_worker()
                await self._worker.start()
        except BaseException:
            await self._log.close()
            raise

    def _make_worker(self) -> Worker:
        runs = CodeRuns(self._workflows, self._guard, self._slots)
        return Worker(
            self._log,
            runs,
            self._settings,
            answer_locally=self._client.take,
            halted=self._client.halted,
            clock=self._clock,
        )

    async def _close(self) -> None:
        self._client.close()
        try:
            if self._worker is not None:
                await self._worker.stop()
        finally:
            self._slots.close()
            await self._log.close()

    def _end_thread(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        async def end_tasks() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await loop.shutdown_asyncgens()

        asyncio.run_coroutine_threadsafe(end_tasks(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    # Starting ---------------------------------------------------------------------------------------------

    @overload
    def start(
        self, workflow: Bound[R], /, *, id: str | None = None, confirm: bool = True
    ) -> Handle[R]: ...
    @overload
    def start(
        self, workflow: Takes0[R], /, *, id: str | None = None, confirm: bool = True
    ) -> Handle[R]: ...
    @overload
    def start(
        self, workflow: Takes1[A1, R], a1: A1, /, *, id: str | None = None, confirm: bool = True
    ) -> Handle[R]: ...
    @overload
    def start(
        self,
        workflow: Takes2[A1, A2, R],
        a1: A1,
        a2: A2,
        /,
        *,
        id: str | None = None,
        confirm: bool = True,
    ) -> Handle[R]: ...
    @overload
    def start(
        self,
        workflow: Takes3[A1, A2, A3, R],
        a1: A1,
        a2: A2,
        a3: A3,
        /,
        *,
        id: str | None = None,
        confirm: bool = True,
    ) -> Handle[R]: ...
    @overload
    def start(
        self,
        workflow: Takes4[A1, A2, A3, A4, R],
        a1: A1,
        a2: A2,
        a3: A3,
        a4: A4,
        /,
        *,
        id: str | None = None,
        confirm: bool = True,
    ) -> Handle[R]: ...
    def start(
        self,
        workflow: Any,  # the overloads say what it is
        /,
        *args: object,
        id: str | None = None,
        confirm: bool = True,
    ) -> Handle[Any]:
        """Start a run; the same start again gets the run that there is.

        Args:
            workflow: A workflow, followed by its positional arguments; or `workflow.bind(...)` with its input.
            args: The workflow's arguments.
            id: The run's id: there is exactly one run of an id, for ever. Generated where not given.
            confirm: Wait until a worker has accepted the start. Without it, this returns when the command is
                durable, and a refusal is heard from `result`.

        Returns:
            The run's handle.

        Raises:
            PayloadError: The input has no JSON form or does not fit the parameters. Nothing was written.
            UsageError: The id can't be used, or this is called from workflow code or from a step.
            WorkflowConflict: The id belongs to a run with another workflow or input.
            UnknownWorkflow: The worker has no such workflow.
            ResultTimeout: No worker answered within `start_timeout_s`. The command is durable all the same.
        """
        bound = self._bind(workflow, args)
        return self._wait(self._start(bound, id, confirm), "start_async()")

    @overload
    async def start_async(
        self, workflow: Bound[R], /, *, id: str | None = None, confirm: bool = True
    ) -> Handle[R]: ...
    @overload
    async def start_async(
        self, workflow: Takes0[R], /, *, id: str | None = None, confirm: bool = True
    ) -> Handle[R]: ...
    @overload
    async def start_async(
        self, workflow: Takes1[A1, R], a1: A1, /, *, id: str | None = None, confirm: bool = True
    ) -> Handle[R]: ...
    @overload
    async def start_async(
        self,
        workflow: Takes2[A1, A2, R],
        a1: A1,
        a2: A2,
        /,
        *,
        id: str | None = None,
        confirm: bool = True,
    ) -> Handle[R]: ...
    @overload
    async def start_async(
        self,
        workflow: Takes3[A1, A2, A3, R],
        a1: A1,
        a2: A2,
        a3: A3,
        /,
        *,
        id: str | None = None,
        confirm: bool = True,
    ) -> Handle[R]: ...
    @overload
    async def start_async(
        self,
        workflow: Takes4[A1, A2, A3, A4, R],
        a1: A1,
        a2: A2,
        a3: A3,
        a4: A4,
        /,
        *,
        id: str | None = None,
        confirm: bool = True,
    ) -> Handle[R]: ...
    async def start_async(
        self,
        workflow: Any,  # the overloads say what it is
        /,
        *args: object,
        id: str | None = None,
        confirm: bool = True,
    ) -> Handle[Any]:
        """`start` for async code."""
        return await self._run(self._start(self._bind(workflow, args), id, confirm))

    def _bind(
        self, workflow: Bound[Any] | Workflow[..., Any], args: tuple[object, ...]
    ) -> Bound[Any]:
        """Check the input before anything is written."""
        if isinstance(workflow, Bound):
            bound = workflow
        # Not every caller has a type checker.
        elif isinstance(workflow, Workflow):  # pyright: ignore[reportUnnecessaryIsInstance]
            bound = workflow.bind(*args)
        else:
            raise UsageError(
                f"{workflow!r} is no workflow: decorate the function with @workflow, then start that"
            )
        check_size(
            bound.payload,
            self._settings.max_payload_bytes,
            f"input of workflow '{bound.workflow.name}'",
        )
        return bound

    async def _start(self, bound: Bound[R], workflow_id: str | None, confirm: bool) -> Handle[R]:
        workflow = bound.workflow
        if self._with_worker:
            self._workflows.add(workflow)
        outcome = await self._client.start(
            workflow.name,
            bound.payload,
            workflow_id if workflow_id is not None else f"{workflow.name}-{uuid.uuid4().hex}",
            timeout_s=self._start_timeout_s,
            confirm=confirm,
        )
        return Handle(self, outcome, bound.result_type)

    # Asking -----------------------------------------------------------------------------------------------

    @overload
    def handle(self, id: str, /) -> Handle[Any]: ...
    @overload
    def handle(self, id: str, workflow: Workflow[..., R], /) -> Handle[R]: ...
    def handle(self, id: str, workflow: Workflow[..., Any] | None = None, /) -> Handle[Any]:
        """The handle of a run that exists, from whatever process it was started.

        Args:
            id: The run's id.
            workflow: Its workflow, for the result's type; plain JSON values come back where not given.

        Raises:
            UsageError: The id can't be one.
        """
        check_id(id)
        result_type = _ANY if workflow is None else workflow.result_type
        return Handle(self, self._client.outcome(id), result_type)

    def status(self, id: str) -> WorkflowInfo:
        """How a run stands, read from the log.

        Raises:
            WorkflowNotFound: There is no such run.
        """
        return self._wait(self.status_async(id), "status_async()")

    async def status_async(self, id: str) -> WorkflowInfo:
        """`status` for async code."""
        return await self._run(read_status(self._log, id))

    def history(self, id: str) -> Sequence[Event | Unreadable]:
        """A run's events, in order.

        Raises:
            WorkflowNotFound: There is no such run.
        """
        return self._wait(self.history_async(id), "history_async()")

    async def history_async(self, id: str) -> Sequence[Event | Unreadable]:
        """`history` for async code."""
        return await self._run(read_history(self._log, id))

    def list(self) -> Sequence[WorkflowInfo]:
        """All runs, the latest started first. Reads the whole log."""
        return self._wait(self.list_async(), "list_async()")

    async def list_async(self) -> Sequence[WorkflowInfo]:
        """`list` for async code."""
        return await self._run(read_all(self._log))

    def resume(self, id: str, *, reason: str | None = None) -> None:
        """Let a parked run go on, after its cause has been mended.

        Args:
            id: The run.
            reason: Why, for the audit.

        Raises:
            CommandRefused: It is not parked, or its history can't be followed.
            WorkflowNotFound: There is no such run.
            ResultTimeout: No worker answered within `start_timeout_s`.
        """
        self._wait(self.resume_async(id, reason=reason), "resume_async()")

    async def resume_async(self, id: str, *, reason: str | None = None) -> None:
        """`resume` for async code."""
        await self._run(self._client.resume(id, reason, self._start_timeout_s))

    @property
    def worker_name(self) -> str:
        """The worker's name in events."""
        return self._settings.name

    @property
    def owned_partitions(self) -> Sequence[int]:
        """Partitions that this process's worker owns now, in order."""
        return self._worker.owned if self._worker is not None else []

    @property
    def halted_partitions(self) -> "dict[int, LogError]":
        """Partitions that this process's worker could not go on with (corrupt log), each with the reason."""
        return self._worker.halted if self._worker is not None else {}

    # One path for blocking and async callers --------------------------------------------------------------

    def _opened(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None or loop.is_closed():
            raise EngineClosed(
                "the engine is not open: use it inside `with Engine(...)` or `async with`"
            )
        scope = current()
        if scope is not None:
            raise UsageError(
                f"an engine was used inside workflow {scope.workflow_id!r}: workflow code and steps can't "
                "start or ask for runs; return what is needed, and do it outside"
            )
        return loop

    def _wait(self, work: Coroutine[Any, Any, T], instead: str) -> T:
        """Run `work` on the engine's loop from another thread, and wait."""
        try:
            loop = self._opened()
        except BaseException:
            work.close()
            raise
        if _running_loop() is loop:
            work.close()
            raise UsageError(
                f"this call would block the engine's own event loop: await {instead} there"
            )
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the engine's loop from any loop."""
        try:
            loop = self._opened()
        except BaseException:
            work.close()
            raise
        if _running_loop() is loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


_ANY: PayloadType[Any] = PayloadType.of(Any, "result of a workflow")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
