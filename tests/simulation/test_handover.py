"""An owner that gives its partition up at any moment of a run's life, while steps of it are under way."""

from random import Random

import pytest
from tests.simulation.attempts import SECOND_US
from tests.simulation.shapes import SHAPES, Shape
from tests.simulation.trials import Trial, judged
from tests.simulation.world import World

EVERY_US = SECOND_US // 50
MOMENTS = 25
"""Most shapes have come to their first timer by then."""


def handed_over(shape: Shape, after_us: int, seed: int) -> Trial:
    """A run of that shape whose owner gives up so long after the start, and the next one soon after."""
    world = World(seed, checkpoint_bytes=1)
    world.submit(world.clients.start("w", shape.workflow, *shape.args))
    for at_us in (after_us, after_us + SECOND_US // 30):
        world.plan(at_us, world.give_up)
    return judged(world, {"w": shape.expected})


def offered(shape: Shape, after_us: int, seed: int) -> Trial:
    """A run of that shape whose partition is to move so long after the start, and once more soon after.

    In every other life the first owner is stopped where it is about to begin a step.
    """
    world = World(seed, checkpoint_bytes=1)
    chance = Random(seed)
    world.submit(world.clients.start("w", shape.workflow, *shape.args))
    stops_for_us = chance.choice((SECOND_US, 3 * SECOND_US, 7 * SECOND_US)) if seed % 2 else None
    world.plan(after_us, lambda: world.offer(stops_for_us))
    world.plan(after_us + SECOND_US // 3, world.offer)
    return judged(world, {"w": shape.expected})


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_invariant_holds_when_an_owner_goes_on_until_it_is_asked(shape: Shape) -> None:
    """Given a run of each shape, whenever its partition is offered, all invariants hold and it ends as it must."""
    for moment in range(MOMENTS):
        trial = offered(shape, moment * EVERY_US, moment)
        assert not trial.problems, f"after {moment * EVERY_US} µs\n{trial.report()}"


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_invariant_holds_when_a_partition_is_handed_over(shape: Shape) -> None:
    """Given a run of each shape, whenever its partition is handed over, all invariants hold and it ends as it must."""
    for moment in range(MOMENTS):
        trial = handed_over(shape, moment * EVERY_US, moment)
        assert not trial.problems, f"after {moment * EVERY_US} µs\n{trial.report()}"


def test_steps_do_go_on() -> None:
    """Given all those moments, steps were under way at some, and their ends were reported."""
    acts = [
        act
        for shape in SHAPES
        for moment in range(0, MOMENTS, 5)
        for act in handed_over(shape, moment * EVERY_US, moment).world.journal.acts
    ]
    assert sum("steps go on" in act for act in acts) > 20
    assert sum("is reported" in act for act in acts) > 20
