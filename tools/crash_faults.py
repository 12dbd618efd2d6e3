"""A load that goes on while brokers are away: what is refused is asked for again, until it is acknowledged."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from pathlib import Path
from random import Random

from kafka import KafkaAdminClient

from crash_audit import Journal
from crash_load import LOOK_EVERY_S, WINDOW, Load
from crash_shapes import SHAPES, Shape
from refold import AppendUnknown, Engine, LogUnavailable, ResultTimeout


class StubbornLoad(Load):
    """A `Load` that takes no refusal for an answer. Any other error fails the test.

    Args:
        client: An engine without a worker.
        journal: What the steps write.
        seed: What is started.
        window: How many runs are open at a time, more or less.
    """

    def __init__(self, client: Engine, journal: Journal, seed: int, window: int = WINDOW) -> None:
        super().__init__(client, journal, Random(seed), SHAPES, window)
        self.refusals: Counter[str] = Counter()
        """What the client was told while it could not be served: names of errors."""

    async def ask(self, run: str, shape: Shape, n: int, *, confirm: bool) -> None:
        """Start a run, with the same id again and again, until it is acknowledged."""
        while True:
            try:
                await super().ask(run, shape, n, confirm=confirm)
            except (AppendUnknown, LogUnavailable, ResultTimeout) as error:
                self.refusals[type(error).__name__] += 1
            else:
                return

    async def during(self, fault: Awaitable[None]) -> None:
        """Keep the load up while a fault lasts. Returns when it is over and everything offered is acknowledged."""
        over = asyncio.Event()
        # At once, however many are open: with nothing ending, nothing else would ask for new ones.
        burst = [asyncio.create_task(self._start()) for _ in range(self._window)]
        offering = asyncio.create_task(self._offer_until(over))
        try:
            await fault
        finally:
            over.set()
        await asyncio.gather(offering, *burst)

    async def _offer_until(self, over: asyncio.Event) -> None:
        while not over.is_set():
            self._look()
            await self.top_up()
            await asyncio.sleep(LOOK_EVERY_S)


def leader_of(bootstrap: str, topic: str, partition: int) -> int:
    """Node id of the broker that leads a partition, as the brokers that answer say; -1 while none does."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","))
    try:
        (found,) = admin.describe_topics([topic])
        return int(found["partitions"][partition]["leader_id"])
    finally:
        admin.close()


def resident_bytes(pids: Sequence[int]) -> int:
    """Memory that these processes hold together."""
    lines = [
        line
        for pid in pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    ]
    return 1024 * sum(int(line.split()[1]) for line in lines)
