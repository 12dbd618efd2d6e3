"""`refold sql`: a query over the log's events and runs, by DuckDB."""

import asyncio
import csv
import itertools
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.text import Text

from refold.log.errors import UsageError
from refold.log.urls import with_archive
from refold.projections.sink_rows import Columns
from refold.services.cli_list import Json
from refold.services.cli_sink import Types
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url, opened, shared_log_at
from refold.services.payload_columns import payload_columns
from refold.services.terminal import (
    facts_table,
    note,
    one_line,
    plain_table,
    print_json,
    printable,
    to_reader,
)

if TYPE_CHECKING:
    from refold.services.log_tables import LogTables

MAX_CELL_CHARS = 60
MAX_VALUE_CHARS = 200
"""Of a value for people, in a table and in a block; --json and --csv have all of it."""
MAX_ROWS = 1_000
"""Rows of a table for people."""


def sql(  # noqa: PLR0913 - each an option
    query: Annotated[
        str,
        typer.Argument(metavar="QUERY", help="One SQL statement; - reads it from standard input."),
    ],
    *,
    json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV, with a header line.")] = False,
    types: Types = None,
    files: Annotated[
        bool,
        typer.Option(
            "--files", help="Let the query read and write files, and load DuckDB's extensions."
        ),
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            help="Keep what was loaded there, and read only what has come since next time.",
            show_default=False,
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Query the log: the tables workflows, steps, attempts and events, by DuckDB's SQL.

    Only what the query names is read from the log. `DESCRIBE events` shows a table's columns. For several questions to
    a long log, use --keep. An archive without its log is --url archive:///DIR.
    """
    with reported(debug):
        if json and as_csv:
            raise UsageError("--json and --csv exclude each other")
        text = sys.stdin.read() if query == "-" else query
        tables = _tables(Columns(payload_columns(types or ())), keep)
        try:
            asyncio.run(_load(tables, with_archive(url, archive), text))
            names, rows = tables.query(text, with_files=files)
            if json:
                for row in rows:
                    print_json(dict(zip(names, map(_json, row), strict=True)))
            elif as_csv:
                writer = csv.writer(sys.stdout, lineterminator="\n")
                writer.writerow(names)
                writer.writerows([_csv(value) for value in row] for row in rows)
            else:
                _print(names, rows)
        finally:
            tables.close()


def _tables(columns: Columns, keep: Path | None) -> "LogTables":
    try:
        from refold.services.log_tables import LogTables  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "refold sql needs duckdb and pyarrow: pip install 'refold[sql]'"
        ) from error
    return LogTables(columns, keep)


async def _load(tables: "LogTables", url: str, query: str) -> None:
    async with opened(shared_log_at(url, may_make=False)) as log:
        await tables.load(log, query)


def _print(names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table where it fits, else a block for each row."""
    iterator = iter(rows)
    shown = list(itertools.islice(iterator, MAX_ROWS))
    left_out = sum(1 for _ in iterator)
    console = to_reader()
    widths = [
        max(len(_cell(value, MAX_CELL_CHARS).plain) for value in (name, *column))
        for name, *column in zip(names, *shown, strict=True)
    ]
    if sum(widths) + 2 * len(widths) <= console.width:
        table = plain_table()
        for name, *column in zip(names, *shown, strict=True):
            numeric = all(isinstance(value, int | float | None) for value in column)
            table.add_column(Text(printable(name)), justify="right" if numeric else "left")
        for row in shown:
            table.add_row(*(_cell(value, MAX_CELL_CHARS) for value in row))
    else:
        table = facts_table()
        for number, row in enumerate(shown, 1):
            table.add_row(Text(f"row {number}", "bold"), "")
            for name, value in zip(names, row, strict=True):
                table.add_row(Text(printable(name)), _cell(value, MAX_VALUE_CHARS))
    console.print(table)
    if left_out:
        note(f"{left_out:,} more rows: LIMIT them, or take all with --csv or --json")


def _cell(value: object, limit: int) -> Text:
    if value is None:
        return Text("null", "dim")
    plain = _csv(value)
    return Text(one_line(plain if isinstance(plain, str) else str(plain), limit))


def _csv(value: object) -> object:
    """A value as one cell: what is not a number or a text is written as JSON."""
    plain = _json(value)
    if plain is None:
        return ""
    return (
        plain
        if isinstance(plain, int | float | str) and not isinstance(plain, bool)
        else dumps(plain)
    )


def _json(value: object) -> object:
    """A value as JSON has it: times in UTC, spans in seconds, bytes in hex."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case datetime():
            at = value.astimezone(UTC) if value.tzinfo else value
            text = at.replace(tzinfo=None).isoformat(timespec="microseconds")
            return f"{text}Z" if value.tzinfo else text
        case timedelta():
            return value.total_seconds()
        case bytes():
            return value.hex()
        case dict():
            members = cast("dict[object, object]", value)
            return {str(name): _json(member) for name, member in members.items()}
        case list() | tuple():
            return [_json(member) for member in cast("list[object]", value)]
        case _:
            return str(value)
