"""The worker as a process: opens an engine, says what it owns, and hands over when it is told to stop.

The engine runs on a thread of its own. Here only signals are waited for and changes reported, so that a step that
blocks the engine's loop can't make the process deaf to SIGTERM (`stopping.py`): then it takes nothing new, lets steps
under way finish, records them and leaves the group.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass

from refold.engine.engine import Engine
from refold.log.errors import LogError
from refold.log.protocol import Log
from refold.services.exits import ExitCode
from refold.services.logs import say
from refold.services.stopping import stopping

LOOK_EVERY_S = 0.1
"""Between two looks at what the worker owns: a claim is a matter of milliseconds, a person's eye of tenths."""

logger = logging.getLogger("refold.service")


@dataclass(frozen=True, slots=True)
class Duty:
    """What a worker is to do, for its first line.

    Args:
        url: The log, as the user gave it.
        workflows: Names of the workflows that it runs, with versions other than the first as in "checkout@2".
        steps: The steps of pools that it carries out, as in "gpu/render".
        drain_s: How long a stop waits for steps under way, in seconds.
    """

    url: str
    workflows: tuple[str, ...]
    steps: tuple[str, ...]
    drain_s: float


class WorkerService:
    """One worker process's life.

    Args:
        engine: An engine with a worker, not open yet.
        log: Its log, for the number of partitions.
        duty: What it is to do.
    """

    def __init__(self, engine: Engine, log: Log, duty: Duty) -> None:
        self._engine = engine
        self._log = log
        self._duty = duty
        self._owned: list[int] = []
        self._halted: dict[int, LogError] = {}

    async def run(self) -> ExitCode:
        """Work until a signal comes, or until no partition can be worked on.

        Returns:
            OK, or LOG where a partition was halted, or FAILED where a projection has stopped.

        Raises:
            RefoldError: The log could not be opened.
        """
        stop = stopping(logger)
        self._say_duty()
        await asyncio.to_thread(self._engine.__enter__)
        try:
            say(logger, "joined", {"partitions_in_all": self._log.partitions})
            await self._watch(stop)
            self._say_draining()
        finally:
            await asyncio.to_thread(self._engine.__exit__, None, None, None)
        self._report_halted()
        say(logger, "stopped")
        if self._halted:
            return ExitCode.LOG
        return ExitCode.FAILED if self._engine.stopped_projections else ExitCode.OK

    def _say_duty(self) -> None:
        duty = self._duty
        name = self._engine.worker_name
        say(logger, "starting", {"worker": name, "log": duty.url, "pid": os.getpid()})
        what = {"workflows": ",".join(duty.workflows), "steps": ",".join(duty.steps)}
        say(logger, "runs", {kind: names for kind, names in what.items() if names})

    def _say_draining(self) -> None:
        if not self._all_halted():
            what = "draining: nothing new is begun, steps under way may finish"
            say(logger, what, {"at_most_s": self._duty.drain_s, "hands_over": _listed(self._owned)})

    async def _watch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._report_owned()
            self._report_halted()
            if self._all_halted():
                say(logger, "no partition can be worked on", level=logging.CRITICAL)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await stop.wait()

    def _report_owned(self) -> None:
        owned = list(self._engine.owned_partitions)
        if owned == self._owned:
            return
        values = {"owned": _listed(owned)}
        if claimed := sorted(set(owned) - set(self._owned)):
            values["claimed"] = _listed(claimed)
        if given_up := sorted(set(self._owned) - set(owned)):
            values["given_up"] = _listed(given_up)
        self._owned = owned
        say(logger, "partitions", values)

    def _report_halted(self) -> None:
        halted = self._engine.halted_partitions
        for partition in sorted(set(halted) - set(self._halted)):
            say(
                logger,
                "PARTITION HALTED, its workflows stand still until it is mended",
                {"partition": partition, "reason": str(halted[partition])},
                logging.CRITICAL,
            )
        self._halted = halted

    def _all_halted(self) -> bool:
        shared = self._engine.shared_partitions
        return bool(shared) and len(self._halted) >= shared


def _listed(partitions: Iterable[int]) -> str:
    return ",".join(map(str, partitions)) or "none"
