"""One attempt at a step in a pool's worker: from the moment that it is given until what became of it is reported.

    given -> ask -> granted -> under way -> ended -> reported
              ^________|  (it did not begin in time: ask again)

What is asked and not answered is asked again, for as long as the owner does not say that nobody waits for it: the
partition may be on its way to a new owner.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from refold.engine.blobs import Blobs
from refold.engine.effects import AttemptFailed, Launch, StepResult
from refold.engine.failures import capture
from refold.engine.handover import Reporter, report
from refold.engine.operations import StepCall
from refold.engine.pool_messages import Attempted, Task
from refold.engine.proof import FRESH_S, Instant, Proof
from refold.engine.room import Room
from refold.engine.steps import Steps
from refold.log.commands import BeginStep, Command, KeepStep, ReportStep
from refold.log.errors import LogError, PayloadTooLarge, RecordTooLarge
from refold.log.protocol import Log

ASK_AGAIN_S = 2 * FRESH_S
"""After this long an answer would come too late to begin on."""
BEATS = 4
"""How often a worker says within one lease that it goes on: one or two of them may be lost or late."""

logger = logging.getLogger("refold.pool")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the jobs of a pool's worker share.

    Args:
        log: The log, open.
        client_id: To whom the owners reply.
        executor: Runs `def` steps.
        clock: Wall clock, microseconds since 1970-01-01 UTC.
        blobs: Where large results are put.
        next_id: A new command's id.
        append: Appends commands about one workflow to its partition, lazily or not.
        is_late: Whether the worker is to end now, whatever is not reported.
    """

    log: Log
    client_id: str
    executor: Executor
    clock: Callable[[], int]
    blobs: Blobs
    next_id: Callable[[], str]
    append: Callable[[Sequence[Command], bool], Awaitable[None]]
    is_late: Callable[[], bool]


class PoolJob:
    """An attempt that this worker was given.

    Args:
        task: The attempt.
        call: What to call.
        around: What all jobs share.
    """

    def __init__(self, task: Task, call: StepCall, around: Surroundings) -> None:
        self.task = task
        self.has_begun = False
        self._launch = Launch(
            task.workflow_id,
            task.workflow,
            task.step,
            task.attempt,
            call,
            task.first_started_at,
            task.key,
        )
        self._around = around
        self._proof = Proof(around.clock)
        self._asked: tuple[str, Instant] | None = None
        self._questions: set[str] = set()
        self._granted = asyncio.Event()
        self._lease_s = ASK_AGAIN_S
        self._steps: Steps | None = None
        self._reporter = Reporter(self._append_reports, around.clock, around.blobs)
        self._task: asyncio.Task[None] | None = None

    @property
    def attempted(self) -> Attempted:
        """Which attempt it is."""
        return self.task.attempted

    def begin(self, ended: Callable[["PoolJob"], None]) -> None:
        """Take it up; `ended` is told when nothing more is done for it."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(lambda _: ended(self))

    def hear_grant(self, command_id: str, lease_s: float) -> None:
        """The owner lets it begin."""
        if self._asked is not None and self._asked[0] == command_id:
            self._proof.given(self._asked[1])
            self._lease_s = lease_s
            self._granted.set()

    def is_past(self, command_id: str) -> bool:
        """Whether a command is a question whether to begin, of a step that has begun.

        A new owner consumes again what the former one has answered, and refuses: it has given the step to nobody.
        """
        return self.has_begun and command_id in self._questions

    def cancel(self) -> None:
        """Nobody waits for it any more: its context says so, and its outcome is dropped."""
        self._proof.withdraw()
        if self._steps is not None:
            self._steps.cancel_all()
        if self._task is not None:
            self._task.cancel()

    async def wait(self) -> None:
        """Wait until nothing more is done for it."""
        if self._task is not None:
            await asyncio.wait([self._task])

    # Within -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._carry_out()
        except asyncio.CancelledError:
            raise
        except Exception:
            # The lease runs out, and the step is given away again.
            logger.exception("%s could not be carried out", self._named)
        finally:
            if self._steps is not None:
                self._steps.cancel_all()

    async def _carry_out(self) -> None:
        result: StepResult | None = None
        while result is None:
            await self._ask_until_granted()
            result = await self._attempt()
        self._reporter.done(self._launch, result)
        await self._reporter.send(until=self._around.is_late)

    async def _ask_until_granted(self) -> None:
        while True:
            self._granted.clear()
            command_id = self._around.next_id()
            self._asked = command_id, self._proof.now()
            self._questions.add(command_id)
            await self._send(
                BeginStep(
                    command_id=command_id,
                    workflow_id=self.task.workflow_id,
                    reply_to=self._around.client_id,
                    requested_at=self._around.clock(),
                    step=self.task.step,
                    attempt=self.task.attempt,
                )
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._granted.wait(), ASK_AGAIN_S)
                return

    async def _attempt(self) -> StepResult | None:
        """Carry the attempt out, and say now and then that it goes on; None where it did not begin in time."""
        around = self._around
        ended: asyncio.Future[StepResult | None] = asyncio.get_running_loop().create_future()
        steps = Steps(
            lambda _, result: ended.set_result(result),
            lambda _: ended.set_result(None),
            self._reporter.wrote,
            may_begin=self._proof.is_fresh,
            pool=around.executor,
            room=Room(),
            clock=around.clock,
            namespace=around.log.namespace,
            max_payload_bytes=around.blobs.max_payload_bytes,
        )
        self._steps = steps
        self.has_begun = True
        steps.launch(self._launch)
        while not ended.done():
            await asyncio.wait([ended], timeout=self._lease_s / BEATS)
            if not ended.done():
                await self._keep()
        self.has_begun = ended.result() is not None
        return ended.result()

    async def _keep(self) -> None:
        await self._send(
            KeepStep(
                command_id=self._around.next_id(),
                workflow_id=self.task.workflow_id,
                reply_to=self._around.client_id,
                requested_at=self._around.clock(),
                step=self.task.step,
                attempt=self.task.attempt,
            )
        )

    async def _send(self, command: Command) -> None:
        try:
            await self._around.append([command], True)
        except LogError as error:  # it is sent again in time
            logger.warning("%s: the owner could not be asked, trying again: %s", self._named, error)

    async def _append_reports(self, reports: Sequence[ReportStep]) -> None:
        around = self._around
        told = [replace(report, reply_to=around.client_id) for report in reports]
        try:
            await around.append(told, False)
        except RecordTooLarge as error:
            msg = f"what {self._named} gave is too large to be reported: {error}"
            failed = AttemptFailed(capture(PayloadTooLarge(msg)), False, told[0].requested_at)
            failure = report(self._launch, failed, (), around.clock())
            await around.append([replace(failure, reply_to=around.client_id)], False)

    @property
    def _named(self) -> str:
        task = self.task
        return f"step {task.step} '{task.name}' of workflow {task.workflow_id!r}"
