"""An archive's files as Parquet, compressed with Zstandard: DuckDB, Spark, pandas and others query them as they are.

Needs pyarrow: the extra `parquet`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from refold.log.archive_rows import Row
from refold.log.errors import LogCorrupt
from refold.log.event_arrow import ARROW, arrow_array
from refold.log.event_columns import EVENT_COLUMNS, Kind
from refold.log.protocol import Record

_GROUP_RECORDS: Final = 20_000
"""Records in a row group: what is held in memory, and what a query reads at a time."""
_BATCH: Final = 2_000
_RAW: Final = ["log_offset", "log_timestamp", "log_key", "log_headers", "log_value"]
_HEADERS: Final = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
_SCHEMA: Final = pa.schema(
    [
        pa.field("log_offset", pa.int64(), nullable=False),
        pa.field("log_timestamp", ARROW[Kind.TIME], nullable=False),
        pa.field("log_key", pa.string()),
        pa.field("log_headers", _HEADERS, nullable=False),
        pa.field("log_value", pa.binary(), nullable=False),
        pa.field("log_accepted", pa.bool_(), nullable=False),
        *(pa.field(name, ARROW[kind]) for name, kind in EVENT_COLUMNS.items()),
    ]
)


class ParquetFiles:
    """The format. See `FileFormat`."""

    suffix = "parquet"

    def writer(self, file: BinaryIO) -> "_ParquetWriter":
        """Begin a file."""
        return _ParquetWriter(file)

    def read(self, file: BinaryIO) -> Iterator[Sequence[Record]]:
        """The records of a file, in order."""
        try:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=_BATCH, columns=_RAW):
                yield _records(batch)
        except (pa.ArrowException, ValueError, KeyError) as error:
            raise LogCorrupt(f"it is no Parquet file of an archive: {error}") from error


class _ParquetWriter:
    def __init__(self, file: BinaryIO) -> None:
        self._writer = pq.ParquetWriter(file, _SCHEMA, compression="zstd")
        self._rows: list[Row] = []

    def write(self, rows: Sequence[Row]) -> None:
        self._rows += rows
        if len(self._rows) >= _GROUP_RECORDS:
            self._write_group()

    def finish(self) -> None:
        if self._rows:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        rows, self._rows = self._rows, []
        records = [row.record for row in rows]
        columns: dict[str, list[Any]] = {
            "log_offset": [record.offset for record in records],
            "log_timestamp": [record.timestamp for record in records],
            "log_key": [record.key for record in records],
            "log_headers": [
                [{"name": name, "value": value} for name, value in record.headers]
                for record in records
            ],
            "log_value": [record.value for record in records],
            "log_accepted": [row.accepted for row in rows],
        }
        arrays = [pa.array(columns[name], _SCHEMA.field(name).type) for name in columns]
        arrays += [
            arrow_array(kind, [row.columns.get(name) for row in rows])
            for name, kind in EVENT_COLUMNS.items()
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA))


def _records(batch: pa.RecordBatch) -> list[Record]:
    offsets, times, keys, headers, values = (batch.column(name) for name in _RAW)
    columns: list[list[Any]] = [
        column.to_pylist() for column in (offsets, times.cast(pa.int64()), keys, headers, values)
    ]
    return [
        Record(
            offset,
            timestamp,
            key,
            value,
            tuple([(header["name"], header["value"]) for header in own]),
        )
        for offset, timestamp, key, own, value in zip(*columns, strict=True)
    ]
