"""Where a projection's rows are kept, with the position that they have reached.

The one rule: `write` saves rows and positions together, or neither. So whatever happens to the process between two
calls, the rows are those of exactly the events before the position (Kreps, "The Log": a table is a log and an offset).

Two processes may write for one partition for a moment, as a consumer group moves it. So `write` is told the positions
that its rows follow on from, and refuses where the target has others: the slower process finds out, and reads again.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from refold.log.errors import RefoldError
from refold.projections.feed import Logged, Position


class Step(NamedTuple):
    """How far a write takes one partition.

    Args:
        before: The position that the target must have; None where it must have none yet.
        after: The position that it has then.
    """

    before: Position | None
    after: Position


class TargetError(RefoldError):
    """A target could not do what was asked of it."""


class TargetUnavailable(TargetError):
    """It can't be reached or written now. Whether the last write is there, its positions say when it is asked."""


class TargetMismatch(TargetError):
    """It is another projection's, another namespace's, of a newer release, or damaged: nothing was written."""


class PositionMoved(RefoldError):
    """Another process has written to the target meanwhile: nothing was written. Read its positions, and go on there."""


class Target(Protocol):
    """Where rows go. Called from one thread at a time, which is not the event loop's."""

    @property
    def name(self) -> str:
        """What it is, for messages and metrics."""
        ...

    def open(self) -> None:
        """Connect, and make what is missing.

        Raises:
            TargetUnavailable: It can't be reached.
            TargetMismatch: It is another projection's, another namespace's or a newer version's.
        """
        ...

    def positions(self) -> Mapping[int, Position]:
        """How far each partition that was ever written has come, by whoever wrote it.

        Raises:
            RefoldError: It can't be read.
        """
        ...

    def write(self, logged: Sequence[Logged], steps: Mapping[int, Step]) -> None:
        """Save what follows from some events, and the positions after them, in one transaction.

        Args:
            logged: Events that count, in order within each partition; may be empty.
            steps: For each partition that was read, from where to where.

        Raises:
            PositionMoved: The target is not where `steps` begin.
            TargetError: It can't be written, or whether it was is not known: `positions` says.
        """
        ...

    def close(self) -> None:
        """Let go of everything. What was written stays."""
        ...
