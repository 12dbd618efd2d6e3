"""What can't be read stops the run that it belongs to, and no other."""

from collections.abc import Callable

import pytest
from tests.simulation.attempts import SECOND_US
from tests.simulation.shapes import SHAPES
from tests.simulation.trials import judged
from tests.simulation.world import World

SLEEPING = next(shape for shape in SHAPES if shape.name == "sleeping")
POISONS: dict[str, Callable[[World], None]] = {
    "an event of a newer release": lambda world: world.poison_stream("poisoned"),
    "garbage, while the owner is at work": lambda world: world.intrude("poisoned"),
}


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_a_poisoned_stream_parks_its_own_run_only(poison: Callable[[World], None]) -> None:
    """Given two runs and poison in the stream of one, that one is parked and its client is told so, and the other
    ends as it must.
    """
    world = World(1)
    for workflow_id in ("poisoned", "other"):
        world.submit(world.clients.start(workflow_id, SLEEPING.workflow))
    world.plan(SECOND_US, lambda: poison(world))
    trial = judged(world, {"poisoned": SLEEPING.expected, "other": SLEEPING.expected})
    assert not trial.problems, trial.report()
    assert world.audit.broken == {"poisoned"}
    assert world.audit.ended("other") is not None


def test_a_poison_command_is_refused_and_passed_over() -> None:
    """Given garbage before a start, and some without a key, the run ends as it must."""
    world = World(1)
    world.poison_command("poisoned")
    world.poison_command(None)
    world.submit(world.clients.start("other", SLEEPING.workflow))
    trial = judged(world, {"other": SLEEPING.expected})
    assert not trial.problems, trial.report()
    assert len(world.audit.refused) == 2
