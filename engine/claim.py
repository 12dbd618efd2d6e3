"""How a worker becomes the owner of a partition."""

from collections.abc import Callable

from refold.engine.migration_marks import require_not_moved
from refold.engine.recovery import Folded, recover
from refold.log.codec import encode_event
from refold.log.events import PartitionClaimed
from refold.log.protocol import Channel, Log


async def claim(
    log: Log,
    partition: int,
    worker: str,
    clock: Callable[[], int],
    folded: Folded | None = None,
) -> Folded:
    """Become the owner of a partition: fold it, claim it, until a claim of ours is the accepted one.

    Args:
        log: An open log.
        partition: Which of its partitions.
        worker: Who claims.
        clock: Microseconds since 1970-01-01 UTC.
        folded: A fold of it that has been begun; consumed.

    Returns:
        The fold up to and with the accepted claim.

    Raises:
        LogCorrupt: The partition can't be folded.
        LogMismatch: Its namespace has moved, or is only being filled.
        LogError: The log can't be read or written.
    """
    folded = folded or await recover(log, partition)
    while True:
        await folded.go_on(log, partition)
        state = folded.state
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
        await folded.go_on(log, partition, offset + 1)
        if state.claim == offset:
            return folded
