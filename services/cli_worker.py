"""`refold worker`: a process that runs workflows until it is told to stop."""

import asyncio
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from refold.engine.engine import Engine
from refold.services.exits import reported
from refold.services.garbage import settle_garbage_collector
from refold.services.leftover import leave_steps_behind
from refold.services.loading import AnyWorkflow, load_workflows
from refold.services.logs import say, set_up_logging
from refold.services.opening import DEFAULT_URL, Debug, Url, shared_log_at
from refold.services.worker_service import Duty, WorkerService

DEFAULT_THREADS = 32
DEFAULT_DRAIN_S = 10.0
DEFAULT_METRICS_ADDRESS = "127.0.0.1"
"""Numbers tell what a business does: other machines see them only where somebody wants that."""


logger = logging.getLogger("refold.service")


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
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Log lines as JSON objects.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=0,
            max=65_535,
            help="Serve metrics for Prometheus at this port, at /metrics; 0 takes any free one.",
        ),
    ] = None,
    metrics_address: Annotated[
        str,
        typer.Option(
            "--metrics-address", help="Where to serve them; 0.0.0.0 for other machines as well."
        ),
    ] = DEFAULT_METRICS_ADDRESS,
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
        duty = Duty(url, tuple(map(_with_version, workflows)), drain_s)
        settle_garbage_collector()
        service = WorkerService(engine, log, duty)
        with _metrics(engine, metrics_address, metrics_port):
            code = asyncio.run(service.run())
        leave_steps_behind(code)
        raise typer.Exit(code)


def _with_version(workflow: AnyWorkflow) -> str:
    return workflow.name if workflow.version == 1 else f"{workflow.name}@{workflow.version}"


@contextmanager
def _metrics(engine: Engine, address: str, port: int | None) -> Generator[None, None, None]:
    """Metrics, served inside the block where a port was given."""
    if port is None:
        yield
        return
    # Imported when asked for: it needs a package that others can do without.
    from refold.services.metrics import served  # noqa: PLC0415

    with served(engine.stats, address, port) as bound:
        say(logger, "metrics", {"url": f"http://{address}:{bound}/metrics"})
        yield
