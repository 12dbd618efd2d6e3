"""How schedules are made, with types: the part of the engine that has an overload for each number of arguments.

The keywords are typed once, in `ScheduleOptions`; `engine/bound.py` says why arguments are typed by their number.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict, TypeVar, Unpack, overload

from refold.engine.access import Access
from refold.engine.bound import Bound, Takes0, Takes1, Takes2, Takes3, Takes4
from refold.engine.definitions import Catalogue, Workflow, bound_of
from refold.engine.payload import check_size
from refold.engine.schedule import Schedule, read_schedules
from refold.engine.schedule_run import ScheduleInfo
from refold.engine.schedule_times import Overlap, ScheduleSpec
from refold.log.attributes import Tag, encode_attributes, refuse_reserved

A1 = TypeVar("A1")
A2 = TypeVar("A2")
A3 = TypeVar("A3")
A4 = TypeVar("A4")


class ScheduleOptions(TypedDict, total=False):
    """When a schedule is due, and how it goes about it; see `Engine.schedule`."""

    cron: str | None
    every: timedelta | None
    timezone: str
    overlap: Overlap
    catch_up: timedelta
    start_at: datetime | None
    end_at: datetime | None
    attributes: Mapping[str, Tag] | None
    reason: str | None


class Schedules:
    """Makes schedules, and finds them. The engine's own; it sets what is named here."""

    _access: Access
    _registered: Catalogue | None

    @overload
    def schedule(
        self, name: str, workflow: Bound[Any], /, **options: Unpack[ScheduleOptions]
    ) -> Schedule: ...
    @overload
    def schedule(
        self, name: str, workflow: Takes0[Any], /, **options: Unpack[ScheduleOptions]
    ) -> Schedule: ...
    @overload
    def schedule(
        self, name: str, workflow: Takes1[A1, Any], a1: A1, /, **options: Unpack[ScheduleOptions]
    ) -> Schedule: ...
    @overload
    def schedule(
        self,
        name: str,
        workflow: Takes2[A1, A2, Any],
        a1: A1,
        a2: A2,
        /,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule: ...
    @overload
    def schedule(
        self,
        name: str,
        workflow: Takes3[A1, A2, A3, Any],
        a1: A1,
        a2: A2,
        a3: A3,
        /,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule: ...
    @overload
    def schedule(
        self,
        name: str,
        workflow: Takes4[A1, A2, A3, A4, Any],
        a1: A1,
        a2: A2,
        a3: A3,
        a4: A4,
        /,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule: ...
    def schedule(
        self,
        name: str,
        workflow: Any,  # the overloads say what it is
        /,
        *args: object,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Start a workflow again and again, at times that are said once: make a schedule, or change the one that is.

        The same schedule again is no change. A changed one goes on from now: how it stands otherwise (paused or not,
        how many runs it has started) stays. It outlives this engine, and is carried out by whoever works on the log;
        see docs/schedules.md.

        Args:
            name: Its name, 1 to 150 characters. Ids of its runs are the name and the due time, as in
                `nightly/2026-11-29T02:00:00Z`.
            workflow: A workflow, followed by its positional arguments; or `workflow.bind(...)` with its input.
            args: The workflow's arguments, the same for each run.
            options: These, each by its name. One of `cron` and `every` has to be there:

                `cron`: five fields, minute, hour, day of month, month, day of week: "0 3 * * *".
                `timezone`: whose clocks `cron` means, as in "Europe/Berlin"; UTC where not given.
                `every`: a fixed interval, counted from 1970-01-01 UTC, or from `start_at`.
                `overlap`: "allow" (where not given), or "skip": a due time that comes before the run of the last one
                has ended is passed over.
                `catch_up`: how late a due time may be met after nobody was there to meet it; a day where not given. Of
                several that were missed, only the latest is met.
                `start_at`, `end_at`: not due before, not due after; with a time zone.
                `attributes`: tags of the runs.
                `reason`: why, for the audit.

        Returns:
            The schedule.

        Raises:
            UsageError: The expression, zone, interval or name can't be used, or it would never be due.
            PayloadError: The input has no JSON form or does not fit. Nothing was written.
            UnknownWorkflow: The worker has no such workflow, or is of a release that has no schedules.
            ResultTimeout: No worker answered within `start_timeout_s`.
        """
        put = self._put(name, bound_of(workflow, args), **options)
        return self._access.bridge.wait(put, "schedule_async()")

    @overload
    async def schedule_async(
        self, name: str, workflow: Bound[Any], /, **options: Unpack[ScheduleOptions]
    ) -> Schedule: ...
    @overload
    async def schedule_async(
        self, name: str, workflow: Takes0[Any], /, **options: Unpack[ScheduleOptions]
    ) -> Schedule: ...
    @overload
    async def schedule_async(
        self, name: str, workflow: Takes1[A1, Any], a1: A1, /, **options: Unpack[ScheduleOptions]
    ) -> Schedule: ...
    @overload
    async def schedule_async(
        self,
        name: str,
        workflow: Takes2[A1, A2, Any],
        a1: A1,
        a2: A2,
        /,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule: ...
    @overload
    async def schedule_async(
        self,
        name: str,
        workflow: Takes3[A1, A2, A3, Any],
        a1: A1,
        a2: A2,
        a3: A3,
        /,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule: ...
    @overload
    async def schedule_async(
        self,
        name: str,
        workflow: Takes4[A1, A2, A3, A4, Any],
        a1: A1,
        a2: A2,
        a3: A3,
        a4: A4,
        /,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule: ...
    async def schedule_async(
        self,
        name: str,
        workflow: Any,  # the overloads say what it is
        /,
        *args: object,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """`schedule` for async code."""
        put = self._put(name, bound_of(workflow, args), **options)
        return await self._access.bridge.run(put)

    async def _put(
        self,
        name: str,
        bound: Bound[Any],
        *,
        attributes: Mapping[str, Tag] | None = None,
        reason: str | None = None,
        **options: Any,
    ) -> Schedule:
        workflow: Workflow[..., Any] = bound.workflow
        check_size(
            bound.payload, self._access.max_payload_bytes, f"input of workflow {workflow.name!r}"
        )
        refuse_reserved(attributes or ())
        tags = encode_attributes(attributes or {})
        spec = ScheduleSpec(
            workflow.name, bound.payload, pool=workflow.pool, attributes=tags, **options
        )
        schedule = Schedule(self._access, name)
        if self._registered is not None:
            self._registered.add(workflow)
        await schedule.set_async(spec, reason=reason)
        return schedule

    def get_schedule(self, name: str, /) -> Schedule:
        """The schedule of that name, from whatever process it was made.

        Raises:
            UsageError: The name can't be one.
        """
        return Schedule(self._access, name)

    def schedules(self) -> Sequence[ScheduleInfo]:
        """How all schedules stand, by name. Reads the whole log."""
        return self._access.bridge.wait(self.schedules_async(), "schedules_async()")

    async def schedules_async(self) -> Sequence[ScheduleInfo]:
        """`schedules` for async code."""
        client = self._access.client
        return await self._access.bridge.run(read_schedules(client.log, client.blobs))
