"""Folds the partitions of a worker that has fallen silent while the group still waits for it.

A group on Kafka misses a dead member when its session has ended, seconds later. Whoever is then given its partitions
has to fold them while all who use them wait. So each worker looks how far the others are: where commands wait and
nobody works through them for `SILENT_LOOKS`, it folds ahead. That only reads, so to be wrong costs a fold: once the
owner is heard of again, it is dropped. Warm standbys of databases, and those of Kafka Streams, follow all the time what
they may have to take over; this one begins when it is needed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from refold.engine.recovery import Folded, recover
from refold.log.errors import LogError
from refold.log.protocol import Log, Membership

LOOK_EVERY_S: Final = 1.0
"""Owners tell how far they are at most so often."""
SILENT_LOOKS: Final = 2
"""Looks in turn at which an owner has not gone on, before its partition is folded."""

logger = logging.getLogger("refold.worker")


@dataclass(slots=True)
class _Owner:
    done: int
    silent: int = 0


class Lookout:
    """One worker's view of the partitions that others have.

    Args:
        log: An open log.
        membership: The worker's place among them.
        is_ours: Whether the worker itself has a partition.
    """

    def __init__(self, log: Log, membership: Membership, is_ours: Callable[[int], bool]) -> None:
        self._log = log
        self._membership = membership
        self._is_ours = is_ours
        self._owners: dict[int, _Owner] = {}
        self._ahead: dict[int, asyncio.Task[Folded | None]] = {}
        self._one_at_a_time = asyncio.Lock()  # our own partitions are served meanwhile

    async def watch(self, pause: Callable[[], Awaitable[None]]) -> None:
        """Look again and again, until it is cancelled.

        Args:
            pause: Waits between two looks.
        """
        try:
            while True:
                await pause()
                try:
                    await self.look()
                except LogError as error:
                    logger.debug("not known how far other workers are: %s", error)
                except Exception:
                    logger.exception(
                        "unexpected error while looking how far other workers are; looking again"
                    )
        finally:
            for partition in list(self._ahead):
                self._drop(partition)

    async def look(self) -> None:
        """Look once: begin to fold what has fallen silent, drop what is heard of again.

        Raises:
            LogError: It can't be told now how far others are.
        """
        for partition, (done, end) in (await self._membership.worked_through()).items():
            owner = self._owners.setdefault(partition, _Owner(done))
            if self._is_ours(partition):
                self._owners[partition] = _Owner(done)
            elif done != owner.done:
                self._owners[partition] = _Owner(done)
                self._drop(partition)
            elif end > done:
                owner.silent += 1
                if owner.silent >= SILENT_LOOKS and partition not in self._ahead:
                    self._ahead[partition] = asyncio.create_task(self._fold(partition))

    async def take(self, partition: int) -> Folded | None:
        """What was folded of a partition that is ours now, for good; None where nothing was."""
        task = self._ahead.pop(partition, None)
        return None if task is None else await task

    async def _fold(self, partition: int) -> Folded | None:
        logger.info("partition %d: its owner has fallen silent; folding ahead", partition)
        try:
            async with self._one_at_a_time:
                folded = await recover(self._log, partition)
                await folded.go_on(self._log, partition)
        except LogError as error:  # whoever claims it meets it again, and says so
            logger.debug("partition %d could not be folded ahead: %s", partition, error)
            return None
        except Exception:
            logger.exception("partition %d: unexpected error while it was folded ahead", partition)
            return None
        return folded

    def _drop(self, partition: int) -> None:
        task = self._ahead.pop(partition, None)
        if task is not None:
            task.cancel()
