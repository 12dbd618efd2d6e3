"""`refold migrate`: a namespace to another log, or to another number of partitions."""

import asyncio
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from refold.engine.migration import Migration, Report, Survey, survey
from refold.engine.worker import wall_clock
from refold.log.archived import unarchived
from refold.log.errors import TopicsMissing, UsageError
from refold.log.layout import Layout, in_words, read_pools
from refold.log.memory import MemoryLog
from refold.log.protocol import Log
from refold.log.sqlite import SqliteLog
from refold.log.urls import kafka_address, open_log, redacted, with_archive
from refold.services.cli_list import Json
from refold.services.exits import reported
from refold.services.opening import Archive, Debug, no_secret_by, opened, shared_log_at
from refold.services.terminal import note, print_json, printable, to_person, to_reader, warn

_without_secret = no_secret_by("a file (sasl_password_file=...) or by REFOLD_KAFKA_SASL_PASSWORD")

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="URL of the log to move.",
        show_default=False,
        callback=_without_secret,
    ),
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="URL of where it is to be: a new file or namespace, or one that was filled in part.",
        show_default=False,
        callback=_without_secret,
    ),
]


def migrate(  # noqa: PLR0913 - options
    source: Source,
    target: Target,
    *,
    partitions: Annotated[
        int | None,
        typer.Option(
            "--partitions",
            min=1,
            help="How many the target gets; as many as the source if not given.",
        ),
    ] = None,
    pool: Annotated[
        list[str] | None,
        typer.Option(
            "--pool",
            metavar="NAME:N",
            help="Give the workflows of this pool N partitions of their own besides, in the target; as many as in the "
            "source if not given.",
        ),
    ] = None,
    fence: Annotated[
        bool,
        typer.Option("--fence", help="Cut off workers that are still at work on the source."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what there is to move, and change nothing.")
    ] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Give an unfinished migration up: open SOURCE again.")
    ] = False,
    json: Json = False,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Move a namespace to another log (SQLite, Kafka) or another number of partitions, with all its streams, ended and
    open runs, and commands that wait.

    SOURCE is closed to workers first, and stays closed; nothing in it is changed or deleted. TARGET is read anew and
    compared by digests before workers may open it. Where it breaks off, run it again: it goes on.
    """
    if abandon and (dry_run or fence or pool or partitions is not None):
        raise typer.BadParameter("--abandon goes alone")
    source = with_archive(source, archive)
    with reported(debug):
        if dry_run:
            _tell_survey(asyncio.run(_survey(source)), source, as_json=json)
        elif abandon:
            _tell_abandoned(asyncio.run(_abandon(source, target)), source, as_json=json)
        else:
            pools = None if pool is None else read_pools(pool)
            report = asyncio.run(_migrate(source, target, partitions, pools, fence=fence))
            _tell_report(report, as_json=json)


async def _survey(source: str) -> Survey:
    async with opened(shared_log_at(source, may_make=False)) as log:
        return await survey(log)


async def _abandon(source: str, target: str) -> int:
    async with (
        opened(shared_log_at(source, may_make=False)) as old,
        opened(shared_log_at(target, may_make=False)) as new,
    ):
        names = name_of(source, old), name_of(target, new)
        return await Migration(old, new, *names, wall_clock).abandon()


async def _migrate(
    source: str,
    target: str,
    partitions: int | None,
    pools: tuple[tuple[str, int], ...] | None,
    *,
    fence: bool,
) -> Report:
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(opened(shared_log_at(source, may_make=False)))
        wanted = Layout(
            old.layout.common if partitions is None else partitions,
            old.layout.pools if pools is None else pools,
        )
        new = await stack.enter_async_context(opened(await _target(target, wanted)))
        there = new.layout
        if partitions not in {None, there.common} or pools not in {None, there.pools}:
            raise UsageError(
                f"{redacted(target)} has {in_words(there)}, not {in_words(wanted)}, and that never changes:"
                " leave --partitions and --pool out, or name another target"
            )
        progress = stack.enter_context(_progress())
        names = name_of(source, old), name_of(target, new)
        migration = Migration(old, new, *names, wall_clock, progress=progress.tell)
        return await migration.run(fence=fence)


def name_of(url: str, log: Log) -> str:
    """What a log is called in marks and to people: the same for every way to write its URL that is in use."""
    log = unarchived(log)
    if isinstance(log, SqliteLog):
        return f"sqlite:///{log.path.absolute()}"
    if url.startswith("kafka:"):
        address = kafka_address(url)
        return f"kafka://{','.join(sorted(address.brokers))}/{address.namespace}"
    return redacted(url)


async def _target(url: str, wanted: Layout) -> Log:
    """The target, made where it is missing, not open yet."""
    if url.startswith("kafka:"):
        return await _kafka_target(url, wanted)
    log = open_log(url)
    if isinstance(log, MemoryLog):
        raise UsageError(
            f"{url} is gone when this command ends: name a file or a namespace on Kafka"
        )
    if isinstance(log, SqliteLog) and not log.path.exists():
        options = [] if "partitions=" in url else [f"partitions={wanted.common}"]
        if wanted.pools and "pools=" not in url:
            options.append(f"pools={','.join(f'{name}:{count}' for name, count in wanted.pools)}")
        return open_log(f"{url}{'&' if '?' in url else '?'}{'&'.join(options)}") if options else log
    return log


async def _kafka_target(url: str, wanted: Layout) -> Log:
    from refold.log.kafka import create_topics  # noqa: PLC0415 - only where Kafka is meant

    log = open_log(url)
    try:
        async with opened(log):
            pass
    except TopicsMissing:
        address = kafka_address(url)
        note(f"making the topics of {address.namespace}, with {in_words(wanted)}")
        made = await create_topics(
            address.brokers,
            address.namespace,
            wanted.common,
            settings=address.settings,
            pools=wanted.pools,
        )
        for warning in made.warnings:
            warn(warning)
    return open_log(url)


# Telling --------------------------------------------------------------------------------------------------


class _Bars:
    """A bar for each stage, on a terminal; else a line when it begins.

    Args:
        bars: Where they are drawn.
    """

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def tell(self, stage: str, done: int, total: int) -> None:
        """See `Migration`'s `progress`."""
        if stage not in self._tasks:
            if not self._bars.console.is_terminal:
                note(stage)
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)


