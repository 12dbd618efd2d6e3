"""`refold check`: would the code that is about to be deployed go on with the runs that there are?"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from random import SystemRandom
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar

from refold.engine.definitions import Catalogue
from refold.engine.state import Status
from refold.log.errors import RefoldError, UsageError
from refold.log.urls import with_archive
from refold.services.check_process import Duty, Which
from refold.services.check_view import Report, grouped, report_json, show
from refold.services.checking import Progress, planned
from refold.services.checking import check as check_units
from refold.services.cli_list import OPEN, Json
from refold.services.exits import ExitCode, print_error, reported
from refold.services.loading import load_workflows
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url
from refold.services.terminal import print_json, to_person, to_reader

DEFAULT_LIMIT_S = 10.0
"""For a run: a history of 200,000 entries, the longest that is not parked, is replayed in 2 s."""

_MAX_SEED = 9_999

NewCode = Annotated[
    list[str],
    typer.Argument(
        metavar="MODULE[:NAME]",
        help="The code that is to be deployed, as `refold worker` takes it.",
    ),
]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial",
        help="Workflows that are not here at all are other workers'; pass over them.",
    ),
]


def check(  # noqa: PLR0913 - each an option of the command
    modules: NewCode,
    *,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME", help="Runs of this workflow.")
    ] = None,
    status: Annotated[
        list[Status] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Open runs that are running, paused or parked. Repeat it for several.",
        ),
    ] = None,
    closed: Annotated[
        int, typer.Option("--closed", min=0, help="Check so many runs that have ended as well.")
    ] = 0,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Draws the same ended runs again.", show_default=False),
    ] = None,
    partial: Partial = False,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            min=1,
            help="How many work at once; one a core if not given.",
            show_default=False,
        ),
    ] = None,
    limit_s: Annotated[
        float, typer.Option("--limit-s", min=0.1, help="Longest time for one run.")
    ] = DEFAULT_LIMIT_S,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Replay all open runs against the code that is here, and tell which of them it would break.

    Nothing is written and no step runs. A worker would park the runs that this finds, or record them as failed; those
    that are parked already are reported and break nothing.

    The exit code is for CI: 0 where the code can be deployed, 1 where runs would break or wait for code that is not
    here, 2 where they could not be checked.
    """
    with reported(debug), or_unchecked(debug):
        which = Which(workflow, _statuses(status))
        target = with_archive(url, archive)
        here = Catalogue.of(load_workflows(modules))
        team = processes or os.cpu_count() or 1
        if seed is None:
            seed = SystemRandom().randrange(_MAX_SEED)
        began = time.monotonic()
        plan = planned(target, which, team, closed, seed)
        with _progress(quiet=json) as told:
            duty = Duty(target, tuple(modules), which, limit_s)
            findings = check_units(duty, plan.units, team, told)
        took_s = time.monotonic() - began
        report = Report(
            modules,
            findings,
            grouped(findings),
            plan.closed,
            seed,
            took_s,
            partial,
            frozenset(here),
        )
        if json:
            print_json(report_json(report), pretty=True)
        else:
            show(to_reader(), report)
        if report.broken:
            raise typer.Exit(ExitCode.FAILED)
        if report.unchecked:
            raise typer.Exit(ExitCode.USAGE)


def _statuses(given: list[Status] | None) -> frozenset[Status] | None:
    """The statuses that were asked for.

    Raises:
        UsageError: One of them is no open run's.
    """
    if not given:
        return None
    wrong = sorted(set(given) - OPEN)
    if wrong:
        raise UsageError(
            f"a run that is {wrong[0].value} is not open: --closed N checks some of those that have ended"
        )
    return frozenset(given)


@contextmanager
def or_unchecked(debug: bool) -> Generator[None, None, None]:
    """Exit with one code for whatever keeps the check from being made."""
    try:
        yield
    except RefoldError as error:
        if debug:
            traceback.print_exc(file=sys.stderr)
        print_error(str(error))
        raise typer.Exit(ExitCode.USAGE) from error


@contextmanager
def _progress(*, quiet: bool) -> Generator[Callable[[Progress], None], None, None]:
    """A bar on standard error inside the block, on a terminal."""
    console = to_person()
    if quiet or not console.is_terminal:
        yield lambda _progress: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def told(progress: Progress) -> None:
            if progress.total:
                bar.update(
                    task, description="replaying", total=progress.total, completed=progress.done
                )
            else:
                bar.update(task, description=f"reading, {progress.records:,} events")

        yield told
