"""`refold export`: events go somewhere else once, as far as they are there now."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from refold.log.errors import UsageError
from refold.log.urls import redacted, with_archive
from refold.projections.runner import Runner
from refold.projections.sink_rows import Columns
from refold.services.cli_sink import Batch, Kind, Schema, State, Types, Where
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url, opened, shared_log_at
from refold.services.payload_columns import payload_columns
from refold.services.sinks import SinkKind, SinkOrder, compact, runner_of
from refold.services.terminal import note, to_person

LOOK_EVERY_S = 0.2
"""Between two looks at how far it has come: for a person's eye."""


def export(  # noqa: PLR0913 - each an option
    kind: Kind,
    target: Where,
    *,
    types: Types = None,
    schema: Schema = "refold",
    state: State = None,
    batch: Batch = 1,
    merge: Annotated[
        bool,
        typer.Option("--compact", help="parquet: then merge each day's files into one."),
    ] = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Write all events that there are to a target, and end.

    The next export to the same target adds what has come since. What `refold sink` says of its targets holds here.
    """
    with reported(debug):
        if merge and kind is not SinkKind.PARQUET:
            raise UsageError("--compact merges Parquet files: other targets have none")
        order = SinkOrder(kind, target, Columns(payload_columns(types or ())), schema, state, batch)
        events = asyncio.run(_export(with_archive(url, archive), order, merge=merge))
        note(f"{events:,} events written to {redacted(target)}")


async def _export(url: str, order: SinkOrder, *, merge: bool) -> int:
    async with opened(shared_log_at(url, may_make=False)) as log:
        runner = runner_of(order, log)
        with _progress() as bars:
            watching = asyncio.create_task(_watch(runner, bars))
            try:
                await runner.catch_up()
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        if merge:
            await asyncio.to_thread(compact, order, log)
        return runner.events


async def _watch(runner: Runner, bars: Progress) -> None:
    task = bars.add_task("events", total=None)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        standing = (await runner.standing()).values()
        bars.update(
            task,
            completed=sum(one.offset for one in standing),
            total=sum(one.end for one in standing) or None,
        )


@contextmanager
def _progress() -> Generator[Progress, None, None]:
    console = to_person()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        yield bars
