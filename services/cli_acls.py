"""`refold acls`: what each role needs in a Kafka cluster with access control."""

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import groupby
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from refold.log.errors import UsageError
from refold.log.kafka_acls import Role, as_commands, as_json, permissions, principal
from refold.log.layout import check_pool
from refold.log.urls import kafka_address
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Debug, Url, UrlArgument
from refold.services.terminal import printable, to_reader


class Form(StrEnum):
    """How the permissions are printed."""

    TABLE = "table"
    COMMANDS = "commands"
    JSON = "json"


def _principals(role: Role, who: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        f"--{role}", metavar="PRINCIPAL", help=f"{who}, a user or KIND:NAME. May be given again."
    )
    return option


Clients = Annotated[list[str] | None, _principals(Role.CLIENT, "Who starts and asks")]
Workers = Annotated[list[str] | None, _principals(Role.WORKER, "Who runs workflows")]
Readers = Annotated[list[str] | None, _principals(Role.READER, "Who reads and audits")]
Admins = Annotated[list[str] | None, _principals(Role.ADMIN, "Who makes the topics")]


def acls(  # noqa: PLR0913 - each an option of the command
    address: UrlArgument = None,
    *,
    client: Clients = None,
    worker: Workers = None,
    reader: Readers = None,
    admin: Admins = None,
    pool: Annotated[
        list[str] | None,
        typer.Option("--pool", help="Workers are for this pool's workflows. May be given again."),
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
        given = (client, worker, reader, admin)
        roles = (Role.CLIENT, Role.WORKER, Role.READER, Role.ADMIN)
        principals = {role: names for role, names in zip(roles, given, strict=True) if names}
        for name in pool or ():
            check_pool(name)
        _print(address or url, principals, pool or (None,), form)


def _print(
    url: str,
    principals: Mapping[Role, Sequence[str]],
    pools: Sequence[str | None],
    form: Form,
) -> None:
    target = kafka_address(url)
    if form is not Form.TABLE and not principals:
        raise UsageError(
            f"--format {form} needs at least one of --client, --worker, --reader, --admin"
        )
    if form is Form.COMMANDS:
        text = "\n".join(as_commands(target.brokers, target.namespace, principals, pools))
    elif form is Form.JSON:
        text = as_json(target.namespace, principals, pools)
    else:
        to_reader().print(_table(target.namespace, principals, pools))
        return
    sys.stdout.write(f"{text}\n")


def _table(
    namespace: str, principals: Mapping[Role, Sequence[str]], pools: Sequence[str | None]
) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("ROLE", "RESOURCE", "NAME", "OPERATION", "WHAT FOR"):
        table.add_column(heading, overflow="fold")
    for role in principals or Role:
        names = ", ".join(principal(name) for name in principals.get(role, ()))
        title = f"{role} {names}" if names else str(role)
        granted = sorted(
            permissions(role, namespace, pools), key=lambda one: (one.resource, one.name)
        )
        for (kind, name), group in groupby(granted, key=lambda one: (one.resource, one.name)):
            rows = list(group)
            table.add_row(
                Text(printable(title), style="bold"),
                kind,
                name,
                " ".join(dict.fromkeys(one.operation for one in rows)),
                Text("; ".join(dict.fromkeys(one.purpose for one in rows)), style="dim"),
            )
            title = ""
    return table
