"""Steps of a pool under random faults: none begins once its outcome is recorded, and all end when the faults do.

REFOLD_POOL_SEEDS=10000 lives that many.
"""

import os

import pytest
from tests.simulation import pools_world
from tests.simulation.pools_world import Begun, PoolsWorld

from refold.engine.effects import Launch
from refold.engine.pools import Pools

SEEDS = int(os.environ.get("REFOLD_POOL_SEEDS", "200"))
CHUNK = 50
STEPS = 25


def live(seed: int) -> PoolsWorld:
    """A partition's life with faults, and a while without."""
    world = PoolsWorld(seed)
    for number in range(STEPS):
        world.ask_for(f"{number}")
        world.run(world.some(0.5, 3, 10))
        if world.random.random() < 0.7:
            world.fault()
    world.calm = True
    world.run(200)
    return world


def live_many(count: int) -> None:
    """The first lives."""
    for seed in range(count):
        live(seed)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_step_begins_once_it_is_recorded_and_all_are(first: int) -> None:
    """Given owners and workers that die and are stopped, replies lost and late, each step is recorded in the end."""
    for seed in range(first, min(first + CHUNK, SEEDS)):
        world = live(seed)
        assert len(world.recorded) == STEPS, f"seed {seed}"
        assert world.begun >= STEPS, f"seed {seed}"


def test_a_new_owner_that_does_not_wait_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given owners that take every step for their own, some life shows one that begins after it was recorded."""
    expect = Pools.expect

    def hasty(self: Pools, launch: Launch, *, is_inherited: bool) -> None:
        assert isinstance(is_inherited, bool)
        expect(self, launch, is_inherited=False)

    monkeypatch.setattr(Pools, "expect", hasty)
    with pytest.raises(Begun):
        live_many(500)


def test_a_worker_that_trusts_an_old_grant_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given workers that begin on whatever grant they have had, some life shows it."""
    monkeypatch.setattr(pools_world, "FRESH_S", 100.0)
    with pytest.raises(Begun):
        live_many(500)
