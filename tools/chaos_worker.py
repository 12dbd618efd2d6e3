"""A worker as a process, as `refold worker` runs it: with the tests' workflows, and ended with whoever started it.

At SIGUSR1 it stops itself (SIGSTOP) in the worst of moments: when the log has acknowledged events from which steps
follow, and nothing has been made of that. Another owner carries these steps out and records them meanwhile.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chaos_log import log_of
from chaos_workflows import ALL
from refold import CheckpointSettings, Engine
from refold.log.errors import RefoldError
from refold.log.forwarding import ForwardingLog
from refold.log.protocol import Channel, Entry, Log
from refold.services.exits import ExitCode
from refold.services.logs import set_up_logging
from refold.services.worker_service import Duty, WorkerService

DRAIN_S: Final = 5.0
DEDUP: Final = "REFOLD_CHAOS_DEDUP_S"
"""Environment variable: for how long ids of ended runs are known. What is kept of them is flat from then on."""
SOAK_CHECKPOINT_BYTES: Final = 200_000
_STEPS_FOLLOW: Final = frozenset({("kind", b"workflow.started"), ("kind", b"step.completed")})
"""Headers of events after which a run mostly asks for a step."""
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


class FreezingLog(ForwardingLog):
    """A log under which this process stops itself, once each time that it is told to."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self._freezes = False

    def freeze_soon(self, *_: object) -> None:
        """Stop at the next acknowledgement that matters. A signal's handler."""
        self._freezes = True

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """See `Log`."""
        offsets = await super().append(channel, partition, entries, lazily=lazily)
        if self._freezes and any(_STEPS_FOLLOW.intersection(entry.headers) for entry in entries):
            self._freezes = False
            os.kill(os.getpid(), signal.SIGSTOP)
        return offsets


async def _serve(url: str, name: str) -> ExitCode:
    log = FreezingLog(log_of(url))
    signal.signal(signal.SIGUSR1, log.freeze_soon)
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
