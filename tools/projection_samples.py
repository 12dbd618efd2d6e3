"""Projections for tests and benchmarks, and a log for them to read."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from refold.log.accepted import Accepted
from refold.log.codec import GENESIS, encode_event, event_id_of
from refold.log.events import (
    Event,
    PartitionClaimed,
    StepCompleted,
    Unreadable,
    WorkflowCompleted,
    WorkflowStarted,
)
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Entry, Log
from refold.projections.feed import NOBODY, Logged
from refold.projections.projection import Dialect, Transaction

BATCH: Final = 500


class Tale:
    """Every event by its id, and how many of each kind: an event that counts twice shows in both."""

    name = "tale"

    def __init__(self, version: int = 1) -> None:
        self.version = version

    def tables(self, dialect: Dialect) -> Sequence[str]:
        """An event twice would break the first table's key; the second adds up."""
        return [
            "CREATE TABLE told (event_id TEXT PRIMARY KEY, stands_at BIGINT NOT NULL)",
            "CREATE TABLE kinds (kind TEXT PRIMARY KEY, total BIGINT NOT NULL)",
        ]

    def apply(self, transaction: Transaction, logged: Logged) -> None:
        """Note it, and read before writing: what is read must be what was written before."""
        event = logged.event
        if isinstance(event, Unreadable):
            return
        transaction.execute(
            "INSERT INTO told VALUES (?, ?)", (event_id_of(event), logged.offset * self.version)
        )
        rows = transaction.query("SELECT total FROM kinds WHERE kind = ?", (event.kind,))
        if rows:
            transaction.execute(
                "UPDATE kinds SET total = ? WHERE kind = ?", (rows[0][0] + 1, event.kind)
            )
        else:
            transaction.execute("INSERT INTO kinds VALUES (?, 1)", (event.kind,))


class Stumbling(Tale):
    """Raises on one event."""

    def __init__(self, stumbles_on: str, version: int = 1) -> None:
        super().__init__(version)
        self._stumbles_on = stumbles_on

    def apply(self, transaction: Transaction, logged: Logged) -> None:
        """Raise on it."""
        event = logged.event
        if not isinstance(event, Unreadable) and event_id_of(event) == self._stumbles_on:
            raise ZeroDivisionError("nothing to divide by")
        super().apply(transaction, logged)


async def fill(log: Log, runs: int, steps: int = 3, *, first: int = 0) -> None:
    """Claim every partition, and append so many runs to it, in batches as an owner's are.

    Args:
        log: An open log.
        runs: How many.
        steps: Steps of each.
        first: The number of the first run: its id is `run-<number>`.
    """
    owners = [await _claimed(log, partition) for partition in range(log.partitions)]
    for number in range(first, first + runs):
        workflow_id = f"run-{number}"
        owner = owners[partition_of(workflow_id, log.partitions)]
        await owner.append(_stream(workflow_id, steps, owner.claim, 2_000_000 + 1_000 * number))
    for owner in owners:
        await owner.flush()


class _Owner:
    """Who may write to a partition: it claims, chains and batches."""

    def __init__(self, log: Log, partition: int, claim: int) -> None:
        self.claim = claim
        self._log = log
        self._partition = partition
        self._chain = GENESIS
        self._entries: list[Entry] = []

    async def append(self, events: Iterable[Event]) -> None:
        for event in events:
            entry, self._chain = encode_event(event, self._chain)
            self._entries.append(entry)
        if len(self._entries) >= BATCH:
            await self.flush()

    async def flush(self) -> Sequence[int]:
        entries, self._entries = self._entries, []
        return await self._log.append(Channel.EVENTS, self._partition, entries) if entries else ()


async def _claimed(log: Log, partition: int) -> _Owner:
    """The next owner of a partition."""
    accepted = Accepted()
    async for batch in log.read(Channel.EVENTS, partition, 0, key=NOBODY):
        for record in batch:
            accepted.take(record)
    owner = _Owner(log, partition, accepted.claim)
    claim = PartitionClaimed(
        workflow_id=None,
        position=None,
        recorded_at=1_000_000,
        claim=accepted.claim,
        command=-1,
        posted=0,
        worker="writer",
        partition=partition,
    )
    await owner.append([claim])
    (owner.claim,) = await owner.flush()
    return owner


def _stream(workflow_id: str, steps: int, claim: int, at: int) -> Iterator[Event]:
    """A run with so many steps, from start to end."""

    def common(position: int) -> dict[str, Any]:
        return {
            "workflow_id": workflow_id,
            "position": position,
            "recorded_at": at + position,
            "claim": claim,
            "command": -1,
            "posted": 0,
            "worker": "writer",
        }

    yield WorkflowStarted(**common(0), workflow="order", payload="[]")
    for step in range(steps):
        yield StepCompleted(
            **common(step + 1),
            step=step,
            name="work",
            payload='{"done":true}',
            attempt=1,
            started_at=at + step,
        )
    yield WorkflowCompleted(**common(steps + 1), payload="null")
