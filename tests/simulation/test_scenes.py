"""Every scene, of runs on several partitions that have to do with each other, survives faults at every append.

Appends are those of events and those of commands that one workflow's owner posts to another's partition.
"""

import pytest
from tests.simulation.corpus import SCENES
from tests.simulation.faults import Fault, Kind
from tests.simulation.scene import Scene
from tests.simulation.trials import performed, scene_appends

EVERY = [pytest.param(scene, id=scene.name) for scene in SCENES]
SMALL = [pytest.param(scene, id=scene.name) for scene in SCENES if not scene.large]


@pytest.mark.parametrize("scene", EVERY)
def test_a_scene_ends_as_it_must_when_nothing_goes_wrong(scene: Scene) -> None:
    """Given no fault, every run comes to the end that its code says, and every invariant holds."""
    trial = performed(scene)
    assert not trial.problems, trial.report()


@pytest.mark.parametrize("scene", EVERY)
def test_a_scene_survives_a_crash_at_any_append(scene: Scene) -> None:
    """Given a crash at append k, before it, after it, or with the first few of its records written, every run ends as
    it must and every invariant holds; for each k.
    """
    for k, size in enumerate(scene_appends(scene)):
        for written in range(size + 1) if not scene.large else (0, size):
            trial = performed(scene, {k: Fault(Kind.CRASH, written)})
            assert not trial.problems, trial.report()


@pytest.mark.parametrize("kind", [Kind.LOST, Kind.LATE, Kind.ZOMBIE])
@pytest.mark.parametrize("scene", SMALL)
def test_a_scene_survives_a_lost_ack_or_a_zombie_at_any_append(scene: Scene, kind: Kind) -> None:
    """Given an append whose outcome is unknown, that comes into the log late, or whose maker is stopped before or
    after it until all is done, every run ends as it must and every invariant holds; for each k.
    """
    for k in range(len(scene_appends(scene))):
        for written in (0,) if kind is not Kind.ZOMBIE else (0, None):
            trial = performed(scene, {k: Fault(kind, written)})
            assert not trial.problems, trial.report()
