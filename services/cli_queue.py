"""`refold queue list`, `show` and `set`: how many runs of a queue run at once, and how many wait."""

import asyncio
import shlex
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from refold.engine.client import Client
from refold.engine.names import check_name
from refold.engine.queueing import (
    QueueInfo,
    check_concurrency,
    read_queues,
    set_queue,
    unknown_queue,
)
from refold.engine.selection import Runs
from refold.engine.state import Status
from refold.engine.worker import wall_clock
from refold.services.cli_bulk import By, Reason
from refold.services.cli_list import OPEN, Json, find_runs, print_runs
from refold.services.exits import reported
from refold.services.opening import (
    ANSWER_TIMEOUT_S,
    DEFAULT_URL,
    Debug,
    Url,
    awaiting_worker,
    opened,
    shared_log_at,
)
from refold.services.terminal import note, plain_table, print_json, printable, to_reader

MAX_SHOWN = 20
"""Runs that are listed with their queue; `refold list --queue NAME` has them all."""

queue = typer.Typer(
    help="Queues: how many runs run at once.", no_args_is_help=True, rich_markup_mode="rich"
)

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")]


def list_queues(*, json: Json = False, url: Url = DEFAULT_URL, debug: Debug = False) -> None:
    """List the queues: how many of their runs may run at once, do, and wait.

    A queue without a limit has been named by runs, and nobody has set it: they wait until somebody does.
    """
    with reported(debug):
        queues = asyncio.run(_read(url))
        if json:
            for info in queues:
                print_json(_json(info))
        elif queues:
            _print(queues)
        else:
            to_reader().print(Text("there are no queues yet", style="dim"))


def show_queue(
    name: Name, *, json: Json = False, url: Url = DEFAULT_URL, debug: Debug = False
) -> None:
    """Show a queue and its open runs: those that have their turn, and the next that wait for it."""
    with reported(debug):
        found = next((info for info in asyncio.run(_read(url)) if info.name == name), None)
        if found is None:
            raise unknown_queue(name)
        if json:
            print_json(_json(found))
            return
        _print([found])
        infos = find_runs(url, Runs(status=OPEN, queue=name))
        infos.sort(
            key=lambda info: (info.status is Status.QUEUED, info.started_at, info.workflow_id)
        )
        if infos:
            to_reader().print()
            print_runs(to_reader(), infos[:MAX_SHOWN], wall_clock())
        if len(infos) > MAX_SHOWN:
            note(
                f"{len(infos) - MAX_SHOWN:,} more: refold list --queue {shlex.quote(name)} --status queued"
            )


def set_limit(
    name: Name,
    *,
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency", metavar="N", help="How many of its runs run at once, in all workers."
        ),
    ],
    reason: Reason = None,
    by: By = None,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Say how many runs of a queue run at once, in the whole namespace; makes the queue where there is none.

    A higher limit lets waiting runs go at once. A lower one stops none: nobody gets a turn until there is room.
    """
    with reported(debug):
        check_name(name, "queue")
        check_concurrency(concurrency)
        asyncio.run(_set(url, name, concurrency, reason, by))
        note(f"queue {name!r}: {concurrency:,} at once")


async def _read(url: str) -> list[QueueInfo]:
    async with opened(shared_log_at(url, may_make=False)) as log:
        return await read_queues(log)


async def _set(url: str, name: str, concurrency: int, reason: str | None, by: str | None) -> None:
    async with opened(shared_log_at(url, may_make=True)) as log:
        client = Client(log, wall_clock, requested_by=by)
        await client.open()
        try:
            async with awaiting_worker():
                await set_queue(client, name, concurrency, reason, ANSWER_TIMEOUT_S)
        finally:
            client.close()


def _print(queues: Sequence[QueueInfo]) -> None:
    numbers = ("AT ONCE", "RUNNING", "WAITING")
    table = plain_table("QUEUE", *numbers, right=numbers)
    for info in queues:
        limit = (
            Text("not set", style="bold yellow")
            if info.concurrency is None
            else Text(f"{info.concurrency:,}")
        )
        waits = "yellow" if info.concurrency is None and info.waiting else ""
        table.add_row(
            Text(printable(info.name), style="bold"),
            limit,
            Text(f"{info.running:,}"),
            Text(f"{info.waiting:,}", style=waits),
        )
    to_reader().print(table)


def _json(info: QueueInfo) -> dict[str, object]:
    return {
        "queue": info.name,
        "concurrency": info.concurrency,
        "running": info.running,
        "waiting": info.waiting,
    }
