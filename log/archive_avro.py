"""An archive's files as Avro object container files, deflated: any Avro reader reads them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Final, cast

import fastavro
from fastavro.write import Writer

from refold.log.archive_rows import Row, event_fields
from refold.log.errors import LogCorrupt
from refold.log.protocol import Record

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TIME: Final = {"type": "long", "logicalType": "timestamp-micros"}
_BATCH: Final = 1_000
_HEADERS: Final = {
    "type": "array",
    "items": {
        "type": "record",
        "name": "Header",
        "fields": [{"name": "name", "type": "string"}, {"name": "value", "type": "bytes"}],
    },
}
_RAW: Final[list[dict[str, Any]]] = [
    {"name": "log_offset", "type": "long", "doc": "Offset of the record in its partition."},
    {"name": "log_timestamp", "type": _TIME, "doc": "The log's own time of the record."},
    {"name": "log_key", "type": ["null", "string"], "doc": "The record's key."},
    {"name": "log_headers", "type": _HEADERS, "doc": "The record's headers, in order."},
    {"name": "log_value", "type": "bytes", "doc": "The record's value, as it was."},
]
_ACCEPTED: Final = {
    "name": "log_accepted",
    "type": "boolean",
    "doc": "Whether the event counts: false for what a former owner wrote.",
}


def _schema(fields: Sequence[Mapping[str, Any]]) -> Any:
    return fastavro.parse_schema(
        {
            "type": "record",
            "name": "ArchivedEvent",
            "namespace": "refold.archive",
            "doc": "A record of a partition's events, and the columns of its event.",
            "fields": fields,
        }
    )


def _nullable(column: Mapping[str, Any]) -> dict[str, Any]:
    type_ = column["type"]
    return {
        **column,
        "type": type_ if isinstance(type_, list) else ["null", type_],
        "default": None,
    }


_WRITTEN: Final = _schema([*_RAW, _ACCEPTED, *(_nullable(column) for column in event_fields())])
_READ: Final = _schema(_RAW)


class AvroFiles:
    """The format. See `FileFormat`."""

    suffix = "avro"

    def writer(self, file: BinaryIO) -> "_AvroWriter":
        """Begin a file."""
        return _AvroWriter(file)

    def read(self, file: BinaryIO) -> Iterator[Sequence[Record]]:
        """The records of a file, in order."""
        batch: list[Record] = []
        try:
            for row in fastavro.reader(file, reader_schema=_READ):
                batch.append(_record(cast("dict[str, Any]", row)))
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        except OSError:
            raise
        except Exception as error:
            # Bad bytes raise whatever the line that they led to raises.
            raise LogCorrupt(f"it is no Avro file of an archive: {error!r}") from error
        if batch:
            yield batch


class _AvroWriter:
    def __init__(self, file: BinaryIO) -> None:
        writer: Any = Writer(file, _WRITTEN, codec="deflate")
        self._write: Callable[[Mapping[str, object]], None] = writer.write
        self._flush: Callable[[], None] = writer.flush

    def write(self, rows: Sequence[Row]) -> None:
        for (offset, timestamp, key, value, headers), accepted, columns in rows:
            self._write(
                {
                    "log_offset": offset,
                    "log_timestamp": timestamp,
                    "log_key": key,
                    "log_headers": [{"name": name, "value": content} for name, content in headers],
                    "log_value": value,
                    "log_accepted": accepted,
                    **columns,
                }
            )

    def finish(self) -> None:
        self._flush()


def _record(row: Mapping[str, Any]) -> Record:
    return Record(
        row["log_offset"],
        (row["log_timestamp"] - _EPOCH) // _MICROSECOND,
        row["log_key"],
        row["log_value"],
        tuple([(header["name"], header["value"]) for header in row["log_headers"]]),
    )
