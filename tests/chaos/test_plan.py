"""The schedule of faults: it follows from the seed, and keeps what it promises."""

from itertools import combinations

import pytest

from chaos_plan import KINDS, Planned, plan
from chaos_run import Settings

CAST = Settings(0).cast
SECONDS = 600.0


def test_the_same_seed_gives_the_same_faults() -> None:
    """Given a seed, the schedule is the same each time, and another seed's is another."""
    assert plan(7, SECONDS, CAST) == plan(7, SECONDS, CAST)
    assert plan(7, SECONDS, CAST) != plan(8, SECONDS, CAST)


def test_every_kind_of_fault_comes_in_ten_minutes() -> None:
    """Given ten minutes, nothing that can be broken is left whole."""
    assert {fault.kind for fault in plan(1, SECONDS, CAST)} == {kind.name for kind in KINDS}


def test_a_run_can_be_narrowed_to_some_kinds_of_faults() -> None:
    """Given the beginnings of names, only such faults come: to find out which of them it takes."""
    only = ("worker.drain", "link")
    kinds = {fault.kind for fault in plan(1, SECONDS, CAST, only=only)}
    assert kinds == {kind.name for kind in KINDS if kind.name.startswith(only)}


@pytest.mark.parametrize("seed", range(5))
def test_faults_end_before_the_run_does(seed: int) -> None:
    """Given any seed, all is healed in time."""
    assert all(fault.at_s + fault.length_s < SECONDS for fault in plan(seed, SECONDS, CAST))


@pytest.mark.parametrize("seed", range(5))
def test_one_broker_is_broken_at_a_time_and_nobody_in_two_ways(seed: int) -> None:
    """Given any seed, of three brokers two are whole, and faults of one process do not overlap."""
    for first, second in combinations(plan(seed, SECONDS, CAST), 2):
        both_brokers = first.target.startswith("broker") and second.target.startswith("broker")
        if both_brokers or first.target == second.target:
            assert not _overlap(first, second), (first, second)


def _overlap(first: Planned, second: Planned) -> bool:
    return second.at_s < first.at_s + first.length_s and first.at_s < second.at_s + second.length_s
