"""Becoming the owner of a partition that another worker has offered."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from refold.engine import asking
from refold.engine.asking import LONG_GONE_S, Asking, patience_s
from refold.engine.claim import claim
from refold.engine.proof import FRESH_S, MICROSECONDS, OFFER_S
from refold.engine.recovery import Folded
from refold.log.codec import decode_command, encode_event
from refold.log.commands import AskForPartition
from refold.log.events import PartitionHandedOver, PartitionOffered
from refold.log.memory import MemoryLog
from refold.log.protocol import Channel

NOW = 1_000_000_000_000_000


def clock() -> int:
    return NOW


class Noting(Asking):
    """Notes that it was to wait, and does not."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log, 0, "next", clock)
        self.waited_for_stale_proof = False

    async def for_stale_proof(self) -> None:
        self.waited_for_stale_proof = True


async def offered(log: MemoryLog, due_at: int = NOW + round(OFFER_S * MICROSECONDS)) -> Folded:
    """A partition whose owner has offered it."""
    folded = await claim(log, 0, "old", clock)
    event = PartitionOffered(**header(folded), partition=0, due_at=due_at)
    await append(log, folded, event)
    return folded


async def append(
    log: MemoryLog, folded: Folded, event: PartitionOffered | PartitionHandedOver
) -> None:
    entry, _ = encode_event(event, folded.state.chain)
    await log.append(Channel.EVENTS, 0, [entry])
    await folded.go_on(log, 0)


def header(folded: Folded) -> Any:
    return {
        "workflow_id": None,
        "position": None,
        "recorded_at": NOW,
        "claim": folded.state.claim,
        "command": -1,
        "posted": 0,
        "worker": folded.state.owner,
    }


def run(scenario: Callable[[MemoryLog], Coroutine[None, None, None]]) -> None:
    async def opened() -> None:
        log = MemoryLog("claims", partitions=1)
        await log.open()
        try:
            async with asyncio.timeout(30):
                await scenario(log)
        finally:
            await log.close()

    asyncio.run(opened())


def test_the_owner_is_asked_and_goes_on_until_it_has_handed_over() -> None:
    """Given a partition that was offered, who is to have it asks for it, and claims it when it is handed over."""

    async def scenario(log: MemoryLog) -> None:
        old = await offered(log)
        patience = Noting(log)
        claiming = asyncio.create_task(claim(log, 0, "next", clock, patience=patience))
        tail = log.tail(Channel.COMMANDS, 0, 0)
        (question,) = await anext(tail)
        assert isinstance(decode_command(question), AskForPartition)
        assert (await log.bounds(Channel.EVENTS, 0)).end == old.position
        handed = PartitionHandedOver(**header(old), partition=0, payload="[]", due_at=NOW)
        await append(log, old, handed)
        folded = await claiming
        assert folded.state.owner == "next"
        assert not patience.waited_for_stale_proof
        await tail.aclose()

    run(scenario)


def test_an_owner_that_is_long_gone_is_not_waited_for() -> None:
    """Given an offer of long ago, the partition is claimed at once, and no step begins until every proof is stale:
    clocks may differ.
    """

    async def scenario(log: MemoryLog) -> None:
        await offered(log, NOW - round((LONG_GONE_S + 1) * MICROSECONDS))
        patience = Noting(log)
        folded = await claim(log, 0, "next", clock, patience=patience)
        assert folded.state.owner == "next"
        assert folded.state.offered_until == 0
        assert patience.waited_for_stale_proof
        assert (await log.bounds(Channel.COMMANDS, 0)).end == 0

    run(scenario)


def test_an_owner_that_is_overdue_is_asked_and_waited_for_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given an offer that has run out, as of an owner that was killed, it is asked for a moment, and no step begins
    until every proof is stale: it may be the clocks that differ.
    """

    async def scenario(log: MemoryLog) -> None:
        folded = await offered(log, NOW - 1)
        assert patience_s(folded.state, NOW - 1) == OFFER_S
        assert patience_s(folded.state, NOW) < OFFER_S - FRESH_S
        monkeypatch.setattr(asking, "OVERDUE_S", 0.001)  # it would be waited for
        patience = Noting(log)
        folded = await claim(log, 0, "next", clock, patience=patience)
        assert folded.state.owner == "next"
        assert patience.waited_for_stale_proof
        assert (await log.bounds(Channel.COMMANDS, 0)).end == 1

    run(scenario)


def test_a_partition_that_was_not_offered_is_claimed_at_once() -> None:
    """Given an owner that has died, nobody is asked and nothing waited for."""

    async def scenario(log: MemoryLog) -> None:
        await claim(log, 0, "old", clock)
        patience = Noting(log)
        folded = await claim(log, 0, "next", clock, patience=patience)
        assert folded.state.owner == "next"
        assert not patience.waited_for_stale_proof

    run(scenario)
