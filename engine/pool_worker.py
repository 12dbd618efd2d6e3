"""A pool's worker: carries out the steps of its pools for a namespace of which it owns no partition.

It is a client and no more: it writes commands (offers, questions, reports), hears replies, and never writes an event.
So it can stand where the workflows do not: on the machine with the GPU, in the network with the printer, behind another
team's firewall. The rules of what it may begin, and when, are in `engine/pools.py`; here they are followed.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

from refold.engine.blobs import Blobs
from refold.engine.operations import StepCall, StepOptions
from refold.engine.pool_job import PoolJob, Surroundings
from refold.engine.pool_messages import (
    Attempted,
    Offer,
    PoolStep,
    Task,
    offer_text,
    read_cancelled,
    read_lease_s,
    read_task,
)
from refold.engine.step_definitions import AsyncStep, SyncStep
from refold.log.codec import decode_reply, encode_command
from refold.log.commands import Command, OfferWork, Reply
from refold.log.errors import (
    DefinitionError,
    KeyMissing,
    LogCorrupt,
    LogError,
    PayloadError,
    PayloadsUnavailable,
    PayloadUnreadable,
)
from refold.log.events import Unreadable
from refold.log.protocol import Channel, Log, Record

AnyStep = AsyncStep[..., Any] | SyncStep[..., Any]

OFFER_EVERY_S = 15.0
"""Between two offers that say the same: an owner that took a partition over from one that crashed hears of idle workers
this late, and each offer is a record that stays in the log."""
OFFERS_LOST = 3
"""So many offers of a worker have to be missing before an owner forgets it."""
TRY_AGAIN_S = 1.0

logger = logging.getLogger("refold.pool")


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How a pool's worker works.

    Args:
        slots: Most steps that it carries out at once.
        drain_s: How long steps under way may go on after a stop, in seconds; what is not done by then is carried out
            again by another worker.
        offer_every_s: How often it says what it has, in seconds.
    """

    slots: int = 32
    drain_s: float = 10.0
    offer_every_s: float = OFFER_EVERY_S


