"""Projections as a process: they take in what is there, and follow, until it is told to stop.

Told so (`stopping.py`), it still writes what has been read, and leaves the group.
One that can't go on stops alone, and says so; the others go on, and the exit code tells of it in the end.
"""

import asyncio
import logging
import os
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from refold.log.errors import LogError, RefoldError
from refold.log.protocol import Log
from refold.projections.runner import Runner, RunnerSettings, Standing
from refold.projections.store import Store
from refold.services.exits import ExitCode
from refold.services.logs import say
from refold.services.stopping import stopping

SAY_EVERY_S = 30.0

logger = logging.getLogger("refold.service")


@dataclass(frozen=True, slots=True)
class Report:
    """How a projection stands in this process.

    Args:
        events: How many events were taken in here.
        standing: How far each partition that is taken in here has come.
        error: Why it has stopped; None where it has not.
    """

    events: int = 0
    standing: Mapping[int, Standing] = field(default_factory=dict[int, Standing])
    error: Exception | None = None

    @property
    def behind(self) -> int:
        """Records of these partitions that are not in it yet."""
        return sum(standing.behind for standing in self.standing.values())


class ProjectService:
    """One process's projections.

    Args:
        log: An open log.
        stores: Where each is kept; not open yet.
        member: This process's name.
        group: Name of the group that shares the partitions; each projection's tables have one of their own where not
            given.
    """

    def __init__(
        self, log: Log, stores: Sequence[Store], member: str, group: str | None = None
    ) -> None:
        self._stores = stores
        self._runners = {
            store.name: Runner(
                log,
                store,
                RunnerSettings(
                    group=partial(_group, store) if group is None else f"{group}.{store.name}",
                    member=member,
                ),
                caught_up=partial(self._caught_up, store),
            )
            for store in stores
        }
        self._errors: dict[str, Exception] = {}
        self._loop = asyncio.get_running_loop()

    async def catch_up(self) -> None:
        """Take in all that is there now.

        Raises:
            RefoldError: One of them can't be filled; those that can are filled first.
        """
        await asyncio.gather(
            *(self._guarded(name, runner.catch_up()) for name, runner in self._runners.items())
        )
        for error in self._errors.values():
            raise error

    async def follow(self) -> ExitCode:
        """Follow until a signal comes, or until none of them can go on.

        Returns:
            OK, or FAILED where one has stopped.
        """
        stop = stopping(logger)
        say(logger, "projections", {"names": ",".join(self._runners), "pid": os.getpid()})
        watch = asyncio.create_task(self.watch())
        await asyncio.gather(
            *(self._guarded(name, runner.follow(stop)) for name, runner in self._runners.items())
        )
        watch.cancel()
        say(logger, "stopped")
        return ExitCode.FAILED if self._errors else ExitCode.OK

    async def reports(self) -> Mapping[str, Report]:
        """How each of them stands now."""
        return {
            name: Report(runner.events, await runner.standing(), self._errors.get(name))
            for name, runner in self._runners.items()
        }

    def reports_from_thread(self) -> Mapping[str, Report]:
        """`reports`, for other threads than the event loop's."""
        return asyncio.run_coroutine_threadsafe(self.reports(), self._loop).result()

    async def _guarded(self, name: str, running: Coroutine[None, None, None]) -> None:
        try:
            await running
        except RefoldError as error:
            self._errors[name] = error
            say(
                logger,
                "PROJECTION STOPPED, the others go on",
                {"projection": name, "reason": str(error)},
                logging.CRITICAL,
            )

    async def watch(self) -> None:
        """Say from time to time how far behind they are, if they are."""
        while True:
            await asyncio.sleep(SAY_EVERY_S)
            with suppress(LogError):  # the log is away for a moment: the runners say so
                for name, report in (await self.reports()).items():
                    if report.behind:
                        say(logger, "behind", {"projection": name, "events": report.behind})

    def _caught_up(self, store: Store) -> None:
        store.switch()
        say(logger, "caught up", {"projection": store.name, "version": store.projection.version})


def _group(store: Store) -> str:
    return store.group
