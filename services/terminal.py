"""Where the command line writes: results on standard output, everything said to a person on standard error."""

import json
import sys
from collections.abc import Collection, Iterable

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from refold.log.errors import UsageError

MAX_PIPED_COLUMNS = 120
"""Columns of a table that goes to a file or pipe, where there is no terminal to ask."""


class _Console(Console):
    """A console that leaves it to `reported` to end the process when whoever read its output has gone."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - called where the error is caught


def to_person() -> Console:
    """Console on standard error: progress, notes, errors."""
    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def to_reader() -> Console:
    """Console on standard output: tables and timelines that were asked for."""
    width = None if sys.stdout.isatty() else MAX_PIPED_COLUMNS
    return _Console(highlight=False, width=width)


def plain_table(
    *headings: str, right: Collection[str] = (), whole: Collection[str] = (), expand: bool = False
) -> Table:
    """A table without lines, as all of ours are.

    Args:
        headings: Of its columns, or of the first ones; cells are folded where there is no room.
        right: Those of them whose cells stand on the right, and are never folded: numbers.
        whole: Those whose cells stand on the left, and are never folded either.
        expand: As wide as the terminal.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=expand)
    for heading in headings:
        table.add_column(
            Text(printable(heading)),  # a name that somebody chose is no markup
            justify="right" if heading in right else "left",
            no_wrap=heading in right or heading in whole,
            overflow="fold",
        )
    return table


def facts_table(facts: Iterable[tuple[str, Text]] = ()) -> Table:
    """Facts below each other, each with its name before it."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in facts:
        table.add_row(name, fact)
    return table


def progress_bars() -> Progress:
    """Bars on standard error for as long as they are open, on a terminal."""
    console = to_person()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def json_text(value: object, *, pretty: bool = False) -> str:
    """JSON that every output can take: what a terminal would obey, or the output's encoding lacks, is escaped."""
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, ensure_ascii=plain, indent=2 if pretty else None)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def print_json(value: object, *, pretty: bool = False) -> None:
    """One JSON value on standard output, on one line unless `pretty`."""
    sys.stdout.write(f"{json_text(value, pretty=pretty)}\n")
    sys.stdout.flush()


def someone_is_here() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirmed(question: str, otherwise: str) -> bool:
    """Whether a person says yes; Ctrl-C is a no.

    Args:
        question: What they are asked.
        otherwise: What is said where nobody is there.

    Raises:
        UsageError: Nobody is there.
    """
    if not someone_is_here():
        raise UsageError(otherwise)
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        return False


def note(message: str) -> None:
    """A dim line on standard error."""
    to_person().print(Text(printable(message), style="dim"))


def warn(message: str) -> None:
    """A yellow line on standard error."""
    to_person().print(Text("warning: ", style="bold yellow").append(printable(message), "default"))


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """So many of something: `1 run`, `1,204 runs`."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def printable(text: str) -> str:
    """`text` with control characters spelled out, so that recorded data can't steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def one_line(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters."""
    flat = printable(" ".join(text.split()))
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"
