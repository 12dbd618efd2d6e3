"""What an operator orders: cancel, terminate, pause, resume, rewind and fork, for one run or for many.

A run that has ended is not in its owner's memory, so that to resume or rewind it is to reopen it: its history is read
from the log here, and copied into its stream again as far as it counts (`engine/copying.py`).
"""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from refold.engine.client import Client
from refold.engine.copied import Copied, parts_of
from refold.engine.copying import (
    Source,
    continuation_of,
    fork_of,
    read_source,
    step_problem,
    step_that_failed,
)
from refold.engine.names import check_id
from refold.engine.operations import Numbering
from refold.engine.reader import WorkflowInfo, read_all
from refold.engine.selection import BulkResult, Runs, meant
from refold.engine.state import Status
from refold.log.codec import encode_command
from refold.log.commands import (
    CancelWorkflow,
    CopyHistory,
    ForkWorkflow,
    PauseWorkflow,
    ReopenWorkflow,
    ResumeWorkflow,
    RewindWorkflow,
    TerminateWorkflow,
)
from refold.log.errors import (
    CommandRefused,
    PayloadTooLarge,
    RefoldError,
    UsageError,
    WorkflowEnded,
)
from refold.log.events import WorkflowCompleted
from refold.log.keys import KEY_TAG
from refold.log.layout import with_pool

MAX_AT_ONCE: Final = 64
"""Runs that are given an order at a time: enough to fill the log's batches, few enough to keep memory small."""
EVENT_HEADROOM_BYTES: Final = 2_000
"""What an event has beside the payload of the command that caused it, at most."""

OPEN: Final = frozenset({Status.RUNNING, Status.QUEUED, Status.PARKED, Status.PAUSED})
MENDABLE: Final = frozenset({Status.PARKED, Status.PAUSED, Status.FAILED})
ENDED: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TERMINATED})

Order = Callable[[str], Coroutine[Any, Any, str | None]]
"""Gives an order to the run of an id; returns the id of its fork, where it has one."""


