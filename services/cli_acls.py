"""`refold acls`: what each role needs in a Kafka cluster with access control."""

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import groupby
from typing import Annotated, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from refold.log.errors import UsageError
from refold.log.kafka_acls import Role, as_commands, as_json, permissions, principal
from refold.log.layout import check_pool
from refold.log.protocol import check_group
from refold.log.urls import kafka_address
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Debug, Url, UrlArgument
from refold.services.terminal import plain_table, printable, to_reader


class Form(StrEnum):
    """How the permissions are printed."""

    TABLE = "table"
    COMMANDS = "commands"
    JSON = "json"


class _Shared(NamedTuple):
    """In which groups partitions are shared: `pools` by workers, `groups` by readers."""

    pools: Sequence[str | None]
    groups: Sequence[str]


def _principals(role: Role, who: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        f"--{role}", metavar="PRINCIPAL", help=f"{who}, a user or KIND:NAME. May be given again."
    )
    return option


Clients = Annotated[list[str] | None, _principals(Role.CLIENT, "Who starts and asks")]
Workers = Annotated[list[str] | None, _principals(Role.WORKER, "Who runs workflows")]
Readers = Annotated[list[str] | None, _principals(Role.READER, "Who reads and audits")]
Archivers = Annotated[list[str] | None, _principals(Role.ARCHIVER, "Who archives and trims")]
Admins = Annotated[list[str] | None, _principals(Role.ADMIN, "Who makes the topics")]


def acls(  # noqa: PLR0913 - each an option of the command
    address: UrlArgument = None,
    *,
    client: Clients = None,
    worker: Workers = None,
    reader: Readers = None,
    archiver: Archivers = None,
    admin: Admins = None,
    pool: Annotated[
        list[str] | None,
        typer.Option("--pool", help="Workers are for this pool's workflows. May be given again."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            help="Readers share the events in this group, as projections and sinks do. May be given again.",
        ),
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="A table, kafka-acls.sh commands, or JSON.")
    ] = Form.TABLE,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Print exactly the Kafka permissions that each role needs on a namespace. Nothing is changed, nobody is asked.

    Name those who have a role to get their permissions only, and commands that grant them. Who looks up results when no
    worker runs, or lists and shows runs, is a reader besides being a client.
    """
    with reported(debug):
        given = (client, worker, reader, archiver, admin)
        principals = {role: names for role, names in zip(Role, given, strict=True) if names}
        for name in pool or ():
            check_pool(name)
        for name in group or ():
            check_group(name)
        _print(address or url, principals, _Shared(pool or (None,), group or ()), form)


def _print(
    url: str,
    principals: Mapping[Role, Sequence[str]],
    shared: _Shared,
    form: Form,
) -> None:
    target = kafka_address(url)
    if form is not Form.TABLE and not principals:
        raise UsageError(
            f"--format {form} needs at least one of {', '.join(f'--{role}' for role in Role)}"
        )
    if form is Form.COMMANDS:
        text = "\n".join(as_commands(target.brokers, target.namespace, principals, *shared))
    elif form is Form.JSON:
        text = as_json(target.namespace, principals, *shared)
    else:
        to_reader().print(_table(target.namespace, principals, shared))
        return
    sys.stdout.write(f"{text}\n")


def _table(namespace: str, principals: Mapping[Role, Sequence[str]], shared: _Shared) -> Table:
    table = plain_table("ROLE", "RESOURCE", "NAME", "OPERATION", "WHAT FOR")
    for role in principals or Role:
        names = ", ".join(principal(name) for name in principals.get(role, ()))
        title = f"{role} {names}" if names else str(role)
        granted = sorted(
            permissions(role, namespace, *shared), key=lambda one: (one.resource, one.name)
        )
        for (kind, name), group in groupby(granted, key=lambda one: (one.resource, one.name)):
            rows = list(group)
            table.add_row(
                Text(printable(title), style="bold"),
                Text(kind),
                Text(name),
                " ".join(dict.fromkeys(one.operation for one in rows)),
                Text("; ".join(dict.fromkeys(one.purpose for one in rows)), style="dim"),
            )
            title = ""
    return table
