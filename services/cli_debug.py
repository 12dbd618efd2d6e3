"""`refold debug`: a recorded run in Python's debugger, with the variables that it had."""

import asyncio
from typing import Annotated

import typer
from rich.text import Text

from refold.engine.blobs import Blobs
from refold.engine.debugging import Debugger, debug
from refold.engine.definitions import Catalogue
from refold.engine.histories import read_run
from refold.engine.names import check_id
from refold.engine.places import read_place, told
from refold.engine.rehearsal import History, described
from refold.log.errors import UsageError
from refold.log.urls import with_archive
from refold.services.cli_read import RunId
from refold.services.exits import reported
from refold.services.loading import load_workflows
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url, opened, shared_log_at
from refold.services.terminal import one_line, to_person

App = Annotated[
    list[str],
    typer.Option(
        "--app",
        metavar="MODULE[:NAME]",
        help="Where the run's workflow is, as `refold worker` takes it. Repeat it for several.",
    ),
]


def debug_run(
    id: RunId,
    *,
    app: App,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="OPERATION",
            help="Where to stand still first: its number, its name, or NAME#NUMBER as `refold show` says it.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug_: Debug = False,
) -> None:
    """Step through a recorded run in pdb. Its code is replayed, and stands still where it asks for an operation.

    All commands of pdb are there; `op` goes on to the next operation, `op charge#3` to that one, `ops` shows them all.
    Where the code raises, it is looked at in the place where it does.

    Nothing is carried out or written: steps are answered from the history, and neither the code nor what is typed at
    the prompt may reach outside.
    """
    with reported(debug_):
        check_id(id)
        place = None if at is None else read_place(at)
        catalogue = Catalogue.of(load_workflows(app))
        history, blobs = recorded(with_archive(url, archive), id)
        debugger = Debugger(history, place, blobs)
        ending = debug(catalogue, history, debugger)
        if debugger.has_left:
            return
        if debugger.missed is not None:
            raise UsageError(
                f"workflow {id!r} has no operation {debugger.missed}: {told(debugger.asked_for)}"
            )
        if ending is None:
            says = f"the history ends here: {id} waits"
        else:
            says = f"the history ends here: {id} {described(ending)}"
        to_person().print(Text(one_line(says, 400), style="dim"))


def recorded(url: str, id_: str) -> tuple[History, Blobs]:
    """A run's history, to be replayed, and where its large payloads are.

    Raises:
        WorkflowNotFound: There is no such run.
        LogError: The log can't be read.
    """

    async def read() -> tuple[History, Blobs]:
        async with opened(shared_log_at(url, may_make=False)) as log:
            return await read_run(log, id_), Blobs.of(log)

    return asyncio.run(read())
