"""`refold tail`: the log's events, line by line, as they come."""

import asyncio
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from refold.engine.blobs import Blobs
from refold.engine.reader import read_status
from refold.engine.showing import shown
from refold.engine.worker import wall_clock
from refold.log.errors import UsageError
from refold.log.events import Event, Unreadable
from refold.log.urls import with_archive
from refold.projections.cursor import Cursor, Since
from refold.projections.feed import Logged
from refold.projections.tail import Tail, tail
from refold.services.cli_list import Json
from refold.services.cli_values import read_attributes, read_moment
from refold.services.event_words import kind_style, what_of
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url, opened, shared_log_at
from refold.services.spans import iso, moment
from refold.services.terminal import note, one_line, print_json, to_reader
from refold.services.timeline_json import event_json

SAVE_S = 1.0
"""How often the cursor's file is written while events come: what is printed twice after a crash is a second's worth."""

MAX_ID_CHARS = 40
KIND_CHARS = len("workflow.cancel_requested")
MAX_PAYLOAD_CHARS = 300
_PLACES = re.compile(r"\d+:\d+(,\d+:\d+)*", re.ASCII)
_CURSOR = re.compile(r"[\d,:]*\d+:\d+:-?\d+", re.ASCII)

ID = Annotated[
    str | None,
    typer.Argument(metavar="ID", help="Events of this run alone.", show_default=False),
]


def tail_log(  # noqa: PLR0913 - each an option of the command
    id: ID = None,
    *,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="WHEN",
            help="Where to begin: start, now, a time (2h is two hours ago), offsets as PARTITION:OFFSET[,...], or a "
            "cursor. Where not given, now; the start with --no-follow.",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for more, or stop at the end.")
    ] = True,
    workflow: Annotated[
        str | None, typer.Option("--workflow", metavar="NAME", help="Events of this workflow.")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Events of this kind; `step` is all that begin with step. Repeat it for several.",
        ),
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            "--attribute",
            metavar="NAME=VALUE",
            help="Events of runs with this attribute. Repeat it for several, which must all hold.",
        ),
    ] = None,
    cursor: Annotated[
        Path | None,
        typer.Option(
            "--cursor",
            metavar="FILE",
            help="Go on where this file says, if it is there, and keep in it how far it went.",
        ),
    ] = None,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Print the log's events: those that are there in the order in which the log took them in, then what comes.

    All that is asked for must hold. The parts of checkpoints are left out, unless they are asked for with --kind
    checkpoint.
    """
    with reported(debug):
        whole = with_archive(url, archive)
        blobs = Blobs.of(shared_log_at(whole, may_make=False))
        kept = _kept(cursor)
        events = tail(
            whole,
            since=kept or read_since(since, wall_clock()),
            follow=follow,
            workflow_id=id,
            workflow=workflow,
            kind=kind or (),
            attributes=read_attributes(attribute),
        )
        line = _json_line if json else _Lines(to_reader(), blobs)
        printed = asyncio.run(_print(events, line, cursor))
        if not printed and not follow:
            if id is not None:
                asyncio.run(_check_exists(whole, id))
            note("no event matched")


def read_since(text: str | None, now: int) -> Since | None:
    """What was typed for `--since`.

    Args:
        text: What was typed; None where the option was not given.
        now: Microseconds since 1970-01-01 UTC.

    Raises:
        UsageError: It is no beginning.
    """
    if text == "start":
        return "start"
    if text == "now":
        return "now"
    if text is not None and _CURSOR.fullmatch(text):
        return Cursor.of(text)
    if text is not None and _PLACES.fullmatch(text):
        places = [place.split(":") for place in text.split(",")]
        return {int(partition): int(offset) for partition, offset in places}
    return read_moment(text, now, "--since")


async def _check_exists(url: str, id_: str) -> None:
    async with opened(shared_log_at(url, may_make=False)) as log:
        await read_status(log, id_)


async def _print(events: Tail, line: Callable[[Logged], None], kept: Path | None) -> int:
    """Print events; returns how many."""
    count = 0
    saved_at = time.monotonic()
    printed = True
    try:
        async with events:
            async for logged in events:
                printed = False
                line(logged)
                printed = True
                count += 1
                if kept is not None and time.monotonic() - saved_at > SAVE_S:
                    _save(kept, events.cursor)
                    saved_at = time.monotonic()
    finally:
        if not printed:  # whoever read our output has gone: its file says where it was
            pass
        elif kept is not None and events.cursor.positions:
            _save(kept, events.cursor)
        elif events.cursor.positions and sys.stderr.isatty():
            note(f"to go on from here: --since {events.cursor}")
    return count


def _kept(path: Path | None) -> Cursor | None:
    """The cursor that a file has; None where there is no such file yet."""
    if path is None:
        return None
    try:
        return Cursor.of(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--cursor {path}: it can't be read ({error})") from error


def _save(path: Path, cursor: Cursor) -> None:
    draft = path.with_name(f"{path.name}.draft")
    try:
        draft.write_text(f"{cursor}\n", encoding="ascii")
        draft.replace(path)
    except OSError as error:
        raise UsageError(f"--cursor {path}: it can't be written ({error})") from error


def _json_line(logged: Logged) -> None:
    print_json(
        {
            "partition": logged.partition,
            "offset": logged.offset,
            "timestamp": iso(logged.timestamp),
            **event_json(logged.event),
        }
    )


class _Lines:
    """A line for each event; ids are aligned as far as they have been seen."""

    def __init__(self, console: Console, blobs: Blobs) -> None:
        self._console = console
        self._blobs = blobs
        self._colours = console.is_terminal
        self._width = 12

    def __call__(self, logged: Logged) -> None:
        event = shown(logged.event, self._blobs)
        id_ = one_line(event.workflow_id or f"partition {logged.partition}", MAX_ID_CHARS)
        self._width = max(self._width, len(id_))
        line = Text().append(f"{moment(logged.timestamp):%Y-%m-%d %H:%M:%S.%f}"[:-3], "dim")
        line.append(f"  {id_:<{self._width}}", "bold" if event.workflow_id else "dim")
        if isinstance(event, Unreadable):
            line.append(f"  {'unreadable':<{KIND_CHARS}}", "red").append(f"  {_flat(event.reason)}")
        else:
            line.append(f"  {event.kind:<{KIND_CHARS}}", kind_style(event))
            line.append("".join(f"  {said}" for said in (what_of(event),) if said))
            line.append("".join(f"  {_flat(said)}" for said in _payload(event)), "dim")
        if not self._colours:
            sys.stdout.write(f"{line.plain}\n")
            sys.stdout.flush()
            return
        self._console.print(line, no_wrap=True, overflow="ellipsis", crop=True)


def _payload(event: Event) -> list[str]:
    """The error that an event tells of, or else its payload, if any."""
    error: str | None = getattr(event, "error_message", None)
    payload: str | None = error or getattr(event, "payload", None)
    return [payload] if payload else []


def _flat(text: str) -> str:
    return one_line(text, MAX_PAYLOAD_CHARS)
