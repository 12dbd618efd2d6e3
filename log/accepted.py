"""Which records of a partition count, for those who do without the whole fold."""

from refold.log.chain_walk import NO_CLAIM
from refold.log.codec import decode_event
from refold.log.events import Event, PartitionClaimed, Unreadable
from refold.log.protocol import Record


class Accepted:
    """The rule for zombies' records, as in the fold: an event counts if it was written under the current claim.

    Give it the records of a stream together with the partition's claims, in order and from the partition's beginning.
    The claim is carried from one reading to the next, so that a reading of what is there can go on with what comes.

    Args:
        claim: The claim that is current where the partition begins (`log/chain_walk.py`).
    """

    def __init__(self, claim: int = NO_CLAIM) -> None:
        self._claim = claim

    @property
    def claim(self) -> int:
        """The current claim after what has been taken."""
        return self._claim

    def take(self, record: Record) -> Event | Unreadable | None:
        """The event of a record; None where it does not count."""
        event = decode_event(record)
        if (
            event.claim is None
        ):  # a stranger's, which breaks the workflow that it names, and else nothing
            return event if event.workflow_id is not None else None
        if event.claim != self._claim:
            return None
        if isinstance(event, PartitionClaimed):
            self._claim = record.offset
        return event
