"""What the contract suite needs of a backend: a fresh namespace, and log objects over it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Log, Membership, Record
from refold.log.sqlite import SqliteLog, SqliteSettings

PATIENCE_S = 120.0
"""No test waits for a time, only for conditions: this is where a condition that never comes becomes a failure."""


Pools = tuple[tuple[str, int], ...]
"""Pools of workflows, each with the number of its own partitions."""


class LogBackend(Protocol):
    """A namespace of two partitions, and perhaps pools, that nothing was written to yet."""

    name: str

    def log(self, *, queue_entries: int | None = None) -> Log:
        """A new log object over the namespace, not open yet; with a small queue where the backend has one."""
        ...


class MemoryBackend:
    """A namespace in memory."""

    name = "memory"

    def __init__(self, pools: Pools = ()) -> None:
        self.store = MemoryStore(partitions=2, pools=pools)

    def log(self, *, queue_entries: int | None = None) -> Log:
        """A log over the same store."""
        return MemoryLog(store=self.store, rebalance_s=0.01)


class SqliteBackend:
    """A namespace in a file."""

    name = "sqlite"

    def __init__(self, directory: Path, pools: Pools = ()) -> None:
        self.path = directory / "contract.db"
        self.pools = pools

    def log(self, *, queue_entries: int | None = None) -> Log:
        """A log over the same file, as another process would have it."""
        entries = SqliteSettings().queue_entries if queue_entries is None else queue_entries
        settings = SqliteSettings(queue_entries=entries, rebalance_s=0.01)
        return SqliteLog(self.path, 2, settings, pools=self.pools)


@asynccontextmanager
async def opened(backend: LogBackend, *, queue_entries: int | None = None) -> AsyncGenerator[Log]:
    """An open log, closed at the end; and an end to all patience."""
    log = backend.log(queue_entries=queue_entries)
    async with asyncio.timeout(PATIENCE_S):
        await log.open()
        try:
            yield log
        finally:
            await log.close()


async def records_of(
    log: Log,
    channel: Channel,
    partition: int = 0,
    start: int = 0,
    stop: int | None = None,
    *,
    key: str | None = None,
) -> list[Record]:
    """All that `read` gives, in one list."""
    return [r async for batch in log.read(channel, partition, start, stop, key=key) for r in batch]


class Worker:
    """A listener that remembers what it is told, and lets a test wait for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.owned: set[int] = set()
        self.warned: list[int] = []
        self.revocations: list[int] = []
        self.delivered: dict[int, list[list[Record]]] = {}
        self.membership: Membership | None = None
        self._changed = asyncio.Event()

    async def join(self, log: Log, pool: str | None = None) -> Membership:
        """Join, and release at once whatever is revoked, as a worker with nothing to finish does."""
        self.membership = await log.join(self.name, self, pool)
        return self.membership

    def assigned(self, partition: int) -> None:
        """Remember it."""
        self.owned.add(partition)
        self._changed.set()

    def revoking(self, partition: int) -> None:
        """Remember it. On any thread."""
        self.warned.append(partition)

    def revoked(self, partition: int, lost: bool) -> None:
        """Remember it, and give it up."""
        self.owned.discard(partition)
        self.revocations.append(partition)
        if self.membership is not None:
            self.membership.release(partition)
        self._changed.set()

    def deliver(self, partition: int, records: Sequence[Record]) -> None:
        """Remember them."""
        self.delivered.setdefault(partition, []).append(list(records))
        self._changed.set()

    def values(self, partition: int) -> list[bytes]:
        """Values of all commands delivered for a partition."""
        return [record.value for batch in self.delivered.get(partition, []) for record in batch]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition over what this worker was told holds."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()
