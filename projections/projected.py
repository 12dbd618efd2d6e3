"""A projection that is kept up to date by the processes that run an engine, without a process of its own."""

import asyncio
from dataclasses import dataclass

from refold.log.protocol import Log
from refold.log.urls import open_log
from refold.projections.places import store_for
from refold.projections.projection import Projection
from refold.projections.runner import Runner, RunnerSettings


@dataclass(frozen=True, slots=True)
class Projected:
    """Keeps a projection, as a `Follower`: `Engine(url, projections=[Projected(Revenue())])`.

    All engines that have it share the partitions. Its tables are those that `refold project` keeps, which may share as
    well.

    Args:
        projection: What is kept.
        to: Where: sqlite:///DIRECTORY or postgresql://...; beside a SQLite log where not given.
        schema: In PostgreSQL: the schema; named after the namespace and the projection where not given.
    """

    projection: Projection
    to: str | None = None
    schema: str | None = None

    @property
    def name(self) -> str:
        """The projection's name."""
        return self.projection.name

    def catch_up(self, url: str) -> int:
        """Take in all that is in a log now.

        Args:
            url: The log.

        Returns:
            How many events were new to it.

        Raises:
            ProjectionFailed: The projection's code raised.
            RefoldError: The log can't be read, or the tables not written.
        """
        return asyncio.run(self._catch_up(url))

    async def _catch_up(self, url: str) -> int:
        log = open_log(url)
        try:
            await log.open()
            store = store_for(self.projection, log, self.to, schema=self.schema)
            runner = Runner(log, store, caught_up=store.switch)
            await runner.catch_up()
        finally:
            await log.close()
        return runner.events

    async def follow(self, log: Log, stop: asyncio.Event) -> None:
        """See `Follower`."""
        store = store_for(self.projection, log, self.to, schema=self.schema)
        runner = Runner(
            log, store, RunnerSettings(group=lambda: store.group), caught_up=store.switch
        )
        await runner.follow(stop)
