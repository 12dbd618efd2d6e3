"""Walking a partition's events in order: which of them count, and whether the chain holds over those that do.

The rules are those of the fold, and nothing of the fold is needed: a record counts if it was written under the current
claim; a claim that counts is the current one from then on; each record that counts continues the chain of the one
before. Where a log or an archive does not begin at offset 0, its first record names the claim, and the chain is checked
from the second one on.
"""

from typing import Final, NamedTuple

from refold.log.codec import GENESIS, decode_event, link_claim, verify_event
from refold.log.errors import LogCorrupt
from refold.log.events import CheckpointBegun, Event, PartitionClaimed, Unreadable
from refold.log.protocol import Channel, Log, Record

NO_CLAIM: Final = -1
NO_COMMAND: Final = -1


class Beginning(NamedTuple):
    """From where the events of a partition can be read.

    Args:
        offset: The first of them.
        claim: The claim that is current there.
        chain: Head of the chain before it; None where that is gone.
        command: The last command that had been consumed before.
    """

    offset: int = 0
    claim: int = NO_CLAIM
    chain: bytes | None = GENESIS
    command: int = NO_COMMAND


async def beginning(log: Log, partition: int) -> Beginning:
    """From where a partition's events can be read: offset 0, or where the log was trimmed.

    A log is trimmed where a checkpoint begins, whose first event says what it stands upon. Where something else has
    cut it, the last checkpoint serves.

    Raises:
        LogCorrupt: The beginning is gone, and there is no checkpoint to begin with.
        LogError: The log can't be read.
    """
    bounds = await log.bounds(Channel.EVENTS, partition)
    if bounds.start == 0:
        return Beginning()
    for offset in (bounds.start, await log.bookmark(partition)):
        if offset is None or not bounds.start <= offset < bounds.end:
            continue
        batches = log.read(Channel.EVENTS, partition, offset, offset + 1)
        for event in [decode_event(record) async for batch in batches for record in batch]:
            if isinstance(event, CheckpointBegun):
                return Beginning(offset, event.claim, None, event.command)
    raise LogCorrupt(
        f"the first {bounds.start} events of partition {partition} of {log.namespace!r} are gone, and no checkpoint "
        "begins where they end: name an archive of them with --archive DIR, or restore the log"
    )


class ChainWalk:
    """One walk over a partition's events.

    Args:
        partition: Its number, for messages.
        claim: The current claim before the first record.
        chain: Head of the chain before it; None where it is not known.
        namespace: Whose partition it is, for messages; None where that is clear.
    """

    def __init__(
        self,
        partition: int,
        claim: int = NO_CLAIM,
        chain: bytes | None = GENESIS,
        *,
        namespace: str | None = None,
    ) -> None:
        self.partition = partition
        self.where = f"partition {partition}" + ("" if namespace is None else f" of {namespace!r}")
        self.claim = claim
        self.chain = chain

    def take(self, record: Record, event: Event | Unreadable | None = None) -> bool:
        """Take the next record; returns whether it counts.

        Args:
            record: The record.
            event: What it decodes to, for whoever has decoded it.

        Raises:
            LogCorrupt: It was changed, or records before it were changed, dropped or swapped; or it counts and can't
                be read.
        """
        event = event or decode_event(record)
        if isinstance(event, Unreadable):
            return self._unreadable(record, event)
        if event.claim != self.claim:
            return False
        claims = isinstance(event, PartitionClaimed)
        known = self.chain is not None or claims
        if known and not verify_event(event, record, self.chain or GENESIS):
            raise LogCorrupt(
                f"the chain breaks at offset {record.offset} of {self.where}: the {event.kind} there, "
                "or a record before it, is not what was written. Compare the log with a backup or an archive"
            )
        if not claims:
            self.chain = event.chain
            return True
        self.claim = record.offset
        if self.chain is not None:
            self.chain = link_claim(self.chain, event.chain)
        return True

    def _unreadable(self, record: Record, event: Unreadable) -> bool:
        if event.claim is None:  # a stranger's: no owner wrote it, so it is no part of the chain
            return record.key is not None
        if event.claim != self.claim:
            return False
        raise LogCorrupt(
            f"the record at offset {record.offset} of {self.where} can't be read: {event.reason}. If a "
            "newer release wrote it, upgrade this one"
        )
