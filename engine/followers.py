"""What follows the log beside an engine's worker: begun with it, ended with it, and never in its way."""

import asyncio
import logging
from collections.abc import Iterable, Mapping

from refold.log.errors import UsageError
from refold.log.follower import Follower
from refold.log.protocol import Log

logger = logging.getLogger("refold.projections")


class Followers:
    """The followers of one engine.

    Args:
        followers: What follows.

    Raises:
        UsageError: Two have one name.
    """

    def __init__(self, followers: Iterable[Follower]) -> None:
        self._followers = list(followers)
        names = [follower.name for follower in self._followers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(f"there are two projections {twice[0]!r}: give each a name of its own")
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped: dict[str, Exception] = {}

    @property
    def stopped(self) -> Mapping[str, Exception]:
        """Those that could not go on, and why."""
        return self._stopped

    @property
    def running(self) -> Mapping[str, bool]:
        """Whether each of them goes on, by name."""
        return {one.name: one.name not in self._stopped for one in self._followers}

    def start(self, log: Log) -> None:
        """Let all of them follow an open log."""
        self._tasks = [
            asyncio.create_task(self._follow(log, follower)) for follower in self._followers
        ]

    async def stop(self) -> None:
        """Let them finish what they are at, and end."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _follow(self, log: Log, follower: Follower) -> None:
        try:
            await follower.follow(log, self._stop)
        except Exception as error:
            # Whatever stops one stops no other, and not the worker either: but not without a word.
            logger.critical("projection %r HAS STOPPED: %s", follower.name, error, exc_info=True)
            self._stopped[follower.name] = error
