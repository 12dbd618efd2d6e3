"""`refold audit log` and `verify`: what people did, and whether history is what was written."""

import asyncio
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from refold.engine.names import check_id
from refold.engine.worker import wall_clock
from refold.log.archive import identity_of
from refold.log.errors import LogCorrupt, LogError, LogMismatch, UsageError
from refold.log.protocol import Channel
from refold.log.urls import with_archive
from refold.projections.audit import PartitionReport, check_are_of, verify_partition
from refold.projections.audit_actions import Action, ActionName, Wanted, read_actions
from refold.projections.audit_walk import Finding
from refold.projections.seal import Seal
from refold.projections.seal_file import public_key_at, sound_seals_at
from refold.services.cli_list import Json
from refold.services.cli_values import read_moment
from refold.services.exits import ExitCode, print_error, reported
from refold.services.opening import (
    DEFAULT_URL,
    Archive,
    Debug,
    Url,
    UrlArgument,
    opened,
    shared_log_at,
)
from refold.services.spans import clock, iso, microseconds
from refold.services.terminal import (
    note,
    one_line,
    plain_table,
    print_json,
    printable,
    progress_bars,
    to_person,
    to_reader,
    warn,
)

audit = typer.Typer(
    help="Who did what, and the proof that history is what was written.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Seals = Annotated[
    Path | None,
    typer.Option("--seals", metavar="FILE", help="The seals to hold it against.", dir_okay=False),
]

PublicKeys = Annotated[
    list[Path] | None,
    typer.Option(
        "--public-key",
        metavar="FILE",
        help="Your own copy of the public key that the seals must be signed by; several where it was changed.",
        dir_okay=False,
    ),
]


