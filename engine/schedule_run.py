"""A schedule's own run: a workflow of refold's, in the words that every workflow has.

It waits for the next due time and for orders, starts the workflow, says how it stands, and begins anew before its
history grows. So all that holds for runs holds for schedules: crashes, hand-overs, clocks, checkpoints. Rules:

1. What follows from cron, a time zone's rules or their library is computed in a step, so that it is recorded: another
   release of any of them can't make a replay differ, only the next due time.
2. A run's id is the schedule's name and the due time. So a due time starts one run, whatever the schedule is told to
   do again: it is rewound, deleted and made anew, or the clock is set back.
3. Of due times that come while nobody is there, the latest is met, if it is not older than `catch_up` says. While a
   schedule is paused, none is.
4. A workflow that nobody knows, or that does not take the input any more, is tried again, ever more rarely; what is
   wrong is published meanwhile. The next due time takes the place of the one that could not be met.
5. An order is a question to this run, with who gives it and why: it stands in its history, and is answered when what
   it changes is published. One that changes nothing is refused before it is recorded.
"""

import asyncio
import contextlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, cast

from refold.engine.definitions import AsyncWorkflow, Catalogue, step
from refold.engine.messages import Request, publish, requests
from refold.engine.operations import ChildRequest
from refold.engine.payload import PayloadType
from refold.engine.retry import Retry
from refold.engine.schedule_times import DueTimes, ScheduleSpec, due_between
from refold.engine.scope import current, now, sleep_until, workflow_scope
from refold.engine.state import Status
from refold.engine.tags import workflow_info
from refold.engine.versions import continue_as_new
from refold.log.errors import (
    CommandRefused,
    DefinitionError,
    InvalidInput,
    PayloadError,
    UnknownWorkflow,
    UsageError,
)
from refold.log.layout import with_pool
from refold.log.schedules import SCHEDULE

SHORT: Final = 50
"""Outcomes after which it begins anew: some ten due times. A checkpoint holds them, and a recovery replays them."""
LONG: Final = 2_000
"""Outcomes after which a schedule that skips, and can't begin anew while its run goes on, waits for that alone."""
RETRY_S: Final = 60
MAX_RETRY_S: Final = 3_600
UNCHANGED: Final = "nothing would change"

OrderKind = Literal["set", "pause", "resume", "trigger", "delete"]

_INSTANT: Final = timedelta(microseconds=1)
_END: Final = PayloadType.of(object, "result of a scheduled run")


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """How a schedule stands.

    Args:
        name: Its name.
        spec: What it starts, and when.
        paused: Whether it starts nothing until it is resumed.
        next_due: When it is due next, UTC; None while it is paused or where it has ended.
        last_due: The last due time that it has started a run for.
        last_id: The last run that it has started, also at an order.
        last_started_at: When that was, UTC.
        started: How many runs it has started.
        skipped: How many due times have passed with none: missed, or skipped while a run went on.
        problem: Why the last due time could not be met; None where it could.
        ended: How it has ended: "deleted", "cancelled", or "over" where there is no due time any more.
        status: How its own run stands: parked, for one, where a person has to look at it.
    """

    name: str
    spec: ScheduleSpec
    paused: bool = False
    next_due: datetime | None = None
    last_due: datetime | None = None
    last_id: str | None = None
    last_started_at: datetime | None = None
    started: int = 0
    skipped: int = 0
    problem: str | None = None
    ended: str | None = None
    status: Status = Status.RUNNING


@dataclass(frozen=True, slots=True)
class ScheduleOrder:
    """What a schedule is told to do, by whom and why."""

    order: OrderKind
    spec: ScheduleSpec | None = None
    requested_by: str | None = None
    reason: str | None = None


def schedule_workflow(workflows: Catalogue) -> AsyncWorkflow[..., None]:
    """The workflow, for a worker that has `workflows`."""

    async def schedule(
        schedule: ScheduleInfo, requested_by: str | None = None, reason: str | None = None
    ) -> None:
        await _Schedule(schedule, workflows).run()

    return AsyncWorkflow(schedule, SCHEDULE, 1, None)


