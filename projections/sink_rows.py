"""Events as rows of one wide table, the same for every sink: where they stand in the log, the event's own columns, and
those that were asked for from payloads.

    log_partition, log_offset, log_timestamp     the place in the log; the first two are a row's key
    chain, kind, event_id, workflow_id, ...      the columns of the event (docs/event-contract.md)
    unreadable, log_value                        of a record that this release can't read: why, and its bytes
    payload_...                                  on request: fields of JSON payloads, typed
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple, cast

from refold.log.archive_rows import columns_of
from refold.log.event_columns import DECIMAL_DIGITS, ELEMENTS, EVENT_COLUMNS, Kind
from refold.log.events import JSON, Unreadable
from refold.projections.feed import Logged

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_INTEGERS: Final = range(-(2**63), 2**63)

_PLACE: Final = {
    "log_partition": Kind.INTEGER,
    "log_offset": Kind.INTEGER,
    "log_timestamp": Kind.TIME,
}
_FOREIGN: Final = {"unreadable": Kind.TEXT, "log_value": Kind.BYTES}


class PayloadColumn(NamedTuple):
    """A column that is taken from JSON payloads.

    Args:
        name: The column's.
        path: The member of the payload, and perhaps a member of that; none for the payload itself.
        kind: What it holds. A value that does not fit is null here; the payload has it.
    """

    name: str
    path: tuple[str, ...]
    kind: Kind


class Columns:
    """The columns of a sink's table.

    Args:
        payload: Columns from payloads, after all others.
    """

    def __init__(self, payload: Sequence[PayloadColumn] = ()) -> None:
        self._payload = tuple(payload)
        self.kinds: Mapping[str, Kind] = {
            **_PLACE,
            **EVENT_COLUMNS,
            **_FOREIGN,
            **{column.name: column.kind for column in payload},
        }

    def of(self, logged: Sequence[Logged]) -> Mapping[str, list[Any]]:
        """The values of each column, in the order of `kinds`; times as microseconds since 1970-01-01 UTC."""
        rows = [_columns_of(one) for one in logged]
        values: dict[str, list[Any]] = {
            "log_partition": [one.partition for one in logged],
            "log_offset": [one.offset for one in logged],
            "log_timestamp": [one.timestamp for one in logged],
        }
        for name in (*EVENT_COLUMNS, *_FOREIGN):
            values[name] = [row.get(name) for row in rows]
        if self._payload:
            payloads = [_payload_of(row) for row in rows]
            for name, path, kind in self._payload:
                fit = _FITS[kind] if path or kind is not Kind.TEXT else _plain_text
                values[name] = [fit(_member(payload, path)) for payload in payloads]
        return values


def day_of(one: Logged) -> str:
    """The UTC date on which an event was recorded, as 2026-11-28; of a record that can't be read, when it came."""
    event = one.event
    at = one.timestamp if isinstance(event, Unreadable) else event.recorded_at
    return moment(at).date().isoformat()


def moment(microseconds: int) -> datetime:
    """A time as a datetime; the last one that there is for what lies beyond the year 9999."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _columns_of(one: Logged) -> Mapping[str, object]:
    event = one.event
    if isinstance(event, Unreadable):
        return {
            "workflow_id": event.workflow_id,
            "unreadable": event.reason,
            "log_value": one.record.value,
        }
    return columns_of(event)


def _payload_of(row: Mapping[str, Any]) -> object:
    text = row.get("payload")
    if text is None or row.get("encoding") != JSON:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _member(value: object, path: tuple[str, ...]) -> object:
    for name in path:
        if not isinstance(value, dict):
            return None
        value = cast("dict[str, object]", value).get(name)
    return value


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _plain_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value in _INTEGERS:
        return value
    return None


def _real(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return None


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _time(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH) // _MICROSECOND


def _decimal(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    exponent = found.as_tuple().exponent  # no number for an infinity
    before, after = DECIMAL_DIGITS
    if not isinstance(exponent, int) or exponent < -after or found.adjusted() >= before:
        return None
    return found


def _listed(fit: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def fitted(values: object) -> list[Any] | None:
        if not isinstance(values, list):
            return None
        members = cast("list[object]", values)
        found = [fit(value) for value in members]
        lost = any(new is None and old is not None for old, new in zip(members, found, strict=True))
        return None if lost else found

    return fitted


_FITS: Final[dict[Kind, Callable[[Any], Any]]] = {
    Kind.TEXT: _text,
    Kind.INTEGER: _integer,
    Kind.REAL: _real,
    Kind.BOOLEAN: _boolean,
    Kind.TIME: _time,
    Kind.DECIMAL: _decimal,
}
_FITS.update({many: _listed(_FITS[one]) for many, one in ELEMENTS.items()})
_FITS[Kind.TEXTS] = _listed(_plain_text)  # of lists of something else it would make texts
