"""Where a reading of the log begins, and from where it can go on another day."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final, Literal

from refold.log.errors import UsageError
from refold.log.protocol import Channel, Log
from refold.projections.feed import Position, position_at, start_of

_PLACE: Final = re.compile(r"(\d+):(\d+):(-1|\d+)", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a log has been read; `str(cursor)` is a text for keeping, `Cursor.of(text)` brings it back.

    Args:
        positions: For each partition that is read, the position to go on from.
    """

    positions: Mapping[int, Position]

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", MappingProxyType(dict(self.positions)))

    def __str__(self) -> str:
        return ",".join(
            f"{partition}:{offset}:{claim}"
            for partition, (offset, claim) in sorted(self.positions.items())
        )

    @classmethod
    def of(cls, text: str) -> "Cursor":
        """The cursor that `str` made a text of.

        Raises:
            UsageError: The text is no cursor's.
        """
        places = text.split(",")
        positions = {
            int(found[1]): Position(int(found[2]), int(found[3]))
            for place in places
            if (found := _PLACE.fullmatch(place)) is not None
        }
        if len(positions) < len(places):
            raise UsageError(f"{text!r} is no cursor: give back the text of one, as in 0:1200:1187")
        return cls(positions)


Since = Literal["start", "now"] | datetime | Mapping[int, int] | Cursor
"""From where: the log's beginning, its end, a time (with its zone), offsets by partition, or where a cursor stands.
Of offsets and cursors, partitions that they do not name are left out."""


async def positions_at(log: Log, since: Since, partitions: Iterable[int]) -> dict[int, Position]:
    """The positions that a beginning means.

    Args:
        log: An open log.
        since: The beginning.
        partitions: Which partitions are wanted.

    Raises:
        UsageError: A partition or offset is not there, or a time has no zone.
        LogTrimmed: An offset was trimmed.
        LogError: The log can't be read.
    """
    wanted = list(partitions)
    if isinstance(since, Cursor):
        for partition, position in since.positions.items():
            await position_at(log, _checked(log, partition), position.offset)
        return _named(since.positions, wanted)
    if isinstance(since, Mapping):
        found = {p: await position_at(log, _checked(log, p), at) for p, at in since.items()}
        return _named(found, wanted)
    if since == "start":
        return {partition: await start_of(log, partition) for partition in wanted}
    time = None if since == "now" else microseconds_of(since)
    return {
        partition: await position_at(log, partition, await _offset(log, partition, time))
        for partition in wanted
    }


def microseconds_of(time: datetime) -> int:
    """A time as microseconds since 1970-01-01 UTC.

    Raises:
        UsageError: It has no time zone.
    """
    if time.utcoffset() is None:
        raise UsageError(
            f"the time {time.isoformat()} has no time zone: give it one, for example tzinfo=datetime.UTC"
        )
    return (time - _EPOCH) // timedelta(microseconds=1)


async def _offset(log: Log, partition: int, time: int | None) -> int:
    if time is None:
        return (await log.bounds(Channel.EVENTS, partition)).end
    return await log.offset_at(Channel.EVENTS, partition, time)


def _checked(log: Log, partition: int) -> int:
    if not 0 <= partition < log.partitions:
        raise UsageError(
            f"{log.namespace!r} has no partition {partition}: it has {log.partitions}, from 0 on"
        )
    return partition


def _named(found: Mapping[int, Position], wanted: list[int]) -> dict[int, Position]:
    there = {partition: position for partition, position in found.items() if partition in wanted}
    if not there:
        raise UsageError(
            f"nothing would be read: the events that are asked for are in partition {wanted[0]}, which the beginning "
            "does not name"
        )
    return there
