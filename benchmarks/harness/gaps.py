"""How long a partition stands still when it goes from one worker to another, as its records tell.

A gap is the time from the last event of a workflow under the old claim to the first under the new one, by the log's own
timestamps. Claims, hand-overs and checkpoints do not count: nobody is served by them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from refold.log.codec import decode_event
from refold.log.events import PartitionClaimed
from refold.log.protocol import Record

MICROSECONDS_PER_MS = 1_000


@dataclass(frozen=True, slots=True)
class Pause:
    """Between two events of a partition's workflows.

    Args:
        from_us: Time of the one, microseconds since 1970-01-01 UTC.
        to_us: Time of the other.
        moved: Whether a claim stands between them: then it is a gap.
    """

    from_us: int
    to_us: int
    moved: bool

    @property
    def length_ms(self) -> float:
        """Its length; records with one timestamp may be in any order of time."""
        return max(0, self.to_us - self.from_us) / MICROSECONDS_PER_MS


class Pulse:
    """Follows one partition's records, from its first on."""

    def __init__(self) -> None:
        self.waits = True  # for the first event under the present claim
        self.longest: Pause | None = None  # since `forget`, those in which it moved left out
        self.gaps: list[Pause] = []  # since `forget`
        self._claim = -1
        self._last_us: int | None = None

    def take(self, records: Sequence[Record]) -> None:
        """Take the next records. Those under a claim that is not the present one do not count."""
        for record in records:
            event = decode_event(record)
            if event.claim != self._claim:
                continue
            if isinstance(event, PartitionClaimed):
                self._claim = record.offset
                self.waits = True
            elif event.workflow_id is not None:
                self._beat(record.timestamp)

    def forget(self) -> None:
        """Begin to count anew."""
        self.longest = None
        self.gaps = []

    def _beat(self, at_us: int) -> None:
        if self._last_us is not None:
            pause = Pause(self._last_us, at_us, self.waits)
            if self.waits:
                self.gaps.append(pause)
            elif self.longest is None or pause.length_ms > self.longest.length_ms:
                self.longest = pause
        self.waits = False
        self._last_us = at_us
