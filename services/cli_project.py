"""`refold project`: tables that are kept up to date with the log."""

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated

import typer
from rich.text import Text

from refold.log.protocol import Log
from refold.log.urls import with_archive
from refold.projections.places import store_for
from refold.projections.projection import Projection
from refold.projections.workflows import Workflows
from refold.services.exits import ExitCode, reported
from refold.services.loading import load_projections
from refold.services.logs import set_up_logging
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url, opened, shared_log_at
from refold.services.project_service import ProjectService
from refold.services.service_options import (
    DEFAULT_METRICS_ADDRESS,
    LogJson,
    MetricsAddress,
    MetricsPort,
    without_password,
)
from refold.services.terminal import progress_bars, to_reader

LOOK_EVERY_S = 0.2


def project(  # noqa: PLR0913 - each an option of the command
    projections: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]",
            help="`workflows`, which `refold list` reads, or MODULE:PROJECTION for your own; `workflows` if not given.",
            show_default=False,
        ),
    ] = None,
    *,
    url: Url = DEFAULT_URL,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            envvar="REFOLD_VIEWS",
            callback=without_password,
            metavar="PLACE",
            help="Where the tables are kept: sqlite:///DIRECTORY or postgresql://USER@HOST/DATABASE; beside a log in a "
            "file if not given.",
        ),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema",
            help="In PostgreSQL: the schema; named after the namespace and the projection if not given.",
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Take in what is there now, and end.")
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Fill new tables from the log's beginning; readers have the old ones until they are whole.",
        ),
    ] = False,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            help="The group whose processes share the partitions; one for each place if not given.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="This process's name in the group; host and pid if not given."),
    ] = None,
    log_json: LogJson = False,
    metrics_port: MetricsPort = None,
    metrics_address: MetricsAddress = DEFAULT_METRICS_ADDRESS,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Keep tables that follow from the log: the runs, steps, messages and timers, or your own projections.

    Rows and the position that they have reached are saved together, so every event has its effect once, whatever
    crashes. Several processes share the partitions and take over from each other. Told to stop, it finishes what it has
    read.
    """
    with reported(debug):
        wanted = load_projections(projections or [Workflows.name])
        if schema is not None and len(wanted) > 1:
            raise typer.BadParameter("is for one projection: each has a schema of its own")
        log = shared_log_at(with_archive(url, archive), may_make=False)
        if not once:
            set_up_logging(as_json=log_json)
        member = name or f"{socket.gethostname()}-{os.getpid()}"

        async def run() -> ExitCode:
            async with opened(log):
                stores = [store_for(one, log, to, schema=schema, rebuild=rebuild) for one in wanted]
                service = ProjectService(log, stores, member, group)
                with ExitStack() as stack:
                    if metrics_port is not None:
                        # Imported when asked for: it needs a package that others can do without.
                        from refold.services.metrics import (  # noqa: PLC0415
                            ProjectionCollector,
                            serving,
                        )

                        numbers = ProjectionCollector(service.reports_from_thread)
                        stack.enter_context(serving(numbers, metrics_address, metrics_port))
                    if not once:
                        return await service.follow()
                    await _with_progress(service, log, wanted)
                    return ExitCode.OK

        raise typer.Exit(asyncio.run(run()))


async def _with_progress(service: ProjectService, log: Log, wanted: Sequence[Projection]) -> None:
    """Catch up, with a bar for each projection on a terminal, and a line for each in the end."""
    with progress_bars() as bar:
        tasks = {one.name: bar.add_task(one.name, total=None) for one in wanted}
        working = asyncio.create_task(service.catch_up())
        while not working.done():
            await asyncio.wait([working], timeout=LOOK_EVERY_S)
            for name, report in (await service.reports()).items():
                standing = report.standing.values()
                if len(standing) == log.partitions:
                    done, total = sum(s.offset for s in standing), sum(s.end for s in standing)
                    bar.update(tasks[name], completed=done, total=total)
    await working
    for name, report in (await service.reports()).items():
        to_reader().print(Text(f"{name}: {report.events:,} events taken in, caught up"))
