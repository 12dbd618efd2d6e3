"""Lives drawn at random: several runs, workers and clients at once, and all faults mixed. Each seed is one life.

REFOLD_SIM_SEEDS=100000 lives that many, REFOLD_SIM_FIRST=42 begins with that seed.
"""

import os

import pytest
from tests.simulation.trials import drawn

from refold.log.protocol import Channel

FIRST = int(os.environ.get("REFOLD_SIM_FIRST", "0"))
SEEDS = int(os.environ.get("REFOLD_SIM_SEEDS", "2000"))
CHUNK = 50
"""Seeds a test: a second's worth, so that progress shows and a hang names its neighbourhood."""


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, CHUNK))
def test_every_invariant_holds_in_a_life_drawn_at_random(first: int) -> None:
    """Given a seed, when its world has come to rest, every invariant holds."""
    for seed in range(first, min(first + CHUNK, FIRST + SEEDS)):
        again = f"REFOLD_SIM_FIRST={seed} REFOLD_SIM_SEEDS=1 pytest tests/simulation/test_seeds.py"
        try:
            trial = drawn(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed} raised {error!r}; once more: {again}") from error
        assert not trial.problems, f"seed {seed}; once more: {again}\n{trial.report()}"


def test_a_seed_is_the_same_life_every_time() -> None:
    """Given one seed twice, everybody does the same at the same time, and the logs agree byte for byte."""
    one, two = drawn(7), drawn(7)
    assert one.world.journal.acts == two.world.journal.acts
    first, second = (t.world.store.read(Channel.EVENTS, 0, 0) for t in (one, two))
    assert first == second
