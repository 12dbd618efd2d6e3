"""`refold audit report` and `check`: one run's history with its proof, as a file that stands by itself."""

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from refold.engine.worker import wall_clock
from refold.log.archive import identity_of
from refold.log.archive_log import ArchiveLog
from refold.log.errors import LogUnavailable, UsageError
from refold.log.protocol import Channel
from refold.log.urls import with_archive
from refold.projections.audit import check_are_of
from refold.projections.audit_check import check_report
from refold.projections.audit_page import page_of, report_in
from refold.projections.audit_report import AuditReport, make_report, read_report
from refold.projections.seal import PublicKey, Seal
from refold.projections.seal_file import public_key_at, seals_at
from refold.services.cli_audit import PublicKeys, Seals, progress
from refold.services.cli_list import Json
from refold.services.cli_read import RunId
from refold.services.exits import ExitCode, print_error, reported
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url, opened, shared_log_at
from refold.services.spans import clock, iso
from refold.services.terminal import note, print_json, printable, to_reader, warn


class ReportFormat(StrEnum):
    """Forms of a report."""

    HTML = "html"
    JSON = "json"


def report(  # noqa: PLR0913 - each an option
    id: RunId,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where it goes.", dir_okay=False)
    ],
    format: Annotated[  # noqa: A002 - the option's name
        ReportFormat | None,
        typer.Option("--format", help="By the file's name if not given, else html."),
    ] = None,
    seals: Seals = None,
    public_key: PublicKeys = None,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Write one run's full history into one file, with the proof that it is what was recorded.

    The page needs no network: a browser shows and verifies it. With --seals and --public-key it proves that the events
    were sealed; without, only that they fit together.
    """
    with reported(debug):
        if (seals is None) != (not public_key):
            raise UsageError("--seals and --public-key go together: a seal is verified by a key")
        keys = [public_key_at(path) for path in public_key or ()]
        known = [] if seals is None else seals_at(seals, keys)
        if seals is not None and not known:
            raise UsageError(f"{seals} has no seals: make one with `refold audit seal`")
        made = asyncio.run(_report(with_archive(url, archive), id, known, keys))
        form = format or (ReportFormat.JSON if output.suffix == ".json" else ReportFormat.HTML)
        text = page_of(made) if form is ReportFormat.HTML else f"{made.to_json()}\n"
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{output} can't be written: {error.strerror}") from error
        sealed = f"sealed at {clock(known[-1].sealed_at)}" if known else "not sealed"
        note(f"{output}: {len(made.events):,} events, {sealed}")


async def _report(url: str, id_: str, seals: list[Seal], keys: list[PublicKey]) -> AuditReport:
    async with opened(shared_log_at(url, may_make=False)) as log:
        check_are_of(seals, log, identity_of(log))
        partition = log.layout.place(id_)
        bounds = await log.bounds(Channel.EVENTS, partition)
        if isinstance(log, ArchiveLog):
            seals = _within(seals, partition, bounds.end)
        seal = None
        if seals:
            seal = seals[-1], next(key for key in keys if key.id == seals[-1].key_id)
        with progress(bounds.end - bounds.start) as told:
            return await make_report(log, id_, wall_clock(), seal, told)


def _within(seals: list[Seal], partition: int, end: int) -> list[Seal]:
    """The seals of what an archive has: others may be of later events.

    Raises:
        UsageError: None is.
    """
    found = [seal for seal in seals if seal.partitions[partition].end <= end]
    if seals and not found:
        raise UsageError(
            f"every seal goes beyond the end of this archive, before offset {end} of partition {partition}: archive "
            "more, or leave --seals out"
        )
    return found


def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A report, HTML or JSON.", dir_okay=False)
    ],
    *,
    public_key: PublicKeys = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check an audit report, with nothing but the file and your own copy of the public key.

    Of a page also, that it is what this release makes of its data: then what a browser shows can be trusted.
    """
    with reported(debug):
        text = _text_of(file)
        is_page = not text.lstrip().startswith("{")
        read = report_in(text, str(file)) if is_page else read_report(text, str(file))
        found = check_report(read, [public_key_at(path) for path in public_key or ()])
        genuine = page_of(read) == text if is_page else None
        if json:
            print_json(
                {
                    "verdict": found.verdict,
                    "workflow_id": read.workflow_id,
                    "events": len(read.events),
                    "sealed": found.sealed,
                    "sealed_at": None if found.seal is None else iso(found.seal.sealed_at),
                    "key": None if found.seal is None else found.seal.key_id,
                    "genuine_page": genuine,
                    "wrong": list(found.wrong),
                }
            )
        else:
            _say(read, found.verdict, found.sealed, found.seal)
            for wrong in found.wrong:
                print_error(wrong)
            if genuine is False:
                warn(
                    "the page around the data is not the one that this release makes: another release made it, or it "
                    "was changed. What is said here is of its data; do not rely on what a browser shows of it"
                )
        if found.verdict == "altered":
            raise typer.Exit(ExitCode.LOG)


def _say(read: AuditReport, verdict: str, sealed: int, seal: Seal | None) -> None:
    events = len(read.events)
    line = Text(printable(f"{read.workflow_id}: {verdict}"), "bold")
    line.append(f"; {events:,} events", "default")
    if seal is not None:
        line.append(
            f", {sealed:,} of them sealed at {clock(seal.sealed_at)} by the key {seal.key_id}",
            "default",
        )
    to_reader().print(line)
    if verdict == "consistent" and read.seal is None:
        note(
            "it has no seal: its events fit together, and whoever made the file could have made them up"
        )
    elif verdict == "consistent" and seal is None:
        note("its seal was not verified: give your own copy of the public key by --public-key")
    elif verdict == "consistent":
        note(f"{events - sealed:,} events were written after the seal")


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise LogUnavailable(f"{file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not a report: {error}") from error
