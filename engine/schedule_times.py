"""When a schedule is due: cron expressions in a time zone, and fixed intervals. Pure, but for the time zone database.

Cron is that of cronsim, which follows Debian's cron. Where a zone's clocks are changed:

* An expression with fixed minutes and hours (`30 2 * * *`) is due once a day. A time that the clocks leap over is due
  at the first moment after the leap; one that comes twice is due the first time.
* One whose minutes or hours begin with a star (`*/15 * * * *`) goes on with the time that passes: nothing is made up
  for, and what comes twice is due twice.

An interval is counted from 1970-01-01 UTC, or from the schedule's own beginning where it has one: `every` of an hour
is due on the hour, whoever set it when.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args
from zoneinfo import ZoneInfo

from refold.engine.names import check_name
from refold.engine.scope import microseconds_of
from refold.log.errors import UsageError

Overlap = Literal["allow", "skip"]

DEFAULT_CATCH_UP: Final = timedelta(days=1)
"""A nightly report that was missed for an outage of some hours is still wanted; last week's is not."""
LEAST_CATCH_UP: Final = timedelta(seconds=10)
"""A due time is always met a little late: a worker that takes over from another needs some seconds."""
LEAST_EVERY: Final = timedelta(seconds=1)
COUNTED: Final = 1_000
"""Due times that were passed over are counted up to here: a minute's schedule that comes back after a year has half a
million of them, which nobody needs to know to the last."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT: Final = timedelta(microseconds=1)
_FIELDS: Final = 5
_LOOK_BACK: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """What a schedule starts, and when.

    Args:
        workflow: Name of the workflow; each run takes the newest version that the worker has.
        payload: JSON of its input.
        cron: Minute, hour, day of month, month, day of week; None where there is an interval.
        every: The interval; None where there is an expression.
        timezone: Whose clocks `cron` means, as in "Europe/Berlin".
        overlap: Whether a run may start while the one before it has not ended.
        catch_up: How late a due time may be met. Of several that were missed, only the latest is.
        start_at: Not due before this.
        end_at: Not due after this.
        pool: The workflow's pool.
        attributes: Tags of the runs, as `log/attributes.py` writes them.
    """

    workflow: str
    payload: str
    cron: str | None = None
    every: timedelta | None = None
    timezone: str = "UTC"
    overlap: Overlap = "allow"
    catch_up: timedelta = DEFAULT_CATCH_UP
    start_at: datetime | None = None
    end_at: datetime | None = None
    pool: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class DueTimes:
    """Where a schedule stands at a time.

    Args:
        latest: The last due time that has come; None where none has since the one asked from.
        passed: How many have come since then, the latest among them; `COUNTED` where there are more.
        next: The next one, still to come; None where there is none.
    """

    latest: datetime | None
    passed: int
    next: datetime | None


def due_between(spec: ScheduleSpec, after: datetime, now: datetime) -> DueTimes:
    """The due times later than `after`, seen from `now`."""
    passed = 0
    latest: datetime | None = None
    for at in due_times(spec, after):
        if at > now:
            return DueTimes(latest, passed, at)
        latest, passed = at, passed + 1
        if passed == COUNTED:
            return _from_the_end(spec, now, at)
    return DueTimes(latest, passed, None)


def _from_the_end(spec: ScheduleSpec, now: datetime, found: datetime) -> DueTimes:
    """The same where there are too many to go through: look back from `now`, ever further."""
    back = _LOOK_BACK
    while now - back > found:
        latest: datetime | None = None
        for at in due_times(spec, now - back):
            if at > now:
                if latest is not None:
                    return DueTimes(latest, COUNTED, at)
                break
            latest = at
        else:
            if latest is not None:
                return DueTimes(latest, COUNTED, None)
        back *= 2
    upcoming = next((at for at in due_times(spec, now)), None)
    return DueTimes(found, COUNTED, upcoming)


def due_times(spec: ScheduleSpec, after: datetime) -> Iterator[datetime]:
    """The due times later than `after`, in order, UTC.

    Raises:
        UsageError: The expression or the time zone can't be used here.
    """
    if spec.start_at is not None and spec.start_at > after:
        after = spec.start_at - _INSTANT
    found = _by_cron(spec, after) if spec.every is None else _by_interval(spec, spec.every, after)
    for at in found:
        if spec.end_at is not None and at > spec.end_at:
            return
        yield at


def _by_cron(spec: ScheduleSpec, after: datetime) -> Iterator[datetime]:
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - not loaded by who has no schedules

    zone = _zone(spec.timezone)
    try:
        found = CronSim(spec.cron or "", after.astimezone(zone))
    except CronSimError as error:
        raise _bad_cron(spec.cron, str(error).lower()) from error
    last = after
    for local in found:
        at = local.astimezone(UTC)
        if at > last:  # where clocks are changed, two local times can be one, or lie in the past
            last = at
            yield at


def _by_interval(spec: ScheduleSpec, every: timedelta, after: datetime) -> Iterator[datetime]:
    origin = _EPOCH if spec.start_at is None else spec.start_at.astimezone(UTC)
    try:
        at = origin + ((after - origin) // every + 1) * every
        while True:
            yield at
            at += every
    except OverflowError:  # after the year 9999
        return


def check_spec(spec: ScheduleSpec, now: datetime) -> datetime:
    """Refuse what can't be a schedule.

    Args:
        spec: The schedule.
        now: From when on it is to be due.

    Returns:
        When it is due for the first time.

    Raises:
        UsageError: It can't; the message says why.
    """
    if (spec.cron is None) == (spec.every is None):
        raise UsageError(
            'a schedule has a cron expression or an interval: give cron="0 3 * * *" or every=timedelta(hours=1), one'
            " of them"
        )
    _check_types(spec)
    if spec.overlap not in get_args(Overlap):
        raise UsageError(
            f"overlap={spec.overlap!r} is none of {', '.join(map(repr, get_args(Overlap)))}"
        )
    if spec.catch_up < LEAST_CATCH_UP:
        raise UsageError(
            f"catch_up={spec.catch_up} is too short: a due time is always met a little late, so give at least "
            f"{LEAST_CATCH_UP.seconds} seconds"
        )
    if spec.every is None:
        _check_cron(spec)
    elif spec.every < LEAST_EVERY:
        raise UsageError(f"every={spec.every} is too short: give an interval of a second or more")
    elif spec.timezone != "UTC":
        raise UsageError(
            f"timezone={spec.timezone!r} goes with cron; an interval is the same in every zone: leave it out"
        )
    first = next(due_times(spec, now), None)
    if first is None:
        raise UsageError(
            f"a schedule with {described(spec)} would never be due: there is no such time from now on"
        )
    return first


def _check_types(spec: ScheduleSpec) -> None:
    """Not every caller has a type checker."""
    for name, span in (("every", spec.every), ("catch_up", spec.catch_up)):
        if span is not None and not isinstance(span, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"{name}={span!r} is no timedelta: give one, as in timedelta(hours=1)")
    for name, time in (("start_at", spec.start_at), ("end_at", spec.end_at)):
        if time is not None:
            microseconds_of(time, f"take for {name}")


def _check_cron(spec: ScheduleSpec) -> None:
    cron = spec.cron
    if not isinstance(cron, str) or len(cron.split()) != _FIELDS:
        raise _bad_cron(cron, "it needs five fields")
    check_name(cron, "cron expression")
    _zone(spec.timezone)


def _bad_cron(cron: str | None, why: str) -> UsageError:
    return UsageError(
        f"{cron!r} is no cron expression ({why}): write minute, hour, day of month, month and day of week, as in "
        "'0 3 * * *' for three o'clock every night"
    )


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise UsageError(
            f"{name!r} is no time zone that is known on this machine: use a name as in 'Europe/Berlin'. Where all are "
            "unknown, install the package tzdata"
        ) from error


def described(spec: ScheduleSpec) -> str:
    """When it is due, on one line."""
    when = f"cron {spec.cron!r} in {spec.timezone}" if spec.every is None else f"every {spec.every}"
    since = "" if spec.start_at is None else f", from {spec.start_at.isoformat()}"
    until = "" if spec.end_at is None else f", until {spec.end_at.isoformat()}"
    return f"{when}{since}{until}"
