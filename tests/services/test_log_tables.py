"""What `refold sql --keep` keeps, with several queries at once."""

import asyncio
from pathlib import Path

import pytest

from projection_samples import fill
from refold.log.sqlite import SqliteLog
from refold.projections.sink_parquet import MERGE
from refold.projections.sink_rows import Columns
from refold.services.log_tables import LogTables

COUNTS = "SELECT (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM workflows) AS runs"


@pytest.fixture
def log(tmp_path: Path) -> SqliteLog:
    """A log, not open yet."""
    return SqliteLog(tmp_path / "shop.db", 2)


def asked(tables: LogTables) -> tuple[int, int]:
    """How many events and runs there are."""
    _, rows = tables.query(COUNTS, with_files=False)
    ((events, runs),) = rows
    return events, runs


def kept(directory: Path) -> int:
    """How many files are kept."""
    return len(list(directory.glob("kept/events-*/*/*.parquet")))


def test_a_query_has_its_rows_whatever_others_load_meanwhile(
    log: SqliteLog, tmp_path: Path
) -> None:
    """Given a query that has loaded and not read yet, when so many others load what came since that files would be
    merged, it has the rows that it loaded; once it is over, the next one merges.
    """

    async def story() -> None:
        await log.open()
        await fill(log, 2)
        slow = LogTables(Columns(), tmp_path / "kept")
        await slow.load(log, COUNTS)
        for number in range(MERGE + 1):
            await fill(log, 1, first=2 + number)
            quick = LogTables(Columns(), tmp_path / "kept")
            await quick.load(log, COUNTS)
            assert asked(quick)[1] == 3 + number
            quick.close()
        assert asked(slow)[1] == 2
        slow.close()
        files = kept(tmp_path)
        last = LogTables(Columns(), tmp_path / "kept")
        await last.load(log, COUNTS)
        assert kept(tmp_path) < files
        assert asked(last)[1] == 3 + MERGE
        last.close()
        await log.close()

    asyncio.run(story())


def test_queries_that_load_at_once_have_the_same(log: SqliteLog, tmp_path: Path) -> None:
    """Given a log of which nothing is kept, when three queries load it into one directory at once, each has all of it
    once.
    """

    async def story() -> None:
        await log.open()
        await fill(log, 20)
        several = [LogTables(Columns(), tmp_path / "kept") for _ in range(3)]
        await asyncio.gather(*(tables.load(log, COUNTS) for tables in several))
        found = [asked(tables) for tables in several]
        for tables in several:
            tables.close()
        scratch = LogTables(Columns())
        await scratch.load(log, COUNTS)
        assert found == [asked(scratch)] * 3
        scratch.close()
        await log.close()

    asyncio.run(story())
