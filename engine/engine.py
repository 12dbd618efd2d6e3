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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, overload

from refold.engine.access import Access
from refold.engine.blobs import DEFAULT_THRESHOLD_BYTES, Blobs
from refold.engine.bridge import Bridge
from refold.engine.bulk import BulkOrders
from refold.engine.checkpoints import CheckpointSettings
from refold.engine.client import Client
from refold.engine.definitions import Catalogue, Workflow
from refold.engine.erasing import Erased, erase
from refold.engine.followers import Followers
from refold.engine.guard import GuardMode, check_mode
from refold.engine.handle import Handle
from refold.engine.names import check_id
from refold.engine.operator import Operator
from refold.engine.payload import PayloadType
from refold.engine.pool_steps import declared, steps_of
from refold.engine.pool_worker import PoolSettings, PoolWorker
from refold.engine.pools import DEFAULT_LEASE_S, check_lease
from refold.engine.queueing import Queueing
from refold.engine.reader import WorkflowInfo, read_all, read_history, read_status
from refold.engine.room import Room
from refold.engine.runs import CodeRuns
from refold.engine.scheduling import Schedules
from refold.engine.selection import Runs
from refold.engine.starts import Starts
from refold.engine.stats import Stats, Tally, stats_of
from refold.engine.thread_slots import ThreadSlots
from refold.engine.worker import Worker, WorkerSettings, check_seconds, wall_clock
from refold.log.commands import Reply
from refold.log.errors import LogError, UsageError
from refold.log.events import Event, Unreadable
from refold.log.follower import Follower
from refold.log.keys import KeyProvider, PayloadKeys
from refold.log.protocol import Log
from refold.log.urls import open_log

R = TypeVar("R")


