"""A projection that is kept up to date by the processes that run an engine, without a process of its own."""

import asyncio
from dataclasses import dataclass

from refold.log.protocol import Log
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

    async def follow(self, log: Log, stop: asyncio.Event) -> None:
        """See `Follower`."""
        store = store_for(self.projection, log, self.to, schema=self.schema)
        runner = Runner(
            log, store, RunnerSettings(group=lambda: store.group), caught_up=store.switch
        )
        await runner.follow(stop)
