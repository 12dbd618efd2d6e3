"""All that a simulated world plays, and the code that its workers have."""

from functools import cache
from typing import Any

from tests.simulation import scenes_children, scenes_control, scenes_messages, scenes_queues
from tests.simulation.scene import Scene
from tests.simulation.shapes import SHAPES, changed, changing

from refold.engine.definitions import Catalogue, Workflow

SCENES: tuple[Scene, ...] = (
    *scenes_messages.SCENES,
    *scenes_children.SCENES,
    *scenes_control.SCENES,
    *scenes_queues.SCENES,
)


@cache
def catalogue(version: int) -> Catalogue:
    """The code that a worker has. Version 2 differs in two workflows, one of which no longer fits what version 1
    recorded, the other does.
    """
    workflows: dict[str, Workflow[..., Any]] = {shape.name: shape.workflow for shape in SHAPES}
    for scene in SCENES:
        workflows |= {workflow.name: workflow for workflow in scene.workflows}
    workflows["changing"] = changing
    if version == 2:
        workflows |= {"changing": changed, **scenes_control.VERSION_2}
    return Catalogue.of(workflows.values())
