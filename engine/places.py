"""Which operation of a run is meant: `3`, `#3`, `charge`, or `charge#3`, as `refold show` names them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from refold.log.errors import UsageError


class Named(NamedTuple):
    """An operation of a run: its number and its name."""

    step: int
    name: str


@dataclass(frozen=True, slots=True)
class Place:
    """An operation as somebody names it.

    Args:
        name: Its name; None where the number alone was given.
        step: Its number; None where the name alone was given.
    """

    name: str | None
    step: int | None

    def __str__(self) -> str:
        number = "" if self.step is None else f"#{self.step}"
        return f"{self.name or ''}{number}"

    def means(self, operation: Named) -> bool:
        """Whether it is this operation."""
        return self.name in {None, operation.name} and self.step in {None, operation.step}


def read_place(place: str | int) -> Place:
    """The place that was named.

    Raises:
        UsageError: It names none.
    """
    if isinstance(place, int):
        return Place(None, place)
    name, mark, number = place.rpartition("#")
    if not mark:
        name, number = ("", place) if place.isdecimal() else (place, "")
    elif not number.isdecimal():
        name, number = place, ""  # the # is part of the name
    if not name and not number:
        raise UsageError(
            f"{place!r} names no operation: write its number, its name, or NAME#NUMBER"
        )
    return Place(name or None, int(number) if number else None)


def told(operations: Iterable[Named], limit: int = 20) -> str:
    """What operations there are, in words."""
    names = [f"{operation.name}#{operation.step}" for operation in operations]
    if not names:
        return "it has none"
    more = f", ... {len(names) - limit} more" if len(names) > limit else ""
    return f"it has {', '.join(names[:limit])}{more}"
