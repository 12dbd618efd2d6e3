"""`refold run` and `refold start`: workflows from the command line."""

import asyncio
import signal
import uuid
from collections.abc import Awaitable
from contextlib import aclosing
from typing import Annotated, Any

import typer
from rich.text import Text

from refold.engine.bound import Bound
from refold.engine.client import Client, check_id
from refold.engine.engine import Engine
from refold.engine.fold import Status
from refold.engine.payload import check_size
from refold.engine.worker import wall_clock
from refold.log.errors import EngineClosed, LogError, ResultTimeout, UsageError, WorkflowParked
from refold.log.events import WorkflowCompleted, WorkflowFailed
from refold.log.protocol import Log
from refold.services.arguments import bind, plain_object, read_input
from refold.services.exits import ExitCode, print_error, reported
from refold.services.leftover import leave_steps_behind
from refold.services.loading import load_workflow
from refold.services.opening import (
    ANSWER_TIMEOUT_S,
    DEFAULT_URL,
    Debug,
    Url,
    log_at,
    opened,
    shared_log_at,
)
from refold.services.progress import ProgressDisplay
from refold.services.spans import span
from refold.services.stream import follow
from refold.services.terminal import note, print_json, printable, to_person
from refold.services.timeline import error_line
from refold.services.timeline_json import json_value

MAX_PAYLOAD_BYTES = 900_000
"""The engine's default limit, for input that no engine sees before it is sent."""

Ending = WorkflowCompleted | WorkflowFailed

Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="JSON",
        help="The input: a JSON object with a member for each parameter; @FILE reads a file, - standard input.",
    ),
]
RunId = Annotated[
    str | None,
    typer.Option(
        "--id", metavar="ID", help="The run's id; there is one run of an id. Made up if not given."
    ),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="ARGS", help="The workflow's arguments in order, instead of --input."),
]


def run(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:WORKFLOW", help="The workflow, as in orders:checkout.")
    ],
    words: Words = None,
    *,
    input_json: Input = None,
    id: RunId = None,
    url: Url = DEFAULT_URL,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, only the result.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Run a workflow here, show its progress, and print its result as JSON.

    Everything that it has done is in the log: when it is interrupted or killed, the same command with the same --id
    goes on where it stopped. Giving the id of a run that has ended prints its result again.
    """
    with reported(debug):
        workflow = load_workflow(target)
        bound = bind(workflow, read_input(input_json), words or ())
        run_id = id if id is not None else f"{workflow.name}-{uuid.uuid4().hex[:12]}"
        check_id(run_id)
        log = log_at(url, may_make=True)
        if not quiet:
            note(f"{workflow.name} {run_id} in {url}")
        code = asyncio.run(_run_to_end(log, bound, run_id, quiet=quiet))
        leave_steps_behind(code)
        raise typer.Exit(code)


async def _run_to_end(log: Log, bound: Bound[Any], run_id: str, *, quiet: bool) -> ExitCode:
    task = asyncio.current_task()
    stopped_by: list[ExitCode] = []

    def stop(code: ExitCode) -> None:
        stopped_by.append(code)
        if task is not None:
            task.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop, ExitCode.TERMINATED)
    loop.add_signal_handler(signal.SIGINT, stop, ExitCode.INTERRUPTED)
    display = ProgressDisplay(to_person(), quiet=quiet, since=wall_clock())
    try:
        async with Engine(log) as engine:
            with display.shown(f"{bound.workflow.name} {run_id}"):
                ending = await _ending(engine, log, bound, run_id, display)
    except asyncio.CancelledError:
        if not stopped_by:
            raise
        print_error(
            f"stopped. What is done is recorded: the same command with --id {run_id} goes on"
        )
        return stopped_by[0]
    return _conclude(ending, run_id, display, quiet=quiet)


async def _ending(
    engine: Engine, log: Log, bound: Bound[Any], run_id: str, display: ProgressDisplay
) -> Ending:
    """Start the run, or attach to it, and tell its events until the one that ends it.

    Raises:
        WorkflowParked: It waits for a person.
        RefoldError: It was refused, or the log failed.
    """
    handle = await engine.start_async(bound, id=run_id)
    events = asyncio.ensure_future(_tell_until_end(log, run_id, display))
    result = asyncio.ensure_future(_outcome_known(handle.result_async()))
    try:
        await asyncio.wait({events, result}, return_when=asyncio.FIRST_COMPLETED)
        if events.done():
            return await events
        error = await result
        if isinstance(error, LogError | EngineClosed):
            raise error
        if isinstance(error, WorkflowParked):
            info = await engine.status_async(run_id)
            if info.status is Status.PARKED:
                raise error
        return await events  # it is in the log, so it comes
    finally:
        for task in (events, result):
            task.cancel()
        await asyncio.gather(events, result, return_exceptions=True)


async def _outcome_known(result: Awaitable[object]) -> Exception | None:
    """Wait for a result; what the workflow raised is told from its last event, and only the kind matters here."""
    try:
        await result
    except Exception as error:  # noqa: BLE001 - the workflow's own error may be of any type
        return error
    return None


async def _tell_until_end(log: Log, run_id: str, display: ProgressDisplay) -> Ending:
    async with aclosing(follow(log, run_id)) as events:
        async for event in events:
            display.tell(event)
            if isinstance(event, WorkflowCompleted | WorkflowFailed):
                return event
    raise EngineClosed(f"the log was closed while workflow {run_id!r} was running")


def _conclude(ending: Ending, run_id: str, display: ProgressDisplay, *, quiet: bool) -> ExitCode:
    if isinstance(ending, WorkflowCompleted):
        if not quiet:
            took = span(max(0, ending.recorded_at - display.started_at))
            note(f"completed: {display.done:,} steps, {took} since its start")
        print_json(json_value(ending.payload), pretty=True)
        return ExitCode.OK
    stack = (ending.error_stack or "").rstrip()
    if stack:
        to_person().print(Text(printable(stack), style="dim"))
    print_error(
        f"workflow {run_id!r} failed: {error_line(ending.error_type, ending.error_message)}"
    )
    return ExitCode.FAILED


def start(
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
        name, payload = _request(target, read_input(input_json), words or ())
        check_size(payload, MAX_PAYLOAD_BYTES, f"input of workflow {name!r}")
        run_id = id if id is not None else f"{name}-{uuid.uuid4().hex[:12]}"
        check_id(run_id)
        log = shared_log_at(url, may_make=True)
        try:
            asyncio.run(_send_start(log, name, payload, run_id, wait=wait))
        except ResultTimeout:
            typer.echo(run_id)  # the command is durable: the id is what it will be found by
            raise
        typer.echo(run_id)


def _request(target: str, input_json: str | None, words: list[str] | tuple[()]) -> tuple[str, str]:
    """Name and input of the workflow to start."""
    if ":" in target or target.endswith(".py"):
        workflow = load_workflow(target)
        return workflow.name, bind(workflow, input_json, words).payload
    if words:
        raise UsageError(
            f"{target!r} is only a name, so the order of its parameters is not known here: give --input "
            f"'{{...}}', or name the code, as in module:{target}"
        )
    return target, plain_object(input_json)


async def _send_start(log: Log, name: str, payload: str, run_id: str, *, wait: bool) -> None:
    async with opened(log):
        client = Client(log, wall_clock)
        await client.open()
        try:
            await client.start(name, payload, run_id, timeout_s=ANSWER_TIMEOUT_S, confirm=wait)
        finally:
            client.close()
