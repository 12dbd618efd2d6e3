"""How values are distributed, in little memory and the same whatever the order: counts in buckets that grow by 4.4 %.

A percentile is off by 2.2 % at most, between 1e-9 and 1e18 (beyond that, values count at the edge). Buckets of two
cells add up to those of both together. The idea is that of HdrHistogram (Tene) and DDSketch (Masson, Rim, Lee, 2019).
Sums are kept in whole billionths, for integers can be added in any order and floats can't.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any, Final, Self

BUCKETS_PER_DOUBLING: Final = 16
LEAST: Final = 1e-9
MOST: Final = 1e18
_NANO: Final = 1_000_000_000
_SHIFT: Final = (
    10_000  # keeps the codes of positive values above those of negative ones; 0 is that of zero
)


@dataclass(slots=True)
class Cell:
    """Values of one kind, summed up.

    Args:
        count: How many.
        total: Their sum, in billionths.
        low: The least of them.
        high: The greatest.
        buckets: How many there are in each bucket, by its code; empty where only count and sum are wanted.
    """

    count: int = 0
    total: int = 0
    low: float = math.inf
    high: float = -math.inf
    buckets: dict[int, int] = field(default_factory=dict[int, int])

    @property
    def sum(self) -> float:
        """Their sum."""
        return self.total / _NANO

    @property
    def mean(self) -> float:
        """Their mean; of nothing, 0."""
        return self.sum / self.count if self.count else 0.0

    def add(self, value: float, *, spread: bool) -> None:
        """Count a value; with `spread`, for percentiles as well."""
        self.count += 1
        self.total += round(value * _NANO)
        self.low = min(self.low, value)
        self.high = max(self.high, value)
        if spread:
            code = _code_of(value)
            self.buckets[code] = self.buckets.get(code, 0) + 1

    def merge(self, other: Self) -> None:
        """Add what another cell has."""
        self.count += other.count
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        for code, count in other.buckets.items():
            self.buckets[code] = self.buckets.get(code, 0) + count

    def percentile(self, share: float) -> float:
        """The value that so many are not above.

        Args:
            share: From 0 to 1: 0.5 for the median.
        """
        rank = max(1, math.ceil(share * self.count))
        for code in sorted(self.buckets):
            rank -= self.buckets[code]
            if rank <= 0:
                return min(max(_value_of(code), self.low), self.high)
        return self.high if self.count else 0.0

    def up_to(self, bound: float) -> int:
        """How many are not above a bound, as exactly as the buckets tell."""
        last = _code_of(bound)
        return sum(count for code, count in self.buckets.items() if code <= last)

    def to_json(self) -> str:
        """As text."""
        buckets = sorted(self.buckets.items())
        return json.dumps([self.count, self.total, self.low, self.high, buckets])

    @classmethod
    def of_json(cls, text: str) -> Self:
        """The cell that `to_json` made a text of."""
        values: list[Any] = json.loads(text)
        count, total, low, high, buckets = values
        return cls(count, total, low, high, dict(buckets))


def _code_of(value: float) -> int:
    """The bucket of a value: of a positive one, those up to 2 ** (n / 16) and above the one before."""
    if value == 0:
        return 0
    size = min(max(abs(value), LEAST), MOST)
    code = _SHIFT + math.ceil(round(math.log2(size) * BUCKETS_PER_DOUBLING, 9))
    return code if value > 0 else -code


def _value_of(code: int) -> float:
    """The middle of a bucket."""
    if code == 0:
        return 0.0
    size: float = 2.0 ** ((abs(code) - _SHIFT - 0.5) / BUCKETS_PER_DOUBLING)
    return size if code > 0 else -size
