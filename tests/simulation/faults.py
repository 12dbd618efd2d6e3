"""What can go wrong with an append: which fault comes when is a policy, so that a test can choose or draw it."""

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Protocol


class Kind(StrEnum):
    """How an append goes.

    The worker dies, or lives and gets `AppendUnknown`, or waits; meanwhile all, none, or the first few of the
    records have come into the log.
    """

    OK = "ok"
    CRASH = "crash"  # the worker dies
    LOST = "lost"  # the worker is told that the outcome is unknown
    LATE = "late"  # as LOST, and what had not been written comes into the log later
    SLOW = "slow"  # the ack comes late, and others act meanwhile
    TORN = "torn"  # as SLOW, in the middle of the records
    ZOMBIE = (
        "zombie"  # the worker stops there until others have taken over and done all that is to do
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """One append's fate.

    Args:
        kind: What becomes of the worker.
        written: How many records come into the log at once; None for all.
    """

    kind: Kind = Kind.OK
    written: int | None = None


class Faults(Protocol):
    """A policy."""

    def at_append(self, entries: int) -> Fault:
        """The fate of the next append, of so many entries."""
        ...


class NoFaults:
    """All goes well; counts the appends."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def at_append(self, entries: int) -> Fault:
        """All goes well."""
        self.sizes.append(entries)
        return Fault()


class FaultsAt:
    """Faults at given appends, counted from 0 over all workers."""

    def __init__(self, planned: dict[int, Fault]) -> None:
        self._planned = planned
        self._count = 0

    def at_append(self, entries: int) -> Fault:
        """The planned fault."""
        self._count += 1
        return self._planned.get(self._count - 1, Fault())


class RandomFaults:
    """Faults drawn at random, as many as `budget`, so that the world comes to rest.

    Args:
        random: Where they are drawn from.
        share: Share of appends that meet one.
        budget: Most faults in all.
    """

    def __init__(self, random: Random, share: float, budget: int) -> None:
        self._random = random
        self._share = share
        self._budget = budget

    def at_append(self, entries: int) -> Fault:
        """Mostly none."""
        if self._budget == 0 or self._random.random() >= self._share:
            return Fault()
        self._budget -= 1
        kind = self._random.choice([kind for kind in Kind if kind is not Kind.OK])
        return Fault(kind, self._random.choice([0, None, self._random.randrange(entries + 1)]))
