"""`refold archive`: history into files, and out of the log where it is not needed there any more."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer
from rich.progress import TaskID
from rich.text import Text

from refold.engine.worker import wall_clock
from refold.log.archive_writer import ArchiveSettings
from refold.log.protocol import Bounds
from refold.services.archiving import Archived, Order, Told, archive_log
from refold.services.cli_values import read_span
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Debug, Url, UrlArgument, opened, shared_log_at
from refold.services.spans import MICROSECONDS
from refold.services.terminal import note, plain_table, printable, progress_bars, to_reader


class Format(StrEnum):
    """Formats of an archive's files."""

    PARQUET = "parquet"
    AVRO = "avro"


def archive(  # noqa: PLR0913 - each an option
    address: UrlArgument = None,
    *,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            envvar="REFOLD_ARCHIVE",
            metavar="DIR",
            help="The archive: a directory, or its file URL. Made if missing, else added to.",
        ),
    ],
    format: Annotated[  # noqa: A002 - the option's name
        Format, typer.Option("--format", help="Parquet needs the extra `parquet`.")
    ] = Format.PARQUET,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="SPAN",
            help="Only what is so old, as in 90d; all that there is if not given.",
        ),
    ] = None,
    trim: Annotated[
        bool,
        typer.Option(
            "--trim", help="Then delete from the log, for ever, what is archived and not needed."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing, only say what would be done.")
    ] = False,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Copy events into files that can be queried, and trim the log behind them.

    Each run goes on where the last one ended. Every record is archived as it is, the chain is checked on the way, and
    every file is read back. With --trim, a partition is cut at a checkpoint that was compared with the fold of its
    events, and only after what is to be deleted was compared with the archive.

    Workers may go on meanwhile.
    """
    with reported(debug):
        span = None if older_than is None else read_span(older_than, "--older-than")
        before = None if span is None else wall_clock() - round(span.total_seconds() * MICROSECONDS)
        order = Order(to, ArchiveSettings(format.value), before, trim, dry_run)
        with _progress() as told:
            done = asyncio.run(_archive(address or url, order, told))
        _say(done, order)


async def _archive(url: str, order: Order, told: Told) -> Sequence[Archived]:
    async with opened(shared_log_at(url, may_make=False)) as log:
        return await archive_log(log, order, told)


def _say(done: Sequence[Archived], order: Order) -> None:
    ranges = ("ARCHIVED", "TRIMMED EVENTS", "TRIMMED COMMANDS")
    headings = ("PARTITION", *(ranges if order.trim else ranges[:1]))
    table = plain_table(*headings, right={"PARTITION"}, whole=ranges)
    if order.trim:
        table.add_column("WHY NOT MORE", overflow="fold", style="dim")
    for one in done:
        cells = [str(one.partition), _range(one.archived)]
        if one.trimmed is not None:
            planned = one.trimmed
            cells += [
                _range(Bounds(planned.events.start, planned.events_before)),
                _range(Bounds(planned.commands.start, planned.commands_before)),
                printable("; ".join(planned.reasons)),
            ]
        table.add_row(*(Text(cell) for cell in cells))
    to_reader().print(table)
    if order.dry_run:
        note("dry run: nothing was archived, and nothing was deleted")


def _range(bounds: Bounds) -> str:
    if bounds.end <= bounds.start:
        return "none"
    return f"{bounds.start:,} to {bounds.end - 1:,}"


@contextmanager
def _progress() -> Generator[Told, None, None]:
    """A bar for each partition on standard error, for as long as it takes."""
    with progress_bars() as bars:
        tasks: dict[tuple[str, int], TaskID] = {}

        def told(what: str, partition: int, done: int, of: int) -> None:
            key = what, partition
            if key not in tasks:
                tasks[key] = bars.add_task(f"{what} partition {partition}")
            bars.update(tasks[key], completed=done, total=of)

        yield told
