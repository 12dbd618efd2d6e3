"""`refold topics create` and `refold version`."""

import asyncio
import platform
from importlib.metadata import version as installed_version
from typing import Annotated

import typer
from rich.text import Text

from refold.log.errors import UsageError
from refold.log.layout import in_words, read_pools
from refold.log.urls import kafka_address, redacted
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Debug, Url, UrlArgument
from refold.services.terminal import to_reader, warn

DEFAULT_PARTITIONS = 8
"""Workers that can share the work. Few enough for a laptop's broker, and it can't be changed later."""

topics = typer.Typer(
    help="The topics of a namespace on Kafka.", no_args_is_help=True, rich_markup_mode="rich"
)


def create_topics(
    address: UrlArgument = None,
    *,
    partitions: Annotated[
        int,
        typer.Option("--partitions", min=1, help="How many workers can share the work. For ever."),
    ] = DEFAULT_PARTITIONS,
    pool: Annotated[
        list[str] | None,
        typer.Option(
            "--pool",
            metavar="NAME:N",
            help="Give the workflows of this pool N partitions of their own besides. For ever; can be given several "
            "times.",
        ),
    ] = None,
    replication: Annotated[
        int | None,
        typer.Option(
            "--replication",
            min=1,
            help="Copies of each partition; 3 if not given, or as many as there are brokers.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Make the topics that a namespace needs, once, before its first worker. Safe to repeat.

    The number of partitions is fixed for the life of the namespace, because a workflow is found by it.
    """
    with reported(debug):
        asyncio.run(_create(address or url, partitions, replication, read_pools(pool or ())))


@topics.callback()
def _topics() -> None:
    """Keep `topics` a group although it has one command."""


async def _create(
    url: str, partitions: int, replication: int | None, pools: tuple[tuple[str, int], ...]
) -> None:
    if not url.startswith("kafka:"):
        raise UsageError(
            f"{redacted(url)} has no topics: name a namespace on Kafka, --url kafka://HOST:PORT/NAMESPACE. "
            "A SQLite log is made when it is first used"
        )
    target = kafka_address(url)
    # Imported when asked for: all other commands on SQLite should not load a Kafka client.
    from refold.log.kafka import create_topics as create  # noqa: PLC0415

    report = await create(
        target.brokers, target.namespace, partitions, replication, target.settings, pools
    )
    done = "made" if report.created else "there already, as asked for"
    line = Text.assemble(
        (target.namespace, "bold"),
        f": topics {done}; {in_words(report.layout)}, {_copies(report.replication)}, "
        f"{report.in_sync_min} must have an event before it counts as written",
    )
    to_reader().print(line)
    for warning in report.warnings:
        warn(warning)


def _copies(replication: int) -> str:
    return "1 copy of each" if replication == 1 else f"{replication} copies of each"


def version() -> None:
    """Say which release this is."""
    typer.echo(f"refold {installed_version('refold')} (Python {platform.python_version()})")
