"""One order to many runs: which they are, whether that is meant, how far it has come, and what failed.

A bulk order is never given by accident: it takes a filter or `--all`, shows what it would touch with `--dry-run`, and
does nothing without a yes, from a person at a terminal or from `--yes`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from refold.engine.engine import Engine
from refold.engine.names import check_id
from refold.engine.reader import WorkflowInfo, read_status
from refold.engine.selection import meant
from refold.engine.state import Status
from refold.engine.worker import wall_clock
from refold.log.errors import RefoldError, ResultTimeout, UsageError
from refold.log.urls import with_archive
from refold.services.cli_filter import PANEL, FilterWords
from refold.services.cli_list import find_runs, print_runs
from refold.services.exits import ExitCode, exit_code, print_error
from refold.services.opening import (
    ANSWER_TIMEOUT_S,
    DEFAULT_URL,
    Archive,
    Debug,
    Url,
    awaiting_worker,
    client_at,
    opened,
    shared_log_at,
)
from refold.services.terminal import (
    confirmed,
    counted,
    note,
    one_line,
    plain_table,
    printable,
    progress_bars,
    someone_is_here,
    to_person,
    to_reader,
)

Reason = Annotated[
    str | None,
    typer.Option(
        "--reason", "--why", metavar="TEXT", help="Why, for whoever reads the history later."
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="NAME",
        help="Who gives the order, for the audit; this user at this machine if not given.",
    ),
]

AT_ONCE = 64
"""Orders under way at a time: a worker records many in one append, and no client has to wait long for its own."""

MAX_SHOWN = 20
"""Runs that are listed before a person says yes."""

MAX_FAILURES = 50
"""Failures that are listed; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done to each run.

    Args:
        verb: As in "refold VERB".
        done: What is said of a run after it, as in "order-42 DONE".
        applies_to: How runs stand that it can be done to.
        unasked: How runs stand that a bulk order without --status means.
        carry_out: Does it to the run with an id; returns what is to be printed as a result, if anything.
    """

    verb: str
    done: str
    applies_to: frozenset[Status]
    unasked: frozenset[Status]
    carry_out: Callable[[Engine, str], Awaitable[str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected(FilterWords):
    """Which runs an order is for, and how sure whoever gives it is, as it was typed."""

    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Runs by their ids, instead of a filter."),
    ] = None
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="All runs that it can be done to, instead of a filter.",
            rich_help_panel=PANEL,
        ),
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the runs that would be touched.")
    ] = False
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before it is done to many.")
    ] = False
    reason: Reason = None
    by: By = None
    url: Url = DEFAULT_URL
    archive: Archive = None
    debug: Debug = False

    @property
    def log_url(self) -> str:
        """The log, with its archive where one is given."""
        return with_archive(self.url, self.archive)


@dataclass(slots=True)
class _Tally:
    """How far a bulk order has come."""

    done: int = 0
    failed: dict[str, RefoldError] = field(default_factory=dict[str, RefoldError])
    results: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def in_vain(self) -> bool:
        """Whether nobody answers: all that is known is that nothing came in time."""
        errors = self.failed.values()
        return self.done == 0 < len(errors) and all(isinstance(e, ResultTimeout) for e in errors)


def give(order: Order, selected: Selected) -> ExitCode:
    """Give an order to the runs that are selected.

    Returns:
        OK, or the code of the first failure where there were some.

    Raises:
        UsageError: No run is selected, or by two ways at once, or nobody has said yes.
        RefoldError: The one run that was named could not be given the order.
    """
    _check(order, selected)
    if selected.ids:
        return _to_named(order, selected, selected.ids)
    infos = _meant(order, selected)
    if not infos:
        note(f"no run is like that and can be given this order: nothing to {order.verb}")
        return ExitCode.OK
    if selected.dry_run:
        return _show_only(order, infos)
    if not _confirmed(order, selected, infos):
        note("nothing was done")
        return ExitCode.REFUSED
    return _to_many(order, selected, [info.workflow_id for info in infos])


def _check(order: Order, selected: Selected) -> None:
    selects = selected.given or selected.everything
    if selected.ids and selects:
        raise UsageError(
            f"refold {order.verb}: name runs, or select them by a filter or --all, not both"
        )
    if selected.everything and selected.given:
        raise UsageError(
            f"refold {order.verb}: --all means every run, so it does not go with a filter: leave one out"
        )
    if not selected.ids and not selects:
        raise UsageError(
            f"refold {order.verb}: which runs? Name their ids, or select them by --workflow, --status and the "
            "other filters, or give --all. --dry-run shows which they are"
        )
    for id_ in selected.ids or ():
        check_id(id_)


def _meant(order: Order, selected: Selected) -> list[WorkflowInfo]:
    asked = frozenset(selected.status or order.unasked)
    statuses = asked & order.applies_to
    if not statuses:
        listed = ", ".join(sorted(asked))
        possible = ", ".join(sorted(order.applies_to))
        raise UsageError(
            f"refold {order.verb} can't be done to runs that are {listed}: give --status {possible}"
        )
    where = selected.runs(wall_clock())
    found = meant(where, find_runs(selected.log_url, where))
    return [info for info in found if info.status in statuses]


def _to_named(order: Order, selected: Selected, named: Sequence[str]) -> ExitCode:
    ids = list(dict.fromkeys(named))
    if selected.dry_run:
        return _show_only(order, asyncio.run(_read_each(selected.log_url, ids)))
    if len(ids) > 1:
        return _to_many(order, selected, ids)
    (id_,) = ids
    result = asyncio.run(_carry_out_one(order, selected, id_))
    _tell(order, id_, result)
    return ExitCode.OK


async def _read_each(url: str, ids: Sequence[str]) -> list[WorkflowInfo]:
    async with opened(shared_log_at(url, may_make=False)) as log:
        return [await read_status(log, id_) for id_ in ids]


async def _carry_out_one(order: Order, selected: Selected, id_: str) -> str | None:
    async with client_at(selected.log_url, selected.by) as engine, awaiting_worker():
        return await order.carry_out(engine, id_)


def _show_only(order: Order, infos: Sequence[WorkflowInfo]) -> ExitCode:
    print_runs(to_reader(), infos, wall_clock())
    note(
        f"dry run: refold {order.verb} would touch {counted(len(infos), 'run')}, and has done nothing"
    )
    return ExitCode.OK


def _confirmed(order: Order, selected: Selected, infos: Sequence[WorkflowInfo]) -> bool:
    if selected.yes:
        return True
    runs = counted(len(infos), "run")
    if someone_is_here():
        person = to_person()
        print_runs(person, infos[:MAX_SHOWN], wall_clock())
        if len(infos) > MAX_SHOWN:
            note(f"and {len(infos) - MAX_SHOWN:,} more: --dry-run lists all")
    return confirmed(
        f"{order.verb} {runs}?",
        f"refold {order.verb} would touch {runs}, and nobody is here to ask: look at them with --dry-run, then give "
        "--yes. Nothing was done",
    )


def _to_many(order: Order, selected: Selected, ids: Sequence[str]) -> ExitCode:
    tally = _Tally()
    try:
        asyncio.run(_carry_out_all(order, selected, ids, tally))
    finally:
        # Also after Ctrl-C: what was done is done, and somebody will have to know.
        _sum_up(order, len(ids), tally)
    return next(map(exit_code, tally.failed.values()), ExitCode.OK)


async def _carry_out_all(
    order: Order, selected: Selected, ids: Sequence[str], tally: _Tally
) -> None:
    remaining = iter(ids)
    with progress_bars() as bar:
        task = bar.add_task(order.verb, total=len(ids))
        async with client_at(selected.log_url, selected.by) as engine, asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(ids))):
                group.create_task(
                    _carry_out_next(order, engine, remaining, tally, lambda: bar.advance(task))
                )


async def _carry_out_next(
    order: Order,
    engine: Engine,
    remaining: Iterator[str],
    tally: _Tally,
    advance: Callable[[], None],
) -> None:
    """Take one run after the other from those that all tasks share."""
    for id_ in remaining:
        if tally.in_vain:
            return
        try:
            result = await order.carry_out(engine, id_)
        except RefoldError as error:
            tally.failed[id_] = error
        else:
            tally.done += 1
            if result is not None:
                tally.results.append((id_, result))
        advance()


def _sum_up(order: Order, asked: int, tally: _Tally) -> None:
    for id_, result in tally.results:
        typer.echo(f"{printable(id_)}\t{printable(result)}")
    left = asked - tally.done - len(tally.failed)
    if tally.in_vain:
        rest = f". {counted(left, 'run')} more not tried: then give the order again" if left else ""
        print_error(
            f"no worker answered within {ANSWER_TIMEOUT_S:g} s. The order for {counted(len(tally.failed), 'run')} is "
            f"in the log and will be carried out: start a worker{rest}"
        )
        return
    if tally.failed:
        _print_failures(to_person(), tally.failed)
    if not tally.done and not tally.failed:
        return  # the log could not even be opened, or Ctrl-C came before the first
    parts = [f"{counted(tally.done, 'run')} {order.done}"]
    if tally.failed:
        parts.append(f"{len(tally.failed):,} failed")
    if left:
        parts.append(f"{left:,} not known to be")
    note("; ".join(parts))


def _print_failures(console: Console, failed: dict[str, RefoldError]) -> None:
    table = plain_table("NOT DONE", "WHY")
    for id_, error in list(failed.items())[:MAX_FAILURES]:
        table.add_row(Text(printable(id_), "bold"), Text(one_line(str(error), 400), "red"))
    console.print(table)
    if len(failed) > MAX_FAILURES:
        console.print(Text(f"and {len(failed) - MAX_FAILURES:,} more", style="dim"))


def _tell(order: Order, id_: str, result: str | None) -> None:
    if result is not None:
        typer.echo(result)
    typer.echo(f"{printable(id_)} {order.done}", err=True)
