"""Files of an archive: what is read back is what was written, byte for byte, and its events' columns can be queried."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import duckdb
import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refold.log.archive import format_of
from refold.log.archive_rows import Row, columns_of
from refold.log.codec import GENESIS, decode_event, encode_event
from refold.log.errors import LogCorrupt, UsageError
from refold.log.events import StepCompleted, WorkflowStarted
from refold.log.protocol import Record

FORMATS = ["avro", "parquet"]
AT = 1_700_000_000_123_456

texts = st.text(st.characters(codec="utf-8"), max_size=20)
RECORDS = st.lists(
    st.builds(
        Record,
        offset=st.integers(0, 2**44),
        timestamp=st.integers(0, 2**52),
        key=st.none() | texts,
        value=st.binary(max_size=200),
        headers=st.lists(st.tuples(texts, st.binary(max_size=20)), max_size=3).map(tuple),
    ),
    max_size=20,
)


def written(suffix: str, rows: Sequence[Row]) -> bytes:
    """A file with these rows, given to its writer in two pieces."""
    file = io.BytesIO()
    writer = format_of(suffix).writer(file)
    writer.write(rows[: len(rows) // 2])
    writer.write(rows[len(rows) // 2 :])
    writer.finish()
    return file.getvalue()


def read(suffix: str, data: bytes) -> list[Record]:
    return [record for batch in format_of(suffix).read(io.BytesIO(data)) for record in batch]


def events() -> list[Record]:
    """A workflow's start and one of its steps, as they stand in a log."""
    started = WorkflowStarted(
        workflow_id="order-1",
        position=0,
        recorded_at=AT,
        claim=0,
        command=3,
        posted=0,
        worker="w",
        workflow="checkout",
        payload="[1]",
        attributes={"customer": "acme", "total": "9.5"},
    )
    done = StepCompleted(
        workflow_id="order-1",
        position=1,
        recorded_at=AT + 5,
        claim=0,
        command=3,
        posted=0,
        worker="w",
        step=0,
        name="charge",
        attempt=2,
        started_at=AT + 1,
        payload='"ok"',
    )
    first, chain = encode_event(started, GENESIS)
    second, _ = encode_event(done, chain)
    return [Record(offset, AT + offset, *entry) for offset, entry in enumerate([first, second], 7)]


@pytest.mark.parametrize("suffix", FORMATS)
@given(records=RECORDS)
@settings(max_examples=60, deadline=None)
def test_records_are_read_back_as_they_were(suffix: str, records: list[Record]) -> None:
    """Given any records, also such as are no events, the file gives back each with all its bytes."""
    rows = [Row(record, True, columns_of(decode_event(record))) for record in records]
    assert read(suffix, written(suffix, rows)) == records


@pytest.mark.parametrize("suffix", FORMATS)
def test_events_are_read_back_as_they_were(suffix: str) -> None:
    """Given events, the file gives back the records that they were decoded from."""
    rows = [Row(record, True, columns_of(decode_event(record))) for record in events()]
    assert read(suffix, written(suffix, rows)) == events()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_breaks_off_is_no_file(suffix: str) -> None:
    """Given the first half of a file's bytes, reading it raises."""
    data = written(
        suffix, [Row(record, True, columns_of(decode_event(record))) for record in events()]
    )
    with pytest.raises(LogCorrupt):
        read(suffix, data[: len(data) // 2])


def test_any_avro_reader_finds_the_columns() -> None:
    """Given a file in Avro, fastavro alone reads the columns of its events, with times as times."""
    data = written(
        "avro",
        [
            Row(record, n == 0, columns_of(decode_event(record)))
            for n, record in enumerate(events())
        ],
    )
    first, second = cast("list[dict[str, Any]]", list(fastavro.reader(io.BytesIO(data))))
    assert first["kind"] == "workflow.started"
    assert first["attributes"] == {"customer": "acme", "total": "9.5"}
    assert first["log_accepted"]
    assert (second["step"], second["attempt"], second["payload"]) == (0, 2, '"ok"')
    assert not second["log_accepted"]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert second["started_at"] == epoch + timedelta(microseconds=AT + 1)


def test_duckdb_queries_parquet_as_it_is(tmp_path: Path) -> None:
    """Given a file in Parquet, SQL over its columns gives what its events say, typed."""
    path = tmp_path / "file.parquet"
    path.write_bytes(
        written(
            "parquet", [Row(record, True, columns_of(decode_event(record))) for record in events()]
        )
    )
    query = (
        "SELECT kind, step, epoch_us(started_at), attributes['customer'], octet_length(chain), log_offset"
        f" FROM '{path}' WHERE workflow_id = 'order-1' AND log_accepted ORDER BY log_offset"
    )
    found = duckdb.connect().execute(query).fetchall()
    assert found == [
        ("workflow.started", None, None, "acme", 32, 7),
        ("step.completed", 0, AT + 1, None, 32, 8),
    ]


def test_another_format_is_refused() -> None:
    """Given a format that there is not, the error names those that there are."""
    with pytest.raises(UsageError, match="parquet or avro"):
        format_of("csv")
