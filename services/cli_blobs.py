"""`refold blobs`: the store of large payloads; which of it is needed, and whether it is whole."""

import asyncio
import time
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from typing import Annotated

import typer
from rich.text import Text

from refold.log.blob_garbage import Collected, Told, Verified, collect, verify
from refold.log.blobs import BlobStore, blobs_of
from refold.log.errors import UsageError
from refold.log.protocol import Log
from refold.log.urls import with_archive
from refold.services.cli_values import read_span
from refold.services.exits import ExitCode, print_error, reported
from refold.services.opening import (
    DEFAULT_URL,
    Archive,
    Debug,
    Url,
    UrlArgument,
    opened,
    shared_log_at,
)
from refold.services.terminal import note, printable, progress_bars, to_reader

blobs = typer.Typer(
    help="The store of large payloads.", no_args_is_help=True, rich_markup_mode="rich"
)


def gc(  # noqa: PLR0913 - each an option of the command
    address: UrlArgument = None,
    *,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            metavar="SPAN",
            help="Only blobs that were last put so long ago, at least 1h: what is about to be named is young.",
        ),
    ] = "24h",
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="URL",
            help="Another log that uses the same store; repeat it for several.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Delete nothing, only say what would be.")
    ] = False,
    all: Annotated[  # noqa: A002 - the option's name
        bool,
        typer.Option(
            "--all",
            help="Also where the log names none of the store's blobs, or was trimmed and no --archive is given.",
        ),
    ] = False,
    archive: Archive = None,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Delete the large payloads that nothing in the log names any more.

    Workers and clients may go on meanwhile. It reads the whole log.
    """
    with reported(debug):
        span = read_span(older_than, "--older-than")
        urls = [with_archive(address or url, archive), *(also or ())]
        with _progress() as told:
            done = asyncio.run(_collect(urls, span, dry_run=dry_run, all_=all, told=told))
        _say_collected(done, dry_run=dry_run)


def check(
    address: UrlArgument = None,
    *,
    archive: Archive = None,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Check that every large payload that the log names is in the store, and is what was put there."""
    with reported(debug):
        with _progress() as told:
            found = asyncio.run(_verify(with_archive(address or url, archive), told))
        _say_verified(found)
        if found.damages:
            raise typer.Exit(ExitCode.LOG)


async def _collect(
    urls: list[str], span: timedelta, *, dry_run: bool, all_: bool, told: Told
) -> Collected:
    async with AsyncExitStack() as stack:
        logs = [
            await stack.enter_async_context(opened(shared_log_at(url, may_make=False)))
            for url in urls
        ]
        return await collect(
            logs,
            _store_of(logs[0]),
            grace_s=span.total_seconds(),
            now=time.time(),
            dry_run=dry_run,
            certain=all_,
            told=told,
        )


async def _verify(url: str, told: Told) -> Verified:
    async with opened(shared_log_at(url, may_make=False)) as log:
        return await verify(log, _store_of(log), told)


def _store_of(log: Log) -> BlobStore:
    store = blobs_of(log)
    if store is None:
        raise UsageError(
            f"no blob store is given for {log.namespace!r}: name it as its workers do, by blobs= in the URL or by "
            "REFOLD_BLOBS"
        )
    note(f"blob store: {store.url}")
    return store


def _say_collected(done: Collected, *, dry_run: bool) -> None:
    verb = "would be deleted" if dry_run else "deleted"
    line = Text.assemble(
        (f"{done.deleted:,}", "bold"),
        f" of {done.stored:,} blobs {verb} ({_size(done.deleted_bytes)}); {done.named:,} are named by the log, "
        f"{done.young:,} are too young to tell",
    )
    if done.leftovers:
        line.append(f"; {done.leftovers:,} half-written files deleted")
    to_reader().print(line)


def _say_verified(found: Verified) -> None:
    for damage in found.damages:
        print_error(f"{damage.where}: {damage.error}")
    wrong = f"{len(found.damages):,} of them missing or damaged" if found.damages else "all whole"
    to_reader().print(
        Text(printable(f"{found.named:,} blobs are named ({_size(found.size)}), {wrong}"))
    )


def _size(count: int) -> str:
    if count < 1_000_000:
        return f"{count:,} bytes"
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.2f} GB"


@contextmanager
def _progress() -> Generator[Told, None, None]:
    """A bar on standard error for as long as it takes."""
    with progress_bars() as bars:
        tasks = {what: bars.add_task(what, visible=False) for what in ("reading", "verifying")}

        def told(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=of, visible=True)

        yield told
