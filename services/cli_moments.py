"""`--at`: moments of the past, as they are typed.

2h  2026-12-01T09:00Z       a time of the log; 2h is two hours ago
0:1200                      up to the record at offset 1200 of partition 0, and all that the log had by then
17                          up to the event at position 17 of the run; for one run
"""

import re
from typing import Annotated, Final

import typer

from refold.engine.moments import AtOffset, AtPosition, AtTime, Moment
from refold.log.errors import UsageError
from refold.services.cli_values import read_moment
from refold.services.spans import microseconds

_OFFSET: Final = re.compile(r"(\d+):(\d+)", re.ASCII)

At = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="WHEN",
        help="As of then: a time (2h is two hours ago), PARTITION:OFFSET, or the position of an event of the run.",
        show_default=False,
    ),
]

AtMoment = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="WHEN",
        help="As of then: a time (2h is two hours ago), or PARTITION:OFFSET.",
        show_default=False,
    ),
]


def read_at(text: str, now: int, option: str = "--at") -> Moment:
    """The moment that was typed.

    Args:
        text: What was typed.
        now: Microseconds since 1970-01-01 UTC, from which spans count back.
        option: The option's name, for messages.

    Raises:
        UsageError: It is none.
    """
    if text.isascii() and text.isdecimal():
        return AtPosition(int(text))
    return read_moment_at(text, now, option)


def read_moment_at(text: str, now: int, option: str = "--at") -> AtTime | AtOffset:
    """The same where all runs are meant: they have no position in common. Raises as `read_at`."""
    if text == "now":
        return AtTime(now)
    place = _OFFSET.fullmatch(text)
    if place is not None:
        return AtOffset(int(place[1]), int(place[2]))
    if text.isascii() and text.isdecimal():
        raise UsageError(
            f"{option} {text}: a position is one run's; of all runs, give a time, or PARTITION:OFFSET"
        )
    time = read_moment(text, now, option)
    assert time is not None, "a text was given"
    return AtTime(microseconds(time))
