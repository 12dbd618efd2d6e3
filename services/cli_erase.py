"""`refold erase`, and `refold keys`: the keys with which payloads are encrypted, and their end."""

import asyncio
from typing import Annotated

import typer
from rich.text import Text

from refold.engine.blobs import Blobs
from refold.engine.client import Client
from refold.engine.erasing import Erased, Survey, erase, survey
from refold.engine.worker import wall_clock
from refold.log.errors import CommandRefused, UsageError
from refold.log.key_directory import DirectoryKeys
from refold.log.key_master import new_key
from refold.log.key_urls import VARIABLE, keys_from
from refold.log.keys import KeyProvider, subject_name, workflow_name
from refold.log.urls import with_archive
from refold.services.cli_bulk import By, Reason
from refold.services.exits import ExitCode, reported
from refold.services.opening import (
    ANSWER_TIMEOUT_S,
    DEFAULT_URL,
    Archive,
    Debug,
    Url,
    opened,
    shared_log_at,
)
from refold.services.terminal import confirmed, counted, note, printable, to_person, to_reader, warn

keys = typer.Typer(
    help="The keys of encrypted payloads.", no_args_is_help=True, rich_markup_mode="rich"
)

SHOWN = 5


def erase_subject(  # noqa: PLR0913 - each an option of the command
    subject: Annotated[
        str | None,
        typer.Argument(metavar="SUBJECT", help="Whose payloads, as its runs were started with."),
    ] = None,
    *,
    workflow: Annotated[
        str | None,
        typer.Option(
            "--run", metavar="ID", help="In place of a subject: a run that has keys of its own."
        ),
    ] = None,
    reason: Reason = None,
    by: By = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also where runs are open: they are parked for good.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be erased.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Destroy a subject's keys, for ever: its payloads can't be read any more, wherever they are kept.

    That is in the log, its archive, and what projections and exports made of them. Events, ids and attributes stay, and
    so do the chains. Who asked for it and why is recorded in the log.
    """
    with reported(debug):
        if reason is None and not dry_run:
            raise UsageError("say why, with --why: it is recorded, for whoever asks later")
        target = with_archive(url, archive)
        found = asyncio.run(_survey(target, subject, workflow))
        _say(found)
        if dry_run:
            return
        if found.open and not force:
            raise CommandRefused(
                f"{len(found.open)} runs are open: cancel or terminate them first, or say --force, and they are "
                "parked for good. Nothing was erased"
            )
        if not yes and not confirmed(
            "Destroy the keys for ever?",
            "nobody is there to be asked, and this can't be undone: say --yes",
        ):
            note("nothing was erased")
            raise typer.Exit(ExitCode.REFUSED)
        done = asyncio.run(_erase(target, subject, workflow, reason or "", by, force=force))
        _conclude(done)


async def _survey(url: str, subject: str | None, workflow: str | None) -> Survey:
    if (subject is None) == (workflow is None):
        raise UsageError("say what is to be erased: a subject, or --run and the id of a run")
    name = workflow_name(workflow or "") if subject is None else subject_name(subject)
    async with opened(shared_log_at(url, may_make=False)) as log:
        privacy = Blobs.of(log).privacy
        if privacy is None:
            raise UsageError(
                f"no keys are given: name those that the workers have, by {VARIABLE} or by keys= in the log's URL"
            )
        return await survey(log, privacy.keys, name)


async def _erase(
    url: str, subject: str | None, workflow: str | None, why: str, by: str | None, *, force: bool
) -> Erased:
    async with opened(shared_log_at(url, may_make=False)) as log:
        client = Client(log, wall_clock, blobs=Blobs.of(log), requested_by=by)
        await client.open()
        try:
            return await erase(
                client, subject, workflow, why=why, force=force, timeout_s=ANSWER_TIMEOUT_S
            )
        finally:
            client.close()


def _say(found: Survey) -> None:
    fresh = len(found.keys) - len(found.erased)
    line = Text.assemble(
        (counted(len(found.runs), "run"), "bold"),
        f" encrypted with {counted(len(found.keys), 'key')}",
    )
    if found.erased:
        line.append(f", of which {len(found.erased):,} are destroyed already")
    to_person().print(line)
    if found.open:
        warn(f"not ended: {_listed(found.open)}")
    if found.others:
        warn(
            f"other open runs have been sent something that is encrypted with them, and are parked when they need it: "
            f"{_listed(found.others)}"
        )
    if not fresh:
        note("all are destroyed: what is left to do is to record it")


def _conclude(done: Erased) -> None:
    line = Text.assemble(
        ("erased", "bold"),
        f": {counted(len(done.keys), 'key')} destroyed, {counted(done.runs, 'run')} can't be read any more",
    )
    if done.parked:
        line.append(f", {len(done.parked):,} of them parked")
    to_reader().print(line)
    if done.unheard:
        partitions = ", ".join(map(str, done.unheard))
        warn(f"no worker has recorded it yet for partitions {partitions}: the next one does")


def _listed(runs: set[str]) -> str:
    first = ", ".join(sorted(runs)[:SHOWN])
    more = f" and {len(runs) - SHOWN:,} more" if len(runs) > SHOWN else ""
    return printable(first + more)


# Keys -----------------------------------------------------------------------------------------------------


def new() -> None:
    """Print a new random key, for a master key (REFOLD_MASTER_KEY, or a file) or for keys=env:NAME."""
    typer.echo(new_key())


def rotate(
    subject: Annotated[
        str, typer.Argument(metavar="SUBJECT", help="Whose: new payloads get a new key.")
    ],
    *,
    debug: Debug = False,
) -> None:
    """Give a subject a new data key for new payloads; what is encrypted already stays readable."""
    with reported(debug):
        ring = _directory().rotate(subject_name(subject))
        to_reader().print(Text(f"{printable(subject)}: key {ring.id}.{len(ring.keys)} from now on"))


def rewrap(*, debug: Debug = False) -> None:
    """Wrap all data keys with the newest master key, so that the former ones can be destroyed.

    The new master key comes first, the former ones after it, separated by commas or lines. Nothing in a log changes.
    """
    with reported(debug):
        done = list(_directory().rewrap())
        to_reader().print(Text(f"{sum(done):,} of {len(done):,} wrapped anew"))


def _directory() -> DirectoryKeys:
    found = keys_from()
    provider: KeyProvider | None = None if found is None else found.provider
    if provider is None:
        raise UsageError(f"no keys are given: name them by the variable {VARIABLE}")
    if not isinstance(provider, DirectoryKeys):
        raise UsageError(f"{provider.url} is no directory of keys: rotate where its keys are kept")
    return provider
