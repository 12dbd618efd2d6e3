"""Readers of a simulated world's log: one that goes along with the owners, and one that begins anew at the end."""

from tests.simulation.journal import Digests, Journal, Wanted, read

from refold.engine.digest import digest
from refold.engine.fold import evolve
from refold.engine.owner import Owner
from refold.engine.recovery import Folded
from refold.engine.state import PartitionState
from refold.log.memory import MemoryStore
from refold.log.protocol import Channel


class Readers:
    """Folds of all partitions beside those of their owners.

    Args:
        store: The log.
        journal: Where comparisons are noted.
    """

    def __init__(self, store: MemoryStore, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self._states = [PartitionState() for _ in range(store.partitions)]
        self._read = [0] * store.partitions

    def compare_owner(self, worker: str, partition: int, owner: Owner) -> None:
        """Compare an owner that has all confirmed with the reader that goes along; unless others have written since."""
        if owner.next_offset != self._store.end(Channel.EVENTS, partition):
            return
        reader = self._read_on(partition)
        self._journal.digests.append(
            Digests(partition, self._read[partition], worker, digest(owner.state), digest(reader))
        )

    def compare_recovery(self, worker: str, partition: int, folded: Folded) -> None:
        """Compare what an owner recovered, perhaps from a checkpoint, with the fold of everything up to its claim."""
        if folded.checkpoint is None:
            return
        state = PartitionState()
        for record in self._store.read(Channel.EVENTS, partition, 0, folded.position):
            evolve(state, read(record), record.offset)
        self._journal.recoveries += 1
        self._journal.digests.append(
            Digests(partition, folded.position, worker, digest(folded.state), digest(state))
        )

    def compare_fresh(self) -> None:
        """Compare the reader that went along with one that begins anew, which notes what is wanted of others."""
        self._journal.wanted.clear()
        for partition, offset in enumerate(self._read):
            fresh = self._fold_anew(partition)
            end = self._store.end(Channel.EVENTS, partition)
            along = digest(self._read_on(partition))
            who = "a fresh reader"
            self._journal.digests.append(
                Digests(partition, max(offset, end), who, digest(fresh), along)
            )

    def _read_on(self, partition: int) -> PartitionState:
        state = self._states[partition]
        for record in self._store.read(Channel.EVENTS, partition, self._read[partition]):
            state = evolve(state, read(record), record.offset)
            self._read[partition] = record.offset + 1
        return state

    def _fold_anew(self, partition: int) -> PartitionState:
        state = PartitionState()
        noted = 0
        for record in self._store.read(Channel.EVENTS, partition, 0):
            state = evolve(state, read(record), record.offset)
            last = state.posted + len(state.outbox)
            for number in range(noted + 1, last + 1):
                command = state.outbox[number - state.posted - 1]
                self._journal.wanted.append(Wanted(partition, number, record.timestamp, command))
            noted = last
        return state
