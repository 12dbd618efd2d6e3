"""`refold start`: ask for a run that a worker carries out."""

import asyncio
import uuid
from dataclasses import dataclass
from typing import Annotated

import typer

from refold.engine.blobs import Blobs
from refold.engine.client import Client
from refold.engine.names import check_id, check_name, check_pool_of
from refold.engine.payload import check_size
from refold.engine.queueing import require_queue
from refold.engine.worker import wall_clock
from refold.log.attributes import encode_attributes
from refold.log.errors import ResultTimeout, UsageError
from refold.log.layout import with_pool
from refold.services.arguments import bind, plain_object, read_input
from refold.services.cli_run import Input, RunId, Subject, Words
from refold.services.cli_values import read_attributes, read_deadline, read_message
from refold.services.exits import reported
from refold.services.loading import AnyWorkflow, all_versions, load_workflow
from refold.services.opening import (
    ANSWER_TIMEOUT_S,
    DEFAULT_URL,
    Debug,
    Url,
    awaiting_worker,
    opened,
    shared_log_at,
)
from refold.services.spans import microseconds


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked for.

    Args:
        name: Name of the workflow.
        payload: JSON of its input.
        version: Version of its code; None for the newest that the worker has.
        attributes: Its tags, as they are recorded.
        due_at: Its deadline, microseconds since 1970-01-01 UTC.
        message: Topic and JSON of a message that goes with it.
        subject: With whose keys it is encrypted.
        queue: The queue in which it waits.
    """

    name: str
    payload: str
    version: int | None
    attributes: dict[str, str] | None
    due_at: int | None
    message: tuple[str, str] | None
    subject: str | None
    queue: str | None


def start(  # noqa: PLR0913 - each an option of the command
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:WORKFLOW|NAME",
            help="The workflow's code, which checks the input; or only its name.",
        ),
    ],
    words: Words = None,
    *,
    input_json: Input = None,
    id: RunId = None,
    version: Annotated[
        int | None,
        typer.Option(
            "--version",
            min=1,
            metavar="N",
            help="Version of its code; the newest that the worker has if not given.",
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline",
            metavar="SPAN|TIME",
            help="When it is cancelled if it still runs: 2h, 30m, 45s, 7d, or 2026-12-01T09:00+01:00.",
        ),
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            "--attribute",
            metavar="NAME=VALUE",
            help="A tag to find it by; repeat it for several. 12, 0.5, true and times with a zone are taken for what "
            "they look like, '\"12\"' for text.",
        ),
    ] = None,
    message: Annotated[
        str | None,
        typer.Option(
            "--message",
            metavar="TOPIC=JSON",
            help="A message that goes with it; where the run exists, it is sent to that.",
        ),
    ] = None,
    subject: Subject = None,
    queue: Annotated[
        str | None,
        typer.Option(
            "--queue",
            metavar="NAME",
            help="The queue in which it waits for its turn; the workflow's own if not given.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until a worker has accepted it.")
    ] = True,
    debug: Debug = False,
) -> None:
    """Ask for a workflow to be started by a worker, and print the run's id.

    Nothing runs here. The request is in the log before this returns: with --no-wait it need not find a worker.
    """
    with reported(debug):
        name, payload, chosen, pool = _input(target, read_input(input_json), words or (), version)
        run_id = id if id is not None else with_pool(f"{name}-{uuid.uuid4().hex[:12]}", pool)
        check_id(run_id)
        if pool is not None:
            check_pool_of(run_id, name, pool)
        now = wall_clock()
        request = _Request(
            name,
            payload,
            chosen,
            encode_attributes(read_attributes(attribute)) or None,
            None if deadline is None else microseconds(read_deadline(deadline, now)),
            read_message(message),
            subject,
            queue,
        )
        try:
            asyncio.run(_send(url, request, run_id, wait=wait))
        except ResultTimeout:
            typer.echo(run_id)  # the command is durable: the id is what it will be found by
            raise
        typer.echo(run_id)


def _input(
    target: str, input_json: str | None, words: list[str] | tuple[()], version: int | None
) -> tuple[str, str, int | None, str | None]:
    """Name and input of the workflow to start, the version to ask for, and its pool where the code is here."""
    if ":" in target or target.endswith(".py"):
        named = load_workflow(target)
        known = {definition.version: definition for definition in all_versions(named)}
        workflow = named if version is None else _of_version(named, known, version)
        if version is None and named.version < max(known):
            version = named.version  # whoever names old code means it
        return workflow.name, bind(workflow, input_json, words).payload, version, workflow.pool
    if words:
        raise UsageError(
            f"{target!r} is only a name, so the order of its parameters is not known here: give --input "
            f"'{{...}}', or name the code, as in module:{target}"
        )
    return target, plain_object(input_json), version, None


def _of_version(named: AnyWorkflow, known: dict[int, AnyWorkflow], version: int) -> AnyWorkflow:
    if version not in known:
        there = ", ".join(map(str, sorted(known)))
        raise UsageError(
            f"workflow {named.name!r} has no version {version} in this code, which has: {there}. Name another "
            f"--version, or start it by its name alone: refold start {named.name} --version {version} --input ..."
        )
    return known[version]


async def _send(url: str, request: _Request, run_id: str, *, wait: bool) -> None:
    async with opened(shared_log_at(url, may_make=True)) as log:
        client = Client(log, wall_clock, blobs=Blobs.of(log))
        what = f"input of workflow {request.name!r}"
        check_size(request.payload, client.blobs.max_payload_bytes, what)
        await client.open()
        try:
            async with awaiting_worker():
                if request.queue is not None:
                    check_name(request.queue, "queue")
                    if wait:
                        await require_queue(client, request.queue, ANSWER_TIMEOUT_S)
                await client.start(
                    request.name,
                    request.payload,
                    run_id,
                    timeout_s=ANSWER_TIMEOUT_S,
                    confirm=wait,
                    attributes=request.attributes,
                    version=request.version,
                    due_at=request.due_at,
                    message=request.message,
                    subject=request.subject,
                    queue=request.queue,
                )
        finally:
            client.close()