class Engine(Starts, Schedules, BulkOrders, Queueing):
    """Runs durable workflows over a log, and is the client that starts them.

    Args:
        url: Where the log is: `sqlite:///file.db`, `kafka://host:9092/namespace`, `memory://`; or a log object.
        workflows: The workflows to run. All that were declared in this process where not given.
        worker: Whether this process runs workflows; False makes it a client only.
        name: The worker's name in events; host and process id where not given.
        threads: Most `def` steps that run at once.
        guard: What happens when workflow code reaches outside: "raise", "warn" or "off".
        max_payload_bytes: Largest JSON of an input, result, message or question; 64 MB where not given, or 900,000
            bytes on a log without a blob store.
        blob_threshold_bytes: A payload whose JSON is longer is kept in the log's blob store, with its SHA-256 in the
            log (docs/large-payloads.md).
        start_timeout_s: How long starts, messages and orders wait for a worker to accept, in seconds.
        drain_s: How long closing waits for steps under way, in seconds.
        max_steps: Most steps that run at once, `async def` ones as well; None for any number.
        max_runs: Most runs whose code is in memory at once; further ones wait, recorded and not lost. None for any.
        max_memory_bytes: Memory of this process above which no further run is taken into it; None for any.
        checkpoints: When the state of open runs is written into the log, so that a recovery need not read all of it,
            and for how long the ids of runs that have ended are known.
        pools: Names of the pools whose steps this process carries out, for all workers' runs (docs/pools.md): all steps
            that it has declared for them, at most `threads` at once; and whose workflows it runs, where the namespace
            was made with partitions for them. Goes with `worker=False` as well.
        pool_lease_s: How long a pool's worker may go on with a step of this worker's runs without a word, in seconds,
            before the step is given to another; 4 at least. And twice the time between two offers of `pools`.
        keys: With what payloads are encrypted (docs/privacy.md), in place of what the log's URL or `REFOLD_KEYS`
            names: a URL, a key provider, or `PayloadKeys` to say what is encrypted.
        projections: What follows the log in this process, such as `Projected(Revenue())` (docs/projections.md).
        requested_by: Who gives orders by this engine, for the audit; the operating system's user and machine, as in
            anna@desk-3, where not given.
        clock: Wall clock, microseconds since 1970-01-01 UTC; for tests.

    Raises:
        UsageError: The url is none that refold knows, a limit can't be, or two projections have one name.
        DefinitionError: Two workflows have one name, or a pool has no step here.
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
        max_payload_bytes: int | None = None,
        blob_threshold_bytes: int = DEFAULT_THRESHOLD_BYTES,
        start_timeout_s: float = 30.0,
        drain_s: float = 10.0,
        max_steps: int | None = None,
        max_runs: int | None = 20_000,
        max_memory_bytes: int | None = None,
        checkpoints: CheckpointSettings | None = None,
        pools: Iterable[str] = (),
        pool_lease_s: float = DEFAULT_LEASE_S,
        keys: str | KeyProvider | PayloadKeys | None = None,
        projections: Iterable[Follower] = (),
        requested_by: str | None = None,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        check_seconds("start_timeout_s", start_timeout_s)
        if name is not None and not name:
            raise UsageError(f"name={name!r} can't name a worker: give a text, or leave it out")
        if not isinstance(url, str) and not hasattr(url, "append"):
            raise UsageError(f"{url!r} is no log: give a URL as in sqlite:///refold.db, or a Log")
        self._log = open_log(url) if isinstance(url, str) else url
        catalogue = Catalogue.declared() if workflows is None else Catalogue.of(workflows)
        self._workflows = catalogue
        self._blobs = Blobs.of(
            self._log,
            keys,
            threshold_bytes=blob_threshold_bytes,
            max_payload_bytes=max_payload_bytes,
        )
        self._settings = WorkerSettings(
            name=name or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
            threads=threads,
            max_payload_bytes=self._blobs.max_payload_bytes,
            drain_s=drain_s,
            max_steps=max_steps,
            max_runs=max_runs,
            max_memory_bytes=max_memory_bytes,
            checkpoints=checkpoints or CheckpointSettings(),
            pool_lease_s=check_lease(pool_lease_s),
        )
        self._pools = tuple(dict.fromkeys(pools))
        of_workflows = {definition.pool for definition in catalogue.definitions()}
        self._pool_steps = steps_of(self._pools, declared(), of_workflows)
        self._guard: GuardMode = check_mode(guard)
        self._slots = ThreadSlots()
        self._clock = clock
        self._with_worker = worker
        self._registered = catalogue if worker else None
        self._bridge = Bridge()
        self._client = Client(self._log, clock, requested_by=requested_by, blobs=self._blobs)
        operator = Operator(self._client, start_timeout_s)
        self._access = Access(
            self._bridge,
            self._client,
            operator,
            self._blobs.max_payload_bytes,
            start_timeout_s,
        )
        self._worker: Worker | None = None
        self._pool_worker: PoolWorker | None = None
        self._followers = Followers(projections)
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
        loop, thread = self._bridge.loop, self._thread
        if loop is None or thread is None or self._bridge.forked:
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

    def __reduce__(self) -> str:
        raise UsageError(
            "an Engine can't be sent to another process: open one there, for the same log"
        )

    def _refuse_reopening(self) -> None:
        if self._bridge.loop is not None:
            raise UsageError(
                "this engine has been opened already: make a new Engine for the same log"
            )

    async def _open(self) -> None:
        self._bridge.open()
        try:
            await self._log.open()
            await self._client.open()
            serves = self._served()
            if serves:
                self._worker = self._make_worker(serves)
                await self._worker.start()
            if self._pool_steps:
                self._pool_worker = self._make_pool_worker()
                await self._pool_worker.start()
            self._followers.start(self._log)
        except BaseException:
            await self._close()
            raise

    def _served(self) -> tuple[str | None, ...]:
        """The groups of partitions that this process takes a share of: None is the common ones."""
        layout = self._log.layout
        common = (None,) if self._with_worker else ()
        with_steps = {step.pool for step in self._pool_steps}
        for pool in self._pools:
            if not self._with_worker and not layout.of(pool) and pool not in with_steps:
                raise UsageError(
                    f"there is nothing to do here for pool {pool!r}: it has no step, and {self._log.namespace!r} was"
                    " made without partitions for its workflows, which therefore run in any worker. See docs/pools.md"
                )
        return (*common, *(pool for pool in self._pools if layout.of(pool)))

    def _make_worker(self, serves: tuple[str | None, ...]) -> Worker:
        runs = CodeRuns(self._workflows, self._guard, self._slots, self._blobs)
        return Worker(
            self._log,
            runs,
            replace(self._settings, serves=serves),
            answer_locally=self._take,
            halted=self._client.halted,
            clock=self._clock,
            blobs=self._blobs,
        )

    def _take(self, client_id: str, reply: Reply) -> bool:
        """Offer a reply of this process's worker to whom it may be for, if that is here."""
        pool_worker = self._pool_worker
        return self._client.take(client_id, reply) or (
            pool_worker is not None and pool_worker.take(client_id, reply)
        )

    def _make_pool_worker(self) -> PoolWorker:
        settings = PoolSettings(
            slots=self._settings.threads,
            drain_s=self._settings.drain_s,
            offer_every_s=self._settings.pool_lease_s / 2,
        )
        return PoolWorker(
            self._log, self._pool_steps, settings, clock=self._clock, blobs=self._blobs
        )

    async def _close(self) -> None:
        self._client.close()
        try:
            if self._pool_worker is not None:
                await self._pool_worker.stop()
            if self._worker is not None:
                await self._worker.stop()
        finally:
            await self._followers.stop()
            self._slots.close()
            await self._log.close()

    def _end_thread(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        async def end_tasks() -> None:
            self._bridge.ending = True
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await loop.shutdown_asyncgens()

        asyncio.run_coroutine_threadsafe(end_tasks(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

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
        return Handle(self._access, self._client.outcome(id), result_type)

    def status(self, id: str) -> WorkflowInfo:
        """How a run stands, read from the log.

        Raises:
            WorkflowNotFound: There is no such run.
        """
        return self._bridge.wait(self.status_async(id), "status_async()")

    async def status_async(self, id: str) -> WorkflowInfo:
        """`status` for async code."""
        check_id(id)
        return await self._bridge.run(read_status(self._log, id))

    def history(self, id: str) -> Sequence[Event | Unreadable]:
        """A run's events, in order.

        Raises:
            WorkflowNotFound: There is no such run.
        """
        return self._bridge.wait(self.history_async(id), "history_async()")

    async def history_async(self, id: str) -> Sequence[Event | Unreadable]:
        """`history` for async code."""
        check_id(id)
        return await self._bridge.run(read_history(self._log, id))

    def list(self, where: Runs | None = None) -> Sequence[WorkflowInfo]:
        """Runs, the latest started first. Reads the whole log.

        Args:
            where: Which; all where not given.
        """
        return self._bridge.wait(self.list_async(where), "list_async()")

    async def list_async(self, where: Runs | None = None) -> Sequence[WorkflowInfo]:
        """`list` for async code."""
        infos = await self._bridge.run(read_all(self._log))
        return infos if where is None else where.among(infos)

    def resume(self, id: str, *, reason: str | None = None) -> None:
        """Let a run go on that is parked or paused, or has failed: as `Handle.resume`.

        Args:
            id: The run.
            reason: Why, for the audit.
        """
        self._bridge.wait(self.resume_async(id, reason=reason), "resume_async()")

    async def resume_async(self, id: str, *, reason: str | None = None) -> None:
        """`resume` for async code."""
        await self._bridge.run(self._access.operator.resume(id, reason))

    def erase(
        self,
        subject: str | None = None,
        *,
        workflow_id: str | None = None,
        why: str,
        force: bool = False,
    ) -> Erased:
        """Destroy a subject's keys, for ever: what its runs have recorded can't be read any more, by anybody.

        Args:
            subject: As the runs were started with.
            workflow_id: In place of a subject, a run that has keys of its own.
            why: Why, for the audit.
            force: Also where some of its runs have not ended: they are parked, and can't go on.

        Raises:
            CommandRefused: There are no such keys, or runs are open. Nothing was destroyed.
            UsageError: No keys are given here, or these can't be destroyed one by one.
            KeysUnavailable: The key store can't be reached now.
        """
        erased = self.erase_async(subject, workflow_id=workflow_id, why=why, force=force)
        return self._bridge.wait(erased, "erase_async()")

    async def erase_async(
        self,
        subject: str | None = None,
        *,
        workflow_id: str | None = None,
        why: str,
        force: bool = False,
    ) -> Erased:
        """`erase` for async code."""
        timeout_s = self._access.timeout_s
        erased = erase(
            self._client, subject, workflow_id, why=why, force=force, timeout_s=timeout_s
        )
        return await self._bridge.run(erased)

    def stats(self) -> Stats:
        """What this process's worker has to do and has done, in numbers; counted now, in a pass over its open runs.

        Raises:
            EngineClosed: The engine is not open.
        """
        return self._bridge.wait(self.stats_async(), "stats_async()")

    async def stats_async(self) -> Stats:
        """`stats` for async code."""
        return await self._bridge.run(self._stats())

    async def _stats(self) -> Stats:
        worker = self._worker
        if worker is None:
            stats = await stats_of([], Tally(), {}, Room(), Room())
        else:
            pools, rooms = worker.waiting_for_pools(), (worker.room, worker.step_room)
            stats = await stats_of(worker.states(), worker.tally, pools, *rooms)
        halted = len(self.halted_partitions)
        return replace(stats, projections=self._followers.running, halted_partitions=halted)

    @property
    def worker_name(self) -> str:
        """The worker's name in events."""
        return self._settings.name

    @property
    def pool_steps(self) -> Sequence[str]:
        """The steps that this process carries out for pools, as `pool/step`, in order."""
        return sorted(f"{step.pool}/{step.name}" for step in self._pool_steps)

    @property
    def owned_partitions(self) -> Sequence[int]:
        """Partitions that this process's worker owns now, in order."""
        return self._worker.owned if self._worker is not None else []

    @property
    def shared_partitions(self) -> int:
        """How many partitions there are that this process's worker takes a share of. Known while it is open."""
        if self._worker is None:
            return 0
        layout = self._log.layout
        return sum(len(layout.of(pool)) for pool in self._worker.settings.serves)

    @property
    def halted_partitions(self) -> "dict[int, LogError]":
        """Partitions that this process's worker could not go on with (corrupt log), each with the reason."""
        return self._worker.halted if self._worker is not None else {}

    @property
    def stopped_projections(self) -> Mapping[str, Exception]:
        """Projections of this process that could not go on, each with the reason; the others do."""
        return self._followers.stopped


_ANY: PayloadType[Any] = PayloadType.of(Any, "result of a workflow")