class Operator:
    """Orders to runs.

    Args:
        client: What carries them.
        timeout_s: Longest wait for a worker to carry one out, in seconds.
    """

    def __init__(self, client: Client, timeout_s: float) -> None:
        self._client = client
        self._log = client.log
        self._timeout_s = timeout_s

    async def cancel(self, workflow_id: str, reason: str | None) -> None:
        """Ask a run to cancel; see `Handle.cancel`."""
        envelope = self._client.envelope(workflow_id)
        await self._client.ask(CancelWorkflow(**envelope, reason=reason), self._timeout_s)

    async def terminate(self, workflow_id: str, reason: str | None) -> None:
        """End a run without asking its code; see `Handle.terminate`."""
        envelope = self._client.envelope(workflow_id)
        await self._client.ask(TerminateWorkflow(**envelope, reason=reason), self._timeout_s)

    async def pause(self, workflow_id: str, reason: str | None) -> None:
        """Halt a run until it is resumed; see `Handle.pause`."""
        envelope = self._client.envelope(workflow_id)
        await self._client.ask(PauseWorkflow(**envelope, reason=reason), self._timeout_s)

    async def resume(self, workflow_id: str, reason: str | None) -> None:
        """Let a run go on that is parked or paused, or has failed; see `Handle.resume`."""
        envelope = self._client.envelope(workflow_id)
        try:
            await self._client.ask(ResumeWorkflow(**envelope, reason=reason), self._timeout_s)
        except WorkflowEnded:
            await self._resume_ended(workflow_id, reason)
        self._client.outcome(workflow_id).forget()

    async def rewind(self, workflow_id: str, step: int, reason: str | None) -> None:
        """Take a run back to before an operation; see `Handle.rewind`."""
        check_step(step)
        envelope = self._client.envelope(workflow_id)
        order = RewindWorkflow(**envelope, step=step, reason=reason)
        try:
            await self._client.ask(order, self._timeout_s)
        except WorkflowEnded:
            await self._rewind_ended(workflow_id, step, reason)
        self._client.outcome(workflow_id).forget()

    async def fork(
        self,
        workflow_id: str,
        step: int | None,
        fork_id: str | None,
        version: int | None,
        reason: str | None,
    ) -> str:
        """Copy a run, up to before an operation, into a new one; returns its id. See `Handle.fork`."""
        if step is not None:
            check_step(step)
        check_version(version)
        if fork_id is None:
            pool = self._client.log.layout.pool_of(workflow_id)
            fork_id = with_pool(f"{workflow_id}/fork-{uuid.uuid4().hex[:8]}", pool)
        check_id(fork_id)
        source = await read_source(self._log, workflow_id, step)
        problem = None if step is None else step_problem(source, step)
        if problem is not None:
            raise UsageError(f"{problem}. Nothing was forked")
        copies = self._copies(fork_id, parts_of(fork_of(source, step, fork_id)))
        started = source.started
        order = ForkWorkflow(
            **self._client.envelope(fork_id),
            source_id=workflow_id,
            step=step,
            workflow=started.workflow,
            payload=started.payload,
            version=version if version is not None else started.version,
            attributes=started.attributes,
            queue=started.queue,
            reason=reason,
        )
        await self._client.ask(order, self._timeout_s)
        await self._copy(copies)
        return fork_id

    # Runs that have ended ---------------------------------------------------------------------------------

    async def _resume_ended(self, workflow_id: str, reason: str | None) -> None:
        source = await read_source(self._log, workflow_id, None)
        if isinstance(source.ending, WorkflowCompleted):
            raise CommandRefused(
                f"workflow {workflow_id!r} has completed, so there is nothing to resume: "
                "rewind it to the step that is to be done again, or fork it"
            )
        step = step_that_failed(source.run.outcomes)
        if step is not None:
            source = await read_source(self._log, workflow_id, step)
        await self._reopen(source, step, reason)

    async def _rewind_ended(self, workflow_id: str, step: int, reason: str | None) -> None:
        source = await read_source(self._log, workflow_id, step)
        problem = step_problem(source, step)
        if problem is not None:
            raise CommandRefused(f"{problem}. It was not rewound")
        await self._reopen(source, step, reason)

    async def renew(self, workflow_id: str, payload: str, reason: str | None) -> None:
        """Let a run that has ended begin afresh with another input: nothing that it has done counts for its code."""
        source = await read_source(self._log, workflow_id, None)
        after = source.next_step
        seen = list(source.run.exchange.seen)
        copied = Copied(numbering=Numbering(after), next_step=after, seen=seen, tags=source.tags)
        ring, privacy = source.run.attributes.get(KEY_TAG), self._client.blobs.privacy
        if ring is not None and privacy is not None:
            payload = privacy.protect(payload, ring, "input", workflow_id)
        first = source.run.numbering.base
        await self._reopen_with(source, first, reason, copied, payload)
        self._client.outcome(workflow_id).forget()

    async def _reopen(self, source: Source, step: int | None, reason: str | None) -> None:
        copied = await continuation_of(self._log, source, step)
        await self._reopen_with(source, step, reason, copied, source.started.payload)

    async def _reopen_with(
        self, source: Source, step: int | None, reason: str | None, copied: Copied, payload: str
    ) -> None:
        workflow_id, started = source.workflow_id, source.started
        copies = self._copies(workflow_id, parts_of(copied))
        due_at = started.due_at
        if due_at is not None and due_at <= self._client.clock():
            due_at = None  # a person wants it to go on: its deadline would end it at once
        order = ReopenWorkflow(
            **self._client.envelope(workflow_id),
            position=source.events,
            step=step,
            workflow=started.workflow,
            payload=payload,
            started_at=started.recorded_at,
            version=started.version,
            attributes=started.attributes,
            due_at=due_at,
            parent_id=started.parent_id,
            parent_step=started.parent_step,
            policy=started.policy,
            queue=started.queue,
            reason=reason,
        )
        await self._client.ask(order, self._timeout_s)
        await self._copy(copies)

    def _copies(self, workflow_id: str, parts: Sequence[str]) -> list[CopyHistory]:
        """The commands that carry a history, checked before the first of them is sent."""
        copies = [
            CopyHistory(
                **self._client.envelope(workflow_id),
                position=number,
                payload=payload,
                name="last" if number == len(parts) - 1 else "more",
            )
            for number, payload in enumerate(parts)
        ]
        limit = self._log.max_record_bytes - EVENT_HEADROOM_BYTES
        for copy in copies:
            size = len(encode_command(copy).value)
            if size > limit:
                raise PayloadTooLarge(
                    f"the history for workflow {workflow_id!r} holds a payload that can't be copied: with what has to "
                    f"go with it, it is {size:,} bytes, and the limit is {limit:,}. Nothing was changed; go back to "
                    "a step before the one that has it"
                )
        return copies

    async def _copy(self, copies: Sequence[CopyHistory]) -> None:
        for copy in copies:
            await self._client.ask(copy, self._timeout_s)

    # Many runs --------------------------------------------------------------------------------------------

    async def to_all(
        self, where: Runs, applies_to: frozenset[Status], order: Order, *, dry_run: bool
    ) -> Sequence[BulkResult]:
        """Give an order to many runs, some at a time; one that is refused does not stop the others.

        Args:
            where: Which runs.
            applies_to: How a run stands to which it can be given; the others are left out, unless `where` names their
                status.
            order: Gives it to one of them.
            dry_run: Only say which runs it would be given to.
        """
        infos = meant(where, await read_all(self._log))
        if where.status is None:
            infos = [info for info in infos if info.status in applies_to]
        if dry_run:
            return [BulkResult(info.workflow_id, done=False) for info in infos]
        room = asyncio.Semaphore(MAX_AT_ONCE)

        async def give(info: WorkflowInfo) -> BulkResult:
            async with room:
                try:
                    fork_id = await order(info.workflow_id)
                except RefoldError as error:
                    why = f"{type(error).__name__}: {error}"
                    return BulkResult(info.workflow_id, done=False, error=why)
                return BulkResult(info.workflow_id, done=True, fork_id=fork_id)

        return await asyncio.gather(*map(give, infos))


def check_step(step: object) -> None:
    """Refuse what is no operation's number.

    Raises:
        UsageError: It is no whole number from 0 on.
    """
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise UsageError(
            f"{step!r} is no step: give the number of an operation, from 0 on, as `refold show` has it"
        )


def check_version(version: object) -> None:
    """Refuse what is no version of a workflow.

    Raises:
        UsageError: It is neither None nor a whole number from 1 on.
    """
    if version is not None and (
        isinstance(version, bool) or not isinstance(version, int) or version < 1
    ):
        raise UsageError(
            f"{version!r} is no version: give a whole number from 1 on, as in @workflow(version=2), or None"
        )
