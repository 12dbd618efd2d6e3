"""Whether an open log is still the log that was opened: what a worker asks from time to time.

Much is checked when a log is opened. But topics are deleted, cut and given other settings under running workers, and
files are moved away. Appending and reading notice some of it, too late or not at all.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, runtime_checkable

from refold.log.errors import LogError

logger = logging.getLogger(__name__)

CHECK_EVERY_S = 30.0
"""Between two checks, in seconds: three or four requests to a cluster, or one `stat` of a file."""


@runtime_checkable
class Checked(Protocol):
    """A log that can tell. One that can't has nothing that could change under it."""

    async def check(self) -> Mapping[int, LogError]:
        """Look whether what was there at `open` is still there, and as safe.

        Returns:
            The partitions that must not be gone on with, each with the reason and what to do; mostly none.

        Raises:
            LogUnavailable: It can't be told now, because the log does not answer. Nothing follows from that.
        """
        ...


async def watch(
    log: Checked,
    halt: Callable[[int, LogError], None],
    pause: Callable[[], Awaitable[object]],
) -> None:
    """Check a log for ever.

    Args:
        log: An open log.
        halt: Told once of each partition that must not be gone on with, with the reason.
        pause: Waits between two checks, as `asyncio.sleep` of `CHECK_EVERY_S` does.
    """
    halted: set[int] = set()
    while True:
        await pause()
        try:
            ailments = await log.check()
        except LogError as error:
            logger.info("the log could not be checked, it will be again: %s", error)
            continue
        for partition in sorted(ailments.keys() - halted):
            halted.add(partition)
            halt(partition, ailments[partition])
