"""`refold sink`: events go on to somewhere else, as they come, until it is told to stop."""

import asyncio
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from refold.log.urls import redacted, with_archive
from refold.projections.sink_rows import Columns
from refold.services.exits import reported
from refold.services.logs import say, set_up_logging
from refold.services.opening import (
    DEFAULT_URL,
    Archive,
    Debug,
    Url,
    no_secret_by,
    opened,
    shared_log_at,
)
from refold.services.payload_columns import payload_columns
from refold.services.service_options import LogJson
from refold.services.sinks import SinkKind, SinkOrder, runner_of
from refold.services.stopping import stopping

DEFAULT_EVERY_S = 1.0
"""Between two writes of a sink that has caught up: news soon enough for a person, and not a file for each event."""

logger = logging.getLogger("refold.sink")


Kind = Annotated[
    SinkKind,
    typer.Argument(
        metavar="KIND",
        help="parquet, duckdb, postgres, jsonl, or http, which gets CloudEvents.",
    ),
]
Where = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        callback=no_secret_by("PGPASSWORD or PGPASSFILE, or by REFOLD_SINK_AUTHORIZATION"),
        help="A directory (parquet), a file (duckdb, jsonl), postgresql://user@host/database, or http(s)://...",
    ),
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--types",
        "--columns",
        metavar="MODULE[:WORKFLOW]",
        help="Typed columns for payloads, from the types that these workflows and their module's steps declare; can be "
        "given several times.",
    ),
]
Schema = Annotated[
    str, typer.Option("--schema", help="postgres: the schema that the tables are in.")
]
State = Annotated[
    Path | None,
    typer.Option("--state", metavar="FILE", help="http: the file that says how far it has come."),
]
Batch = Annotated[
    int,
    typer.Option(
        "--batch", min=1, max=1_000, help="http: events in a request; 1 sends each on its own."
    ),
]


def sink(  # noqa: PLR0913 - each an option
    kind: Kind,
    target: Where,
    *,
    types: Types = None,
    schema: Schema = "refold",
    state: State = None,
    batch: Batch = 1,
    every_s: Annotated[
        float,
        typer.Option("--every-s", min=0, help="Write at most so often, in seconds."),
    ] = DEFAULT_EVERY_S,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            help="The group whose processes share the partitions; one for each target if not given.",
        ),
    ] = None,
    log_json: LogJson = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Write events to a target as they come, until SIGTERM or Ctrl-C.

    It goes on where the target stands. Every event that counts is there once, whatever is killed when; a receiver over
    HTTP may get one again, and drops what it has by the CloudEvents id. Told to stop, it writes what it has read; a
    second signal ends it at once.

    Several processes with the same target share the partitions and take over from each other. While the target can't be
    reached, it waits.
    """
    with reported(debug):
        set_up_logging(as_json=log_json)
        order = SinkOrder(kind, target, Columns(payload_columns(types or ())), schema, state, batch)
        asyncio.run(_sink(with_archive(url, archive), order, every_s, group))


async def _sink(url: str, order: SinkOrder, every_s: float, group: str | None) -> None:
    async with opened(shared_log_at(url, may_make=False)) as log:
        runner = runner_of(order, log, every_s, lambda: say(logger, "caught up"), group)
        told = {"log": redacted(url), "to": f"{order.kind} {redacted(order.where)}"}
        say(logger, "starting", {**told, "pid": os.getpid()})
        await runner.follow(stopping(logger))
        say(logger, "stopped", {"events": runner.events})
