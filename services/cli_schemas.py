"""`refold schemas`: what refold's records are written by, for programs that know nothing of refold."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.text import Text

from refold.log.errors import UsageError
from refold.log.protocol import Log
from refold.log.schema_ids import Published, current, published
from refold.log.urls import open_log, redacted
from refold.services.cli_list import Json
from refold.services.exits import reported
from refold.services.logs import set_up_logging
from refold.services.opening import DEFAULT_URL, Debug, Url, opened
from refold.services.service_options import LogJson
from refold.services.terminal import note, plain_table, print_json, printable, to_reader

if TYPE_CHECKING:
    from refold.log.kafka import KafkaLog

DEFAULT_PORT = 8081
"""Where consumers expect a schema registry."""

schemas = typer.Typer(
    help="The Avro schemas of events, commands and replies.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def list_schemas(
    *,
    json: Json = False,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """List the schemas that this release knows, with refold's own numbers.

    The number stands in each record's value, in the four bytes after the first. Where a schema registry gives the
    numbers, `refold schemas register` shows them.
    """
    with reported(debug):
        namespace = open_log(url).namespace
        _print_numbers(namespace, {one.id: one for one in published()}, as_json=json)


def show_schema(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="event, command or reply; or a schema's number.")
    ],
    *,
    debug: Debug = False,
) -> None:
    """Print a schema, as Avro's JSON."""
    with reported(debug):
        sys.stdout.write(_named(name).text)


def export_schemas(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="Where to; made if it is not there.")
    ],
    *,
    debug: Debug = False,
) -> None:
    """Write every schema to a directory, as NAME.avsc."""
    with reported(debug):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for one in published():
                (directory / f"{one.name}.avsc").write_text(one.text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{directory} can't be written to: {error}") from error
        note(f"wrote {', '.join(f'{one.name}.avsc' for one in published())} to {directory}")


def register_schemas(
    *,
    json: Json = False,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Register the schemas of a namespace at its schema registry, and show the numbers that it gives.

    The registry is named by REFOLD_KAFKA_SCHEMA_REGISTRY or in a settings file, as schema_registry. Every worker
    does this by itself when it starts, unless it may not write to the registry. Safe to repeat.
    """
    with reported(debug):
        asyncio.run(_register(url, as_json=json))


def serve_schemas(
    *,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="The port; 0 takes any free one.")
    ] = DEFAULT_PORT,
    address: Annotated[
        str, typer.Option("--address", help="Where; 0.0.0.0 for other machines as well.")
    ] = "127.0.0.1",
    log_json: LogJson = False,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Be a read-only schema registry for a namespace: consumers that ask one can read refold's topics.

    It serves refold's own numbers, and those that the log has from another registry, also when that is gone.
    """
    with reported(debug):
        # Imported when asked for: it needs packages that others can do without.
        from refold.services.http_server import serve  # noqa: PLC0415
        from refold.services.schemas_service import Catalog, Registry  # noqa: PLC0415

        log = open_log(url)
        set_up_logging(as_json=log_json)
        catalog = Catalog(log.namespace, _notes_of(log, url))
        asyncio.run(serve(Registry(catalog).app(), "schemas", address, port))


def _notes_of(log: Log, url: str) -> Callable[[], Awaitable[Mapping[int, str]]]:
    """Reads the numbers that are noted in the log; only on Kafka there are such."""
    on_kafka = _on_kafka(log, url)
    return _none_noted if on_kafka is None else on_kafka.noted_schemas


def _on_kafka(log: Log, url: str) -> "KafkaLog | None":
    if urlsplit(url).scheme != "kafka":
        return None
    # Imported when asked for: commands on SQLite should not load a Kafka client.
    from refold.log.kafka import KafkaLog  # noqa: PLC0415

    assert isinstance(log, KafkaLog)
    return log


async def _none_noted() -> Mapping[int, str]:
    return {}


async def _register(url: str, *, as_json: bool) -> None:
    log = _on_kafka(open_log(url), url)
    if log is None:
        raise UsageError(f"{redacted(url)} is not on Kafka: its records carry refold's own numbers")
    async with opened(log):
        numbers = log.registered_schemas
    if not numbers or not log.has_registry:
        raise UsageError(
            f"{log.namespace} has no schema registry: name one by REFOLD_KAFKA_SCHEMA_REGISTRY, or as "
            "schema_registry in the settings file"
        )
    _print_numbers(log.namespace, numbers, as_json=as_json)


def _print_numbers(namespace: str, numbers: Mapping[int, Published], *, as_json: bool) -> None:
    if as_json:
        for id_, one in numbers.items():
            row = {"id": id_, "subject": one.subject(namespace), "version": one.version}
            print_json({**row, "schema": loads(one.text)})
        return
    table = plain_table("NUMBER", "SCHEMA", "VERSION", "SUBJECT", whole={"NUMBER", "SCHEMA"})
    for id_, one in numbers.items():
        subject = Text(printable(one.subject(namespace)))
        table.add_row(str(id_), one.name, str(one.version), subject)
    to_reader().print(table)


def _named(name: str) -> Published:
    """The schema with this number or file name, or the newest of this shape."""
    for one in published():
        if name in {str(one.id), one.name}:
            return next((newest for newest in current() if newest.shape == name), one)
    known = ", ".join(one.name for one in published())
    raise UsageError(f"there is no schema {name!r}: there are {known}, and their numbers")
