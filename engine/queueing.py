"""Queues, as their users see them: how many runs of one run at once, and how many wait."""

import json
from dataclasses import dataclass
from typing import Final

from refold.engine.access import Access
from refold.engine.client import Client
from refold.engine.names import check_name
from refold.engine.recovery import recover
from refold.engine.state import Queue
from refold.log.commands import LookAtQueue, SetQueue
from refold.log.errors import UnknownQueue, UsageError
from refold.log.protocol import Log

MAX_CONCURRENCY: Final = 1_000_000_000
"""More than will ever run at once."""


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """How a queue stands.

    Args:
        name: Its name.
        concurrency: How many of its runs run at once; None where nobody has said so, and all of them wait.
        running: How many have their turn now, those among them that are parked or paused.
        waiting: How many wait for it.
    """

    name: str
    concurrency: int | None
    running: int
    waiting: int


class Queueing:
    """Sets queues and looks at them. The engine's own; it sets what is named here."""

    _access: Access

    def set_queue(self, name: str, *, concurrency: int, reason: str | None = None) -> None:
        """Say how many runs of a queue run at once, in the whole namespace.

        A higher limit lets waiting runs go at once; a lower one stops none, and lets none go until there is room.

        Args:
            name: The queue, 1 to 255 characters; it is made by this.
            concurrency: How many, from 1 on.
            reason: Why, for the audit.

        Raises:
            UsageError: The name or the number can't be used. Nothing was recorded.
            ResultTimeout: No worker answered within `start_timeout_s`. The command is durable all the same.
        """
        done = self.set_queue_async(name, concurrency=concurrency, reason=reason)
        self._access.bridge.wait(done, "set_queue_async()")

    async def set_queue_async(
        self, name: str, *, concurrency: int, reason: str | None = None
    ) -> None:
        """`set_queue` for async code."""
        access = self._access
        await access.bridge.run(
            set_queue(access.client, name, concurrency, reason, access.timeout_s)
        )

    def queue(self, name: str) -> QueueInfo:
        """How a queue stands now.

        Raises:
            UsageError: The name can't be one.
            UnknownQueue: There is no such queue.
            ResultTimeout: No worker answered within `start_timeout_s`.
        """
        return self._access.bridge.wait(self.queue_async(name), "queue_async()")

    async def queue_async(self, name: str) -> QueueInfo:
        """`queue` for async code."""
        access = self._access
        return await access.bridge.run(look_at_queue(access.client, name, access.timeout_s))


async def set_queue(
    client: Client, name: str, concurrency: int, reason: str | None, timeout_s: float | None
) -> None:
    """Set a queue; see `Queueing.set_queue`."""
    check_name(name, "queue")
    payload = json.dumps({"concurrency": check_concurrency(concurrency)})
    command = SetQueue(**client.envelope(name), payload=payload, reason=reason)
    await client.ask(command, timeout_s)


async def look_at_queue(client: Client, name: str, timeout_s: float | None) -> QueueInfo:
    """Ask how a queue stands; see `Queueing.queue`."""
    check_name(name, "queue")
    reply = await client.ask(LookAtQueue(**client.envelope(name)), timeout_s)
    return QueueInfo(name, **json.loads(reply.payload or "{}"))


async def require_queue(client: Client, name: str, timeout_s: float | None) -> None:
    """Refuse a queue that nobody has set. A queue is for ever: one that is known is not asked for again.

    Raises:
        UsageError: The name can't be one.
        UnknownQueue: There is no such queue.
    """
    if name not in client.known_queues:
        await look_at_queue(client, name, timeout_s)
        client.known_queues.add(name)


async def read_queues(log: Log) -> list[QueueInfo]:
    """How every queue stands, by name, read from the log."""
    found: list[QueueInfo] = []
    for partition in range(log.partitions):
        folded = await recover(log, partition)
        await folded.go_on(log, partition)
        found.extend(_info(name, queue) for name, queue in folded.state.queues.items())
    return sorted(found, key=lambda info: info.name)


def _info(name: str, queue: Queue) -> QueueInfo:
    return QueueInfo(name, queue.limit, len(queue.running), len(queue.waiting))


def check_concurrency(concurrency: object) -> int:
    """A limit that can be one.

    Raises:
        UsageError: It is no whole number from 1 on.
    """
    if (
        isinstance(concurrency, bool)
        or not isinstance(concurrency, int)
        or not 1 <= concurrency <= MAX_CONCURRENCY
    ):
        raise UsageError(
            f"{concurrency!r} is no limit of a queue: give a whole number of runs, from 1 to {MAX_CONCURRENCY:,}"
        )
    return concurrency


def unknown_queue(name: str) -> UnknownQueue:
    """The error for a queue that nobody has set."""
    return UnknownQueue(
        f"nobody has set a queue {name!r}: check the name, or say how many of its runs may run at once, with "
        f"Engine.set_queue({name!r}, concurrency=...) or `refold queue set {name} --concurrency ...`"
    )
