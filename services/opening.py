"""Opening a log for a command: nothing is made where nothing should be, and always closed again."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from refold.engine.engine import Engine
from refold.log.archive_log import ArchiveLog
from refold.log.archived import unarchived
from refold.log.errors import UsageError
from refold.log.memory import MemoryLog
from refold.log.protocol import Log
from refold.log.sqlite import SqliteLog
from refold.log.urls import holds_secret, open_existing, open_log
from refold.services.terminal import note

DEFAULT_URL = "sqlite:///refold.db"

ANSWER_TIMEOUT_S = 30.0
"""How long `start` and `resume` wait for a worker: longer than a rebalance takes, shorter than patience."""
TOLD_AFTER_S = 3.0
"""A worker that runs answers in milliseconds."""


Checked = Callable[[typer.Context, typer.CallbackParam, str | None], str | None]


def no_secret_by(advice: str) -> Checked:
    """Refuses a password or token on the command line, which every user of the machine can read.

    Args:
        advice: By what else it can be given.
    """

    def check(
        context: typer.Context, parameter: typer.CallbackParam, url: str | None
    ) -> str | None:
        source = context.get_parameter_source(parameter.name or "")
        typed = source is not None and source.name == "COMMANDLINE"
        if typed and url is not None and holds_secret(url):
            raise typer.BadParameter(
                f"a password or token in it could be read by every user of this machine: leave it out, and give it by "
                f"{advice}"
            )
        return url

    return check


_of_log = no_secret_by(
    "a file (sasl_password_file=...), by REFOLD_KAFKA_SASL_PASSWORD, or by REFOLD_URL"
)

Url = Annotated[
    str,
    typer.Option(
        "--url",
        callback=_of_log,
        envvar="REFOLD_URL",
        metavar="URL",
        help="The log: sqlite:///FILE or kafka://HOST:PORT/NAMESPACE.",
    ),
]

UrlArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="URL",
        help="The same as --url.",
        show_default=False,
        callback=_of_log,
    ),
]

Archive = Annotated[
    str | None,
    typer.Option(
        "--archive",
        envvar="REFOLD_ARCHIVE",
        metavar="DIR",
        help="Where trimmed history was archived by `refold archive`: it is read from there.",
        show_default=False,
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
    if not may_make:
        return open_existing(url)
    log = open_log(url)
    itself = unarchived(log)
    if isinstance(itself, SqliteLog) and not itself.path.exists():
        note(f"making a new log: {itself.path}")
    return log


def shared_log_at(url: str, *, may_make: bool) -> Log:
    """`log_at` for commands that meet other processes at the log.

    Raises:
        UsageError: As `log_at`, or the log is this process's own memory.
        LogUnavailable: As `log_at`.
    """
    log = log_at(url, may_make=may_make)
    if isinstance(unarchived(log), MemoryLog) and not isinstance(log, ArchiveLog):
        raise UsageError(
            f"{url} is this process's own memory, which nobody else sees: use sqlite:///FILE or kafka://... "
            "(`refold run` takes memory://)"
        )
    return log


@asynccontextmanager
async def awaiting_worker() -> AsyncGenerator[None, None]:
    """Around a wait for a worker's answer: where none comes at once, whoever sits at the terminal is told."""
    waiting = f"no worker has answered yet: does one run (`refold worker MODULE`)? Waiting up to {ANSWER_TIMEOUT_S:g} s"
    tells = sys.stderr.isatty()
    timer = asyncio.get_running_loop().call_later(TOLD_AFTER_S, note, waiting) if tells else None
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


def client_at(url: str, requested_by: str | None = None) -> Engine:
    """An engine that runs nothing itself, for questions and orders to runs; not open yet. Raises as `shared_log_at`.

    Args:
        url: The log, which must be there.
        requested_by: Who gives the orders; this user at this machine if not given.
    """
    return Engine(
        shared_log_at(url, may_make=False),
        workflows=(),
        worker=False,
        start_timeout_s=ANSWER_TIMEOUT_S,
        requested_by=requested_by,
    )


@asynccontextmanager
async def opened(log: Log) -> AsyncGenerator[Log, None]:
    """The log, open inside the block."""
    try:
        await log.open()
        yield log
    finally:
        await log.close()
