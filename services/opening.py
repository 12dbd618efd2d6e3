"""Opening a log for a command: nothing is made where nothing should be, and always closed again."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from refold.log.errors import LogUnavailable, UsageError
from refold.log.memory import MemoryLog
from refold.log.protocol import Log
from refold.log.sqlite import SqliteLog
from refold.log.urls import open_log
from refold.services.terminal import note

DEFAULT_URL = "sqlite:///refold.db"

ANSWER_TIMEOUT_S = 30.0
"""How long `start` and `resume` wait for a worker: longer than a rebalance takes, shorter than patience."""

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="REFOLD_URL",
        metavar="URL",
        help="The log: sqlite:///FILE or kafka://HOST:PORT/NAMESPACE.",
    ),
]

Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks with errors.")]


def log_at(url: str, *, may_make: bool) -> Log:
    """The log at `url`, not open yet.

    Args:
        url: As `open_log` takes it.
        may_make: Whether a missing SQLite file may be made (and is said to be).

    Raises:
        UsageError: It is no URL of a log.
        LogUnavailable: The file is missing and must not be made.
    """
    log = open_log(url)
    if isinstance(log, SqliteLog) and not log.path.exists():
        if not may_make:
            raise LogUnavailable(
                f"there is no log file {log.path}: name the right one with --url or REFOLD_URL, or make it by "
                "starting something with `refold run` or `refold worker`"
            )
        note(f"making a new log: {log.path}")
    return log


def shared_log_at(url: str, *, may_make: bool) -> Log:
    """`log_at` for commands that meet other processes at the log.

    Raises:
        UsageError: As `log_at`, or the log is this process's own memory.
        LogUnavailable: As `log_at`.
    """
    log = log_at(url, may_make=may_make)
    if isinstance(log, MemoryLog):
        raise UsageError(
            f"{url} is this process's own memory, which nobody else sees: use sqlite:///FILE or kafka://... "
            "(`refold run` takes memory://)"
        )
    return log


@asynccontextmanager
async def opened(log: Log) -> AsyncGenerator[Log, None]:
    """The log, open inside the block."""
    try:
        await log.open()
        yield log
    finally:
        await log.close()
