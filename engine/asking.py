"""How a worker waits for an owner that works on: see `engine/claim.py`."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from refold.engine.claim import ask
from refold.engine.proof import FRESH_S, MICROSECONDS, OFFER_S
from refold.engine.recovery import Folded
from refold.engine.state import PartitionState
from refold.log.codec import encode_command
from refold.log.protocol import Channel, Log

LONG_GONE_S: Final = 60.0
"""Who should have handed a partition over so long ago, by clocks that may differ, is not there to be asked."""
OVERDUE_S: Final = 1.0
"""How long the answer of an owner is waited for that should have handed its partition over by now: mostly it is dead,
and where only the clocks differ it answers within milliseconds."""

logger = logging.getLogger("refold.worker")


def patience_s(state: PartitionState, now: int) -> float:
    """How long an owner that has offered its partition is waited for once it is asked, in seconds; 0 for not at all.

    Only after `OFFER_S` it begins no step any more. Where it is waited for less, because by the clocks it is overdue,
    its proofs of ownership have to become stale: the clocks decide how long a claim takes, and not whether it is safe.
    """
    overdue_us = now - state.offered_until
    if overdue_us > LONG_GONE_S * MICROSECONDS:
        return 0.0
    return OVERDUE_S if overdue_us > 0 else OFFER_S


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
        waited_s = patience_s(state, now)
        if not waited_s:
            return False
        claim = state.claim
        news = self._log.tail(Channel.EVENTS, partition, folded.position)
        async with contextlib.aclosing(news):
            try:
                async with asyncio.timeout(waited_s):
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
                return waited_s >= OFFER_S and state.claim == claim
        return state.claim == claim

    async def for_stale_proof(self) -> None:
        """See `Patience`."""
        await asyncio.sleep(FRESH_S)
