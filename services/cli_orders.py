"""`refold cancel`, `pause`, `terminate`, `resume`, `rewind` and `fork`: what a person orders runs to do."""

from typing import Annotated

import typer

from refold.engine.engine import Engine
from refold.engine.names import check_id
from refold.engine.operator import MENDABLE
from refold.engine.state import Status
from refold.log.errors import UsageError
from refold.services.cli_bulk import Order, Selected, give
from refold.services.cli_filter import filtered
from refold.services.cli_list import OPEN
from refold.services.exits import reported

ALL = frozenset(Status)
ACTIVE = OPEN - {Status.COPYING}
UNDONE = frozenset({Status.FAILED, Status.CANCELLED, Status.TERMINATED})
"""Runs that have ended and did not complete."""


def _finish(order: Order, selected: Selected) -> None:
    """Give the order, and exit with its code."""
    with reported(selected.debug):
        raise typer.Exit(give(order, selected))


@filtered
def cancel(*, where: Selected) -> None:
    """Ask runs to cancel: their code is told at its next durable call, and may clean up before it ends.

    Children that were started to end with their parent are cancelled with it. A run that is parked or paused goes on
    to be cancelled. Where its code can't or won't, there is `refold terminate`.
    """

    async def carry_out(engine: Engine, id_: str) -> None:
        await engine.handle(id_).cancel_async(where.reason)

    _finish(Order("cancel", "asked to cancel", OPEN, OPEN, carry_out), where)


@filtered
def terminate(*, where: Selected) -> None:
    """End runs at once, without asking their code: nothing of it runs any more, no clean-up either.

    Steps under way may still reach the outside world, and are not recorded. Ask with `refold cancel` first.
    """

    async def carry_out(engine: Engine, id_: str) -> None:
        await engine.handle(id_).terminate_async(where.reason)

    _finish(Order("terminate", "terminated", OPEN, OPEN, carry_out), where)


@filtered
def pause(*, where: Selected) -> None:
    """Halt runs until they are resumed: steps under way are finished and recorded, and nothing new is begun.

    Messages that come meanwhile are kept.
    """

    async def carry_out(engine: Engine, id_: str) -> None:
        await engine.handle(id_).pause_async(where.reason)

    running = frozenset({Status.RUNNING, Status.QUEUED})
    _finish(Order("pause", "paused", running, running, carry_out), where)


@filtered
def resume(*, where: Selected) -> None:
    """Let runs go on that are parked (mend the cause first), paused, or failed: from where they stopped.

    What is recorded stays and is not done again. By a filter it means runs that are parked or paused or have failed;
    those that were cancelled or terminated only where --status names them.
    """

    async def carry_out(engine: Engine, id_: str) -> None:
        await engine.handle(id_).resume_async(where.reason)

    _finish(Order("resume", "resumed", MENDABLE | UNDONE, MENDABLE, carry_out), where)


@filtered
def rewind(
    *,
    where: Selected,
    step: Annotated[
        int,
        typer.Option("--step", min=0, metavar="N", help="The first step that is done again."),
    ],
) -> None:
    """Take runs back to before a step, in place: it and all later ones are done again, by the code that runs now.

    Numbers of steps are those that `refold show` has behind the #. Children that were started later are cancelled. By
    a filter, runs that have ended are meant only where --status names theirs.
    """

    async def carry_out(engine: Engine, id_: str) -> None:
        await engine.handle(id_).rewind_async(step, where.reason)

    _finish(
        Order(
            "rewind", f"rewound to before step {step}", ALL - {Status.COPYING}, ACTIVE, carry_out
        ),
        where,
    )


@filtered
def fork(
    *,
    where: Selected,
    step: Annotated[
        int | None,
        typer.Option(
            "--step",
            min=0,
            metavar="N",
            help="The first step that the copy does itself; none if not given.",
        ),
    ] = None,
    id: Annotated[
        str | None, typer.Option("--id", metavar="NEW", help="The copy's id. Made up if not given.")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(
            "--version",
            min=1,
            metavar="N",
            help="Version of the code for the copy; its own if not given.",
        ),
    ] = None,
) -> None:
    """Copy runs under new ids: what is recorded before a step is replayed, that step and all later ones are done.

    Prints the copy's id; for several runs a line for each, with the run's id first. The runs themselves stay as they
    are.
    """

    async def carry_out(engine: Engine, id_: str) -> str:
        copy = await engine.handle(id_).fork_async(
            step, id=id, version=version, reason=where.reason
        )
        return copy.id

    with reported(where.debug):
        if id is not None:
            check_id(id)
            if len(where.ids or ()) != 1:
                raise UsageError(
                    f"--id {id} is one copy's id: name the one run that is to be copied, or leave --id out"
                )
        raise typer.Exit(
            give(Order("fork", "copied", ALL - {Status.COPYING}, ACTIVE | UNDONE, carry_out), where)
        )
