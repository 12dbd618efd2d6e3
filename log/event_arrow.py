"""Events' columns for Apache Arrow, and so for Parquet and DuckDB. Needs pyarrow: the extra `parquet`."""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from refold.log.event_columns import DECIMAL_DIGITS, ELEMENTS, Kind

ARROW: Final[dict[Kind, pa.DataType]] = {
    Kind.TEXT: pa.string(),
    Kind.INTEGER: pa.int64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.TIME: pa.timestamp("us", tz="UTC"),
    Kind.BYTES: pa.binary(),
    Kind.DIGEST: pa.binary(32),
    Kind.MAP: pa.map_(pa.string(), pa.string()),
    Kind.REAL: pa.float64(),
    Kind.DECIMAL: pa.decimal128(sum(DECIMAL_DIGITS), DECIMAL_DIGITS[1]),
}
ARROW.update({many: pa.list_(ARROW[one]) for many, one in ELEMENTS.items()})


def arrow_array(kind: Kind, values: Sequence[Any]) -> pa.Array:
    """The values of a column; None for what it has not."""
    if kind is Kind.MAP:  # pyarrow takes a map as pairs
        values = [None if map_ is None else [*map_.items()] for map_ in values]
    return pa.array(values, ARROW[kind])
