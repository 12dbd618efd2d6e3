"""Events as Arrow tables, for Parquet and DuckDB. Needs pyarrow: the extra `parquet`."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from refold.log.event_arrow import ARROW, arrow_array
from refold.log.event_columns import Kind
from refold.projections.feed import Logged
from refold.projections.sink_rows import Columns


def schema_of(kinds: Mapping[str, Kind]) -> pa.Schema:
    """The table's schema. Every column is nullable: what a later release adds, earlier rows have not."""
    return pa.schema([pa.field(name, ARROW[kind]) for name, kind in kinds.items()])


def table_of(columns: Columns, logged: Sequence[Logged]) -> pa.Table:
    """Events as a table."""
    return arrow_table(columns.kinds, columns.of(logged))


def arrow_table(kinds: Mapping[str, Kind], values: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Columns as a table, in the order of `kinds`."""
    return pa.Table.from_arrays(
        [arrow_array(kind, values[name]) for name, kind in kinds.items()], schema=schema_of(kinds)
    )
