"""How a worker waits for an owner that works on: see `engine/claim.py`."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from refold.engine.claim import ask
from refold.engine.proof import FRESH_S, MICROSECONDS, OFFER_S
from refold.engine.recovery import Folded
from refold.log.codec import encode_command
from refold.log.protocol import Channel, Log

LONG_GONE_S: Final = 60.0
"""Who should have handed a partition over so long ago, by clocks that may differ, is not there to be asked."""

logger = logging.getLogger("refold.worker")


class Asking:
    """A worker's `Patience`.

    Args:
        log: An open log.
        partition: Which of its partitions.
        worker: Who asks.
        clock: Microseconds since 1970-01-01 UTC.
    """

    def __init__(self, log: Log, partition: int, worker: str, clock: Callable[[], int]) -> None:
        self._log = log
        self._partition = partition
        self._worker = worker
        self._clock = clock

    async def for_hand_over(self, folded: Folded) -> bool:
        """See `Patience`."""
        state, partition, now = folded.state, self._partition, self._clock()
        if now > state.offered_until + LONG_GONE_S * MICROSECONDS:
            return False
        claim = state.claim
        news = self._log.tail(Channel.EVENTS, partition, folded.position)
        async with contextlib.aclosing(news):
            try:
                async with asyncio.timeout(OFFER_S):
                    question = encode_command(ask(self._worker, now))
                    await self._log.append(Channel.COMMANDS, partition, [question])
                    while state.offered_until and state.claim == claim:
                        folded.take(await anext(news))
            except TimeoutError:
                logger.warning(
                    "partition %d: worker %r has offered it and does not hand it over: taken from it",
                    partition,
                    state.owner,
                )
        return state.claim == claim

    async def for_stale_proof(self) -> None:
        """See `Patience`."""
        await asyncio.sleep(FRESH_S)
