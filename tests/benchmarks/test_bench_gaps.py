"""How long a partition stands still, told from records."""

from gaps import Pulse
from refold.engine.ledger import Header
from refold.log.codec import GENESIS, encode_event
from refold.log.events import Event, PartitionClaimed, PartitionHandedOver, WorkflowCompleted
from refold.log.protocol import Record

MS = 1_000


class Partition:
    """Records of one partition, at times that the test gives, and what a pulse makes of them."""

    def __init__(self) -> None:
        self.pulse = Pulse()
        self.claim = -1
        self._offset = 0

    def claimed(self, at_ms: int, claim: int | None = None) -> int:
        """Somebody claims it, having seen `claim` as the last; returns the new claim."""
        offset = self._take(
            at_ms,
            PartitionClaimed(
                **self._header(None, None, self.claim if claim is None else claim),
                partition=0,
            ),
        )
        if claim is None:
            self.claim = offset
        return offset

    def worked(self, at_ms: int, claim: int | None = None) -> None:
        """An event of a workflow, under the present claim or another."""
        claim = self.claim if claim is None else claim
        self._take(at_ms, WorkflowCompleted(**self._header("run", 0, claim), payload="1"))

    def handed_over(self, at_ms: int) -> None:
        """The owner gives it up."""
        header = self._header(None, None, self.claim)
        self._take(at_ms, PartitionHandedOver(**header, partition=0, payload="[]", due_at=0))

    def _header(self, workflow_id: str | None, position: int | None, claim: int) -> Header:
        return {
            "workflow_id": workflow_id,
            "position": position,
            "recorded_at": 0,
            "claim": claim,
            "command": -1,
            "posted": 0,
            "worker": "w",
        }

    def _take(self, at_ms: int, event: Event) -> int:
        entry, _ = encode_event(event, GENESIS)
        offset, self._offset = self._offset, self._offset + 1
        self.pulse.take([Record(offset, at_ms * MS, *entry)])
        return offset


def gaps_ms(partition: Partition) -> list[float]:
    """What the pulse has found."""
    return [gap.length_ms for gap in partition.pulse.gaps]


def test_a_gap_is_from_the_last_event_of_one_owner_to_the_first_of_the_next() -> None:
    """Given a hand-over and a claim between two events, the gap is all the time between these two."""
    partition = Partition()
    partition.claimed(0)
    partition.worked(10)
    partition.handed_over(200)
    partition.claimed(300)
    assert partition.pulse.waits
    partition.worked(450)
    assert gaps_ms(partition) == [440]
    assert not partition.pulse.waits


def test_a_partition_that_moves_on_at_once_has_one_gap() -> None:
    """Given two claims with nothing between them, the gap is the time until somebody works."""
    partition = Partition()
    partition.claimed(0)
    partition.worked(10)
    partition.claimed(100)
    partition.claimed(200)
    partition.worked(210)
    assert gaps_ms(partition) == [200]


def test_what_does_not_count_ends_no_gap() -> None:
    """Given events of an owner that has lost the partition, and a claim that came too late, the gap goes on."""
    partition = Partition()
    old = partition.claimed(0)
    partition.worked(10)
    partition.claimed(100)
    partition.worked(110, claim=old)
    partition.claimed(120, claim=old)
    partition.worked(150)
    assert gaps_ms(partition) == [140]


def test_a_pause_of_one_owner_is_no_gap() -> None:
    """Given an owner that rests, the longest pause is told, and no gap."""
    partition = Partition()
    partition.claimed(0)
    for at_ms in (10, 30, 90, 100):
        partition.worked(at_ms)
    assert gaps_ms(partition) == []
    assert partition.pulse.longest is not None
    assert partition.pulse.longest.length_ms == 60


def test_a_partition_that_was_never_worked_on_has_no_gap() -> None:
    """Given a first claim, there is nobody whose place was taken."""
    partition = Partition()
    partition.claimed(0)
    partition.worked(500)
    assert gaps_ms(partition) == []
