"""Options that every command has which runs until it is told to stop."""

from typing import Annotated, Final

import typer

from refold.services.opening import no_secret_by

DEFAULT_METRICS_ADDRESS: Final = "127.0.0.1"
"""Numbers tell what a business does: other machines see them only where somebody wants that."""

LogJson = Annotated[bool, typer.Option("--log-json", help="Log lines as JSON objects.")]

MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        min=0,
        max=65_535,
        help="Serve metrics for Prometheus at this port, at /metrics; 0 takes any free one.",
    ),
]

MetricsAddress = Annotated[
    str,
    typer.Option(
        "--metrics-address", help="Where to serve them; 0.0.0.0 for other machines as well."
    ),
]

without_password: Final = no_secret_by("PGPASSWORD or PGPASSFILE, or the whole by REFOLD_VIEWS")
