"""What goes along with a worker: anything that follows the log beside it, such as a projection."""

import asyncio
from typing import Protocol

from refold.log.protocol import Log


class Follower(Protocol):
    """Follows a log. `Engine(..., projections=[...])` takes these."""

    @property
    def name(self) -> str:
        """What it is, for messages."""
        ...

    async def follow(self, log: Log, stop: asyncio.Event) -> None:
        """Follow an open log until `stop` is set. Called on the event loop that the log was opened on.

        Raises:
            RefoldError: It can't go on; whatever else follows does.
        """
        ...
