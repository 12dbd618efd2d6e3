"""How fresh a worker's knowledge is that a partition is its own.

An acknowledged append proves that the partition was ours when the record took its place, not that it still is when the
acknowledgement is read. A process that was stopped between the two (SIGSTOP, a machine that slept, an event loop that
was blocked) would begin steps which another worker has carried out and recorded meanwhile. So no step begins on a
proof older than `FRESH_S`: the log is asked again. What is left is the moment between the look at the clock and the
step's first instruction; no client of a log can close that one (Kleppmann, "How to do distributed locking"), which is
why a step has an idempotency key.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from refold.log.protocol import MIN_TAKEOVER_S

FRESH_S = MIN_TAKEOVER_S
"""No longer, so that nobody has taken over meanwhile: KafkaSettings refuses a session timeout that is too short for it.
And longer than a slow broker takes to answer: an answer that is stale when it comes would let no step begin at all."""

OFFER_S = 5.0
"""How long an owner may work on after it has offered its partition to others (`PartitionOffered`), in seconds: longer
than a group needs to share anew and the next owner to fold what it has not folded yet. Whoever hears nothing from an
owner that has offered a partition waits so long before it claims, so together with what the group takes it is less than
a session."""

MICROSECONDS = 1_000_000


class Instant(NamedTuple):
    """A moment by both clocks: the monotonic one stands still while some machines sleep, the other can be set."""

    monotonic_s: float
    wall_us: int


class Proof:
    """When the log last showed that a partition is ours. Given on the event loop, read and withdrawn on any thread.

    Args:
        clock: Wall clock, microseconds since 1970-01-01 UTC.

    Attributes:
        withdrawn: Whether the partition is to be given up.
        suspended: Whether somebody else may be told that the partition is theirs, who does not know of any offer.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._at: Instant | None = None
        self._until: Instant | None = None
        self.withdrawn = False
        self.suspended = False

    def now(self) -> Instant:
        """The moment to note before the log is asked or written to."""
        return Instant(time.monotonic(), self._clock())

    def given(self, asked_at: Instant) -> None:
        """The log has shown that the partition was ours after `asked_at`."""
        self._at = asked_at

    def suspend(self) -> None:
        """The partition is to move: no step begins until the log knows of that. Nothing is done where it does."""
        if self._until is None:
            self.suspended = True

    def offered(self, at: Instant) -> None:
        """The log has taken in an offer that was made at that moment: steps may begin for `OFFER_S` after it."""
        self._until = Instant(at.monotonic_s + OFFER_S, at.wall_us + round(OFFER_S * MICROSECONDS))
        self.suspended = False

    def withdraw(self) -> None:
        """The partition is to be given up, for good: whoever gets it need not wait until the proof is stale."""
        self.withdrawn = True

    @property
    def rests(self) -> bool:
        """Whether no step may begin, however fresh the proof."""
        return self.withdrawn or self.suspended

    def is_fresh(self) -> bool:
        """Whether steps may begin on it."""
        at, until = self._at, self._until
        if at is None or self.rests:
            return False
        now = self.now()
        if until is not None and (
            now.monotonic_s > until.monotonic_s or now.wall_us > until.wall_us
        ):
            return False
        return (
            now.monotonic_s - at.monotonic_s <= FRESH_S
            and 0 <= now.wall_us - at.wall_us <= FRESH_S * MICROSECONDS
        )
