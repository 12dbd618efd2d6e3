"""Where the command line writes: results on standard output, everything said to a person on standard error."""

import json
import sys

from rich.console import Console
from rich.text import Text

MAX_PIPED_COLUMNS = 120
"""Columns of a table that goes to a file or pipe, where there is no terminal to ask."""


def to_person() -> Console:
    """Console on standard error: progress, notes, errors."""
    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def to_reader() -> Console:
    """Console on standard output: tables and timelines that were asked for."""
    width = None if sys.stdout.isatty() else MAX_PIPED_COLUMNS
    return Console(highlight=False, width=width)


def print_json(value: object, *, pretty: bool = False) -> None:
    """One JSON value on standard output, on one line unless `pretty`."""
    text = json.dumps(value, ensure_ascii=False, indent=2 if pretty else None)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(message: str) -> None:
    """A dim line on standard error."""
    to_person().print(Text(printable(message), style="dim"))


def warn(message: str) -> None:
    """A yellow line on standard error."""
    to_person().print(Text("warning: ", style="bold yellow").append(printable(message), "default"))


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
