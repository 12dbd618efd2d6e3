"""A schedule, by its name: how it stands, and the orders that can be given to it.

Every method that waits has a twin for async code, with `_async` at the end of its name.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from refold.engine.access import Access
from refold.engine.blobs import Blobs
from refold.engine.handle import Handle
from refold.engine.names import check_name
from refold.engine.payload import PayloadType, check_size
from refold.engine.reader import read_partition
from refold.engine.schedule_run import (
    UNCHANGED,
    OrderKind,
    ScheduleInfo,
    ScheduleOrder,
    decode_start,
    encode_start,
)
from refold.engine.schedule_times import ScheduleSpec, check_spec
from refold.engine.scope import datetime_of
from refold.engine.showing import ENCRYPTED
from refold.engine.state import PartitionState, Status, WorkflowState
from refold.log.errors import (
    AskRefused,
    CommandRefused,
    InvalidInput,
    PayloadError,
    UnknownWorkflow,
    UsageError,
    WorkflowConflict,
    WorkflowEnded,
    WorkflowNotFound,
)
from refold.log.events import WorkflowStarted
from refold.log.protocol import Log
from refold.log.schedules import PREFIX, SCHEDULE

MAX_NAME_CHARS: Final = 150
"""With a due time and a pool it is part of runs' ids."""

_TRIES: Final = 3
"""Others may make or delete the schedule in the same moment."""

_INFO: Final = PayloadType.of(ScheduleInfo, "state of a schedule")
_ANY: Final = PayloadType.of(Any, "result of a workflow")


class Schedule:
    """A schedule, by its name. Made by `Engine.schedule` and `Engine.get_schedule`."""

    def __init__(self, access: Access, name: str) -> None:
        check_schedule_name(name)
        self._access = access
        self._bridge = access.bridge
        self._name = name
        self._run = self._handle(PREFIX + name)

    def __repr__(self) -> str:
        return f"<schedule {self._name!r}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def id(self) -> str:
        """The id of its own run, which has its history."""
        return self._run.id

    def info(self) -> ScheduleInfo:
        """How it stands, read from the log.

        Raises:
            WorkflowNotFound: There is no such schedule, or none any more.
        """
        return self._bridge.wait(self.info_async(), "info_async()")

    async def info_async(self) -> ScheduleInfo:
        """`info` for async code."""
        return await self._bridge.run(self._info())

    async def _info(self) -> ScheduleInfo:
        return await read_schedule(self._access.client.log, self._access.client.blobs, self._name)

    def pause(self, *, reason: str | None = None) -> None:
        """Let it start nothing until it is resumed. What is due meanwhile is not made up for.

        Args:
            reason: Why, for the audit.

        Raises:
            WorkflowNotFound: There is no such schedule.
            ResultTimeout: No worker answered within the engine's `start_timeout_s`.
        """
        self._bridge.wait(self.pause_async(reason=reason), "pause_async()")

    async def pause_async(self, *, reason: str | None = None) -> None:
        """`pause` for async code."""
        await self._bridge.run(self._order("pause", reason))

    def resume(self, *, reason: str | None = None) -> None:
        """Let it go on with the next due time; arguments and errors as of `pause`."""
        self._bridge.wait(self.resume_async(reason=reason), "resume_async()")

    async def resume_async(self, *, reason: str | None = None) -> None:
        """`resume` for async code."""
        await self._bridge.run(self._order("resume", reason))

    def trigger(self, *, reason: str | None = None) -> Handle[Any]:
        """Start a run now, beside those that are due, also where it is paused.

        Returns:
            The run's handle.

        Raises:
            AskRefused: Its last run has not ended, and it is to skip where one has not; or the worker can't start it.
            WorkflowNotFound: There is no such schedule.
            ResultTimeout: No worker answered within the engine's `start_timeout_s`.
        """
        return self._bridge.wait(self.trigger_async(reason=reason), "trigger_async()")

    async def trigger_async(self, *, reason: str | None = None) -> Handle[Any]:
        """`trigger` for async code."""
        run_id = await self._bridge.run(self._order("trigger", reason))
        return self._handle(run_id or "")

    def delete(self, *, reason: str | None = None) -> None:
        """End it; runs that it has started go on. Its name can be used again. Arguments and errors as of `pause`."""
        self._bridge.wait(self.delete_async(reason=reason), "delete_async()")

    async def delete_async(self, *, reason: str | None = None) -> None:
        """`delete` for async code."""
        await self._bridge.run(self._order("delete", reason))

    def set(self, spec: ScheduleSpec, *, reason: str | None = None) -> None:
        """Make the schedule, or change it to this: for whoever knows the workflow by its name alone.

        `Engine.schedule` is the same for a workflow whose code is there.

        Args:
            spec: What it starts, and when.
            reason: Why, for the audit.

        Raises:
            UsageError: It can't be a schedule, or would never be due.
            UnknownWorkflow: The worker has no such workflow, or it does not take the input; or the worker is of a
                release that has no schedules. Nothing was scheduled.
            AskRefused: The same, for a schedule that is there: nothing was changed.
            ResultTimeout: No worker answered within the engine's `start_timeout_s`.
        """
        self._bridge.wait(self.set_async(spec, reason=reason), "set_async()")

    async def set_async(self, spec: ScheduleSpec, *, reason: str | None = None) -> None:
        """`set` for async code."""
        await self._bridge.run(self._set(spec, reason))

    # Giving orders ----------------------------------------------------------------------------------------

    async def _set(self, spec: ScheduleSpec, reason: str | None) -> None:
        check_spec(spec, datetime_of(self._access.client.clock()))
        for _ in range(_TRIES):
            try:
                if not await self._is_known():
                    await self._make(spec, reason)
                else:
                    await self._change(spec, reason)
            except WorkflowConflict:
                continue  # somebody has made it meanwhile: perhaps another one
            await self._run.value_async(SCHEDULE, timeout_s=self._access.timeout_s)
            return
        raise CommandRefused(
            f"schedule {self._name!r} was made and deleted by others meanwhile: look at it, and try again"
        )

    async def _is_known(self) -> bool:
        """Whether it is or was there. Asked in a way that leaves no trace where it is not."""
        try:
            await self._run.value_async(SCHEDULE, timeout_s=self._access.timeout_s)
        except WorkflowNotFound:
            return False
        except WorkflowEnded:
            pass
        return True

    async def _make(self, spec: ScheduleSpec, reason: str | None) -> None:
        try:
            await self._access.client.start(
                SCHEDULE,
                self._input(spec, reason),
                self.id,
                timeout_s=self._access.timeout_s,
                confirm=True,
            )
        except UnknownWorkflow as error:
            if f"workflow {SCHEDULE!r}" not in str(error):
                raise
            raise UnknownWorkflow(
                f"schedule {self._name!r} can't be made: the worker is of a release that has no schedules. Upgrade the "
                "workers first. Nothing was scheduled"
            ) from error

    async def _change(self, spec: ScheduleSpec, reason: str | None) -> None:
        try:
            await self._ask("set", reason, spec)
        except WorkflowEnded:
            try:
                await self._access.operator.renew(self.id, self._input(spec, reason), reason)
            except (InvalidInput, UnknownWorkflow):
                raise
            except CommandRefused as error:  # it is open again, by somebody else
                raise WorkflowConflict(str(error)) from error

    def _input(self, spec: ScheduleSpec, reason: str | None) -> str:
        requested_by = self._access.client.requested_by
        payload = encode_start(ScheduleInfo(self._name, spec), requested_by, reason)
        check_size(payload, self._access.max_payload_bytes, f"schedule {self._name!r}")
        return payload

    async def _order(self, order: OrderKind, reason: str | None) -> str | None:
        try:
            return await self._ask(order, reason)
        except (WorkflowNotFound, WorkflowEnded) as error:
            raise _none(self._name) from error

    async def _ask(
        self, order: OrderKind, reason: str | None, spec: ScheduleSpec | None = None
    ) -> str | None:
        said = ScheduleOrder(order, spec, self._access.client.requested_by, reason)
        timeout_s = self._access.timeout_s
        try:
            answer: str | None = await self._run.ask_async(
                SCHEDULE, said, str | None, timeout_s=timeout_s
            )
        except AskRefused as error:
            if str(error).endswith(UNCHANGED):
                return None
            raise
        return answer

    def _handle(self, run_id: str) -> Handle[Any]:
        return Handle(self._access, self._access.client.outcome(run_id), _ANY)


