"""The orders in which the workflows read model lists runs, and the places in them where pages end.

Every order ends with the id, so it is the same whoever asks. By workflow, status or version, runs of one kind stand by
their start. A run that has not ended has no end and no duration: it stands after all others where the greatest come
first, before them where the least do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote, unquote

from refold.log.errors import UsageError

RunOrder = Literal["started", "updated", "ended", "duration", "id", "workflow", "status", "version"]

Key = tuple[int | str, ...]
"""Where a run stands in an order: the values that it is sorted by, and its id."""

NO_END: Final = 0
NO_DURATION: Final = -1
"""What runs that have not ended are sorted by."""

_MOST: Final = 2**63 - 1
"""What a database's integer can be."""


@dataclass(frozen=True, slots=True)
class Order:
    """What runs are sorted by.

    Args:
        columns: Of `runs`, before the id: `{}` stands for the table. There is an index on them.
        types: Of their values.
    """

    columns: tuple[str, ...]
    types: tuple[Callable[[str], int | str], ...]


def _number(text: str) -> int:
    number = int(text)
    if abs(number) > _MOST:
        raise ValueError(text)
    return number


ORDERS: Final[Mapping[RunOrder, Order]] = {
    "started": Order(("{}.started_at",), (_number,)),
    "updated": Order(("{}.updated_at",), (_number,)),
    "ended": Order((f"coalesce({{}}.ended_at, {NO_END})",), (_number,)),
    "duration": Order((f"coalesce({{0}}.ended_at - {{0}}.started_at, {NO_DURATION})",), (_number,)),
    "id": Order((), ()),
    "workflow": Order(("{}.workflow", "{}.started_at"), (unquote, _number)),
    "status": Order(("{}.status", "{}.started_at"), (unquote, _number)),
    "version": Order(("{}.version", "{}.started_at"), (_number, _number)),
}


def place_of(order: RunOrder, key: Key) -> str:
    """A page's `next`: the order, and where in it its last run stands, as in "started,1795910578839342,order-17"."""
    *values, workflow_id = key
    return ",".join([order, *(quote(str(value), safe="") for value in values), str(workflow_id)])


def place_after(after: str, order: RunOrder) -> Key:
    """What a page's `next` says.

    Raises:
        UsageError: It is no page's, or one of another order.
    """
    types = ORDERS[order].types
    try:
        of, *texts, workflow_id = after.split(",", len(types) + 1)
        values = [make(text) for make, text in zip(types, texts, strict=True)]
    except ValueError:
        of, values, workflow_id = "", [], ""
    if of != order:
        raise UsageError(
            f"{after!r} is not where a page in the order {order!r} ended: give its `next`"
        )
    return (*values, workflow_id)
