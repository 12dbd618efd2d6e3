"""`refold audit keygen` and `seal`: signing how history stands."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from refold.engine.worker import wall_clock
from refold.log.archive import identity_of
from refold.log.errors import LogCorrupt, LogError, LogMismatch, UsageError
from refold.log.protocol import Channel, Log
from refold.log.urls import with_archive
from refold.projections.audit import MARK_EVERY, Stood, check_are_of, stand_of
from refold.projections.audit_walk import Standing
from refold.projections.seal import PublicKey, SealKey
from refold.projections.seal_file import add, adding_to, key_at, public_key_at, seals_at, write_keys
from refold.services.cli_audit import PublicKeys, progress
from refold.services.cli_values import read_span
from refold.services.exits import reported
from refold.services.opening import (
    DEFAULT_URL,
    Archive,
    Debug,
    Url,
    UrlArgument,
    opened,
    shared_log_at,
)
from refold.services.terminal import note, warn


def keygen(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the private key goes; FILE.pub beside it.")
    ],
    *,
    debug: Debug = False,
) -> None:
    """Make a key that signs seals.

    Keep it where no worker and nobody who can write to the log can read it. Auditors get a copy of FILE.pub by a way of
    their own.
    """
    with reported(debug):
        key = SealKey.generate()
        public = write_keys(path, key)
        typer.echo(key.public.id)
        note(
            f"{path} signs: keep it apart from the log. {public} verifies: give it to your auditors"
        )


def seal(  # noqa: PLR0913 - each an option
    address: UrlArgument = None,
    *,
    key: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="The private key.", dir_okay=False)
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE", help="The file of seals.", dir_okay=False)
    ],
    every: Annotated[
        str | None,
        typer.Option(
            "--every", metavar="SPAN", help="Go on and seal again, as in 1h, until stopped."
        ),
    ] = None,
    marks: Annotated[
        int,
        typer.Option(
            "--marks",
            metavar="N",
            min=1,
            help="A mark after every N events: so near is found where a history that was written anew begins.",
        ),
    ] = MARK_EVERY,
    public_key: PublicKeys = None,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Sign how every partition stands, so that later nobody can cut its history off or write it anew.

    What is new since the last seal in the file is verified first. Nothing that is not as it was written is sealed.
    Others --public-key verify seals that were made by a former key.
    """
    with reported(debug):
        signer = key_at(key)
        keys = [signer.public, *(public_key_at(path) for path in public_key or ())]
        span_s = None if every is None else read_span(every, "--every").total_seconds()
        if span_s is not None and span_s <= 0:
            raise UsageError(f"--every {every}: give some time, as in 1h")
        source = with_archive(address or url, archive)
        asyncio.run(_seal(source, to, signer, keys, marks, span_s))


async def _seal(  # noqa: PLR0917 - what the command was given
    url: str, to: Path, key: SealKey, keys: Sequence[PublicKey], marks: int, span_s: float | None
) -> None:
    stopped = asyncio.Event()
    if span_s is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with adding_to(to):
        async with opened(shared_log_at(url, may_make=False)) as opened_log:
            while not stopped.is_set():
                try:
                    await _seal_once(opened_log, to, key, keys, marks)
                except (LogCorrupt, LogMismatch):
                    raise  # it does not mend itself: whoever watches this service has to know
                except LogError as error:
                    if span_s is None:
                        raise
                    warn(f"not sealed, tried again in {span_s:g} s: {error}")
                if span_s is None:
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), span_s)


async def _seal_once(
    log: Log, to: Path, key: SealKey, keys: Sequence[PublicKey], every: int
) -> None:
    seals = seals_at(to, keys, may_be_missing=True)
    identity = identity_of(log)
    check_are_of(seals, log, identity)
    last = seals[-1] if seals else None
    sealed = [Standing()] * log.partitions if last is None else last.partitions
    ends = [
        (await log.bounds(Channel.EVENTS, partition)).end for partition in range(log.partitions)
    ]
    stood: list[Stood] = []
    with progress(sum(ends) - sum(one.end for one in sealed)) as told:
        for partition, before in enumerate(sealed):
            stood.append(await stand_of(log, partition, before, told, every))
            for finding in stood[-1].findings:
                warn(
                    f"partition {partition}, offset {finding.offset}: {finding.told}. It is sealed so"
                )
    standings, marks = [one.standing for one in stood], [one.marks for one in stood]
    add(
        to,
        key.seal(log.namespace, identity, wall_clock(), standings, last, every=every, marks=marks),
    )
    events = sum(one.events for one in standings)
    new = events - sum(one.events for one in sealed)
    note(f"sealed {events:,} events, {new:,} of them new, as seal {len(seals) + 1} of {to}")
