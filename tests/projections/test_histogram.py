"""Cells: percentiles that are nearly right, in any order, and the same when they are put together or kept as text."""

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from refold.projections.histogram import Cell

VALUES = st.lists(
    st.one_of(st.floats(1e-9, 1e18), st.floats(-1e18, -1e-9), st.integers(-1000, 1000).map(float)),
    min_size=1,
    max_size=60,
)


def cell_of(values: Sequence[float]) -> Cell:
    cell = Cell()
    for value in values:
        cell.add(value, spread=True)
    return cell


@given(VALUES, st.floats(0, 1))
def test_a_percentile_is_off_by_little(values: list[float], share: float) -> None:
    """Given values, a percentile is within 2.3 % of the one among the sorted values."""
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert math.isclose(cell_of(values).percentile(share), exact, rel_tol=0.023)


@given(VALUES, VALUES)
def test_cells_add_up_whatever_the_order(one: list[float], other: list[float]) -> None:
    """Given two cells, both put together are the cell of all values in any order, byte by byte."""
    both = cell_of(one)
    both.merge(cell_of(other))
    assert both.to_json() == cell_of([*other, *one]).to_json()
    assert both.to_json() == cell_of(sorted([*one, *other])).to_json()
    assert Cell.of_json(both.to_json()) == both


@given(VALUES, st.floats(1e-6, 1e6))
def test_counts_up_to_a_bound_are_right_but_for_what_is_near_it(
    values: list[float], bound: float
) -> None:
    """Given values, so many are not above a bound, give or take those within a bucket of it."""
    counted = cell_of(values).up_to(bound)
    assert sum(value <= bound for value in values) <= counted
    assert counted <= sum(value <= bound * 1.05 for value in values)


def test_sums_are_exact() -> None:
    """Given a tenth ten times, the sum is one."""
    assert cell_of([0.1] * 10).sum == 1.0


def test_of_nothing_all_is_zero() -> None:
    """Given no value, figures are 0 and no error."""
    assert (Cell().sum, Cell().mean, Cell().percentile(0.5)) == (0.0, 0.0, 0.0)