def target_problem(workflows: Catalogue, spec: ScheduleSpec) -> str | None:
    """Why a worker can't start what is to be scheduled; None where it can, or others would."""
    if spec.pool is not None:
        return None  # its workers have the code
    try:
        found = workflows.find(spec.workflow)
        if found.pool is not None:
            return (
                f"workflow {spec.workflow!r} is of pool {found.pool!r}: schedule it by its code, as in "
                f"MODULE:{spec.workflow}"
            )
        found.input_type.canonical(spec.payload)
    except KeyError as error:
        return str(error.args[0])
    except (DefinitionError, PayloadError) as error:
        return str(error).removesuffix("Nothing was written.").rstrip(" .")
    return None


@step(name="refold.schedule.due", retry=Retry(), on_exhausted="park")
async def _due_between(spec: ScheduleSpec, after: datetime, at: datetime) -> DueTimes:
    """Rule 1. Where this machine does not know the time zone, the schedule is parked."""
    return due_between(spec, after, at)


def encode_start(info: ScheduleInfo, requested_by: str | None, reason: str | None) -> str:
    """The input with which a schedule's own run is started."""
    return _INPUT.encode((info, requested_by, reason), {})


def decode_start(payload: str) -> ScheduleInfo:
    """The schedule that an input tells.

    Raises:
        PayloadError: It tells none.
    """
    args, _ = _INPUT.decode(payload)
    return cast(ScheduleInfo, args[0])


