"""How a worker becomes the owner of a partition.

An owner that is to give a partition up says so first, and works on until whoever is to have it asks
(`PartitionOffered`). So the next owner folds while the partition is still served, and what is left to do in between is
two events: the one owner's last, and the other's claim.
"""

from collections.abc import Callable
from typing import Protocol

from refold.engine.migration_marks import require_not_moved
from refold.engine.recovery import Folded, recover
from refold.engine.state import NO_CLAIM
from refold.log.codec import encode_event
from refold.log.commands import AskForPartition
from refold.log.events import PartitionClaimed
from refold.log.protocol import Channel, Log, Record


class Patience(Protocol):
    """How a claimant waits for an owner that works on."""

    async def for_hand_over(self, folded: Folded) -> bool:
        """Ask the owner for its partition and fold on until it is nobody's any more, or somebody else's.

        Returns:
            Whether the owner, as it stands in the fold now, begins no step any more: it has handed the partition over,
            or was silent for `OFFER_S`, and not for less.
        """
        ...

    async def for_stale_proof(self) -> None:
        """Wait until whoever owned the partition until now begins no step any more (`FRESH_S`)."""


async def claim(  # noqa: PLR0917 - who claims what, and how
    log: Log,
    partition: int,
    worker: str,
    clock: Callable[[], int],
    folded: Folded | None = None,
    patience: Patience | None = None,
) -> Folded:
    """Become the owner of a partition: fold it, claim it, until a claim of ours is the accepted one.

    Args:
        log: An open log.
        partition: Which of its partitions.
        worker: Who claims.
        clock: Microseconds since 1970-01-01 UTC.
        folded: A fold of it that has been begun; consumed.
        patience: Waits for an owner that works on; without it the partition is taken from whoever has it.

    Returns:
        The fold up to and with the accepted claim.

    Raises:
        LogCorrupt: The partition can't be folded.
        LogMismatch: Its namespace has moved, or is only being filled.
        LogError: The log can't be read or written.
    """
    folded = folded or await recover(log, partition)
    asked = still = NO_CLAIM  # claims whose owner was asked, and begins no step any more
    while True:
        await folded.go_on(log, partition)
        state = folded.state
        while patience is not None and state.offered_until and state.claim != asked:
            asked = state.claim
            if await patience.for_hand_over(folded):
                still = state.claim
        require_not_moved(state.owner, worker, log.namespace, partition)
        event = PartitionClaimed(
            workflow_id=None,
            position=None,
            recorded_at=clock(),
            claim=state.claim,
            command=state.command,
            posted=state.posted,
            worker=worker,
            partition=partition,
        )
        entry, _ = encode_event(event, state.chain)
        (offset,) = await log.append(Channel.EVENTS, partition, [entry])
        await folded.go_on(log, partition, offset)
        # E.g. offered in the very moment in which it was claimed.
        may_begin = bool(state.offered_until) and state.claim != still
        folded.take([Record(offset, clock(), entry.key, entry.value, entry.headers)])
        if state.claim == offset:
            if may_begin and patience is not None:
                await patience.for_stale_proof()
            return folded


def ask(worker: str, now: int) -> AskForPartition:
    """The command by which a worker asks for a partition."""
    return AskForPartition(
        command_id=f"{worker}/{now}", workflow_id=worker, reply_to=None, requested_at=now
    )
