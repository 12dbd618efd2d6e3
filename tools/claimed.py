"""A partition that has just been claimed, and nothing else: where an owner begins."""

from refold.engine.fold import evolve
from refold.engine.state import PartitionState
from refold.log.codec import decode_event, encode_event
from refold.log.events import PartitionClaimed
from refold.log.protocol import Record

NOW = 1_700_000_000_000_000
"""A time in 2023, microseconds since 1970-01-01 UTC."""


def claimed(partition: int = 0) -> tuple[PartitionState, list[Record]]:
    """The state of the partition, and its log."""
    claim = PartitionClaimed(
        workflow_id=None,
        position=None,
        recorded_at=NOW,
        claim=-1,
        command=-1,
        posted=0,
        worker="w",
        partition=partition,
    )
    state = PartitionState()
    entry, _ = encode_event(claim, state.chain)
    record = Record(0, NOW, *entry)
    return evolve(state, decode_event(record), 0), [record]
