"""When a time zone's clocks change in a year, read from its TZif file (RFC 9636)."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from atlas.model import Transition, ZoneYear
from atlas.source import zone_file

# Ramadan's pair of changes in Morocco is a month apart, and no zone has a closer one.
STRIDE = timedelta(days=7)


def zone_year(zone: str, year: int) -> ZoneYear:
    """A zone's offsets over a year: a look each week, and between two that differ the second by bisection."""
    with zone_file(zone).open("rb") as file:
        rules = ZoneInfo.from_file(file, key=zone)
    begin, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    transitions = [Transition(begin, offset_s(rules, begin))]
    while begin < end:
        following = min(begin + STRIDE, end)
        if offset_s(rules, following) != transitions[-1].offset_s:
            at = _changed_at(rules, begin, following)
            if at < end:
                transitions.append(Transition(at, offset_s(rules, at)))
        begin = following
    return ZoneYear(zone, tuple(transitions))


def offset_s(rules: ZoneInfo, at: datetime) -> int:
    """How far a zone is ahead of UTC at a moment, in seconds."""
    offset = at.astimezone(rules).utcoffset()
    assert offset is not None, "a time with a zone has an offset"
    return int(offset.total_seconds())


def _changed_at(rules: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first second with another offset than `before`; `after` has another."""
    old = offset_s(rules, before)
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
        if offset_s(rules, middle) == old:
            before = middle
        else:
            after = middle
    return after
