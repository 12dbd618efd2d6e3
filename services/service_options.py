"""Options that every command has which runs until it is told to stop."""

from typing import Annotated, Final

import typer

from refold.log.urls import holds_secret

DEFAULT_METRICS_ADDRESS: Final = "127.0.0.1"

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


def without_password(
    context: typer.Context, parameter: typer.CallbackParam, place: str | None
) -> str | None:
    """Refuse a database's password on the command line, which every user of the machine can read."""
    source = context.get_parameter_source(parameter.name or "")
    typed = source is not None and source.name == "COMMANDLINE"
    if typed and place is not None and holds_secret(place):
        raise typer.BadParameter(
            "a password in it could be read by every user of this machine: leave it out, and give it by PGPASSWORD or "
            "PGPASSFILE, or the whole by REFOLD_VIEWS"
        )
    return place