def log(  # noqa: PLR0913 - each an option
    address: UrlArgument = None,
    *,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="Orders to this run.")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="TEXT", help="By somebody with TEXT in the name.")
    ] = None,
    action: Annotated[
        list[ActionName] | None,
        typer.Option("--action", help="Orders of this kind. Repeat it for several."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Not before: a time, or as in 7d.")
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", metavar="TIME", help="Before: a time, or as in 2h.")
    ] = None,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """List what people ordered runs to do: who, when and why.

    Every order that was carried out is an event of its run. --action reopen is what resume and rewind are to a run
    that had ended.
    """
    with reported(debug):
        if run is not None:
            check_id(run)
        now = wall_clock()
        from_, until = read_moment(since, now, "--since"), read_moment(before, now, "--before")
        wanted = Wanted(
            frozenset(action or ()),
            run,
            by,
            None if from_ is None else microseconds(from_),
            None if until is None else microseconds(until),
        )
        found = asyncio.run(_actions(with_archive(address or url, archive), wanted))
        if json:
            for one in found:
                print_json({**one._asdict(), "at": iso(one.at)})
            return
        _print_actions(found, given=wanted != Wanted())


async def _actions(url: str, wanted: Wanted) -> list[Action]:
    async with opened(shared_log_at(url, may_make=False)) as opened_log:
        found = [action async for action in read_actions(opened_log, wanted)]
    return sorted(found, key=lambda action: action.at)


def _print_actions(found: Sequence[Action], *, given: bool) -> None:
    if not found:
        nothing = (
            "nobody ordered anything like that" if given else "nobody has ordered anything yet"
        )
        to_reader().print(Text(nothing, style="dim"))
        return
    to_reader().print(action_table(found))


def action_table(found: Sequence[Action]) -> Table:
    """Orders as a table: when, what, to which run, by whom and why."""
    table = plain_table("WHEN (UTC)", "ORDER", "RUN", "BY", "WHY", whole={"WHEN (UTC)", "ORDER"})
    for one in found:
        order = f"{one.name} {one.detail}" if one.detail else one.name
        table.add_row(
            clock(one.at).removesuffix(" UTC"),
            Text(printable(order)),
            Text(printable(one.workflow_id or f"partition {one.partition}"), style="bold"),
            Text(one_line(one.by or "not said", 60), style="" if one.by else "dim"),
            Text(one_line(one.why or "not said", 400), style="" if one.why else "dim"),
        )
    return table


@contextmanager
def progress(events: int) -> Generator[Callable[[int], None], None, None]:
    """A bar on standard error for as long as events are verified; told how many more were."""
    with progress_bars() as bar:
        task = bar.add_task("verifying", total=events)
        yield lambda more: bar.advance(task, more)


# verify -------------------------------------------------------------------------------------------------------


def verify(
    address: UrlArgument = None,
    *,
    seals: Seals = None,
    public_key: PublicKeys = None,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Prove that no event was changed, removed, inserted or moved, and find the first that was.

    Every partition's chain is walked, over the log and its archive. A chain can't show that its end was cut off or that
    all of it was written anew: for that, give --seals and your own --public-key.
    """
    with reported(debug):
        if (seals is None) != (not public_key):
            raise UsageError(
                "--seals and --public-key go together: a signature is verified by a key that you trust"
            )
        began = time.perf_counter()
        known: list[Seal] = []
        wrong: LogMismatch | LogCorrupt | None = None
        if seals is not None:
            known, wrong = sound_seals_at(seals, [public_key_at(p) for p in public_key or ()])
            if wrong is not None and not known:
                raise wrong
        found = asyncio.run(_verify(with_archive(address or url, archive), known))
        if json:
            print_json(_verified_json(found, known, wrong))
        else:
            _print_verified(found, known, time.perf_counter() - began)
        if wrong is not None:
            kept = "the seal is" if len(known) == 1 else f"the {len(known):,} seals are"
            print_error(f"{wrong}. Only {kept} used that come before it")
        if wrong is not None or any(one.findings for one in found):
            raise typer.Exit(ExitCode.LOG)


async def _verify(url: str, seals: Sequence[Seal]) -> list[PartitionReport]:
    async with opened(shared_log_at(url, may_make=False)) as opened_log:
        check_are_of(seals, opened_log, identity_of(opened_log))
        every = range(opened_log.partitions)
        bounds = [await opened_log.bounds(Channel.EVENTS, partition) for partition in every]
        with progress(sum(there.end - there.start for there in bounds)) as told:
            return [
                await verify_partition(opened_log, partition, seals, told) for partition in every
            ]


def _print_verified(found: Sequence[PartitionReport], seals: Sequence[Seal], took_s: float) -> None:
    events = sum(one.standing.events for one in found)
    bad = [one for one in found if one.findings]
    numbers = ("PARTITION", "FROM", "TO", "EVENTS", "OTHERS", *(("SEALED TO",) if seals else ()))
    table = plain_table(*numbers, "", right=numbers)
    for one in found:
        stands = one.standing
        cells = [
            str(one.partition),
            f"{one.start:,}",
            f"{stands.end - 1:,}" if stands.end > one.start else "none",
            f"{stands.events:,}",
            f"{stands.stale + stands.foreign:,}",
        ]
        if seals:
            cells.append(f"{one.sealed - 1:,}" if one.sealed else "none")
        verdict = Text("wrong", "bold red") if one.findings else Text("as written", "green")
        table.add_row(*cells, verdict)
    to_reader().print(table)
    for one in bad:
        for finding in one.findings[:MAX_SHOWN]:
            _print_finding(one, finding)
        if len(one.findings) > MAX_SHOWN:
            note(
                f"and {len(one.findings) - MAX_SHOWN} more of partition {one.partition}: --json has them"
            )
    rate = f", {events / took_s:,.0f}/s" if took_s > 1 else ""
    _sum_up(found, seals, f"{events:,} events in {took_s:.1f} s{rate}")


MAX_SHOWN = 5
"""Findings of a partition that are shown: the first is what matters."""


def _print_finding(one: PartitionReport, finding: Finding) -> None:
    event = f" ({finding.event_id})" if finding.event_id else ""
    print_error(f"partition {one.partition}, offset {finding.offset}{event}: {finding.told}")
    person = to_person()
    for word, value in (("expected", finding.expected), ("found", finding.found)):
        if value:
            person.print(Text(f"  {word:8}  {printable(value)}", style="dim"))


def _sum_up(found: Sequence[PartitionReport], seals: Sequence[Seal], rate: str) -> None:
    for one in found:
        if one.start:
            warn(
                f"what stood before offset {one.start:,} of partition {one.partition} was trimmed, and was not looked "
                "at: name its archive with --archive DIR"
            )
    if any(one.findings for one in found):
        note(f"{rate}; history is NOT what was written")
        return
    if not seals:
        note(
            f"{rate}; every chain holds. Without seals, nothing shows a history that was cut off at its end or written "
            "anew: see refold audit seal"
        )
        return
    ends = [one.standing.end for one in found]
    held = [
        seal
        for seal in seals
        if all(p.end <= end for p, end in zip(seal.partitions, ends, strict=True))
    ]
    if len(held) < len(seals):  # else it was cut off: of an archive alone nobody can tell
        are = "is" if len(held) == 1 else "are"
        note(
            f"{rate}; every chain holds, and {len(held):,} of {len(seals):,} seals {are} in it. The others are of "
            f"later events as well, which this archive does not have; the last was made at {clock(seals[-1].sealed_at)}"
        )
        return
    last = seals[-1]
    count = "the seal is" if len(seals) == 1 else f"all {len(seals):,} seals are"
    note(
        f"{rate}; every chain holds, and {count} in it, the last of {clock(last.sealed_at)}, signed by the key "
        f"{last.key_id}. What was written after it is not sealed yet"
    )


def _verified_json(
    found: Sequence[PartitionReport], seals: Sequence[Seal], wrong: LogError | None
) -> Mapping[str, object]:
    return {
        "ok": wrong is None and not any(one.findings for one in found),
        "events": sum(one.standing.events for one in found),
        "seals": len(seals),
        "wrong_seal": None if wrong is None else str(wrong),
        "last_sealed_at": iso(seals[-1].sealed_at) if seals else None,
        "key": seals[-1].key_id if seals else None,
        "partitions": [
            {
                "partition": one.partition,
                "start": one.start,
                "end": one.standing.end,
                "events": one.standing.events,
                "stale": one.standing.stale,
                "foreign": one.standing.foreign,
                "chain": None if one.standing.chain is None else one.standing.chain.hex(),
                "sealed": one.sealed,
                "findings": [finding._asdict() for finding in one.findings],
            }
            for one in found
        ],
    }