@contextmanager
def _progress() -> Generator[_Bars, None, None]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeRemainingColumn(),
    )
    console = to_person()
    bars = Progress(*columns, console=console, disable=not console.is_terminal)
    with bars:
        yield _Bars(bars)


def _tell_survey(found: Survey, source: str, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(found))
        return
    rows = [
        f"{found.partitions} partitions, {found.events:,} records in their events",
        f"{found.open:,} open runs, {found.closed:,} that have ended and are remembered",
        f"{found.commands:,} commands wait, {found.unposted:,} more are to be posted by workflows",
    ]
    if found.holders:
        held = ", ".join(map(str, sorted(found.holders)))
        rows.append(f"workers are at work on partitions {held}: stop them first, or use --fence")
    if found.moved_to is not None:
        rows.append(f"it is closed: it moves, or has moved, to {found.moved_to}")
    _print(redacted(source), rows)


def _tell_abandoned(opened_again: int, source: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"opened": opened_again})
    else:
        _print(redacted(source), [f"{opened_again} partitions are open to workers again"])


def _tell_report(report: Report, *, as_json: bool) -> None:
    if report.late:
        warn(
            f"{report.late:,} commands came to {report.source} after it was closed, and nobody answers them: have those"
            " who sent them use the new URL, and ask again"
        )
    if report.blobs_missing:
        warn(
            f"{len(report.blobs_missing):,} large payloads are missing or damaged in the source's store already, and so"
            f" in the target's: {', '.join(report.blobs_missing[:3])}"
        )
    if as_json:
        print_json(asdict(report))
        return
    if report.complete_before:
        _print(report.target, ["all was there already, and is open to workers"])
        return
    _print(
        report.target,
        [
            f"{report.target_partitions} partitions, from {report.source_partitions} of {report.source}",
            f"{report.open:,} open runs, {report.closed:,} that have ended, {report.commands:,} commands that wait",
            f"{report.events:,} events copied, read back and found equal"
            + (f", with {report.blobs:,} large payloads" if report.blobs else "")
            if report.digests
            else "what an earlier try had copied and verified is released",
            "workers may open it; the source is closed to them",
        ],
    )


def _print(title: str, rows: list[str]) -> None:
    console = to_reader()
    console.print(Text(printable(title), style="bold"))
    for row in rows:
        console.print(Text(f"  {printable(row)}"))
