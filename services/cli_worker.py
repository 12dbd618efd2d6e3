"""`refold worker`: a process that runs workflows until it is told to stop."""

import asyncio
from contextlib import ExitStack
from typing import Annotated

import typer

from refold.engine.checkpoints import CheckpointSettings
from refold.engine.definitions import Catalogue
from refold.engine.engine import Engine
from refold.engine.pools import DEFAULT_LEASE_S, MIN_LEASE_S
from refold.log.urls import redacted
from refold.projections.places import place_of
from refold.projections.projected import Projected
from refold.services.exits import reported
from refold.services.garbage import settle_garbage_collector
from refold.services.leftover import leave_steps_behind
from refold.services.loading import (
    AnyWorkflow,
    load_modules,
    load_projections,
    load_workflows,
)
from refold.services.logs import set_up_logging
from refold.services.opening import DEFAULT_URL, Debug, Url, shared_log_at
from refold.services.service_options import (
    DEFAULT_METRICS_ADDRESS,
    LogJson,
    MetricsAddress,
    MetricsPort,
    without_password,
)
from refold.services.worker_service import Duty, WorkerService

DEFAULT_THREADS = 32
DEFAULT_DRAIN_S = 10.0
DEFAULT_RUNS = 20_000
DEFAULT_DEDUP_DAYS = 7.0
DAY_S = 24 * 3600.0
MEGABYTE = 1_000_000


def worker(  # noqa: PLR0913 - each an option of the command
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
    pool: Annotated[
        list[str] | None,
        typer.Option(
            "--pool",
            help="Carry out the modules' steps of this pool, for all workers' workflows, and run its workflows and no "
            "others; can be given several times.",
        ),
    ] = None,
    pool_lease_s: Annotated[
        float,
        typer.Option(
            "--pool-lease-s",
            min=MIN_LEASE_S,
            help="How long a pool's worker may go on with a step of these workflows without a word.",
        ),
    ] = DEFAULT_LEASE_S,
    max_steps: Annotated[
        int | None,
        typer.Option("--max-steps", min=1, help="Most steps that run at once, of any kind."),
    ] = None,
    max_runs: Annotated[
        int, typer.Option("--max-runs", min=1, help="Most runs in memory at once; others wait.")
    ] = DEFAULT_RUNS,
    max_memory_mb: Annotated[
        int | None,
        typer.Option(
            "--max-memory-mb", min=1, help="Memory above which no further run is taken into it."
        ),
    ] = None,
    dedup_days: Annotated[
        float,
        typer.Option(
            "--dedup-days",
            min=0.01,
            help="How long the id of a run that has ended is known, and can't be used again.",
        ),
    ] = DEFAULT_DEDUP_DAYS,
    project: Annotated[
        list[str] | None,
        typer.Option(
            "--project",
            metavar="NAME",
            help="Keep this projection as well, as `refold project` does: `workflows`, or MODULE:PROJECTION; can be "
            "given several times.",
        ),
    ] = None,
    project_to: Annotated[
        str | None,
        typer.Option(
            "--project-to",
            envvar="REFOLD_VIEWS",
            callback=without_password,
            metavar="PLACE",
            help="Where those tables are kept: sqlite:///DIRECTORY or postgresql://USER@HOST/DATABASE; beside a log in "
            "a file if not given.",
        ),
    ] = None,
    log_json: LogJson = False,
    metrics_port: MetricsPort = None,
    metrics_address: MetricsAddress = DEFAULT_METRICS_ADDRESS,
    debug: Debug = False,
) -> None:
    """Run workflows until SIGTERM or Ctrl-C, sharing the log's partitions with all its other workers.

    Told to stop, it begins nothing new and hands its partitions over to other workers at once; steps under way may end
    here, and are recorded there. A second signal ends it at once. Whatever way it ends, its workflows go on in another
    worker or in the next one.
    """
    with reported(debug):
        if pool:
            load_modules(modules)
            workflows = [one for one in Catalogue.declared().definitions() if one.pool in pool]
        else:
            workflows = load_workflows(modules)
        log = shared_log_at(url, may_make=not pool)
        wanted = load_projections(project or ())
        for one in wanted:
            place_of(one.name, log, project_to)  # refused here, not when workflows run already
        set_up_logging(as_json=log_json)
        engine = Engine(
            log,
            workflows=workflows,
            worker=not pool,
            pools=pool or (),
            pool_lease_s=pool_lease_s,
            name=name,
            threads=threads,
            drain_s=drain_s,
            max_steps=max_steps,
            max_runs=max_runs,
            max_memory_bytes=None if max_memory_mb is None else max_memory_mb * MEGABYTE,
            checkpoints=CheckpointSettings(dedup_window_s=dedup_days * DAY_S),
            projections=[Projected(one, project_to) for one in wanted],
        )
        duty = Duty(
            redacted(url), tuple(map(_with_version, workflows)), tuple(engine.pool_steps), drain_s
        )
        settle_garbage_collector()
        service = WorkerService(engine, log, duty)
        with ExitStack() as stack:
            if metrics_port is not None:
                # Imported when asked for: it needs a package that others can do without.
                from refold.services.metrics import StatsCollector, serving  # noqa: PLC0415

                numbers = StatsCollector(engine.stats)
                stack.enter_context(serving(numbers, metrics_address, metrics_port))
            code = asyncio.run(service.run())
        leave_steps_behind(code)
        raise typer.Exit(code)


def _with_version(workflow: AnyWorkflow) -> str:
    return workflow.name if workflow.version == 1 else f"{workflow.name}@{workflow.version}"
