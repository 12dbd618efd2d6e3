"""A worker as a process, as `refold worker` runs it: with the tests' workflows, and ended with whoever started it."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from chaos_log import log_of
from chaos_workflows import ALL
from refold import CheckpointSettings, Engine
from refold.log.errors import RefoldError
from refold.services.exits import ExitCode
from refold.services.logs import set_up_logging
from refold.services.worker_service import Duty, WorkerService

DRAIN_S: Final = 5.0
DEDUP: Final = "REFOLD_CHAOS_DEDUP_S"
"""Environment variable: for how long ids of ended runs are known. What is kept of them is flat from then on."""
SOAK_CHECKPOINT_BYTES: Final = 200_000
_SET_DEATH_SIGNAL: Final = 1
"""Linux's PR_SET_PDEATHSIG."""


def command(url: str, name: str) -> list[str]:
    """How the process is started."""
    return [sys.executable, str(Path(__file__)), url, name]


def die_with_parent() -> None:
    """On Linux: be killed when whoever started this process ends, also while it is stopped and hears nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def end_with_parent() -> None:
    """End when standard input does, or earlier."""
    die_with_parent()

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _checkpoints(dedup_s: str | None) -> CheckpointSettings:
    if dedup_s is None:
        return CheckpointSettings()
    return CheckpointSettings(min_bytes=SOAK_CHECKPOINT_BYTES, dedup_window_s=float(dedup_s))


async def _serve(url: str, name: str) -> ExitCode:
    log = log_of(url)
    engine = Engine(
        log,
        workflows=ALL,
        name=name,
        drain_s=DRAIN_S,
        checkpoints=_checkpoints(os.environ.get(DEDUP)),
    )
    duty = Duty(url, tuple(workflow.name for workflow in ALL), (), DRAIN_S)
    try:
        return await WorkerService(engine, log, duty).run()
    except RefoldError as error:
        logging.getLogger("refold").error("ends: %s", error)  # noqa: TRY400 - what went wrong, in a line
        return ExitCode.LOG


if __name__ == "__main__":
    end_with_parent()
    set_up_logging(as_json=False)
    sys.exit(asyncio.run(_serve(sys.argv[1], sys.argv[2])))
