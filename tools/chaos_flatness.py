"""When a measured quantity counts as flat: the rule of the soak, apart from what is measured.

The first quarter is warm-up: caches fill, imports happen, the allocator takes what it will need. The rest is cut into
thirds. A quantity grows where the median of the last third is above that of the first by more than a tolerance. Medians
and not means: a garbage collection that comes late, or one slow second, moves no median. Thirds and not a fitted line
alone: what rises and falls again has a slope too, and is flat. Theil and Sen's slope (the median of all slopes between
two samples) says how fast it grows, for the reader.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, NamedTuple

WARM_UP: Final = 0.25
SLOPE_POINTS: Final = 150
"""The slope is taken over at most so many samples: all pairs are looked at."""
LEAST_SAMPLES: Final = 12
"""Fewer after the warm-up say nothing."""


class Sample(NamedTuple):
    """A value at a time, in seconds."""

    at_s: float
    value: float


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What counts as no growth.

    Args:
        share: Of the first third's median.
        least: In the quantity's own unit, where the share of it is less.
    """

    share: float
    least: float

    def of(self, value: float) -> float:
        """In the quantity's own unit."""
        return max(self.share * abs(value), self.least)


@dataclass(frozen=True, slots=True)
class Flatness:
    """What the rule says of a series.

    Args:
        flat: Whether it is flat; None where there are too few samples to say.
        medians: Of the three thirds.
        tolerated: Growth that would still be flat.
        slope_per_h: Theil and Sen's, in the quantity's unit an hour.
        warm_s: When the warm-up ended.
    """

    flat: bool | None
    medians: tuple[float, float, float]
    tolerated: float
    slope_per_h: float
    warm_s: float

    @property
    def growth(self) -> float:
        """From the first third to the last."""
        return self.medians[2] - self.medians[0]

    @property
    def word(self) -> str:
        """The verdict."""
        return {True: "flat", False: "grows", None: "too short to say"}[self.flat]


def flatness(samples: Sequence[Sample], tolerance: Tolerance) -> Flatness:
    """Judge a series.

    Args:
        samples: In the order of time, at about equal distances.
        tolerance: How much growth is none.
    """
    warm = samples[int(WARM_UP * len(samples)) :]
    if len(warm) < LEAST_SAMPLES:
        values = [sample.value for sample in samples] or [0.0]
        middle = statistics.median(values)
        return Flatness(None, (middle, middle, middle), tolerance.of(middle), 0.0, 0.0)
    third = len(warm) // 3
    parts = (warm[:third], warm[third:-third], warm[-third:])
    first, second, last = (statistics.median(s.value for s in part) for part in parts)
    allowed = tolerance.of(first)
    slope = _slope(warm) * 3_600
    return Flatness(last - first <= allowed, (first, second, last), allowed, slope, warm[0].at_s)


def _slope(samples: Sequence[Sample]) -> float:
    """A second; 0 where all samples are of one time."""
    step = max(1, len(samples) // SLOPE_POINTS)
    slopes = [
        (b.value - a.value) / (b.at_s - a.at_s)
        for a, b in combinations(samples[::step], 2)
        if b.at_s > a.at_s
    ]
    return statistics.median(slopes) if slopes else 0.0