def check_schedule_name(name: str) -> None:
    """Refuse what can't name a schedule.

    Raises:
        UsageError: It is empty, too long, has an `@` or what can't be printed, or is no string.
    """
    check_name(name, "schedule")
    if len(name) > MAX_NAME_CHARS or "@" in name:
        raise UsageError(
            f"the name {name[:40]!r} can't be a schedule's, which is part of its runs' ids: use at most "
            f"{MAX_NAME_CHARS} characters, and no '@'"
        )


async def read_schedule(log: Log, blobs: Blobs, name: str) -> ScheduleInfo:
    """How one schedule stands.

    Raises:
        WorkflowNotFound: There is no such schedule, or none any more.
    """
    check_schedule_name(name)
    workflow_id = PREFIX + name
    state = await read_partition(log, log.layout.place(workflow_id), workflow_id)
    for info in _infos_of(state, blobs):
        return info
    raise _none(name)


async def read_schedules(log: Log, blobs: Blobs) -> list[ScheduleInfo]:
    """How all schedules stand, by name. Folds the whole log."""
    infos: list[ScheduleInfo] = []
    for partition in log.layout.of(None):
        infos.extend(_infos_of(await read_partition(log, partition), blobs))
    return sorted(infos, key=lambda info: info.name)


def _infos_of(state: PartitionState, blobs: Blobs) -> Iterator[ScheduleInfo]:
    for workflow_id, run in state.open.items():
        if run.started is not None and run.started.workflow == SCHEDULE:
            yield replace(_info_of(workflow_id, run, run.started, blobs), status=run.status)
    for workflow_id, closed in state.closed.items():
        # Never by an order: somebody has to see that it is not there any more.
        if closed.workflow == SCHEDULE and closed.status is Status.FAILED:
            name = workflow_id.removeprefix(PREFIX)
            yield ScheduleInfo(name, ScheduleSpec("?", ""), status=Status.FAILED)


def _info_of(
    workflow_id: str, run: WorkflowState, started: WorkflowStarted, blobs: Blobs
) -> ScheduleInfo:
    published = run.exchange.values.get(SCHEDULE)
    what = f"state of workflow {workflow_id!r}"
    try:
        if published is not None:
            info: ScheduleInfo = _INFO.decode(blobs.read(published.payload, what))
            return info
        return decode_start(blobs.read(started.payload, what))
    except PayloadError:  # its keys are not given here, say
        return ScheduleInfo(workflow_id.removeprefix(PREFIX), ScheduleSpec(ENCRYPTED, ""))


def _none(name: str) -> WorkflowNotFound:
    return WorkflowNotFound(
        f"there is no schedule {name!r}: check the name, or see `refold schedule list`"
    )
