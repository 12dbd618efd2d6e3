"""The atlas's index: one SQLite file with a row for each country, which all of them want to write at once."""

import sqlite3
from contextlib import closing
from pathlib import Path

from atlas.model import Cleaned, Neighbours, WrittenFile

SCHEMA = """
CREATE TABLE IF NOT EXISTS countries (
    country TEXT PRIMARY KEY, airports INTEGER NOT NULL, with_iata INTEGER NOT NULL, zones INTEGER NOT NULL,
    highest TEXT, elevation_max_ft REAL, elevation_mean_ft REAL, loneliest TEXT, loneliest_km REAL, median_km REAL,
    bytes INTEGER NOT NULL, added_by TEXT NOT NULL
) WITHOUT ROWID
"""


def add_country(
    path: Path,
    cleaned: Cleaned,
    neighbours: Neighbours,
    files: tuple[WrittenFile, ...],
    key: str,
) -> None:
    """Add a country's row, or replace it by the same one: a second run of the step changes nothing.

    Args:
        path: The SQLite file.
        cleaned: What its rows came to.
        neighbours: What its distances came to.
        files: What was written for it.
        key: The step's idempotency key, the same for every attempt and after every crash.

    Raises:
        sqlite3.OperationalError: Somebody else is writing. It does not wait, for that would hold a thread:
            the step's retry waits, and holds nothing.
    """
    row = (
        *(cleaned.country, cleaned.airports, cleaned.with_iata, len(cleaned.zones)),
        *(cleaned.highest, cleaned.elevation_max_ft, cleaned.elevation_mean_ft),
        *(neighbours.loneliest, neighbours.loneliest_km, neighbours.median_km),
        *(sum(file.bytes for file in files), key),
    )
    marks = ", ".join("?" * len(row))
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(SCHEMA)
        connection.execute(f"INSERT OR REPLACE INTO countries VALUES ({marks})", row)
        connection.execute("COMMIT")
