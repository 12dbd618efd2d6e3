"""`refold worker`: a process that runs workflows until it is told to stop."""

import asyncio
from typing import Annotated

import typer

from refold.engine.engine import Engine
from refold.services.exits import reported
from refold.services.garbage import settle_garbage_collector
from refold.services.leftover import leave_steps_behind
from refold.services.loading import load_workflows
from refold.services.logs import set_up_logging
from refold.services.opening import DEFAULT_URL, Debug, Url, shared_log_at
from refold.services.worker_service import Duty, WorkerService

DEFAULT_THREADS = 32
DEFAULT_DRAIN_S = 10.0


def worker(
    modules: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE[:NAME]",
            help="Where the workflows are: modules, or workflows or lists of them in modules.",
        ),
    ],
    *,
    url: Url = DEFAULT_URL,
    name: Annotated[
        str | None,
        typer.Option("--name", help="The worker's name in events; host and pid if not given."),
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Most `def` steps that run at once.")
    ] = DEFAULT_THREADS,
    drain_s: Annotated[
        float, typer.Option("--drain-s", min=0, help="Longest wait for steps under way at the end.")
    ] = DEFAULT_DRAIN_S,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log lines as JSON objects.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Run workflows until SIGTERM or Ctrl-C, sharing the log's partitions with all its other workers.

    Told to stop, it begins nothing new, lets steps under way finish and be recorded, and hands its partitions over; a
    second signal ends it at once. Whatever way it ends, its workflows go on in another worker or in the next one.
    """
    with reported(debug):
        workflows = load_workflows(modules)
        log = shared_log_at(url, may_make=True)
        set_up_logging(as_json=log_json)
        engine = Engine(log, workflows=workflows, name=name, threads=threads, drain_s=drain_s)
        duty = Duty(url, tuple(workflow.name for workflow in workflows), drain_s)
        settle_garbage_collector()
        code = asyncio.run(WorkerService(engine, log, duty).run())
        leave_steps_behind(code)
        raise typer.Exit(code)