class PoolWorker:
    """Carries out steps of pools.

    Args:
        log: An open log.
        steps: The steps, by pool and name.
        settings: Limits.
        clock: Wall clock, microseconds since 1970-01-01 UTC.
        blobs: Where large results are put.
    """

    def __init__(
        self,
        log: Log,
        steps: Mapping[PoolStep, AnyStep],
        settings: PoolSettings,
        *,
        clock: Callable[[], int],
        blobs: Blobs,
    ) -> None:
        self.client_id = f"pool-{uuid.uuid4().hex[:16]}"
        self._log = log
        self._steps = steps
        self._settings = settings
        self._clock = clock
        self._commands = 0
        self._jobs: dict[tuple[str, int], PoolJob] = {}
        self._told_full: set[int] = set()  # partitions that believe that there is no room here
        self._renewal: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[bool]] = set()
        self._offer_again = asyncio.Event()
        self._stopping = False
        self._late = False
        self._executor = ThreadPoolExecutor(settings.slots, thread_name_prefix="refold-pool")
        self._around = Surroundings(
            log=log,
            client_id=self.client_id,
            executor=self._executor,
            clock=clock,
            blobs=blobs,
            next_id=self._next_id,
            append=self._append,
            is_late=lambda: self._late,
        )

    @property
    def under_way(self) -> int:
        """How many steps it has been given and has not reported."""
        return len(self._jobs)

    async def start(self) -> None:
        """Listen for steps, and offer to carry them out."""
        await self._log.listen(self.client_id, self._deliver)
        self._renewal = asyncio.get_running_loop().create_task(self._offer_for_ever())

    async def stop(self) -> None:
        """Take nothing more, let steps under way end within `drain_s`, and report them."""
        self._stopping = True
        if self._renewal is not None:
            self._renewal.cancel()
        await self._go_away([job for job in self._jobs.values() if not job.has_begun])
        waits = [asyncio.ensure_future(job.wait()) for job in self._jobs.values()]
        if waits:
            await asyncio.wait(waits, timeout=self._settings.drain_s)
        self._late = True
        if self._jobs:
            await self._go_away(list(self._jobs.values()))
        await asyncio.gather(*waits)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._executor.shutdown(wait=False, cancel_futures=True)

    def take(self, client_id: str, reply: Reply) -> bool:
        """Offer a reply made in this process; returns whether it was for this worker."""
        if client_id != self.client_id:
            return False
        self._hear(reply)
        return True

    # Offers -----------------------------------------------------------------------------------------------

    async def _offer_for_ever(self) -> None:
        while True:
            self._offer_again.clear()
            await self._offer(range(self._log.partitions))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._offer_again.wait(), self._settings.offer_every_s)
                await asyncio.sleep(TRY_AGAIN_S)

    async def _offer(
        self,
        partitions: Iterable[int],
        *,
        slots: int | None = None,
        declined: Collection[Attempted] = (),
    ) -> bool:
        """Say to the owners of some partitions what there is here; returns whether the log took it."""
        offer = Offer(
            slots=self._settings.slots if slots is None else slots,
            steps=() if self._stopping else self._steps.keys(),
            lasts_s=self._settings.offer_every_s * OFFERS_LOST,
            declined=declined,
        )
        text = offer_text(offer)
        pools = ",".join(sorted({step.pool for step in self._steps}))
        try:
            for partition in partitions:
                command = OfferWork(
                    command_id=f"{self._next_id()}/{partition}",
                    workflow_id=pools,
                    reply_to=self.client_id,
                    requested_at=self._clock(),
                    payload=text,
                )
                await self._append_to(partition, [command], lazily=True)
                if offer.slots:
                    self._told_full.discard(partition)
        except LogError as error:
            logger.warning("the pool's worker could not offer its steps, trying again: %s", error)
            self._offer_again.set()
            return False
        return True

    def _decline(self, attempted: Attempted) -> None:
        partition = self._log.layout.place(attempted.workflow_id)
        self._told_full.add(partition)
        self._in_background(self._offer([partition], slots=0, declined=[attempted]))

    async def _go_away(self, jobs: Sequence[PoolJob]) -> None:
        """Say that nothing more is carried out here, these jobs least of all."""
        declined: dict[int, list[Attempted]] = {p: [] for p in range(self._log.partitions)}
        for job in jobs:
            job.cancel()
            partition = self._log.layout.place(job.task.workflow_id)
            declined[partition].append(job.attempted)
        for partition, attempts in declined.items():
            await self._offer([partition], slots=0, declined=attempts)

    # Hearing ----------------------------------------------------------------------------------------------

    def _deliver(self, records: Sequence[Record]) -> None:
        for record in records:
            reply = decode_reply(record)
            if not isinstance(reply, Unreadable):
                self._hear(reply)

    def _hear(self, reply: Reply) -> None:
        try:
            match reply.status:
                case "step":
                    self._given(read_task(reply))
                case "granted":
                    for job in self._jobs_of(reply.workflow_id):
                        job.hear_grant(reply.command_id, read_lease_s(reply))
                case "cancel":
                    self._cancelled(read_cancelled(reply), reply.command_id)
                case "unknown" if not self._stopping:
                    self._in_background(self._offer([self._partition_of(reply)]))
                case _:
                    pass
        except (
            LogCorrupt
        ) as error:  # from a newer release, perhaps: whoever can read it gets it in time
            logger.warning("a reply to the pool's worker can't be read: %s", error)

    def _partition_of(self, reply: Reply) -> int:
        if reply.workflow_id:
            return self._log.layout.place(reply.workflow_id)
        return int(reply.command_id.rpartition("/")[2])

    def _jobs_of(self, workflow_id: str) -> list[PoolJob]:
        return [job for (owner, _), job in self._jobs.items() if owner == workflow_id]

    def _given(self, task: Task) -> None:
        key = task.workflow_id, task.step
        before = self._jobs.get(key)
        if before is not None and before.task.attempt >= task.attempt:
            return  # it is under way: the owner hears of it with the next beat
        step = self._steps.get(PoolStep(task.pool, task.name))
        if before is not None:
            before.cancel()
            del self._jobs[key]
        readable = self._readable(task)
        full = self._stopping or len(self._jobs) >= self._settings.slots
        if step is None or readable is None or full:
            self._decline(task.attempted)
            return
        job = PoolJob(readable, _call(step, readable), self._around)
        self._jobs[key] = job
        job.begin(self._ended)

    def _readable(self, task: Task) -> Task | None:
        """A task with the JSON of its arguments; None where they can't be read here."""
        blobs = self._around.blobs
        what = f"input of step {task.step} '{task.name}' of workflow {task.workflow_id!r}"
        try:
            if task.key is not None and blobs.privacy is None:
                raise KeyMissing(f"the {what} is encrypted, and this worker of a pool has no keys")
            return replace(task, input=blobs.read(task.input, what))
        except (PayloadUnreadable, PayloadsUnavailable) as error:
            logger.warning("declined: %s", error)
            return None

    def _cancelled(self, attempted: Attempted, command_id: str) -> None:
        job = self._jobs.get((attempted.workflow_id, attempted.step))
        if job is not None and job.attempted == attempted and not job.is_past(command_id):
            job.cancel()

    def _ended(self, job: PoolJob) -> None:
        key = job.task.workflow_id, job.task.step
        if self._jobs.get(key) is job:
            del self._jobs[key]
        if self._told_full and not self._stopping:
            full, self._told_full = self._told_full, set()
            self._in_background(self._offer(sorted(full)))

    # Appending --------------------------------------------------------------------------------------------

    def _next_id(self) -> str:
        self._commands += 1
        return f"{self.client_id}/{self._commands}"

    async def _append(self, commands: Sequence[Command], lazily: bool) -> None:
        partition = self._log.layout.place(commands[0].workflow_id)
        await self._append_to(partition, commands, lazily=lazily)

    async def _append_to(
        self, partition: int, commands: Sequence[Command], *, lazily: bool
    ) -> None:
        entries = [encode_command(command) for command in commands]
        await self._log.append(Channel.COMMANDS, partition, entries, lazily=lazily)

    def _in_background(self, work: Coroutine[Any, Any, bool]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _call(step: AnyStep, task: Task) -> StepCall:
    """What to call for a task; where its arguments do not fit this code, something that fails and says so."""
    try:
        return step.call_with(task.input)
    except (PayloadError, DefinitionError) as error:
        return StepCall(
            task.name, partial(_fail, error), False, StepOptions(), step.result_type, task.input
        )


def _fail(error: Exception) -> NoReturn:
    raise error
