"""The columns of an event as every table has them: names from the schema, and what kind of value each holds."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from refold.log.archive_rows import event_fields


class Kind(StrEnum):
    """What a column holds. Times are microseconds since 1970-01-01 UTC until a target makes them its own."""

    TEXT = "text"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TIME = "time"
    BYTES = "bytes"
    DIGEST = "digest"  # always 32 bytes
    MAP = "map"  # of text to text
    REAL = "real"
    DECIMAL = "decimal"  # of at most `DECIMAL_DIGITS`
    TEXTS = "texts"  # lists
    INTEGERS = "integers"
    BOOLEANS = "booleans"
    TIMES = "times"
    REALS = "reals"
    DECIMALS = "decimals"


ELEMENTS: Final[Mapping[Kind, Kind]] = {
    Kind.TEXTS: Kind.TEXT,
    Kind.INTEGERS: Kind.INTEGER,
    Kind.BOOLEANS: Kind.BOOLEAN,
    Kind.TIMES: Kind.TIME,
    Kind.REALS: Kind.REAL,
    Kind.DECIMALS: Kind.DECIMAL,
}
"""What lists have in them."""

DECIMAL_DIGITS: Final = (28, 10)
"""Before the point and after it: 38 in all is what Arrow, Parquet and DuckDB have room for, and 10 what rates need."""


_SIMPLE: Final = {"string": Kind.TEXT, "long": Kind.INTEGER, "boolean": Kind.BOOLEAN}


def _kind_of(avro: str | list[Any] | dict[str, Any]) -> Kind:
    match avro:
        case str():
            return _SIMPLE[avro]
        case list():
            return next(_kind_of(branch) for branch in avro if branch != "null")
        case {"type": "fixed", "size": 32}:
            return Kind.DIGEST
        case {"type": "map"}:
            return Kind.MAP
        case {"logicalType": "timestamp-micros"}:
            return Kind.TIME
        case _:
            return _kind_of(avro["type"])


EVENT_COLUMNS: Final[Mapping[str, Kind]] = {
    column["name"]: _kind_of(column["type"]) for column in event_fields()
}
"""In the schema's order."""