class _Schedule:
    """One schedule, while its code runs.

    Args:
        info: How it stands.
        workflows: What the worker has; looked at before orders are recorded, and not after.
    """

    def __init__(self, info: ScheduleInfo, workflows: Catalogue) -> None:
        self._info = info
        self._workflows = workflows
        self._running: asyncio.Task[None] | None = None  # until the run that may not overlap ends
        self._retry_at: datetime | None = None
        self._retry_s = RETRY_S
        self._scope = workflow_scope("a schedule", "use Engine.schedule")
        self._orders = requests(SCHEDULE, ScheduleOrder, self._check)

    async def run(self) -> None:
        """From the input to the next one, or to the schedule's end."""
        try:
            await self._run()
        except asyncio.CancelledError:
            self._show(ended="cancelled", next_due=None)
            raise

    async def _run(self) -> None:
        info = self._info
        if info.next_due is None and not info.paused:
            await self._plan(info.spec)
        self._show()
        orders = asyncio.create_task(self._orders.receive())
        due: asyncio.Task[None] | None = None
        due_at: datetime | None = None
        while self._info.ended is None:
            if due_at != (at := self._wake_at()):
                if due is not None:
                    due.cancel()
                due, due_at = (None if at is None else asyncio.create_task(sleep_until(at))), at
            waits = {task for task in (orders, due, self._running) if task is not None}
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._running in done:
                self._running = None
            if orders in done:
                await self._obey(orders.result())
                orders = asyncio.create_task(self._orders.receive())
            elif due in done:
                due = due_at = None
                await self._due()
            # After something was done, not before: many orders may be waiting, which come along.
            is_long = workflow_info().history_length >= SHORT
            if is_long and self._running is None and self._info.ended is None:
                continue_as_new(self._info)

    def _wake_at(self) -> datetime | None:
        if self._running is not None and workflow_info().history_length >= LONG:
            return None
        return self._retry_at or self._info.next_due

    def _show(self, **changes: Any) -> None:
        """Change how it stands, and publish that."""
        self._info = replace(self._info, **changes)
        publish(SCHEDULE, self._info)

    # Due times --------------------------------------------------------------------------------------------

    async def _plan(self, spec: ScheduleSpec) -> bool:
        """Find out when it is due next, from now on; returns whether it is."""
        at = now()
        after = max(at, self._info.last_due or at)  # the clock may have been set back
        found = await _due_between(spec, after, after)
        self._retry_at = None
        ended = None if found.next is not None else "over"
        self._info = replace(
            self._info, spec=spec, next_due=found.next, ended=ended, problem=None, paused=False
        )
        return found.next is not None

    async def _due(self) -> None:
        """A due time has come, or one that could not be met is to be tried again."""
        info, at = self._info, now()
        assert info.next_due is not None, "else it would not wait for it"
        found = await _due_between(info.spec, info.next_due - _INSTANT, at)
        self._retry_at = None
        latest, passed = found.latest, found.passed
        if latest is not None and self._running is None and at - latest <= info.spec.catch_up:
            problem = await self._start(latest, self._id_of(latest, "auto"), latest)
            if isinstance(problem, UnknownWorkflow | InvalidInput):
                retry_at = at + timedelta(seconds=self._retry_s)
                self._retry_at = retry_at if found.next is None else min(retry_at, found.next)
                self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)
                self._show(problem=str(problem))
                return
            self._retry_s = RETRY_S
            passed -= problem is None
        self._show(
            next_due=found.next,
            skipped=self._info.skipped + passed,
            ended=None if found.next is not None else "over",
        )

    def _id_of(self, at: datetime, precision: str) -> str:
        text = at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision)
        return with_pool(f"{self._info.name}/{text}Z", self._info.spec.pool)

    async def _start(
        self, at: datetime, run_id: str, due: datetime | None = None
    ) -> CommandRefused | None:
        """Start a run, for a time; why that is refused, where it is."""
        spec = self._info.spec
        skips = spec.overlap == "skip"

        def request(step: int, source: str) -> ChildRequest:
            return ChildRequest(
                step=step,
                name=spec.workflow,
                target_id=run_id,
                payload=spec.payload,
                version=None,
                policy="abandon" if skips else "detached",
                attributes=dict(spec.attributes) or None,
                due_at=None,
                source=source,
            )

        try:
            number = await self._scope.call(request)
        except CommandRefused as error:
            self._info = replace(self._info, problem=str(error))
            return error
        if skips:
            self._running = asyncio.create_task(self._ended(number))
        info = self._info
        self._info = replace(
            info,
            last_due=due or info.last_due,
            last_id=run_id,
            last_started_at=max(at, now()),
            started=info.started + 1,
            problem=None,
        )
        return None

    async def _ended(self, number: int) -> None:
        """Wait for the end of the run that operation `number` started, whatever it is."""
        with contextlib.suppress(Exception):
            await self._scope.child_end(number, _END)

    # Orders -----------------------------------------------------------------------------------------------

    def _check(self, order: ScheduleOrder) -> None:
        """Refuse an order that does not apply, by what the history says alone: it is judged again in a replay.

        Before it is recorded, which is no part of the run, the worker's code has a say as well.
        """
        info = self._info
        if current() is None and order.spec is not None:
            problem = target_problem(self._workflows, order.spec)
            if problem is not None:
                raise UnknownWorkflow(f"{problem}. Nothing was changed")
        match order.order:
            case "set" if order.spec is None or order.spec == info.spec:
                raise UsageError(UNCHANGED)
            case "pause" if info.paused:
                raise UsageError(UNCHANGED)
            case "resume" if not info.paused:
                raise UsageError(UNCHANGED)
            case "trigger" if self._running is not None:
                raise UsageError(
                    f"its run {info.last_id!r} has not ended, and it is to skip where one has not"
                )
            case _:
                pass

    async def _obey(self, request: Request[ScheduleOrder]) -> None:
        order, info = request.value, self._info
        match order.order:
            case "set":
                await self._set(request, order.spec or info.spec)
            case "pause":
                self._retry_at = None
                self._show(paused=True, next_due=None, problem=None)
                request.reply(None)
            case "resume":
                await self._plan(info.spec)
                self._show()
                request.reply(None)
            case "trigger":
                last = info.last_started_at or now()
                at = max(now(), last + _INSTANT)  # of several at once, each has an id
                run_id = self._id_of(at, "microseconds")
                problem = await self._start(at, run_id)
                self._show()
                if problem is None:
                    request.reply(run_id)
                else:
                    request.refuse(str(problem))
            case "delete":
                self._show(ended="deleted", next_due=None)
                request.reply(None)

    async def _set(self, request: Request[ScheduleOrder], spec: ScheduleSpec) -> None:
        before = self._info
        if before.paused:
            self._show(spec=spec)
        elif await self._plan(spec):
            self._show()
        else:
            self._info = before
            request.refuse("it would never be due again")
            return
        if spec.overlap == "allow" and self._running is not None:
            self._running.cancel()
            self._running = None
        request.reply(None)


_INPUT: Final = schedule_workflow(Catalogue()).input_type
