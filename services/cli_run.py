"""`refold run`: a workflow in this process, from the command line."""

import asyncio
import signal
import uuid
from collections.abc import Awaitable
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.text import Text

from refold.engine.blobs import Blobs
from refold.engine.bound import Bound
from refold.engine.engine import Engine
from refold.engine.handle import Handle
from refold.engine.names import check_id
from refold.engine.showing import shown
from refold.engine.state import Ended, Status
from refold.engine.worker import wall_clock
from refold.log.errors import EngineClosed, LogError, WorkflowParked
from refold.log.events import WorkflowCompleted, WorkflowFailed
from refold.log.protocol import Log
from refold.log.urls import redacted
from refold.services.arguments import bind, read_input
from refold.services.exits import ExitCode, print_error, reported
from refold.services.leftover import leave_steps_behind
from refold.services.loading import load_workflow
from refold.services.opening import DEFAULT_URL, Debug, Url, log_at
from refold.services.progress import ProgressDisplay
from refold.services.spans import span
from refold.services.stream import follow
from refold.services.terminal import note, print_json, printable, to_person
from refold.services.timeline import error_line
from refold.services.timeline_json import json_value

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
Subject = Annotated[
    str | None,
    typer.Option(
        "--subject",
        help="Whose data it is: encrypted with that subject's keys, for `refold erase` to destroy.",
    ),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="ARGS", help="The workflow's arguments in order, instead of --input."),
]


def run(  # noqa: PLR0913 - each an option of the command
    target: Annotated[
        str, typer.Argument(metavar="MODULE:WORKFLOW", help="The workflow, as in orders:checkout.")
    ],
    words: Words = None,
    *,
    input_json: Input = None,
    id: RunId = None,
    subject: Subject = None,
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
            note(f"{workflow.name} {run_id} in {redacted(url)}")
        code = asyncio.run(_run_to_end(log, bound, run_id, subject, quiet=quiet))
        leave_steps_behind(code)
        raise typer.Exit(code)


async def _run_to_end(
    log: Log, bound: Bound[Any], run_id: str, subject: str | None, *, quiet: bool
) -> ExitCode:
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
            start = engine.start_async(bound, id=run_id, subject=subject)
            with display.shown(f"{bound.workflow.name} {run_id}"):
                ending = await _ending(engine, log, start, run_id, display)
    except asyncio.CancelledError:
        if not stopped_by:
            raise
        print_error(
            f"stopped. What is done is recorded: the same command with --id {run_id} goes on"
        )
        return stopped_by[0]
    if isinstance(ending, WorkflowCompleted):
        what = f"result of workflow {run_id!r}"
        text = await Blobs.of(log).read_async(ending.payload, what)
        ending = replace(ending, payload=text)
    return _conclude(ending, run_id, display, quiet=quiet)


async def _ending(
    engine: Engine, log: Log, start: Awaitable[Handle[Any]], run_id: str, display: ProgressDisplay
) -> Ended:
    """Start the run, or attach to it, and tell its events until the one that ends it.

    Raises:
        WorkflowParked: It waits for a person.
        RefoldError: It was refused, or the log failed.
    """
    handle = await start
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


async def _tell_until_end(log: Log, run_id: str, display: ProgressDisplay) -> Ended:
    blobs = Blobs.of(log)
    ended: Ended | None = None
    caught_up = False
    async with aclosing(follow(log, run_id)) as events:
        async for event in events:
            if event is None:
                caught_up = True
            else:
                told = shown(event, blobs)
                display.tell(told)
                ended = told if isinstance(told, Ended) else None  # a reopened run goes on
            if caught_up and ended is not None:
                return ended
    raise EngineClosed(f"the log was closed while workflow {run_id!r} was running")


def _conclude(ending: Ended, run_id: str, display: ProgressDisplay, *, quiet: bool) -> ExitCode:
    if isinstance(ending, WorkflowCompleted):
        if not quiet:
            took = span(max(0, ending.recorded_at - display.started_at))
            note(f"completed: {display.steps}, {took} since its start")
        print_json(json_value(ending.payload), pretty=True)
        return ExitCode.OK
    if isinstance(ending, WorkflowFailed):
        if stack := (ending.error_stack or "").rstrip():
            to_person().print(Text(printable(stack), style="dim"))
        print_error(
            f"workflow {run_id!r} failed: {error_line(ending.error_type, ending.error_message)}"
        )
    else:
        print_error(ending.error_message)  # who ended it, and why
    return ExitCode.FAILED
