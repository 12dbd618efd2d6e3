"""When schedules are due, where clocks are changed as well."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.engine.schedule_times import (
    COUNTED,
    DueTimes,
    ScheduleSpec,
    check_spec,
    due_between,
    due_times,
)
from refold.log.errors import UsageError

BERLIN = "Europe/Berlin"
SPRING = datetime(2026, 3, 28, 12, tzinfo=UTC)  # the clocks leap from 2 to 3 in the night after
AUTUMN = datetime(2026, 10, 24, 12, tzinfo=UTC)  # and go back from 3 to 2


def spec(**given: Any) -> ScheduleSpec:
    return ScheduleSpec("report", "{}", **given)


def local(after: datetime, count: int, **given: Any) -> list[str]:
    """The next due times, by the clocks of their zone."""
    zone = ZoneInfo(given.get("timezone", "UTC"))
    found = islice(due_times(spec(**given), after), count)
    return [f"{at.astimezone(zone):%m-%d %H:%M %z}" for at in found]


def test_a_time_that_the_clocks_leap_over_is_due_right_after() -> None:
    """Given 2:30 every night, in the night that has no 2:30 it is due at 3:00."""
    assert local(SPRING, 2, cron="30 2 * * *", timezone=BERLIN) == [
        "03-29 03:00 +0200",
        "03-30 02:30 +0200",
    ]


def test_two_times_that_the_clocks_leap_over_are_one() -> None:
    """Given 2:00, 2:30 and 3:00, in the night that leaps they are one due time and not three."""
    assert local(SPRING, 3, cron="0,30 2-3 * * *", timezone=BERLIN) == [
        "03-29 03:00 +0200",
        "03-29 03:30 +0200",
        "03-30 02:00 +0200",
    ]


def test_a_time_that_comes_twice_is_due_the_first_time() -> None:
    """Given 2:30 every night, in the night that has two it is due once; asked between the two, it is due tomorrow."""
    first, second = "10-25 02:30 +0200", "10-26 02:30 +0100"
    assert local(AUTUMN, 2, cron="30 2 * * *", timezone=BERLIN) == [first, second]
    between = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    assert local(between, 1, cron="30 2 * * *", timezone=BERLIN) == [second]


def test_every_half_hour_goes_on_with_the_time_that_passes() -> None:
    """Given a star for the hours, nothing is made up for when clocks leap, and the hour that comes twice has all."""
    leaping = local(
        datetime(2026, 3, 29, 0, 10, tzinfo=UTC), 3, cron="*/30 * * * *", timezone=BERLIN
    )
    assert leaping == ["03-29 01:30 +0100", "03-29 03:00 +0200", "03-29 03:30 +0200"]
    twice = local(
        datetime(2026, 10, 24, 23, 40, tzinfo=UTC), 5, cron="*/30 * * * *", timezone=BERLIN
    )
    assert [at[6:11] for at in twice] == ["02:00", "02:30", "02:00", "02:30", "03:00"]


def test_an_interval_is_counted_from_the_epoch_or_from_its_beginning() -> None:
    """Given an hour, it is due on the hour, whenever it was set; with a beginning, at that and each hour after."""
    at = datetime(2026, 5, 1, 9, 17, tzinfo=UTC)
    assert local(at, 2, every=timedelta(hours=1)) == ["05-01 10:00 +0000", "05-01 11:00 +0000"]
    begins = datetime(2026, 5, 2, 8, 30, tzinfo=UTC)
    assert local(at, 2, every=timedelta(hours=1), start_at=begins) == [
        "05-02 08:30 +0000",
        "05-02 09:30 +0000",
    ]


def test_nothing_is_due_after_the_end() -> None:
    """Given an end, the last due time is the one before or at it."""
    at = datetime(2026, 5, 1, tzinfo=UTC)
    daily = spec(cron="0 3 * * *", end_at=at + timedelta(days=1, hours=3))
    assert [t.day for t in due_times(daily, at)] == [1, 2]
    assert due_between(daily, at, at + timedelta(days=5)).next is None


def test_a_year_of_minutes_is_not_gone_through() -> None:
    """Given a minute's schedule that nobody met for a year, its latest due time is found, and so many is said."""
    year = timedelta(days=365)
    found = due_between(spec(cron="* * * * *", timezone=BERLIN), SPRING, SPRING + year)
    minute = timedelta(minutes=1)
    assert found == DueTimes(SPRING + year, COUNTED, SPRING + year + minute)


CRONS = st.sampled_from(
    ["* * * * *", "*/7 * * * *", "30 2 * * *", "0 0 1 * *", "0 9-17 * * 1-5", "15,45 1-3 * * *"]
)

MOMENTS = st.integers(0, 330 * 86_400).map(
    lambda seconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


@given(CRONS, MOMENTS, st.integers(0, 3 * 86_400))
def test_where_it_stands_is_what_going_through_all_of_them_gives(
    cron: str, begin: datetime, seconds: int
) -> None:
    """Given any stretch, the latest and the next due time are those that going on one by one finds; none comes twice,
    and from wherever one looks on they are the same.
    """
    due = spec(cron=cron, timezone=BERLIN)
    end = begin + timedelta(seconds=seconds)
    before: list[datetime] = []
    for at in due_times(due, begin):
        assert not before or at > before[-1]
        if at > end:
            break
        before.append(at)
    found = due_between(due, begin, end)
    assert found.latest == (before[-1] if before else None)
    assert found.passed == min(len(before), COUNTED)
    assert found.next == next(due_times(due, end))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "one of them"),
        ({"cron": "0 3 * * *", "every": timedelta(hours=1)}, "one of them"),
        ({"cron": "0 3 * *"}, "five fields"),
        ({"cron": "@daily"}, "five fields"),
        ({"cron": "61 3 * * *"}, "bad minute"),
        ({"cron": "0 0 30 2 *"}, "bad day-of-month"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Atlantis"}, "no time zone"),
        ({"cron": "0 3 * * *", "timezone": "../../etc/passwd"}, "no time zone"),
        ({"every": timedelta(seconds=-5)}, "too short"),
        ({"every": 3600}, "no timedelta"),
        ({"every": timedelta(hours=1), "timezone": BERLIN}, "goes with cron"),
        ({"cron": "0 3 * * *", "overlap": "queue"}, "'allow', 'skip'"),
        ({"cron": "0 3 * * *", "catch_up": timedelta(0)}, "at least 10 seconds"),
        ({"cron": "0 3 * * *", "end_at": SPRING - timedelta(days=1)}, "never be due"),
        ({"cron": "0 3 * * *", "start_at": SPRING.replace(tzinfo=None)}, "no time zone"),
    ],
)
def test_what_can_not_be_a_schedule_is_told_in_one_error(given: dict[str, Any], said: str) -> None:
    """Given an expression, zone, interval or limit that can't be, the error names it."""
    with pytest.raises(UsageError, match=said):
        check_spec(spec(**given), SPRING)
