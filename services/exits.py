"""Exit codes, and the border where errors become one red line and a code."""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from enum import IntEnum

import typer
from rich.text import Text

from refold.log.errors import (
    CommandRefused,
    DefinitionError,
    EngineClosed,
    InvalidInput,
    LogError,
    PayloadError,
    RefoldError,
    ResultTimeout,
    UsageError,
    WorkflowCancelled,
    WorkflowError,
    WorkflowNotFound,
    WorkflowParked,
    WorkflowTerminated,
)
from refold.projections.projection import ProjectionFailed
from refold.projections.target import TargetError
from refold.services.terminal import printable, to_person


class ExitCode(IntEnum):
    """What a command's exit code says."""

    OK = 0
    FAILED = 1
    USAGE = 2
    PARKED = 3
    LOG = 4
    REFUSED = 5
    TIMEOUT = 6
    INTERNAL = 70  # EX_SOFTWARE in sysexits.h
    INTERRUPTED = 128 + signal.SIGINT
    BROKEN_PIPE = 128 + signal.SIGPIPE
    TERMINATED = 128 + signal.SIGTERM


_MEANINGS = (
    (ExitCode.OK, "done; the workflow completed"),
    (ExitCode.FAILED, "the workflow failed, was cancelled or terminated"),
    (ExitCode.USAGE, "wrong usage: option, module, workflow, or input"),
    (ExitCode.PARKED, "the workflow is parked: it waits for a person"),
    (ExitCode.LOG, "the log, or where it goes to, can't be reached, is missing, or is damaged"),
    (ExitCode.REFUSED, "refused: unknown id, workflow or version, a conflict, or no yes"),
    (ExitCode.TIMEOUT, "no answer in time; what was asked for goes on"),
    (ExitCode.INTERRUPTED, "interrupted (Ctrl-C)"),
    (ExitCode.BROKEN_PIPE, "whoever read the output has gone, as in a pipe to `head`"),
    (ExitCode.TERMINATED, "ended by SIGTERM, before it was done"),
)

EXIT_CODES = "\n".join(
    ("[bold]Exit codes[/bold]", "", *(f"  {code:>3}  {meaning}" for code, meaning in _MEANINGS))
)
"""The table at the end of `refold --help`."""

# The first class that fits counts: InvalidInput is a CommandRefused too.
_CODES: tuple[tuple[type[RefoldError], ExitCode], ...] = (
    (InvalidInput, ExitCode.USAGE),
    (UsageError, ExitCode.USAGE),
    (DefinitionError, ExitCode.USAGE),
    (PayloadError, ExitCode.USAGE),
    (WorkflowParked, ExitCode.PARKED),
    (WorkflowCancelled, ExitCode.FAILED),
    (WorkflowTerminated, ExitCode.FAILED),
    (WorkflowError, ExitCode.FAILED),
    (LogError, ExitCode.LOG),
    (ProjectionFailed, ExitCode.FAILED),
    (TargetError, ExitCode.LOG),
    (EngineClosed, ExitCode.LOG),
    (CommandRefused, ExitCode.REFUSED),
    (WorkflowNotFound, ExitCode.REFUSED),
    (ResultTimeout, ExitCode.TIMEOUT),
)


def exit_code(error: RefoldError) -> ExitCode:
    """The exit code that says what kind of error it was."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.INTERNAL


@contextmanager
def reported(debug: bool) -> Generator[None, None, None]:
    """Turn errors from the block into one red line on standard error and an exit code.

    Args:
        debug: Show the traceback as well.

    Raises:
        typer.Exit: In place of every `RefoldError`, of Ctrl-C, and where our output can't be written any more.
    """
    try:
        with _written():
            yield
    except RefoldError as error:
        if debug:
            traceback.print_exc(file=sys.stderr)
        print_error(str(error))
        raise typer.Exit(exit_code(error)) from error
    except KeyboardInterrupt as error:
        print_error("interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from error
    except BrokenPipeError as error:  # as in `refold list | head`
        _write_no_more()
        raise typer.Exit(ExitCode.BROKEN_PIPE) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _write_no_more()
        print_error(f"what was to be written does not fit: {error}")
        raise typer.Exit(ExitCode.LOG) from error


@contextmanager
def _written() -> Generator[None, None, None]:
    """See that what the block prints is out at its end, and not at the interpreter's, which hides what went wrong."""
    try:
        yield
    except typer.Exit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _write_no_more() -> None:
    """Let what is yet to be flushed go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(message: str) -> None:
    """The red line."""
    line = Text("error: ", style="bold red")
    line.append(printable(message), "red")
    to_person().print(line)
