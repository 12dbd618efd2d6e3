"""Events as Arrow tables, for Parquet and DuckDB. Needs pyarrow: the extra `parquet`."""

from collections.abc import Sequence

import pyarrow as pa

from refold.log.event_arrow import ARROW, arrow_array
from refold.projections.feed import Logged
from refold.projections.sink_rows import Columns


def schema_of(columns: Columns) -> pa.Schema:
    """The table's schema. Every column is nullable: what a later release adds, earlier rows have not."""
    return pa.schema([pa.field(name, ARROW[kind]) for name, kind in columns.kinds.items()])


def table_of(columns: Columns, logged: Sequence[Logged]) -> pa.Table:
    """Events as a table."""
    values = columns.of(logged)
    return pa.Table.from_arrays(
        [arrow_array(kind, values[name]) for name, kind in columns.kinds.items()],
        schema=schema_of(columns),
    )
