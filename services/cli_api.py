"""`refold api`: the workflows read model over HTTP."""

import asyncio
from contextlib import ExitStack
from typing import Annotated

import typer

from refold.projections.read_model import ReadModel
from refold.services.cli_list import Views
from refold.services.exits import reported
from refold.services.logs import set_up_logging
from refold.services.opening import DEFAULT_URL, Debug, Url
from refold.services.service_options import (
    DEFAULT_METRICS_ADDRESS,
    LogJson,
    MetricsAddress,
    MetricsPort,
)

DEFAULT_PORT = 8088


def api(  # noqa: PLR0913 - each an option of the command
    *,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="The port; 0 takes any free one.")
    ] = DEFAULT_PORT,
    address: Annotated[
        str, typer.Option("--address", help="Where; 0.0.0.0 for other machines as well.")
    ] = "127.0.0.1",
    views: Views = None,
    schema: Annotated[
        str | None,
        typer.Option("--schema", help="In PostgreSQL: the schema of the read model's tables."),
    ] = None,
    log_json: LogJson = False,
    metrics_port: MetricsPort = None,
    metrics_address: MetricsAddress = DEFAULT_METRICS_ADDRESS,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Serve the runs over HTTP, to be read only: lists, counts and groups, with the filters of `refold list`.

    It reads what `refold project` keeps, and never the log. /docs describes it, /openapi.json does for programs,
    /readyz says whether the read model can be read. There is no login: who may reach the port may read all runs.
    """
    with reported(debug):
        # Imported when asked for: it needs packages that others can do without.
        from refold.services.http_server import serve  # noqa: PLC0415
        from refold.services.runs_api import RunsApi  # noqa: PLC0415

        set_up_logging(as_json=log_json)
        with ReadModel(url, to=views, schema=schema) as model:
            runs = RunsApi(model)
            with ExitStack() as stack:
                if metrics_port is not None:
                    from refold.services.metrics import ApiCollector, serving  # noqa: PLC0415

                    numbers = ApiCollector(lambda: (runs.answers.copy(), runs.seconds))
                    stack.enter_context(serving(numbers, metrics_address, metrics_port))
                asyncio.run(serve(runs.app(), "api", address, port))
